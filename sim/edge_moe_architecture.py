"""Edge-MoE as an architecture: its parameters, its techniques, and how its tokens are routed.

Edge-MoE (Sarkar et al., ICCAD 2023, arXiv 2305.18691) runs one image at a time, phase after phase,
and every token matrix lies in external memory between two phases. `sim.edge_moe` has the cycles.

No constant is fitted to a latency: every parameter of `EdgeMoE` names its source, and `STRUCTURE`
lists what is taken for granted about the schedule. Sources:

- *paper*;
- *code*: facts read from the published design (schedule, formats, widths of ports);
- *log*: pipeline depths and initiation intervals that Vitis HLS 2022.1 reports for that design at
  3.33 ns on another UltraScale+ part (GitHub kabazoka/Edge-MoE, nohup.out, 12 December 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import ceil

from ..errors import VitruviusError
from ..models.zoo.config import VisionTransformerConfig

__all__ = [
    "MEASURED_ROUTING",
    "STRUCTURE",
    "Assumption",
    "EdgeMoE",
    "Routing",
    "Techniques",
    "balanced_routing",
    "default_routing",
]

_CODE = "code"
_LOG = "log"
_PAPER = "paper"


@dataclass(frozen=True)
class Assumption:
    """Something that the latency rests on, its value if it has one, and who says so."""

    text: str
    value: str
    source: str


def _given(value: int, text: str, source: str) -> int:
    """A field's default with what it means and where it is from."""
    found: int = field(default=value, metadata={"text": text, "source": source})
    return found


@dataclass(frozen=True, kw_only=True)
class EdgeMoE:
    """Parameters of the architecture; each field's metadata has its meaning and its source."""

    clock_hz: int = _given(300_000_000, "clock", _PAPER)
    port_bits: int = _given(128, "width of a port of the processing system", _CODE)
    beat_bits: int = _given(256, "width of a beat of the design's AXI masters", _CODE)
    feature_bits: int = _given(32, "activations, scores and sums", _CODE)
    weight_bits: int = _given(16, "weights and biases", _CODE)
    query_slots: int = _given(4, "queries at a time, P", _CODE)
    tile_inputs: int = _given(16, "inputs of the linear unit a cycle", _CODE)
    tile_outputs: int = _given(16, "outputs of the linear unit a cycle", _CODE)
    linear_users: int = _given(
        8, "Q, K, V, projection, fc1, fc2, expert 1, 2: share the unit", _CODE
    )
    patch_features: int = _given(8, "features of the patch embedding a cycle", _CODE)
    pixel_bits: int = _given(8, "pixels", _CODE)
    memory_latency: int = _given(64, "cycles from a request to its answer, told to HLS", _CODE)
    patch_interval: int = _given(3, "cycles of a step of the patch embedding", _LOG)
    patch_depth: int = _given(33, "depth of the patch embedding", _LOG)
    stream_depth: int = _given(3, "depth of a burst's reader", _LOG)
    norm_read_depth: int = _given(80, "depth of a token's statistics, its request included", _LOG)
    norm_write_depth: int = _given(154, "depth of a token's normalisation, write included", _LOG)
    add_depth: int = _given(142, "depth of the residual addition", _LOG)
    key_depth: int = _given(73, "depth of the reader of K or V", _LOG)
    score_depth: int = _given(15, "depth of QK", _LOG)
    softmax_interval: int = _given(3, "cycles of an update of a row's sum", _LOG)
    softmax_depth: int = _given(78, "depth of the softmax statistics", _LOG)
    apply_depth: int = _given(29, "depth of AV", _LOG)
    weight_depth: int = _given(5, "depth of the weight loader", _LOG)
    linear_depth: int = _given(16, "depth of the linear unit", _LOG)
    write_depth: int = _given(5, "depth of the linear unit's writer", _LOG)
    gather_depth: int = _given(79, "depth of the reader by token queue", _LOG)
    scatter_depth: int = _given(148, "depth of the writer that adds by token queue", _LOG)
    gate_load_depth: int = _given(75, "depth of the loader of the gate's weights", _LOG)
    gate_depth: int = _given(8, "depth of the gate's products", _LOG)
    gate_softmax_depth: int = _given(24, "depth of the gate's softmax", _LOG)
    top_k_depth: int = _given(2, "depth of the choice of experts", _LOG)
    exponential_depth: int = _given(19, "depth of the library's fixed-point exponential", _LOG)
    reciprocal_depth: int = _given(50, "depth of the library's fixed-point reciprocal", _LOG)

    def __post_init__(self) -> None:
        wrong = [
            f"{f.name} = {getattr(self, f.name)}" for f in fields(self) if _below_one(self, f.name)
        ]
        if wrong:
            raise VitruviusError(f"Edge-MoE: expected whole numbers from 1, got {', '.join(wrong)}")

    @property
    def beat_cycles(self) -> int:
        """Cycles of one beat on a port, w."""
        return ceil(self.beat_bits / self.port_bits)

    def feature_beats(self, features: int) -> int:
        """Beats of one token's features."""
        return ceil(features * self.feature_bits / self.beat_bits)

    def weight_beats(self, weights: int) -> int:
        """Beats of one row of weights."""
        return ceil(weights * self.weight_bits / self.beat_bits)

    def assumptions(self) -> list[Assumption]:
        """Every parameter with its source."""
        return [
            Assumption(f.metadata["text"], f"{getattr(self, f.name):,}", f.metadata["source"])
            for f in fields(self)
        ]


