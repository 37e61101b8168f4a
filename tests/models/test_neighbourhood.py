"""Padding, windows, pooling, resizing, constant indices: rules equal PyTorch, for any batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.models.graph import check, execute
from vitruvius.models.trace import UnmappedError, trace

SEED = 23


class Bound(nn.Module):
    """A function of a feature map [B, 4, 6, 9], with an index list and a seeded table."""

    def __init__(self, function: Callable[[Bound, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("places", torch.tensor([2, 0, 3, 2]))
        self.register_buffer("rows", torch.tensor([[0], [-2]]))
        self.register_buffer("columns", torch.tensor([[8, 1, 3]]))
        self.register_buffer("kept", torch.tensor([True, False, False, True, True, False]))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


Function = Callable[[Bound, Tensor], Tensor]

# name, function, kinds of the graph (without Input, Output)
CASES: list[tuple[str, Function, list[str]]] = [
    ("pad", lambda m, x: functional.pad(x, (1, 0, 2, 3), value=-1.5), ["Pad"]),
    ("pad nothing", lambda m, x: functional.pad(x, (0, 0)) * 2, ["Constant", "Mul"]),
    ("reflect", lambda m, x: functional.pad(x, (2, 1, 0, 3), mode="reflect"), ["Pad"]),
    ("replicate", lambda m, x: functional.pad(x, (2, 1, 0, 3), mode="replicate"), ["Pad"]),
    ("crop", lambda m, x: functional.pad(x, (-1, 1)), ["Pad"]),
    ("roll", lambda m, x: torch.roll(x, (-2, 1), (2, 3)), ["Roll"]),
    ("roll by a whole turn", lambda m, x: x.roll(6, 2).roll(10, -1), ["Roll"]),
    ("flip", lambda m, x: x.flip(-1, 1), ["Flip"]),
    ("im2col", lambda m, x: functional.unfold(x, (2, 3), 1, (1, 0), (2, 3)), ["Unfold"]),
    (
        "col2im of overlapping windows",
        lambda m, x: functional.fold(functional.unfold(x, 3, padding=1), (6, 9), 3, padding=1),
        ["Unfold", "Fold"],
    ),
    ("sliding windows", lambda m, x: x.unfold(2, 4, 2), ["Index", "View"]),
    ("pixel shuffle", lambda m, x: functional.pixel_shuffle(x, 2), ["View", "View", "View"]),
    (
        "pixel unshuffle",
        lambda m, x: functional.pixel_unshuffle(x, 3),
        ["View", "View", "View"],
    ),
    ("index select", lambda m, x: x.index_select(1, m.places), ["Index"]),
    ("index by a list", lambda m, x: x[:, :, [3, 1, -2]], ["Index"]),
    ("index of two axes", lambda m, x: x[:, :, m.rows, m.columns], ["View", "Index"]),
    ("boolean index", lambda m, x: x[:, :, m.kept], ["Index"]),
    ("running sum", lambda m, x: x.cumsum(-1), ["CumulativeSum"]),
    ("repeat", lambda m, x: x[:, :1].repeat(1, 3, 1, 2), ["Select", "View", "Concat"]),
    ("repeat with a new axis", lambda m, x: x.unsqueeze(1).repeat(1, 2, 1, 1, 1), ["View"] * 2),
    ("repeat interleaved", lambda m, x: x.repeat_interleave(2, dim=2), ["Index"]),
    ("heads repeated for a group", lambda m, x: x.repeat_interleave(2, dim=1), ["View"] * 3),
    ("average pool", lambda m, x: functional.avg_pool2d(x, 3, 2, 1), ["AvgPool"]),
    (
        "average pool without the padding",
        lambda m, x: functional.avg_pool2d(x, (3, 2), 2, 1, True, False),
        ["AvgPool"],
    ),
    ("average pool 1d", lambda m, x: functional.avg_pool1d(x.flatten(2), 4), ["View", "AvgPool"]),
    ("max pool", lambda m, x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True), ["MaxPool"]),
    (
        "max pool 1d",
        lambda m, x: functional.max_pool1d(x.flatten(2), 4, 3, 1, 2),
        ["View", "MaxPool"],
    ),
    ("to one", lambda m, x: functional.adaptive_avg_pool2d(x, 1), ["Mean"]),
    ("to one, 1d", lambda m, x: functional.adaptive_avg_pool1d(x[:, 0], 1), ["Select", "Mean"]),
    ("to a divisor", lambda m, x: functional.adaptive_avg_pool2d(x, (2, 3)), ["AvgPool"]),
    (
        "to overlapping parts",
        lambda m, x: functional.adaptive_avg_pool2d(x, (4, 7)),
        ["AdaptiveAvgPool"],
    ),
    ("to its own size", lambda m, x: functional.adaptive_avg_pool2d(x, (6, None)) * 2, []),
    (
        "bilinear",
        lambda m, x: functional.interpolate(x, (9, 5), mode="bilinear"),
        ["Resize"],
    ),
    (
        "bilinear, corners aligned",
        lambda m, x: functional.interpolate(x, (9, 5), mode="bilinear", align_corners=True),
        ["Resize"],
    ),
    (
        "bicubic by a factor",
        lambda m, x: functional.interpolate(x, scale_factor=(1.3, 0.7), mode="bicubic"),
        ["Resize"],
    ),
    (
        "bicubic, antialiased",
        lambda m, x: functional.interpolate(x, (4, 5), mode="bicubic", antialias=True),
        ["Resize"],
    ),
    ("nearest", lambda m, x: functional.interpolate(x, scale_factor=2), ["Resize"]),
    (
        "nearest exact",
        lambda m, x: functional.interpolate(x, (4, 13), mode="nearest-exact"),
        ["Resize"],
    ),
]


@pytest.mark.parametrize(
    ("function", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_rules_of_neighbours_equal_torch_for_any_batch(
    function: Function, expected: list[str]
) -> None:
    module = Bound(function).eval()
    graph = trace(module, (torch.zeros(1, 4, 6, 9),), name="neighbours")
    check(graph)
    generator = torch.Generator().manual_seed(SEED)
    for batch in (1, 3):
        x = torch.randn(batch, 4, 6, 9, generator=generator)
        torch.testing.assert_close(execute(graph, x), module(x), rtol=1e-5, atol=1e-6)
    kinds = [op.kind for op in graph.operators() if op.kind not in ("Input", "Output")]
    if expected:
        assert kinds == expected


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: x.roll(1, 0), "it moves values between the images of a batch"),
        (lambda m, x: x.flip(0), "it moves values between the images of a batch"),
        (lambda m, x: x.cumsum(0), "it moves values between the images of a batch"),
        (lambda m, x: x.roll(1), "rolling over all axes at once, the batch included, has no rule"),
        (
            lambda m, x: functional.avg_pool2d(x, 2, divisor_override=3),
            "average pooling with a divisor of its own has no rule",
        ),
        (
            lambda m, x: x[:, m.places[:3, None], :, m.places[:3]],
            "indices of axes that do not touch have no rule",
        ),
        (
            lambda m, x: x[0, 0, 0].argsort().float() + x[:, :, :, x[0, 0, 0].argsort()],
            "an index is computed from the input, expected a constant",
        ),
        (
            lambda m, x: functional.max_pool2d(x, 2, return_indices=True)[1].float(),
            "the places of the largest values have no rule",
        ),
    ],
)
def test_what_has_no_rule_says_why(function: Function, reason: str) -> None:
    with pytest.raises(UnmappedError) as raised:
        trace(Bound(function).eval(), (torch.zeros(1, 4, 6, 9),), name="neighbours")
    assert reason in str(raised.value)
