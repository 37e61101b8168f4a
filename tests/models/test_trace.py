"""Tracing: the graph computes what the module does, and what cannot be traced is said in full."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, check, execute, execute_all
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import TraceError, UnmappedError, trace

SEED = 11


def line_of(function: Callable[..., object], text: str) -> str:
    """Where ``text`` stands inside ``function``, as "file.py:12"."""
    code = function.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    for number in range(code.co_firstlineno, len(lines) + 1):
        if text in lines[number - 1]:
            return f"test_trace.py:{number}"
    raise AssertionError(text)


def equal_for_batches(
    graph: Graph, module: nn.Module, *shape: int, batches: tuple[int, ...] = (1, 3)
) -> None:
    print("seed", SEED)
    generator = torch.Generator().manual_seed(SEED)
    for batch in batches:
        x = torch.randn(batch, *shape, generator=generator)
        with torch.no_grad():
            expected = module(x)
        torch.testing.assert_close(execute(graph, x), expected, rtol=1e-5, atol=1e-5)


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.operators() if op.kind not in ("Input", "Output")]


@pytest.fixture(scope="module")
def vit() -> tuple[nn.Module, Graph]:
    workload = resolve_model("vit_digits")
    return workload.module, trace(workload.module, workload.example_inputs, name="vit_digits")


def test_vit_digits_equals_the_module_on_real_digits(vit: tuple[nn.Module, Graph]) -> None:
    module, graph = vit
    dataset = resolve_model("vit_digits").dataset
    assert dataset is not None
    for images in (dataset.test_images[:1], dataset.test_images[:50]):
        with torch.no_grad():
            expected = module(images)
        torch.testing.assert_close(execute(graph, images), expected, rtol=0, atol=1e-5)


def test_vit_digits_has_the_operators_of_a_transformer(vit: tuple[nn.Module, Graph]) -> None:
    _, graph = vit
    counts = {kind: kinds(graph).count(kind) for kind in set(kinds(graph))}
    counts.pop("View")
    assert counts == {
        "Conv2d": 1,
        "Constant": 2,
        "Concat": 1,
        "Add": 1 + 4 * 2,
        "LayerNorm": 4 * 2 + 1,
        "Linear": 4 * 4 + 1,
        "Select": 4 * 3 + 1,
        "MatMul": 4 * 2,
        "Softmax": 4,
        "Gelu": 4,
    }
    assert graph.unmapped == ()
    scores = graph.operator("blocks.2.attn.scores")
    assert scores.attributes == {"transpose_b": True, "scale": 0.25}
    assert [graph.operator(name).output.shape for name in scores.inputs] == [(1, 4, 17, 16)] * 2
    for region in graph.regions:
        sizes = (region.heads, region.tokens, region.keys, region.head_dim, region.scale)
        assert sizes == (4, 17, 17, 16, 0.25)
    assert len(graph.regions) == 4
    qkv = graph.operator("blocks.2.attn.qkv")
    assert (qkv.kind, qkv.path, qkv.params) == ("Linear", "blocks.2.attn.qkv", 192 * 64 + 192)
    assert qkv.source.startswith("layers.py:")


def test_vit_digits_counts_equal_torch(vit: tuple[nn.Module, Graph]) -> None:
    module, graph = vit
    # the CPU's fused attention is one operator that the counter does not know
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(torch.zeros(1, 1, 8, 8))
    assert 2 * sum(op.macs for op in graph.operators()) == counter.get_total_flops()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert sum(op.params for op in graph.operators()) == parameters


def test_tracing_twice_gives_the_same_graph(vit: tuple[nn.Module, Graph]) -> None:
    module, graph = vit
    again = trace(module, (torch.ones(1, 1, 8, 8),), name="vit_digits")
    assert again.operators() == graph.operators()
    assert again.regions == graph.regions


class HandAttention(nn.Module):
    """Attention as people write it by hand, the variant chosen by ``how``."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(24, 24) for _ in range(4))
        self.drop = nn.Dropout(0.5)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, 3, 8).transpose(1, 2) for part in (self.q, self.k, self.v))
        if self.how == "scaled scores":
            scores = q @ k.transpose(-2, -1) * 8**-0.5
        elif self.how == "divided scores":
            scores = torch.matmul(q, k.mT) / math.sqrt(8)
        elif self.how == "scaled queries":
            scores = (q * 8**-0.5) @ k.transpose(2, 3)
        elif self.how == "both scaled":
            scores = (q * 8**-0.25) @ (k * 8**-0.25).transpose(-1, -2)
        elif self.how == "scaled before the heads":
            q = (self.q(x) * 8**-0.5).view(b, n, 3, 8).transpose(1, 2)
            scores = q @ k.transpose(-1, -2)
        elif self.how == "permuted keys":
            keys = self.k(x).view(b, n, 3, 8).permute(0, 2, 3, 1)
            scores = q @ keys * 8**-0.5
        shares = self.drop(functional.softmax(scores, dim=-1))
        return self.out((shares @ v).transpose(1, 2).reshape(b, n, 24))


