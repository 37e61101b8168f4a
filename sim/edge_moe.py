"""Cycles of a Vision Transformer on Edge-MoE's architecture, phase by phase.

A latency is the sum of its phases; a phase lasts as long as the slowest of its concurrent
processes: a stream over a memory port, the arithmetic, or the pipeline's depth where it drains for
each token. With ``w`` the cycles of a beat of 256 bits on a port::

    key steps S  = ceil(N / P) N + (N - 1) mod P
    QK, AV       = S beats(D) w
    linear       = tokens ceil(out / 16) ceil(in / 16)
    weights      = out beats(in) w

A model's sizes come from its configuration; a classification head is not part of the design.
`sim.edge_moe_architecture` has the parameters and their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ..errors import VitruviusError
from ..models.zoo.config import VisionTransformerConfig
from .edge_moe_architecture import (
    STRUCTURE,
    Assumption,
    EdgeMoE,
    Routing,
    Techniques,
    default_routing,
)

__all__ = [
    "EdgeMoEReport",
    "Phase",
    "attention_cycles",
    "expert_cycles",
    "key_steps",
    "linear_cycles",
    "patch_embed_cycles",
    "simulate_edge_moe",
    "weight_cycles",
]


# Cycles of streams and products, without fill


def key_steps(tokens: int, slots: int) -> int:
    """Steps in which ``slots`` queries, each a step behind the one before, meet all keys.

    >>> key_steps(129, 4)
    4257
    """
    return ceil(tokens / slots) * tokens + (tokens - 1) % slots


def attention_cycles(
    arch: EdgeMoE, tokens: int, features: int, techniques: Techniques | None = None
) -> int:
    """QK or AV of all heads: every step brings one token of K or V over its port.

    >>> attention_cycles(EdgeMoE(port_bits=256), 129, 192)
    102168
    """
    techniques = techniques or Techniques()
    slots = arch.query_slots if techniques.attention_order else 1
    return key_steps(tokens, slots) * arch.feature_beats(features) * arch.beat_cycles


def linear_cycles(
    arch: EdgeMoE, inputs: int, outputs: int, tokens: int, techniques: Techniques | None = None
) -> int:
    """Products of a linear layer, one tile a cycle.

    >>> linear_cycles(EdgeMoE(), 192, 192, 129), linear_cycles(EdgeMoE(), 192, 768, 129)
    (18576, 74304)
    """
    techniques = techniques or Techniques()
    share = 1 if techniques.unified_linear else arch.linear_users
    return tokens * ceil(outputs / arch.tile_outputs) * ceil(inputs / arch.tile_inputs) * share


def weight_cycles(arch: EdgeMoE, inputs: int, outputs: int) -> int:
    """Weights of a linear layer over their port.

    >>> weight_cycles(EdgeMoE(port_bits=256), 192, 768), weight_cycles(EdgeMoE(), 192, 384)
    (9216, 9216)
    """
    return outputs * arch.weight_beats(inputs) * arch.beat_cycles


def patch_embed_cycles(arch: EdgeMoE, config: VisionTransformerConfig) -> int:
    """Steps of the patch embedding, the pixels of a beat by 8 features each.

    >>> patch_embed_cycles(EdgeMoE(), VisionTransformerConfig(image_size=(128, 256), dim=192))
    73728
    """
    rows, columns = config.grid
    pixels = ceil(columns * config.patch_size * arch.pixel_bits / arch.beat_bits)
    features = ceil(config.dim / arch.patch_features)
    return rows * config.channels * config.patch_size * pixels * features


# Phases


@dataclass(frozen=True)
class Phase:
    """A kind of phase: how often an image has it, the cycles of all of them together, what bounds
    it, and how the cycles are found.
    """

    name: str
    count: int
    cycles: float
    bound: str
    source: str


@dataclass(frozen=True)
class EdgeMoEReport:
    """One image on the architecture. traffic_bytes: read from memory in an image."""

    arch: EdgeMoE
    techniques: Techniques
    phases: tuple[Phase, ...]
    assumptions: tuple[Assumption, ...]
    traffic_bytes: dict[str, float]

    @property
    def cycles(self) -> float:
        """Of all phases."""
        return sum(phase.cycles for phase in self.phases)

    @property
    def latency_s(self) -> float:
        """Of one image."""
        return self.cycles / self.arch.clock_hz


def simulate_edge_moe(
    config: VisionTransformerConfig,
    arch: EdgeMoE | None = None,
    techniques: Techniques | None = None,
    routing: Routing | None = None,
) -> EdgeMoEReport:
    """Every phase of one image of a model with ``config``.

    ``routing``: by default the measured queues where they fit the model, otherwise equal ones.

    Raises VitruviusError where a routing's queues do not hold every token ``top_k`` times.
    """
    arch, techniques = arch or EdgeMoE(), techniques or Techniques()
    routing = routing or default_routing(config)
    _check_routing(config, routing)
    return EdgeMoEReport(
        arch=arch,
        techniques=techniques,
        phases=tuple(phase for phase in _phases(config, arch, techniques, routing) if phase.count),
        assumptions=(
            *arch.assumptions(),
            *STRUCTURE,
            Assumption("experts with a token, mean", f"{routing.used:g}", routing.source),
        ),
        traffic_bytes=_traffic(config, arch, techniques, routing),
    )


def _check_routing(config: VisionTransformerConfig, routing: Routing) -> None:
    experts = config.experts
    count, total = (experts.count, experts.top_k * config.tokens) if experts else (0, 0)
    for lengths in routing.queues:
        if (
            len(lengths) != count
            or sum(lengths) != total
            or max(lengths, default=0) > config.tokens
        ):
            raise VitruviusError(
                f"Edge-MoE: expected {count} queues that hold {total} tokens, at most "
                f"{config.tokens} each, got {list(lengths)}"
            )


def _phases(
    config: VisionTransformerConfig, arch: EdgeMoE, techniques: Techniques, routing: Routing
) -> list[Phase]:
    depth, tokens, dim = config.depth, config.tokens, config.dim
    mixtures = sum(config.holds_experts(layer) for layer in range(depth))
    dense = depth - mixtures
    beat, width = arch.beat_cycles, arch.feature_beats(dim)
    matrix = tokens * width * beat
    request = arch.memory_latency + arch.stream_depth

    last_row = config.grid[1] * width * beat
    patches = patch_embed_cycles(arch, config) * arch.patch_interval
    embed = patches + request + arch.patch_depth + last_row
    norm_parameters = 4 * (arch.weight_beats(dim) * beat + request)
    read = (width - 1) * beat + arch.norm_read_depth
    write = (width - 1) * beat + arch.norm_write_depth
    norm = read + tokens * max(read, write)
    add = matrix + arch.add_depth
    square, square_bound = _linear(arch, dim, dim, tokens, techniques)
    first, first_bound = _linear(arch, dim, config.hidden, tokens, techniques)
    second, _ = _linear(arch, config.hidden, dim, tokens, techniques)
    scores, scores_bound = _scores(arch, config, techniques)
    apply = attention_cycles(arch, tokens, dim, techniques) + arch.key_depth + arch.apply_depth
    apply += arch.memory_latency
    return [
        Phase("patch embedding", 1, embed, "products", "steps x interval of the log; last row out"),
        Phase("load of LayerNorm's parameters", depth, depth * norm_parameters, "memory latency",
              "4 bursts"),
        Phase("LayerNorm", 2 * depth, 2 * depth * norm, "depth of the pipeline, each token",
              "per token: beats x w + depth of the log"),
        Phase("weights of Q, K, V, projection", 4 * depth,
              4 * depth * _load(arch, dim, dim), "port", "beats x w + latency"),
        Phase("Q, K, V, projection", 4 * depth, 4 * depth * square, square_bound,
              "one 16 x 16 tile a cycle"),
        Phase("QK and softmax statistics", depth, depth * scores, scores_bound, "S x beats x w"),
        Phase("softmax in three passes", 0 if techniques.single_pass_softmax else depth,
              depth * _three_passes(arch, config), "exponential and reciprocal",
              "scores x depths of the log; 3 reads"),
        Phase("AV", depth, depth * apply, "port of V", "S x beats x w"),
        Phase("residual", 2 * depth, 2 * depth * add, "port", "beats x w + depth"),
        Phase("weights of the dense MLP", 2 * dense,
              dense * (_load(arch, dim, config.hidden) + _load(arch, config.hidden, dim)), "port",
              "beats x w + latency"),
        Phase("dense MLP", 2 * dense, dense * (first + second), first_bound,
              "one 16 x 16 tile a cycle"),
        Phase("GELU of the dense MLP", 0 if techniques.table_gelu else dense,
              dense * _gelu(arch, techniques, tokens * config.hidden),
              "exponential and reciprocal", "values x depths of the log"),
        Phase("gate", mixtures, mixtures * _gate(arch, config), "depth of the pipeline, each token",
              "products, softmax, choice, score in turn"),
        Phase("clearing of the experts' sum", mixtures, mixtures * (matrix + request), "port",
              "beats x w"),
        *_mixture(config, arch, techniques, routing, mixtures),
    ]  # fmt: skip


def _load(arch: EdgeMoE, inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer, requests included."""
    biases = arch.weight_beats(outputs) * arch.beat_cycles
    fill = 2 * arch.memory_latency + arch.weight_depth + arch.stream_depth
    return weight_cycles(arch, inputs, outputs) + biases + fill


