"""Routing of tokens: its kinds, the gate raised from a top-k, mixtures of experts as regions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitruvius.models.evaluate import evaluate_kind
from vitruvius.models.graph import Graph, execute, violations
from vitruvius.models.mixture import find_mixtures, no_mixture, routed_macs
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.layers import MixtureOfExperts, Mlp
from vitruvius.models.zoo.vit import Experts, VisionTransformer, VisionTransformerConfig

TOKENS, DIM, COUNT, TOP = 5, 8, 4, 2


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.operators()]


def equal_on_batches(graph: Graph, module: nn.Module, shape: tuple[int, ...]) -> None:
    for batch in (1, 3):
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(execute(graph, x), module(x), rtol=0, atol=1e-5)


class Layer(nn.Module):
    """The zoo's layer with a norm before it and the residual around it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.norm = nn.LayerNorm(DIM)
        self.moe = MixtureOfExperts(
            DIM, 2 * DIM, Experts(count=COUNT, top_k=TOP, hidden_ratio=2), "gelu"
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.moe(self.norm(x))


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Graph]:
    module = Layer().eval()
    return module, trace(module, (torch.zeros(1, TOKENS, DIM),), name="layer")


def test_the_layer_is_one_region_with_its_operators_by_name(traced) -> None:
    module, graph = traced
    (region,) = graph.mixtures
    assert region.source == "norm"
    assert region.gate == "moe.gate"
    assert region.experts == tuple(
        (f"moe.experts.{e}.fc1", f"moe.experts.{e}.act", f"moe.experts.{e}.fc2")
        for e in range(COUNT)
    )
    assert (region.tokens, region.k) == (TOKENS, TOP)
    route = graph.operator(region.route)
    assert (route.kind, route.attributes) == ("Gate", {"k": TOP})
    assert route.path == "moe"
    # the sum goes into the residual addition and nowhere else
    assert [op.name for op in graph.consumers(region.combine)] == ["add"]
    assert not {"TopK", "Scatter"} & set(kinds(graph))
    assert graph.unmapped == ()
    equal_on_batches(graph, module, (TOKENS, DIM))


def test_each_expert_stands_at_the_place_of_its_weight(traced) -> None:
    """The sum is that of weight e times the output of expert e of the region."""
    _, graph = traced
    (region,) = graph.mixtures
    x = torch.randn(1, TOKENS, DIM, generator=torch.Generator().manual_seed(9))
    seen: dict[str, Tensor] = {}
    execute(graph, x, observe=lambda op, value: seen.update({op.name: value}))
    weights = seen[region.route]
    assert ((weights != 0).sum(-1) == TOP).all()
    parts = [weights[..., e : e + 1] * seen[last] for e, (_, _, last) in enumerate(region.experts)]
    torch.testing.assert_close(seen[region.combine], torch.stack(parts).sum(0))


def test_counts_are_those_of_torch_and_only_the_chosen_experts_when_routed(traced) -> None:
    module, graph = traced
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, TOKENS, DIM))
    assert 2 * sum(op.macs for op in graph.operators()) == counter.get_total_flops()
    expert = TOKENS * 2 * DIM * 2 * DIM
    assert routed_macs(graph) == TOKENS * DIM * COUNT + TOP * expert


def test_m3vit_tiny_is_the_published_configuration() -> None:
    """Edge-MoE's: 0.783 GMAC with 2 of 16 experts, output 129 x 192 tokens."""
    entry = ZOO["m3vit_tiny"]
    module = entry.build()
    # one layer of each kind has every shape; twelve layers are six times two
    two = VisionTransformer(entry.config.model_copy(update={"depth": 2}))
    graph = trace(two, entry.example_inputs(), name="m3vit")
    embed = 128 * 768 * 192
    attention = 4 * 129 * 192 * 192 + 2 * 129 * 129 * 192
    assert routed_macs(graph) == embed + 2 * attention + 2 * 129 * 2 * 192 * 768 + 129 * 192 * 16
    assert round((embed + 6 * (routed_macs(graph) - embed)) / 1e9, 3) == 0.783
    assert graph.operator(graph.outputs[0]).output.shape == (1, 129, 192)
    (region,) = graph.mixtures
    assert (len(region.experts), region.k, region.tokens) == (16, 2, 129)
    assert graph.operator(region.experts[0][0]).output.shape[-1] == 384
    assert [type(block.mlp) for block in module.blocks] == [Mlp, MixtureOfExperts] * 6
    assert {module_.eps for module_ in module.modules() if isinstance(module_, nn.LayerNorm)} == {
        1e-6
    }
    assert isinstance(module.norm, nn.Identity)
    assert len(module.blocks[1].mlp.gates) == 2
    assert module.blocks[1].mlp.gates[0].bias is None


