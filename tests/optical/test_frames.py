"""The planes of one layer, against ``conv2d`` and against Fourier transforms written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, execute
from vitruvius.models.trace import trace
from vitruvius.optical.execution import laid_out
from vitruvius.optical.frames import LayerFrames, find_layer, layer_frames
from vitruvius.optical.mapping import Placed, mapped
from vitruvius.optical.options import DeviceOptions

SEED = 3


class Small(nn.Module):
    """A stem, a linear layer and scores of two heads, all signed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 12, 3, padding=1, stride=2)
        self.wide = nn.Conv2d(2, 4, (4, 3), padding=(3, 2), groups=2)
        self.q = nn.Linear(12, 12, bias=False)
        self.k = nn.Linear(12, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        q, k = (
            part.reshape(1, -1, 2, 6).transpose(1, 2) for part in (self.q(tokens), self.k(tokens))
        )
        weights = functional.softmax(q @ k.transpose(-1, -2), dim=-1)
        mixed = (weights @ k).sum((1, 2, 3))
        out: Tensor = mixed + self.wide(x).sum((1, 2, 3))
        return out


@pytest.fixture(scope="module")
def graph() -> Graph:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    return trace(Small().eval(), (torch.randn(1, 2, 7, 6),), name="small")


def _frames(graph: Graph, layer: str, **given: object) -> LayerFrames:
    torch.manual_seed(SEED)
    image = torch.randn(1, 2, 7, 6)
    values = dict.fromkeys(graph.inputs, image)
    execute(graph, image, observe=lambda op, value: values.__setitem__(op.name, value))
    placed = find_layer(graph, layer, mapped(graph))
    operands = [values[name] for name in placed.operator.inputs]
    images, kernels, _ = laid_out(placed, operands, graph).grouped()
    return layer_frames(placed, images.double(), kernels.double(), **given)  # type: ignore[arg-type]


def _scores(graph: Graph) -> str:
    (region,) = graph.regions
    return region.scores


@pytest.mark.parametrize("scheme", ["split", "offset", "reference"])
@pytest.mark.parametrize(
    ("layer", "choice", "shape"),
    [
        ("stem", {"kernel": 5, "channel": 1}, (1, 1, 4, 3)),
        ("wide", {"kernel": 3}, (1, 1, 10, 8)),
        ("q", {"kernel": 7}, (12, 1, 1, 1)),
        ("scores", {"channel": 1}, (12, 12, 1, 1)),
    ],
)
def test_what_is_read_is_what_conv2d_gives(
    graph: Graph, layer: str, choice: dict[str, int], shape: tuple[int, ...], scheme: str
) -> None:
    # A tile read at another tile's place, a channel of another group, or a lost sign would differ.
    name = _scores(graph) if layer == "scores" else layer
    frames = _frames(graph, name, options=DeviceOptions(scheme=scheme), **choice)  # type: ignore[arg-type]
    assert tuple(frames.expected.shape) == shape
    assert len(frames.frames) == {"split": 4, "offset": 2, "reference": 2}[scheme]
    assert frames.error < 1e-12
    assert int(frames.read.sum()) == frames.result.numel()
    if scheme != "offset":  # electronics subtract the sum under the window afterwards
        read = sorted(frames.total[frames.read].tolist())
        assert read == pytest.approx(sorted(frames.result.flatten().tolist()), abs=1e-12)


def test_the_expected_is_the_layers_own_output(graph: Graph) -> None:
    torch.manual_seed(SEED)
    image = torch.randn(1, 2, 7, 6)
    seen: dict[str, Tensor] = {}
    execute(graph, image, observe=lambda op, value: seen.__setitem__(op.name, value))
    bias = graph.tensors[graph.operator("stem").tensors["bias"]]
    parts = [_frames(graph, "stem", kernel=5, channel=c).expected for c in (0, 1)]
    torch.testing.assert_close(
        sum(parts)[0, 0].float(), (seen["stem"] - bias[:, None, None])[0, 5], rtol=1e-5, atol=1e-6
    )
    scores = _frames(graph, _scores(graph), channel=1).expected[:, :, 0, 0]
    torch.testing.assert_close(scores.float(), seen[_scores(graph)][0, 1], rtol=1e-5, atol=1e-6)


def test_the_camera_sees_the_transform_of_the_masked_transform(graph: Graph) -> None:
    # Written out with numpy's conventions: the mask about the axis, the image turned back.
    for frame in _frames(graph, "q", kernel=2).frames:
        spectrum = torch.fft.fft2(torch.fft.ifftshift(frame.panel)) * torch.fft.ifftshift(
            frame.mask
        )
        # turned back by 180 degrees: an inverse in the place of the second lens
        field = torch.fft.fftshift(torch.fft.ifft2(spectrum))
        intensity = field.abs().square()
        # the light of every exposure is its own
        torch.testing.assert_close(
            frame.intensity / frame.intensity.max(), intensity / intensity.max()
        )


def test_panels_masks_and_camera_keep_their_range(graph: Graph) -> None:
    options = DeviceOptions(panel_bits=2, photons=50.0, adc_bits=3)
    frames = _frames(graph, "q", options=options, generator=torch.Generator().manual_seed(SEED))
    for frame in frames.frames:
        assert set((frame.panel * 3).flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        steps = frame.mask.abs() * 3
        torch.testing.assert_close(steps, steps.round())
    brightest = max(float(frame.intensity.max()) for frame in frames.frames)
    for frame in frames.frames:
        codes = frame.intensity / brightest * 7
        torch.testing.assert_close(codes, codes.round())
    assert 0.01 < frames.error < 2


def test_a_module_with_one_operator_is_found_and_with_several_named(graph: Graph) -> None:
    placed = mapped(graph)
    assert find_layer(graph, "stem", placed).operator.kind == "Conv2d"
    with pytest.raises(VitruviusError, match="stays in electronics: divides by a statistic"):
        find_layer(graph, next(o.name for o in graph.operators() if o.kind == "Softmax"), placed)
    with pytest.raises(VitruviusError, match=r"no layer 'stam' on optics, did you mean 'stem'\?"):
        find_layer(graph, "stam", placed)


def test_a_block_with_several_layers_lists_them(digits_graph: Graph) -> None:
    with pytest.raises(VitruviusError, match=r"has 3 operators on optics, .*qkv, .*scores, .*proj"):
        find_layer(digits_graph, "blocks.0.attn", mapped(digits_graph))


@pytest.mark.parametrize(
    ("layer", "choice", "text"),
    [
        ("stem", {"kernel": 12}, "kernel must be 0 to 11, got 12"),
        ("stem", {"channel": 2}, "channel must be 0 to 1, got 2"),
        ("scores", {"channel": -1}, "head must be 0 to 1, got -1"),
    ],
)
def test_what_a_layer_does_not_have_is_refused(
    graph: Graph, layer: str, choice: dict[str, int], text: str
) -> None:
    with pytest.raises(VitruviusError, match=text):
        _frames(graph, _scores(graph) if layer == "scores" else layer, **choice)


def test_an_operator_of_electronics_has_no_frames(graph: Graph) -> None:
    placed: Placed = next(item for item in mapped(graph) if item.work is None)
    with pytest.raises(VitruviusError, match="stays in electronics"):
        layer_frames(placed, torch.zeros(1), torch.zeros(1))