def _linear(
    arch: EdgeMoE,
    inputs: int,
    outputs: int,
    tokens: int,
    techniques: Techniques,
    *,
    fill: int | None = None,
) -> tuple[int, str]:
    """A linear layer's products, as long as the slowest of array, reader and writer, and which."""
    each = {
        "products": linear_cycles(arch, inputs, outputs, 1, techniques),
        "port of the inputs": arch.feature_beats(inputs) * arch.beat_cycles,
        "port of the outputs": arch.feature_beats(outputs) * arch.beat_cycles,
    }
    if fill is None:
        fill = 2 * arch.memory_latency + arch.stream_depth + arch.linear_depth + arch.write_depth
    bound = max(each, key=lambda name: each[name])
    return tokens * each[bound] + fill, bound


def _scores(
    arch: EdgeMoE, config: VisionTransformerConfig, techniques: Techniques
) -> tuple[int, str]:
    """QK: the stream of K, or the softmax statistics of one slot after another behind it."""
    slots = arch.query_slots if techniques.attention_order else 1
    steps = key_steps(config.tokens, slots)
    each = {
        "port of K": arch.feature_beats(config.dim) * arch.beat_cycles,
        "port of the scores": slots * _score_cycles(arch, config),
    }
    if techniques.single_pass_softmax:
        each["softmax statistics"] = slots * arch.softmax_interval
    bound = max(each, key=lambda name: each[name])
    fill = arch.key_depth + arch.score_depth + arch.softmax_depth + arch.memory_latency
    return steps * each[bound] + fill, bound