def test_the_task_fixes_the_gate_that_is_traced() -> None:
    config = VisionTransformerConfig(
        image_size=8,
        patch_size=4,
        dim=DIM,
        depth=2,
        heads=2,
        classes=0,
        experts=Experts(count=3, top_k=1, hidden_ratio=1, tasks=2),
    )
    module = VisionTransformer(config)
    for task in (0, 1):
        module.task = task
        graph = trace(module, (torch.zeros(1, 3, 8, 8),), name="tasks")
        assert [region.gate for region in graph.mixtures] == [f"blocks.1.mlp.gates.{task}"]
        equal_on_batches(graph, module, (3, 8, 8))


def test_a_gate_keeps_the_largest_and_the_lower_index_of_equal_ones() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.4, 0.1], [0.2, 0.2, 0.2, 0.4], [0.0, -1.0, -2.0, -0.5]])
    kept = evaluate_kind("Gate", [scores], {}, {"k": 2})
    expected = [[0.0, 0.4, 0.4, 0.0], [0.2, 0.0, 0.0, 0.4], [0.0, 0.0, 0.0, -0.5]]
    assert kept.tolist() == torch.tensor(expected).tolist()
    kept = evaluate_kind("Gate", [scores], {}, {"k": 1})
    assert (kept != 0).nonzero().tolist() == [[0, 1], [1, 3]]


class Renormalised(Layer):
    """The chosen weights divided by their sum: no Gate, the parts as they are."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        top = top / top.sum(-1, keepdim=True)
        routing = torch.zeros(*y.shape[:-1], COUNT).scatter(-1, index, top)
        for place, expert in enumerate(self.moe.experts):
            x = x + routing[..., place].unsqueeze(-1) * expert(y)
        return x


class Collected(Layer):
    """Tokens in one row, results collected by index_add under a mask, in place."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).flatten(0, 1)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        out = torch.zeros_like(y)
        for place, expert in enumerate(self.moe.experts):
            weight = (top * (index == place)).sum(-1, keepdim=True)
            out += weight * expert(y)
        return x + out.view_as(x)


class OneHot(Layer):
    """The chosen expert as a one-hot matrix, as Switch writes it (k = 1)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        weights = self.moe.gate(y).softmax(-1)
        chosen = nn.functional.one_hot(weights.topk(1, dim=-1).indices.squeeze(-1), COUNT)
        routing = weights * chosen
        for place, expert in enumerate(self.moe.experts):
            x = x + routing[..., place, None] * expert(y)
        return x


class Added(Layer):
    """scatter_add_ into zeros: the same as a scatter, because the indices differ."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        routing = torch.zeros(*y.shape[:-1], COUNT).scatter_add_(-1, index, top)
        parts = [
            w[..., None] * e(y) for w, e in zip(routing.unbind(-1), self.moe.experts, strict=True)
        ]
        return x + ((parts[3] + parts[0]) + (parts[2] + parts[1]))


@pytest.mark.parametrize(
    ("form", "present", "regions"),
    [
        (Renormalised, {"TopK", "Scatter", "Softmax"}, 0),
        (Collected, {"TopK", "Softmax"}, 0),
        (OneHot, {"TopK", "Scatter", "Softmax"}, 0),
        (Added, {"Gate", "Softmax"}, 1),
    ],
)
def test_other_ways_to_write_a_mixture_keep_their_operators(
    form: type[Layer], present: set[str], regions: int
) -> None:
    module = form().eval()
    graph = trace(module, (torch.zeros(1, TOKENS, DIM),), name=form.__name__)
    assert present <= set(kinds(graph))
    assert graph.unmapped == ()
    assert len(graph.mixtures) == regions
    equal_on_batches(graph, module, (TOKENS, DIM))


