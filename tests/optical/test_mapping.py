"""Operators as convolutions of planes, against the graph's own operators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.datasets import Dataset
from vitruvius.models.graph import Graph, execute_all
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace, trace_shapes
from vitruvius.optical.mapping import OpticalWork, Placed, mapped, token_plane
from vitruvius.sim.mpc.secrecy import non_negative


def _zoo(name: str) -> Graph:
    workload = resolve_model(name)
    return trace(workload.module, workload.example_inputs, name=name)


def _planes(placed: Placed, values: dict[str, Tensor], graph: Graph) -> tuple[Tensor, Tensor]:
    """The images and kernels that ``work`` speaks of, from the operands' values."""
    op, work = placed.operator, placed.work
    assert work is not None
    operands = [values[name] for name in op.inputs]
    left = operands[0]
    if op.kind == "Conv2d":
        weight = graph.tensors[op.tensors["weight"]]
        dilated = weight.new_zeros(*weight.shape[:2], *work.kernel)
        rows, cols = op.attributes["dilation"]
        dilated[..., ::rows, ::cols] = weight
        before = [(new - old) // 2 for new, old in zip(work.size, left.shape[-2:], strict=True)]
        return functional.pad(left, (before[1], before[1], before[0], before[0])), dilated
    if op.kind == "Linear":
        weight = graph.tensors[op.tensors["weight"]]
        return left.reshape(-1, 1, *work.size), weight.reshape(-1, 1, *work.kernel)
    *_, queries, features = left.shape
    heads = left.reshape(-1, queries, features).transpose(0, 1)
    keys = operands[1].expand(*left.shape[:-2], -1, -1)
    return heads.reshape(queries, -1, *work.size), keys.reshape(-1, 1, *work.kernel)


def _computed(placed: Placed, values: dict[str, Tensor], graph: Graph) -> Tensor:
    """The operator without its bias by one ``conv2d`` as ``work`` describes it."""
    work, op = placed.work, placed.operator
    assert work is not None
    images, kernels = _planes(placed, values, graph)
    assert images.shape == (work.images, work.in_channels, *work.size)
    assert kernels.shape == (work.out_channels, work.in_channels // work.groups, *work.kernel)
    padding = [
        {"valid": 0, "same": (taps - 1) // 2, "full": taps - 1}[work.readout]
        for taps in work.kernel
    ]
    result = functional.conv2d(images, kernels, None, work.stride, padding, 1, work.groups)
    assert result.shape == (work.images, work.out_channels, *work.result)
    if op.kind == "MatMul":
        heads = result.reshape(work.images, work.groups, -1).transpose(0, 1)
        return heads.reshape(op.output.shape) * op.attributes["scale"]
    return result.reshape(op.output.shape)


def _check_values(graph: Graph, image: Tensor) -> list[Placed]:
    values: dict[str, Tensor] = {}
    execute_all(graph, image, observe=lambda op, value: values.__setitem__(op.name, value))
    placed = mapped(graph)
    values |= dict.fromkeys(graph.inputs, image)
    for item in placed:
        if item.work is None:
            continue
        expected = values[item.operator.name]
        if "bias" in item.operator.tensors:
            bias = graph.tensors[item.operator.tensors["bias"]]
            expected = expected - (bias[:, None, None] if item.operator.kind == "Conv2d" else bias)
        torch.testing.assert_close(
            _computed(item, values, graph), expected, msg=lambda text, i=item: f"{i}: {text}"
        )
    return placed


def test_the_trained_vit_is_convolutions_of_planes(
    digits_graph: Graph, digit_images: Dataset
) -> None:
    placed = _check_values(digits_graph, digit_images.test_images[:1])
    assert [item.operator.name for item in placed] == [op.name for op in digits_graph.operators()]
    works = [item for item in placed if item.work is not None]
    assert [item.operator.kind for item in works] == [
        "Conv2d", *["Linear", "MatMul", "Linear", "Linear", "Linear"] * 4, "Linear",
    ]  # fmt: skip
    scores = next(item.work for item in works if item.operator.kind == "MatMul")
    assert scores == OpticalWork(17, 4, 68, 4, (4, 4), (4, 4), "valid", (1, 1), True, True, True)
    assert scores.images * scores.pairs == 4 * 17 * 17


def test_convolutions_of_every_padding_are_convolutions_of_planes() -> None:
    seed = 11
    print(f"seed {seed}")
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.Conv2d(8, 8, (1, 3), padding=(0, 2), groups=4),
        nn.Conv2d(8, 6, 3, padding=1, stride=2),
        nn.Conv2d(6, 4, 4, padding=2, dilation=2),
        nn.Conv2d(4, 4, 2, padding=1, groups=4),
        nn.Conv2d(4, 2, 3, padding=1, dilation=(1, 2)),
        nn.Conv2d(2, 2, 2),
    )
    graph = trace(model.eval(), (torch.randn(1, 3, 17, 14),), name="paddings")
    works = [p.work for p in _check_values(graph, torch.randn(1, 3, 17, 14)) if p.work]
    assert [work.readout for work in works] == [
        "same", "full", "same", "valid", "full", "valid", "valid",
    ]  # fmt: skip
    # An even kernel padded by half of it gives one more row than "same": the zeros are written out.
    assert works[3].size == (13, 12)
    assert works[3].kernel == (7, 7)


def test_reasons_say_why_the_rest_stays_in_electronics(digits_graph: Graph) -> None:
    reasons = {p.operator.name: p.reason for p in mapped(digits_graph)}
    assert reasons["blocks.0.attn.apply"].startswith("a weighted sum of value planes")
    assert reasons["blocks.0.attn.softmax"].endswith("no convolution")
    assert reasons["blocks.0.attn.reshape"] == "moves values, computes none"
    assert reasons["images"] == "nothing to compute"
    assert all((item.work is None) == bool(item.reason) for item in mapped(digits_graph))


@pytest.mark.parametrize(
    ("forms", "kinds"), [(("conv",), {"Conv2d"}), (("linear", "scores"), {"Linear", "MatMul"}),
                         ((), set())]
)  # fmt: skip
def test_forms_are_kept_off_by_choice(
    digits_graph: Graph, forms: tuple[str, ...], kinds: set[str]
) -> None:
    placed = mapped(digits_graph, forms)
    assert {item.operator.kind for item in placed if item.work} == kinds
    conv = next(item for item in placed if item.operator.kind == "Conv2d")
    if "conv" not in forms:
        assert conv.reason == "conv is kept off the optics by choice"


def test_an_unknown_form_is_refused(digits_graph: Graph) -> None:
    with pytest.raises(VitruviusError, match="no form 'convs' goes on optics, did you mean 'conv'"):
        mapped(digits_graph, ("convs",))


def _works(graph: Graph) -> Iterator[tuple[str, OpticalWork]]:
    for item in mapped(graph):
        if item.work is not None:
            yield item.operator.name, item.work


@pytest.mark.slow
def test_an_encoder_of_convolutions_and_shared_keys() -> None:
    """Strided, padded, depthwise and 1 x 1 convolutions, and attentions with one shared key."""
    encoder = _zoo("autoneural_encoder_tiny")
    works = dict(_works(encoder))
    assert works["stem.0"].size == (224, 224)
    assert works["stem.0"].readout == "same"
    assert works["stem.0"].result == (112, 112)
    assert works["stages.1.0.middle.0"].pairs == 64
    assert works["stages.2.2.scores"].images == 196
    assert works["stages.2.2.scores"].pairs == 4 * 49
    macs = {op.name: op.macs for op in encoder.operators()}
    for name, work in works.items():
        taps = work.kernel[0] * work.kernel[1]
        done = work.images * work.pairs * work.result[0] * work.result[1] * taps
        assert done == macs[name], name


@pytest.mark.slow
def test_a_secure_network_maps_like_its_teacher() -> None:
    works = dict(_works(_zoo("mpcvit_digits")))
    assert works["blocks.0.attn.matmul"].dynamic
    assert works["blocks.0.attn.qkv"].images == 17


def test_signs_follow_the_graph() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 1, 3))
    with torch.no_grad():
        model[3].weight.abs_()
    graph = trace(model.eval(), (torch.zeros(1, 1, 9, 9),), name="signs")
    signs = [(work.signed_input, work.signed_kernel) for _, work in _works(graph)]
    assert signs == [(True, True), (False, True), (True, False)]
    lit = [p.work.signed_input for p in mapped(graph, non_negative_inputs=True) if p.work]
    assert lit == [False, False, True]
    assert not non_negative(graph) & set(graph.inputs), "the graph itself is as it was"


def test_weights_without_values_are_taken_as_signed() -> None:
    with torch.device("meta"):
        model, image = nn.Linear(6, 4).eval(), torch.empty(1, 3, 6)
    (work,) = (work for _, work in _works(trace_shapes(model, (image,), name="shapes")))
    assert work == OpticalWork(3, 1, 4, 1, (2, 3), (2, 3), "valid", (1, 1), False, True, True)


@pytest.mark.parametrize(
    ("features", "plane"), [(192, (12, 16)), (64, (8, 8)), (97, (1, 97)), (1, (1, 1))]
)
def test_token_planes_are_as_square_as_can_be(features: int, plane: tuple[int, int]) -> None:
    assert token_plane(features) == plane


def test_a_token_without_features_is_refused() -> None:
    with pytest.raises(VitruviusError, match="expects at least 1 feature, got 0"):
        token_plane(0)