def _below_one(arch: EdgeMoE, name: str) -> bool:
    value = getattr(arch, name)
    return not isinstance(value, int) or value < 1


@dataclass(frozen=True, kw_only=True)
class Techniques:
    """Which of the paper's techniques the design has.

    attention_order: queries begin a step apart, so that one K token serves all slots; without, one
    query at a time meets all keys. unified_linear: one linear unit for all layers; without, each of
    ``linear_users`` has its share of the multipliers. table_gelu and single_pass_softmax: hidden
    behind products; without, exponential and reciprocal of the library, one value after another.
    expert_order: all tokens of an expert together, its weights loaded once and behind the products;
    without, each token loads its own experts.
    """

    attention_order: bool = True
    unified_linear: bool = True
    table_gelu: bool = True
    single_pass_softmax: bool = True
    expert_order: bool = True


STRUCTURE: tuple[Assumption, ...] = (
    Assumption(
        "phases run one after another, one image at a time; weights load before their products, "
        "except among experts",
        "",
        "code: a test for an early exit stands between every two calls but those",
    ),
    Assumption(
        "a port that is asked without pause delivers a beat in w cycles; ports do not slow one "
        "another",
        "",
        "ours: no measurement of one port found. All of the ZCU102's ports together reach 75 % of "
        "its memory's peak (Manev et al., FPT 2019), of which a stream of K asks for a quarter",
    ),
    Assumption(
        "K and V are read again for each batch of queries, from one port each",
        "",
        "code: nothing of them is kept on the chip",
    ),
    Assumption(
        "LayerNorm empties its pipeline after each token; the gate's four parts follow one another",
        "",
        "code: both are calls for each token",
    ),
    Assumption(
        "without the attention's order: N x N tokens of K, and of V, for any number of lanes",
        "",
        "paper: data load N^2 + N, bandwidth proportional to p; the port gives that of p = 1",
    ),
    Assumption(
        "without the unified unit: its multipliers, divided equally among its users",
        "",
        "code for the users; equal shares of the same device are ours",
    ),
    Assumption(
        "without the GELU table or the single-pass softmax: one evaluator each, an exponential "
        "and then a reciprocal, no value begins before the last has ended",
        "",
        "ours. The paper says that both would take over half of the LUTs, so one of each; had it "
        "been pipelined, it would hide behind the products and the paper could have saved nothing",
    ),
    Assumption(
        "without the single-pass softmax: three passes over the scores in memory (maximum, sum, "
        "division)",
        "",
        "the definition of softmax; scores of one key lie in 4 lanes (code)",
    ),
    Assumption(
        "without the order of experts: each token loads both halves of each of its experts, then "
        "computes",
        "",
        "paper for the order of tokens; one after the other as everywhere outside the expert loop "
        "(code)",
    ),
)


@dataclass(frozen=True)
class Routing:
    """Tokens in each expert's queue, in one or several observations whose mean is taken; the same
    in every layer with experts.
    """

    queues: tuple[tuple[int, ...], ...]
    source: str

    @property
    def used(self) -> float:
        """Mean number of experts with a token."""
        return sum(sum(length > 0 for length in one) for one in self.queues) / len(self.queues)


MEASURED_ROUTING = Routing(
    queues=(
        (0, 6, 0, 32, 0, 27, 15, 24, 22, 19, 0, 22, 11, 33, 32, 15),
        (0, 17, 0, 41, 1, 22, 16, 25, 2, 19, 0, 23, 16, 1, 51, 24),
    ),
    source="the published weights on the published image, first layer with experts, both tasks; "
    "the weights of the experts of later layers are not published",
)
"""Queues of M3ViT-Tiny with its 129 tokens."""


def balanced_routing(config: VisionTransformerConfig) -> Routing:
    """The same number of tokens for every expert, as nearly as it goes."""
    experts = config.experts
    if experts is None:
        return Routing(queues=((),), source="no experts")
    tokens = config.tokens * experts.top_k
    each, more = divmod(tokens, experts.count)
    lengths = tuple(each + (expert < more) for expert in range(experts.count))
    return Routing(queues=(lengths,), source="assumed: equal for all experts")


def default_routing(config: VisionTransformerConfig) -> Routing:
    """The measured queues where they fit the model, otherwise equal ones."""
    experts = config.experts
    lengths = MEASURED_ROUTING.queues[0]
    fits = experts is not None and (len(lengths), sum(lengths)) == (
        experts.count,
        experts.top_k * config.tokens,
    )
    return MEASURED_ROUTING if fits else balanced_routing(config)