def test_regions_do_not_depend_on_the_order_of_the_sum() -> None:
    """Added sums its experts as (3 + 0) + (2 + 1); the region has them as 0, 1, 2, 3."""
    graph = trace(Added().eval(), (torch.zeros(1, TOKENS, DIM),), name="added")
    (region,) = graph.mixtures
    assert [expert[0] for expert in region.experts] == [f"moe.experts.{e}.fc1" for e in range(4)]


class Shared(Layer):
    """One expert reads something else than the gate."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        routing = torch.zeros_like(self.moe.gate(y)).scatter(-1, index, top)
        out = routing[..., 0:1] * self.moe.experts[0](x)
        for place in range(1, COUNT):
            out = out + routing[..., place : place + 1] * self.moe.experts[place](y)
        return out


class LeftOut(Layer):
    """The last expert is never used."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        routing = torch.zeros_like(self.moe.gate(y)).scatter(-1, index, top)
        out = routing[..., 0:1] * self.moe.experts[0](y)
        for place in range(1, COUNT - 1):
            out = out + routing[..., place : place + 1] * self.moe.experts[place](y)
        return out


class Deeper(Layer):
    """One expert has a layer more."""

    def __init__(self) -> None:
        super().__init__()
        self.moe.experts[2] = nn.Sequential(self.moe.experts[2], nn.GELU(), nn.Linear(DIM, DIM))


class Alone(Layer):
    """A single expert, which every token goes to."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y)[..., :1].softmax(-1).topk(1, dim=-1)
        routing = torch.zeros_like(y[..., :1]).scatter(-1, index, top)
        return x + routing * self.moe.experts[0](y)


class Scored(Layer):
    """The gate's scores come from an activation."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).relu().softmax(-1).topk(TOP, dim=-1)
        routing = torch.zeros_like(self.moe.gate(y)).scatter(-1, index, top)
        for place, expert in enumerate(self.moe.experts):
            x = x + routing[..., place : place + 1] * expert(y)
        return x


class Squared(Layer):
    """A result that is no sum of the experts' outputs alone."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        top, index = self.moe.gate(y).softmax(-1).topk(TOP, dim=-1)
        routing = torch.zeros_like(self.moe.gate(y)).scatter(-1, index, top)
        for place, expert in enumerate(self.moe.experts):
            x = x + (routing[..., place : place + 1] * expert(y)) ** 2
        return x


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Shared, "expected of expert 0, which ends in 'moe.experts.0.fc2', a Linear that reads"),
        (LeftOut, "the weight of expert 3 scales no output"),
        (Deeper, "expected of expert 2, which ends in 'moe.experts.2.2', a Linear that reads"),
        (Alone, "one expert leaves nothing to choose"),
        (Scored, "'relu' is Relu, expected a Linear that gives the scores"),
        (Squared, "the outputs of its experts are not added up, each of them once"),
    ],
)
def test_what_only_resembles_a_mixture_is_none_and_says_why(form: type[Layer], reason: str) -> None:
    graph = trace(form().eval(), (torch.zeros(1, TOKENS, DIM),), name=form.__name__)
    (gate,) = (op for op in graph.operators() if op.kind == "Gate")
    assert graph.mixtures == ()
    assert no_mixture(graph, gate).startswith(reason)


def test_experts_of_unequal_widths_are_a_mixture() -> None:
    module = Layer().eval()
    module.moe.experts[1] = Mlp(DIM, 3, nn.GELU())
    graph = trace(module, (torch.zeros(1, TOKENS, DIM),), name="unequal")
    (region,) = graph.mixtures
    widths = [graph.operator(first).output.shape[-1] for first, _, _ in region.experts]
    assert widths == [2 * DIM, 3, 2 * DIM, 2 * DIM]
    assert no_mixture(graph, graph.operator(region.route)) == ""
    equal_on_batches(graph, module, (TOKENS, DIM))


class TokenSelection(nn.Module):
    """The patches that the class token attends to most, in order (Liang et al. 2022, EViT)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        share = (q @ k.transpose(-2, -1) * DIM**-0.5).softmax(-1)
        x = x + share @ v
        kept = share[:, 0, 1:].topk(3, dim=1).indices
        index = kept.unsqueeze(-1).expand(-1, -1, DIM)
        return torch.cat([x[:, :1], torch.gather(x[:, 1:], dim=1, index=index)], dim=1)