def _score_cycles(arch: EdgeMoE, config: VisionTransformerConfig) -> int:
    """Scores of one query and one key, all heads side by side in lanes of a multiple of 4."""
    return ceil(ceil(config.heads / 4) * 4 * arch.feature_bits / arch.port_bits)


def _evaluation(arch: EdgeMoE) -> int:
    return arch.exponential_depth + arch.reciprocal_depth


def _three_passes(arch: EdgeMoE, config: VisionTransformerConfig) -> int:
    pairs = config.tokens**2
    return pairs * (config.heads * _evaluation(arch) + 3 * _score_cycles(arch, config))


def _gelu(arch: EdgeMoE, techniques: Techniques, values: int) -> int:
    """Cycles that GELU adds to the products."""
    return 0 if techniques.table_gelu else values * _evaluation(arch)


def _gate(arch: EdgeMoE, config: VisionTransformerConfig) -> int:
    experts = config.experts.count if config.experts else 0
    width = arch.feature_beats(config.dim)
    products = width - 1 + arch.gate_depth
    softmax = (experts - 1) * arch.softmax_interval + arch.gate_softmax_depth
    choice = experts - 1 + arch.top_k_depth
    each = max(products + softmax + choice + _evaluation(arch), width * arch.beat_cycles)
    weights = experts * arch.weight_beats(config.dim) * arch.beat_cycles + arch.gate_load_depth
    return weights + arch.memory_latency + arch.stream_depth + config.tokens * each


def expert_cycles(
    arch: EdgeMoE,
    dim: int,
    hidden: int,
    lengths: tuple[int, ...],
    techniques: Techniques | None = None,
) -> tuple[int, str]:
    """All experts of one layer, ``lengths`` tokens in their queues, and what bounds them.

    In order, the first half of an expert computes while its second half loads, the second while
    the next expert's first half does.
    """
    techniques = techniques or Techniques()
    fill = arch.gather_depth + arch.linear_depth + arch.scatter_depth
    loads = _load(arch, dim, hidden), _load(arch, hidden, dim)

    def halves(tokens: int) -> tuple[int, int]:
        first, _ = _linear(arch, dim, hidden, tokens, techniques, fill=fill)
        second, _ = _linear(arch, hidden, dim, tokens, techniques, fill=fill)
        return first + _gelu(arch, techniques, tokens * hidden), second

    if not techniques.expert_order:
        products = sum(lengths) * sum(halves(1))
        weights = sum(lengths) * sum(loads)
        return products + weights, "port of the weights" if weights > products else "products"
    used = [length for length in lengths if length]
    work = [halves(length) for length in used]
    total = loads[0] if used else 0
    for expert, (first, second) in enumerate(work):
        behind = loads[0] if expert + 1 < len(work) else 0
        total += max(first, loads[1]) + max(second, behind)
    products = sum(map(sum, work))
    return total, "port of the weights" if len(used) * sum(loads) > products else "products"


def _mixture(
    config: VisionTransformerConfig,
    arch: EdgeMoE,
    techniques: Techniques,
    routing: Routing,
    mixtures: int,
) -> list[Phase]:
    found = [
        expert_cycles(arch, config.dim, config.expert_hidden, lengths, techniques)
        for lengths in routing.queues
    ]
    mean = sum(cycles for cycles, _ in found) / len(found)
    how = (
        "per expert: the longer of products and next weights"
        if techniques.expert_order
        else "per token and expert: weights, then products"
    )
    return [Phase("experts, weights and products", mixtures, mixtures * mean, found[0][1], how)]


def _traffic(
    config: VisionTransformerConfig, arch: EdgeMoE, techniques: Techniques, routing: Routing
) -> dict[str, float]:
    """Bytes of K and V, and of the experts' weights."""
    mixtures = sum(config.holds_experts(layer) for layer in range(config.depth))
    slots = arch.query_slots if techniques.attention_order else 1
    token = config.dim * arch.feature_bits // 8
    expert = 2 * config.dim * config.expert_hidden * arch.weight_bits // 8
    runs = (
        routing.used
        if techniques.expert_order
        else sum(map(sum, routing.queues)) / len(routing.queues)
    )
    return {
        "K and V": 2 * config.depth * key_steps(config.tokens, slots) * token,
        "weights of experts": mixtures * runs * expert,
    }