@pytest.mark.parametrize(
    "how",
    [
        "scaled scores",
        "divided scores",
        "scaled queries",
        "both scaled",
        "scaled before the heads",
        "permuted keys",
    ],
)
def test_hand_written_attention_ends_as_one_region(how: str) -> None:
    torch.manual_seed(SEED)
    module = HandAttention(how).eval()
    graph = trace(module, (torch.zeros(1, 5, 24),), name="hand")
    equal_for_batches(graph, module, 5, 24)
    (region,) = graph.regions
    assert (region.heads, region.tokens, region.keys, region.head_dim) == (3, 5, 5, 8)
    assert region.scale == pytest.approx(8**-0.5, rel=1e-12)
    scores = graph.operator(region.scores)
    assert [graph.operator(name).output.shape for name in scores.inputs] == [(1, 3, 5, 8)] * 2
    found = [kind for kind in kinds(graph) if kind != "View"]
    assert sorted(found) == ["Linear"] * 4 + ["MatMul"] * 2 + ["Softmax"]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_torch_own_encoder_and_multihead_attention(norm_first: bool, need_weights: bool) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                16, 2, 32, activation="gelu", batch_first=True, norm_first=norm_first
            )
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.pool = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layers(x)
            pooled: Tensor = self.pool(x, x, x, need_weights=need_weights)[0].mean(1)
            return pooled

    torch.manual_seed(SEED)
    module = Encoder().eval()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    graph = trace(module, (torch.zeros(1, 6, 16),), name="encoder")
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    equal_for_batches(graph, module, 6, 16)
    assert len(graph.regions) == 3
    for region in graph.regions:
        assert (region.heads, region.tokens, region.head_dim) == (2, 6, 8)
        assert region.scale == pytest.approx(8**-0.5, rel=1e-12)
    assert "layers.layers.0.self_attn.in_proj" in {op.name for op in graph.operators()}