def test_token_selection_is_a_top_k_and_a_gather() -> None:
    module = TokenSelection().eval()
    graph = trace(module, (torch.zeros(1, 10, DIM),), name="evit")
    selected = {op.kind: op for op in graph.operators() if op.kind in ("TopK", "Gather")}
    assert selected["TopK"].attributes == {"k": 3, "dim": -1, "result": "indices"}
    assert selected["TopK"].output.dtype == "int64"
    assert selected["Gather"].attributes == {"dim": 1}
    assert selected["Gather"].output.shape == (1, 3, DIM)
    assert graph.unmapped == ()
    equal_on_batches(graph, module, (10, DIM))


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values, order = x.sort(dim=-1, descending=True)
        back = x.gather(-1, x.argsort(dim=-1, descending=True))
        return torch.cat([values, back, x.scatter(-1, order[..., :2], 7.0)], dim=1)


def test_descending_orders_and_numbers_at_indices() -> None:
    module = Sorted().eval()
    graph = trace(module, (torch.zeros(1, TOKENS, DIM),), name="sorted")
    assert graph.unmapped == ()
    equal_on_batches(graph, module, (TOKENS, DIM))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda x: x.topk(2, dim=-1, largest=False).values, "the smallest values have no rule"),
        (lambda x: x.sort(dim=-1).values, "an ascending order has no rule"),
        (lambda x: x.topk(1, dim=0).values, "it goes along the batch"),
        (
            lambda x: torch.ones_like(x).scatter_add(-1, x.topk(2, dim=-1).indices, x),
            "adding at indices has a rule only into zeros",
        ),
    ],
    ids=["smallest", "ascending", "batch", "scatter_add"],
)
def test_what_has_no_rule_says_why(forward, reason: str) -> None:
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    graph = trace(Module(), (torch.zeros(1, TOKENS, DIM),), name="none", unmapped="host")
    assert any(reason in item.reason for item in graph.unmapped), graph.unmapped


def changed(graph: Graph, **fields: object) -> list[str]:
    """What is wrong once the region's fields are replaced."""
    (region,) = graph.mixtures
    other = Graph(
        graph.name,
        graph.operators(),
        graph.tensors,
        regions=graph.regions,
        mixtures=[replace(region, **fields)],
    )
    return violations(other)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"gate": "nowhere"}, "mixtures: mixture nowhere: unknown operators nowhere"),
        ({"route": "moe.softmax"}, "mixture moe.gate: kinds Linear, Softmax, Softmax, Add"),
        ({"combine": "moe.experts.0.fc1"}, "kinds Linear, Softmax, Gate, Linear"),
        ({"k": 3}, "3 experts per token, operator 2"),
        ({"tokens": 6}, "6 tokens, operator (1, 5, 4)"),
        ({"source": "x"}, "its operators do not follow each other"),
        ({"experts": ()}, "0 experts, 4 weights"),
    ],
)
def test_broken_regions_are_found(traced, fields: dict[str, object], text: str) -> None:
    _, graph = traced
    assert violations(graph) == []
    assert any(text in line for line in changed(graph, **fields)), changed(graph, **fields)


def test_experts_out_of_step_are_found(traced) -> None:
    _, graph = traced
    (region,) = graph.mixtures
    first, second, *rest = region.experts
    crossed = ((first[0], second[1], first[2]), second, *rest)
    assert any(
        "the operators of expert moe.experts.0.fc1 do not follow" in line
        for line in changed(graph, experts=crossed)
    )


def test_finding_changes_no_graph_without_gates(traced) -> None:
    graph = trace(nn.Linear(3, 2), (torch.zeros(1, 3),), name="plain")
    assert find_mixtures(graph) is graph
    assert routed_macs(graph) == 6
