"""Norms, activations and products in the ways people write them: kinds, and the module's values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vitruvius.models.graph import Graph, check, execute
from vitruvius.models.trace import UnmappedError, trace

SEED = 31
C, N = 4, 6

Forward = Callable[["Parts", Tensor], Tensor]


class Parts(nn.Module):
    """Layers with trained-looking statistics and a function that uses some: [B, 4, 6, 4] in."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.linear = nn.Linear(C, C)
        self.bare = nn.Linear(C, C, bias=False)
        self.conv = nn.Conv2d(C, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(C, 8, 1, groups=2)
        self.even = nn.Conv2d(C, C, 2, padding="same")
        self.line = nn.Conv1d(C, 8, 3, stride=2, padding=1)
        self.line_same = nn.Conv1d(C, C, 3, padding="same", dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(C, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.up_whole = nn.ConvTranspose2d(C, 6, 2, stride=2)
        self.video = nn.Conv3d(C, 2, 1)
        self.batch = nn.BatchNorm2d(8)
        self.batch_in = nn.BatchNorm2d(C)
        self.batch_line = nn.BatchNorm1d(C)
        self.batch_bare = nn.BatchNorm2d(8, affine=False)
        self.batch_up = nn.BatchNorm2d(6)
        self.batch_live = nn.BatchNorm2d(C, track_running_stats=False)
        self.group = nn.GroupNorm(2, C)
        self.one_group = nn.GroupNorm(1, C)
        self.rms = nn.RMSNorm(C, eps=1e-3)
        self.rms_default = nn.RMSNorm(C)
        self.plane = nn.LayerNorm((N, C))
        self.norm_bare = nn.LayerNorm(C, elementwise_affine=False)
        self.prelu = nn.PReLU(C, 0.1)
        self.gamma = nn.Parameter(torch.randn(C))
        self.beta = nn.Parameter(torch.randn(C))
        self.wide_gamma = nn.Parameter(torch.randn(8, 1, 1))
        self.vector = nn.Parameter(torch.randn(C))
        self.stack = nn.Parameter(torch.randn(C, C, 3))
        self.pool = nn.Parameter(torch.randn(2, N))
        self.register_buffer("mask", torch.randn(N, C) > 0)
        for module in self.modules():
            for name, statistic in module.named_buffers(recurse=False):
                if name == "running_mean":
                    nn.init.normal_(statistic)
                elif name == "running_var":
                    nn.init.uniform_(statistic, 0.5, 2.0)
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.RMSNorm)):
                for parameter in module.parameters(recurse=False):
                    nn.init.normal_(parameter)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def last(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def rms_by_hand(m: Parts, x: Tensor) -> Tensor:
    return m.gamma * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rms_divided(m: Parts, x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * m.gamma


def layer_norm_by_hand(m: Parts, x: Tensor) -> Tensor:
    centred = x - last(x)
    return centred / torch.sqrt(last(centred**2) + 1e-5) * m.gamma + m.beta


def layer_norm_variance(m: Parts, x: Tensor) -> Tensor:
    spread = x.var(-1, unbiased=False, keepdim=True)
    return (x - last(x)) * torch.rsqrt(spread + 1e-5) * m.gamma + m.beta


def layer_norm_channels(m: Parts, x: Tensor) -> Tensor:
    """Over axis 1, as ConvNeXt first wrote it."""
    u = x.mean(1, keepdim=True)
    s = (x - u).pow(2).mean(1, keepdim=True)
    x = (x - u) / torch.sqrt(s + 1e-6)
    return m.gamma[:, None, None] * x + m.beta[:, None, None]


def gelu_tanh(m: Parts, x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_tanh_nested(m: Parts, x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def squeeze_excite(m: Parts, x: Tensor) -> Tensor:
    gate = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    return x * functional.hardsigmoid(m.linear(functional.silu(gate)))[:, :, None, None]


def swiglu(m: Parts, x: Tensor) -> Tensor:
    a, b = torch.cat([m.linear(x), m.bare(x)], -1).chunk(2, -1)
    return functional.silu(a) * b


def geglu(m: Parts, x: Tensor) -> Tensor:
    a, b = torch.cat([m.linear(x), m.bare(x)], -1).chunk(2, -1)
    return a * functional.gelu(b)


def batch_norm_of_tokens(m: Parts, x: Tensor) -> Tensor:
    """LeViT: a Linear, then a batch norm over tokens of all images at once."""
    x = m.linear(x.flatten(1, 2))
    return m.batch_line(x.flatten(0, 1)).reshape_as(x)


LAYERS: list[tuple[str, Forward, list[str]]] = [
    ("rms norm", lambda m, x: m.rms(x), ["RmsNorm"]),
    ("rms norm, default eps", lambda m, x: m.rms_default(x * 1e-4), ["Mul", "RmsNorm"]),
    ("rms norm by hand", rms_by_hand, ["RmsNorm"]),
    ("rms norm divided", rms_divided, ["RmsNorm"]),
    ("layer norm by hand", layer_norm_by_hand, ["LayerNorm"]),
    ("layer norm, variance", layer_norm_variance, ["LayerNorm"]),
    ("layer norm of channels", layer_norm_channels, ["View", "LayerNorm", "View"]),
    ("layer norm of two axes", lambda m, x: m.plane(x), ["View", "LayerNorm", "View"]),
    ("layer norm, factors apart", lambda m, x: m.norm_bare(x) * m.gamma + m.beta, ["LayerNorm"]),
    ("group norm", lambda m, x: m.group(x), ["GroupNorm"]),
    ("group norm of one", lambda m, x: m.one_group(x), ["GroupNorm"]),
    ("normalize", lambda m, x: functional.normalize(x, dim=-1), ["L2Normalize"]),
    ("normalize by hand", lambda m, x: x / x.norm(dim=1, keepdim=True), ["L2Normalize"]),
    ("conv and batch norm", lambda m, x: m.batch(m.conv(x)), ["Conv2d"]),
    ("grouped conv and batch norm", lambda m, x: m.batch(m.grouped(x)), ["Conv2d"]),
    ("bare batch norm", lambda m, x: m.batch_bare(m.conv(x)), ["Conv2d"]),
    ("transposed conv and batch norm", lambda m, x: m.batch_up(m.up_whole(x)), ["ConvTranspose2d"]),
    ("batch norm first", lambda m, x: m.grouped(m.batch_in(x)), ["ScaleShift", "Conv2d"]),
    ("batch norm and padded conv", lambda m, x: m.conv(m.batch_in(x)), ["ScaleShift", "Conv2d"]),
    ("batch norm alone", lambda m, x: m.batch_in(x), ["ScaleShift"]),
    ("batch norm of tokens", batch_norm_of_tokens, ["View", "Linear"]),
    ("quick gelu", lambda m, x: x * torch.sigmoid(1.702 * x), ["QuickGelu"]),
    ("silu by hand", lambda m, x: torch.sigmoid(x) * x, ["Silu"]),
    ("hard swish", lambda m, x: functional.hardswish(x), ["HardSwish"]),
    ("hard swish by hand", lambda m, x: x * functional.relu6(x + 3) / 6, ["HardSwish"]),
    ("hard swish, clamped", lambda m, x: (x + 3).clamp(0, 6) * x / 6.0, ["HardSwish"]),
    ("hard swish by parts", lambda m, x: x * functional.hardsigmoid(x), ["HardSwish"]),
    ("gelu by hand", lambda m, x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), ["Gelu"]),
    ("gelu, half last", lambda m, x: 0.5 * (x * (1 + torch.erf(x * 0.5**0.5))), ["Gelu"]),
    ("gelu by tanh", gelu_tanh, ["Gelu"]),
    ("gelu by tanh, nested", gelu_tanh_nested, ["Gelu"]),
    ("relu6", lambda m, x: functional.relu6(x * 5), ["Mul", "Relu6"]),
    ("hard sigmoid", lambda m, x: functional.hardsigmoid(x), ["HardSigmoid"]),
    ("leaky relu", lambda m, x: functional.leaky_relu(x, 0.2), ["LeakyRelu"]),
    ("prelu", lambda m, x: m.prelu(x), ["PRelu"]),
    ("elu", lambda m, x: functional.elu(x, 1.5), ["Elu"]),
    (
        "selu and celu",
        lambda m, x: functional.selu(x) + functional.celu(x, 2.0),
        ["Elu", "Elu", "Add"],
    ),
    ("mish", lambda m, x: functional.mish(x), ["Mish"]),
    ("softplus", lambda m, x: functional.softplus(x, 2.0, 1.0), ["Softplus"]),
    ("log softmax", lambda m, x: x.log_softmax(-1), ["LogSoftmax"]),
    ("softmax by hand", lambda m, x: x.exp() / x.exp().sum(1, keepdim=True), ["Softmax"]),
    ("glu", lambda m, x: functional.glu(x, 1), ["Select", "Select", "Sigmoid", "Mul"]),
    ("swiglu", swiglu, ["Linear"] * 2 + ["Concat"] + ["Select"] * 2 + ["Silu", "Mul"]),
    ("geglu", geglu, ["Linear"] * 2 + ["Concat"] + ["Select"] * 2 + ["Gelu", "Mul"]),
    (
        "squeeze and excite",
        squeeze_excite,
        ["Mean", "View", "Silu", "Linear", "HardSigmoid", "View", "Mul"],
    ),
    ("layer scale", lambda m, x: x + m.gamma * m.linear(x), ["Linear", "Add"]),
    ("layer scale of a map", lambda m, x: m.conv(x) * m.wide_gamma, ["Conv2d"]),
    ("bias apart", lambda m, x: m.bare(x) + m.beta, ["Linear"]),
    ("clamp", lambda m, x: x.clamp(-0.5, 0.7) + x.clamp(max=0.1), ["Clamp", "Clamp", "Add"]),
    ("roots", lambda m, x: (x.abs() + 1).sqrt() + x.abs().log1p().exp(), []),
    ("powers", lambda m, x: x**4 + (x.abs() + 1) ** -0.5, ["Pow", "Abs", "Add", "Rsqrt", "Add"]),
    ("sine and cosine", lambda m, x: x.sin() * x.cos(), ["Sin", "Cos", "Mul"]),
    ("rounding", lambda m, x: x.floor() + x.ceil() + x.round() + x.sign(), []),
    ("quotient", lambda m, x: x / (x.abs() + 1), ["Abs", "Add", "Div"]),
    ("reciprocal", lambda m, x: 2 / (x.abs() + 1), ["Abs", "Add", "Reciprocal", "Mul"]),
    ("larger", lambda m, x: torch.maximum(x, m.gamma), ["Maximum"]),
    ("smaller", lambda m, x: torch.min(x, -x), ["Mul", "Minimum"]),
    ("comparison", lambda m, x: torch.where(x > 0.1, x, x * 3), ["Compare", "Mul", "Where"]),
    ("logic", lambda m, x: ((x > 0) & ~(x > 1)).float(), []),
    ("masked fill", lambda m, x: x.masked_fill(m.mask, 2.0), ["Where"]),
    ("sum", lambda m, x: x.sum((1, -1)), ["Sum"]),
    ("largest", lambda m, x: x.amax(1) + x.max(1)[0] - x.min(1)[0], []),
    ("variance", lambda m, x: x.var(-1), ["Variance"]),
    ("deviation", lambda m, x: x.std((1, 2), keepdim=True), ["Variance", "Sqrt"]),
    ("both moments", lambda m, x: sum(torch.var_mean(x, -1, correction=0)), []),
    ("length", lambda m, x: torch.linalg.vector_norm(x, 1, -1), ["VectorNorm"]),
    ("logsumexp", lambda m, x: x.logsumexp(-1), []),
    ("lerp", lambda m, x: torch.lerp(x, x * x, 0.3), ["Mul", "Mul", "Mul", "Add"]),
    ("addcmul", lambda m, x: torch.addcmul(x, x, m.gamma, value=0.5), ["Mul", "Mul", "Add"]),
    ("vector", lambda m, x: x @ m.vector, ["Linear", "View"]),
    ("vector on the left", lambda m, x: m.vector @ x.mT, ["MatMul", "View"]),
    ("constant on the left", lambda m, x: m.pool @ x, ["MatMul"]),
    ("stacked constants", lambda m, x: x @ m.stack, ["MatMul"]),
    (
        "addmm with factors",
        lambda m, x: torch.addmm(m.beta, x[:, 0, 0], m.stack[:, :, 0], beta=0.5, alpha=2.0),
        ["Select", "Select", "MatMul", "Mul", "Add"],
    ),
    (
        "baddbmm without a summand",
        lambda m, x: torch.baddbmm(x[:, 0, :, :1], x[:, 1], x[:, 2].mT, beta=0, alpha=0.3),
        ["Select", "Select", "MatMul"],
    ),
    ("even kernel, same", lambda m, x: m.even(x), ["Pad", "Conv2d"]),
    ("conv1d", lambda m, x: m.line(x.flatten(2)), ["View", "Conv2d", "View"]),
    ("conv1d, same", lambda m, x: m.line_same(x.flatten(2)), ["View", "Conv2d", "View"]),
    ("transposed conv", lambda m, x: m.up(x), ["ConvTranspose2d"]),
    ("einsum, one operand", lambda m, x: torch.einsum("bcnd->bdn", x), ["Sum", "View"]),
    ("einsum, gate", lambda m, x: torch.einsum("bcnd,bc->bcnd", x, x[:, :, 0, 0]), []),
    (
        "einsum, implicit",
        lambda m, x: torch.einsum("bcnd,de", x, m.stack[:, :, 0]),
        ["Linear", "View"],
    ),
    (
        "einsum, of three",
        lambda m, x: torch.einsum("bcnd,dk,c->bnk", x, m.bare.weight, m.vector),
        [],
    ),
    ("einsum, per channel", lambda m, x: torch.einsum("bcnd,cde->bcne", x, m.stack), ["MatMul"]),
    ("einsum, outer", lambda m, x: torch.einsum("bn,bd->bnd", x[:, 0, :, 0], x[:, 1, 0]), []),
]


def kinds(graph: Graph) -> list[str]:
    silent = ("Input", "Output", "Constant")
    return [op.kind for op in graph.operators() if op.kind not in silent]


def traced(forward: Forward) -> Graph:
    """The graph, checked, and equal to the module for batches of 1 and 3."""
    torch.manual_seed(SEED)
    module = Parts(forward).eval()
    graph = trace(module, (torch.zeros(1, C, N, C),), name="written")
    check(graph)
    print("seed", SEED)
    generator = torch.Generator().manual_seed(SEED)
    for batch in (1, 3):
        x = torch.randn(batch, C, N, C, generator=generator)
        with torch.no_grad():
            expected = module(x)
        torch.testing.assert_close(execute(graph, x), expected, rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize(
    ("forward", "expected"), [layer[1:] for layer in LAYERS], ids=[layer[0] for layer in LAYERS]
)
def test_every_way_of_writing_a_layer(forward: Forward, expected: list[str]) -> None:
    """An empty list of kinds: whichever, as long as all are mapped and give the module's values."""
    graph = traced(forward)
    assert graph.unmapped == ()
    assert not expected or kinds(graph) == expected


NEARLY: list[tuple[str, Forward]] = [
    ("other factor", lambda m, x: x * torch.sigmoid(1.7 * x)),
    ("other operand", lambda m, x: (x + 1) * torch.sigmoid(1.702 * x)),
    ("other half", lambda m, x: x * 0.6 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    ("other cube", lambda m, x: x / 2 * (1 + torch.tanh(0.79788456 * (x + 0.05 * x**3)))),
    ("other six", lambda m, x: x * functional.relu6(x + 3) / 5),
    ("eps outside the root", lambda m, x: x / ((x * x).mean(-1, keepdim=True).sqrt() + 1e-6)),
    ("sum of squares", lambda m, x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)),
    ("sample variance", lambda m, x: (x - last(x)) * (x.var(-1, keepdim=True) + 1e-5).rsqrt()),
    (
        "mean of another axis",
        lambda m, x: (x - x.mean(1, True)) * (x.var(-1, False, True) + 1).rsqrt(),
    ),
    ("sum over another axis", lambda m, x: x.exp() / x.exp().sum((1, 2), keepdim=True)),
    ("length of another", lambda m, x: x / (x + 1).norm(dim=-1, keepdim=True)),
]
RECOGNISED = {"Gelu", "QuickGelu", "Silu", "HardSwish", "RmsNorm", "LayerNorm", "Softmax"}


@pytest.mark.parametrize("forward", [f for _, f in NEARLY], ids=[name for name, _ in NEARLY])
def test_what_only_resembles_a_kind_stays_in_parts(forward: Forward) -> None:
    """A recogniser that is loose anywhere would make a kind of these."""
    assert not {*kinds(traced(forward)), "L2Normalize"} & RECOGNISED


@pytest.mark.parametrize(
    ("name", "forward", "expected"),
    [
        ("linear", lambda m, x: m.linear(m.batch_line(x.flatten(0, 2))).view_as(x), "Linear"),
        (
            "convolution",
            lambda m, x: functional.conv2d(m.batch_in(x), m.stack[..., None]),
            "Conv2d",
        ),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_batch_norm_goes_into_what_reads_it(name: str, forward: Forward, expected: str) -> None:
    """In front of unpadded layers; the shift becomes a bias."""
    graph = traced(forward)
    layers = [op for op in graph.operators() if op.kind in ("Linear", "Conv2d", "ScaleShift")]
    assert [op.kind for op in layers] == [expected]
    assert "bias" in layers[0].tensors


def test_a_batch_norm_that_shares_its_layer_stays() -> None:
    """The convolution is read raw as well."""

    def shared(m: Parts, x: Tensor) -> Tensor:
        y = m.conv(x)
        return m.batch(y) + y

    assert kinds(traced(shared)) == ["Conv2d", "ScaleShift", "Add"]


def test_weights_that_two_layers_share_are_scaled_for_one_only() -> None:
    def twice(m: Parts, x: Tensor) -> Tensor:
        return m.linear(m.linear(x) * m.gamma)

    graph = traced(twice)
    first, second = (op for op in graph.operators() if op.kind == "Linear")
    assert first.tensors["weight"] != second.tensors["weight"]
    assert kinds(graph) == ["Linear", "Linear"]


def test_folded_layers_count_the_parameters_they_hold() -> None:
    """8 x 4 x 3 x 3 weights without a bias before; the batch norm's shift is its bias now."""
    graph = traced(lambda m, x: m.batch(m.conv(x)))
    (conv,) = (op for op in graph.operators() if op.kind == "Conv2d")
    assert conv.params == 8 * C * 9 + 8
    assert conv.macs == 8 * N * C * C * 9


def test_products_count_like_torch() -> None:
    """Transposed and 1-D convolutions and einsum: the counter of torch halves to the same."""
    for forward in (
        lambda m, x: m.up(x),
        lambda m, x: m.line(x.flatten(2)),
        lambda m, x: torch.einsum("bcnd,cde->bcne", x, m.stack),
    ):
        graph = traced(forward)
        module = Parts(forward).eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, C, N, C))
        assert 2 * sum(op.macs for op in graph.operators()) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.video(x[:, :, None]), "a 3-D convolution has no rule"),
        (lambda m, x: m.batch_live(x), "a batch norm without running statistics has no rule"),
        (lambda m, x: torch.einsum("bcnc->bcn", x), "takes a diagonal"),
        (lambda m, x: x.max(1)[1], "the index of the largest or smallest has no rule"),
        (lambda m, x: x - x.sum(), "no rule"),
    ],
)
def test_what_has_no_rule_says_why(forward: Forward, reason: str) -> None:
    with pytest.raises(UnmappedError, match=reason):
        traced(forward)