def test_masks_stay_between_scores_and_softmax() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("keep", torch.ones(4, 4).tril(1).bool())
            self.bias = nn.Parameter(torch.randn(2, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            q = x.unflatten(2, (2, 3)).transpose(1, 2)
            attend = functional.scaled_dot_product_attention
            one = attend(q, q, q, is_causal=True)
            two = attend(q, q, q, attn_mask=self.keep)
            return attend(one, two, q, attn_mask=self.bias, scale=0.3)

    torch.manual_seed(SEED)
    module = Masked()
    graph = trace(module, (torch.zeros(1, 4, 6),), name="masked")
    equal_for_batches(graph, module, 4, 6)
    assert [graph.operator(region.bias).kind for region in graph.regions] == ["Add"] * 3
    assert [round(region.scale, 6) for region in graph.regions] == [0.57735, 0.57735, 0.3]


class Bound(nn.Module):
    """A function as a module, with some parameters to use."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.bias = nn.Parameter(torch.randn(6))
        self.conv = nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 0), dilation=1, groups=2)
        self.same = nn.Conv2d(4, 4, 3, padding="same", bias=False)
        self.norm = nn.LayerNorm(4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


SINGLE: list[tuple[str, Callable[[nn.Module, Tensor], Tensor], list[str]]] = [
    ("conv2d", lambda m, x: m.conv(x), ["Conv2d"]),
    ("same padding", lambda m, x: m.same(x), ["Conv2d"]),
    ("matrix parameter", lambda m, x: x @ m.weight, ["Linear"]),
    (
        "addmm",
        lambda m, x: torch.addmm(m.bias, x[:, 0, 0], m.weight),
        ["Select", "Select", "Linear"],
    ),
    ("product", lambda m, x: torch.bmm(x[:, 0], x[:, 1].mT), ["Select", "Select", "MatMul"]),
    ("layer norm", lambda m, x: m.norm(x), ["LayerNorm"]),
    ("bare norm", lambda m, x: functional.layer_norm(x, (4,), eps=1e-3), ["LayerNorm"]),
    ("gelu", lambda m, x: functional.gelu(x), ["Gelu"]),
    ("gelu tanh", lambda m, x: functional.gelu(x, approximate="tanh"), ["Gelu"]),
    ("relu", lambda m, x: functional.relu(x), ["Relu"]),
    ("silu", lambda m, x: functional.silu(x), ["Silu"]),
    ("sigmoid", lambda m, x: x.sigmoid() + x.tanh(), ["Sigmoid", "Tanh", "Add"]),
    ("number", lambda m, x: 2 * x + 1, ["Mul", "Add"]),
    ("difference", lambda m, x: x - torch.relu(x), ["Relu", "Mul", "Add"]),
    ("reversed", lambda m, x: 1 - x, ["Mul", "Add"]),
    ("negative", lambda m, x: -x, ["Mul"]),
    ("division", lambda m, x: x / 3, ["Mul"]),
    ("division by a parameter", lambda m, x: x / m.weight[:, :1].mT.exp(), ["Mul"]),
    ("softmax over channels", lambda m, x: x.softmax(1), ["Softmax"]),
    ("mean", lambda m, x: x.mean((2, 3)), ["Mean"]),
    ("pool", lambda m, x: functional.adaptive_avg_pool2d(x, 1), ["Mean"]),
    ("dropout", lambda m, x: functional.dropout(x, 0.5, m.training) * 2, ["Mul"]),
    ("copies", lambda m, x: x.contiguous().clone().to(torch.float32).detach() * 2, ["Mul"]),
    ("unbind", lambda m, x: x.unbind(1)[2], ["Select"]),
    ("chunk", lambda m, x: x.chunk(2, -1)[1], ["Select"]),
    ("split", lambda m, x: x.split([1, 3], 1)[1] * 2, ["Select", "Mul"]),
    ("split evenly", lambda m, x: x.split(4, 2)[1] * 2, ["Select", "Mul"]),
    ("steps", lambda m, x: x[:, 1::2, -3:], ["Select", "Select"]),
    ("negative index", lambda m, x: x[..., -2], ["Select"]),
    (
        "two choices",
        lambda m, x: torch.cat([x[:, [2, 0]], x[:, [1]]], 1),
        ["Index"] * 2 + ["Concat"],
    ),
    ("whole range", lambda m, x: x[:, :] * 2, ["Mul"]),
    ("concat", lambda m, x: torch.cat([x, x * 2], 1), ["Mul", "Concat"]),
    ("stack", lambda m, x: torch.stack([x, x * 2], 2), ["Mul", "View", "View", "Concat"]),
    ("expand", lambda m, x: x[:, :1].expand(-1, 5, -1, -1), ["Select", "View"]),
    ("squeeze", lambda m, x: x[:, :1].squeeze(1).unsqueeze(-1), ["Select", "View"]),
    ("reshape", lambda m, x: x.reshape(x.shape[0], -1, 2).flatten(1), ["View"]),
    ("unflatten", lambda m, x: x.unflatten(2, (3, 2)), ["View"]),
    ("merged batch", lambda m, x: (x.reshape(-1, 4) * 2).view_as(x), ["View", "Mul", "View"]),
    ("movedim", lambda m, x: x.movedim(1, -1), ["View"]),
    ("permute", lambda m, x: x.permute(0, 3, 1, 2), ["View"]),
    ("in place", lambda m, x: (x * 2).relu_().add_(1), ["Mul", "Relu", "Add"]),
]


@pytest.mark.parametrize(
    ("function", "expected"), [case[1:] for case in SINGLE], ids=[c[0] for c in SINGLE]
)
def test_each_rule_equals_torch_for_any_batch(
    function: Callable[[nn.Module, Tensor], Tensor], expected: list[str]
) -> None:
    torch.manual_seed(SEED)
    module = Bound(function).eval()
    graph = trace(module, (torch.zeros(1, 4, 6, 4),), name="single")
    check(graph)
    equal_for_batches(graph, module, 4, 6, 4)
    assert [kind for kind in kinds(graph) if kind != "Constant"] == expected


def test_what_depends_on_parameters_only_is_done_once() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 4))
            self.grid = nn.Parameter(torch.randn(1, 4, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            grid = functional.interpolate(self.grid, size=(3, 3), mode="bilinear")
            x = torch.cat([self.token.repeat(x.shape[0], 1, 1), x], 1)
            return x + functional.pad(grid.flatten(2).transpose(1, 2), (0, 0, 1, 0))

    torch.manual_seed(SEED)
    module = Positions()
    graph = trace(module, (torch.zeros(1, 9, 4),), name="positions")
    equal_for_batches(graph, module, 9, 4)
    assert kinds(graph) == ["Constant", "Concat", "Constant", "Add"]
    assert graph.operator("token").params == 4


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erfinv(x * 0.1)


class Unmapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.logcumsumexp(self.inner(x), 1)
        return torch.kthvalue(x, 2, dim=1)[0]


def test_every_operator_without_a_rule_is_listed_with_path_and_line() -> None:
    with pytest.raises(UnmappedError) as raised:
        trace(Unmapped(), (torch.zeros(1, 3, 4),), name="odd")
    erfinv = line_of(Inner.forward, "torch.erfinv")
    cumsum = line_of(Unmapped.forward, "torch.logcumsumexp")
    kth = line_of(Unmapped.forward, "torch.kthvalue")
    assert str(raised.value).splitlines() == [
        "odd: 3 operators have no rewrite rule:",
        f"  aten.erfinv.default at inner ({erfinv}): no rule",
        f"  aten.logcumsumexp.default at the root module ({cumsum}): no rule",
        f"  aten.kthvalue.default at the root module ({kth}): no rule",
    ]
    assert isinstance(raised.value, VitruviusError)


def test_host_keeps_them_and_still_computes() -> None:
    module = Unmapped()
    graph = trace(module, (torch.zeros(1, 3, 4),), name="odd", unmapped="host")
    equal_for_batches(graph, module, 3, 4)
    assert [item.target.split(".")[1] for item in graph.unmapped] == [
        "erfinv",
        "logcumsumexp",
        "kthvalue",
    ]
    assert [item.name for item in graph.unmapped] == ["inner.erfinv", "logcumsumexp", "kthvalue"]
    assert all(graph.operator(item.name).kind == "Host" for item in graph.unmapped)
    assert graph.unmapped[0].reason == "no rule"


def test_a_rule_that_does_not_fit_says_why() -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.avg_pool2d(x, 2, divisor_override=3).cumsum(0)

    with pytest.raises(UnmappedError) as raised:
        trace(Pool(), (torch.zeros(1, 3, 4, 4),), name="pool")
    assert "average pooling with a divisor of its own has no rule" in str(raised.value)
    assert "it moves values between the images of a batch" in str(raised.value)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


def test_control_flow_on_data_gives_the_error_and_the_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TraceError) as raised:
        trace(Branching(), (torch.zeros(1, 4),), name="branching")
    text = str(raised.value)
    assert text.startswith("branching: the module does not export: ")
    assert "data-dependent" in text
    assert text.endswith(f" ({line_of(Branching.forward, 'if x.sum()')})")
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


class Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(7)


def test_a_module_that_fails_says_on_which_inputs_and_where() -> None:
    with pytest.raises(TraceError) as raised:
        trace(Wrong(), (torch.zeros(1, 4),), name="wrong")
    place = line_of(Wrong.forward, "x.view(7)")
    assert str(raised.value) == (
        "wrong: the module fails on its example inputs [1, 4]: "
        f"RuntimeError: shape '[7]' is invalid for input of size 4 ({place})"
    )


@pytest.mark.parametrize(
    ("module", "inputs", "text"),
    [
        (
            nn.Linear(2, 2).half(),
            (torch.zeros(1, 2).half(),),
            "weight expected float32, got float16",
        ),
        (nn.ReLU(), (torch.zeros(1, 2).double(),), "input 0 expected float32, got float64"),
        (
            nn.Linear(2, 2, device="meta"),
            (torch.zeros(1, 2),),
            "weight expected values, got a meta",
        ),
        (nn.ReLU(), (), "expected at least one example input"),
        (nn.ReLU(), ("x",), "all of them tensors"),
    ],
)
def test_inputs_that_cannot_be_traced(
    module: nn.Module, inputs: tuple[Tensor, ...], text: str
) -> None:
    with pytest.raises(TraceError, match=text):
        trace(module, inputs, name="bad")


def test_a_frozen_batch_is_traced_for_that_batch() -> None:
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, 2, 3).transpose(1, 2) * 2

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 3, 2)

    counted = trace(Counted(), (torch.zeros(1, 6),), name="counted")
    equal_for_batches(counted, Counted(), 6, batches=(1,))
    graph = trace(Frozen(), (torch.zeros(1, 6),), name="frozen")
    equal_for_batches(graph, Frozen(), 6, batches=(1,))
    assert not counted.batched
    assert execute(graph, torch.zeros(3, 6)).shape == (3, 3, 2)


def test_random_output_is_refused() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(4)

    with pytest.raises(UnmappedError, match=r"aten.rand.default"):
        trace(Noise(), (torch.zeros(1, 4),), name="noise")
    with pytest.raises(VitruviusError, match="is the module's output random"):
        trace(Noise(), (torch.zeros(1, 4),), name="noise", unmapped="host")


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"product": x @ y.transpose(1, 2), "sum": x + y}

    graph = trace(Two(), (torch.zeros(1, 3, 4), torch.ones(1, 3, 4)), name="two")
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    product, total = execute_all(graph, x, y)
    torch.testing.assert_close(product, x @ y.mT)
    torch.testing.assert_close(total, x + y)
    assert graph.inputs == ("x", "y")


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = trace(module, (torch.zeros(1, 4),), name="sequential")
    assert module.training
    assert module[1].training
    assert kinds(graph) == ["Linear"]
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_decorated_forward_keeps_its_batch() -> None:
    def logged(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(function)
        def call(*args: object, **options: object) -> Tensor:
            return function(*args, **options)

        return call

    class Decorated(nn.Module):
        @logged
        def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
            return (x * scale).reshape(x.shape[0], 3, 2)

    class Loose(nn.Module):
        def forward(self, *parts: Tensor) -> Tensor:
            return torch.cat(parts, 1)

    graph = trace(Decorated(), (torch.zeros(1, 6),), name="decorated")
    equal_for_batches(graph, Decorated(), 6)
    loose = trace(Loose(), (torch.zeros(1, 2), torch.zeros(1, 3)), name="loose")
    assert execute(loose, torch.zeros(4, 2), torch.ones(4, 3)).shape == (4, 5)


def test_a_view_of_a_copied_parameter_is_folded() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.arange(12.0).reshape(2, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table.t().contiguous().view(3, 4)

    graph = trace(Table(), (torch.zeros(1, 3, 4),), name="table")
    equal_for_batches(graph, Table(), 3, 4)
    assert kinds(graph) == ["Constant", "Add"]


def test_a_weight_of_the_root_module_names_its_kind() -> None:
    """The operator of a bare nn.Linear is not called after its parameter."""
    graph = trace(nn.Linear(4, 3).eval(), (torch.rand(1, 4),), name="bare")
    assert [operator.name for operator in graph.operators()] == ["input", "linear", "output"]
