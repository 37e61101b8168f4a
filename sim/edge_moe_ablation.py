"""Edge-MoE's published ablation beside the simulator's: a step for each technique taken away.

Nothing is fitted: `unknowns` says which value the published saving of a technique would need where
the model had to assume one, and no step uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import VitruviusError
from ..models.zoo.config import VisionTransformerConfig
from .edge_moe import EdgeMoEReport, key_steps, simulate_edge_moe
from .edge_moe_architecture import EdgeMoE, Routing, Techniques

__all__ = ["STEPS", "Comparison", "Step", "Unknown", "ablation", "unknowns"]


@dataclass(frozen=True)
class Step:
    """A row of the published table: what was added last, all that the design has, milliseconds."""

    added: str
    techniques: Techniques
    published_ms: float


_NONE = Techniques(
    attention_order=False,
    unified_linear=False,
    table_gelu=False,
    single_pass_softmax=False,
    expert_order=False,
)
_EXPERTS = replace(_NONE, expert_order=True)
_SOFTMAX = replace(_EXPERTS, single_pass_softmax=True)
_GELU = replace(_SOFTMAX, table_gelu=True)
_UNIFIED = replace(_GELU, unified_linear=True)

STEPS: tuple[Step, ...] = (
    Step("baseline, none of the techniques", _NONE, 650.3),
    Step("expert-by-expert order", _EXPERTS, 433.4),
    Step("single-pass softmax", _SOFTMAX, 353.4),
    Step("GELU table", _GELU, 212.9),
    Step("unified linear unit", _UNIFIED, 104.3),
    Step("attention order", Techniques(), 34.64),
)
"""The ablation of M3ViT-Tiny on a ZCU102 (arXiv 2305.18691, table V), as a survey quotes it."""


@dataclass(frozen=True)
class Comparison:
    """One step: published and simulated latency, and what the step saved on the one before it."""

    step: Step
    report: EdgeMoEReport
    published_saving_ms: float | None
    saving_ms: float | None

    @property
    def latency_ms(self) -> float:
        """Of the simulated step."""
        return self.report.latency_s * 1e3

    @property
    def deviation(self) -> float:
        """Simulated over published latency, less one."""
        return self.latency_ms / self.step.published_ms - 1


def ablation(
    config: VisionTransformerConfig,
    arch: EdgeMoE | None = None,
    routing: Routing | None = None,
) -> tuple[Comparison, ...]:
    """Every step of `STEPS` for a model; the published column is M3ViT-Tiny's."""
    found: list[Comparison] = []
    for step in STEPS:
        report = simulate_edge_moe(config, arch, step.techniques, routing)
        before = found[-1] if found else None
        found.append(
            Comparison(
                step=step,
                report=report,
                published_saving_ms=before.step.published_ms - step.published_ms
                if before
                else None,
                saving_ms=before.latency_ms - report.latency_s * 1e3 if before else None,
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Unknown:
    """What decides a step: the value that the model assumes, and the one that the published saving
    would need.
    """

    added: str
    text: str
    assumed: float
    implied: float


def unknowns(
    config: VisionTransformerConfig, arch: EdgeMoE | None = None, routing: Routing | None = None
) -> tuple[Unknown, ...]:
    """The unknown of each step of `STEPS` after the first, in their order.

    Raises VitruviusError for a model without experts: the published steps have them.
    """
    if config.experts is None:
        raise VitruviusError("Edge-MoE's ablation is of a model with experts; this one has none")
    arch = arch or EdgeMoE()
    steps = {one.step.added: one for one in ablation(config, arch, routing)}
    clock = arch.clock_hz / 1e3

    def needed(added: str) -> float:
        return (steps[added].published_saving_ms or 0.0) * clock

    tokens, layers = config.tokens, config.depth
    mixtures = sum(config.holds_experts(layer) for layer in range(layers))
    runs = mixtures * config.experts.top_k * tokens
    beats = arch.weight_beats(config.dim) * config.expert_hidden
    beats += arch.weight_beats(config.expert_hidden) * config.dim
    values = (layers - mixtures) * tokens * config.hidden + runs * config.expert_hidden
    scores = layers * config.heads * tokens**2
    token = arch.feature_beats(config.dim) * arch.beat_cycles
    attention = 2 * layers * key_steps(tokens, arch.query_slots) * token
    evaluation = float(arch.exponential_depth + arch.reciprocal_depth)

    def saved_by_sharing(users: int) -> float:
        split = simulate_edge_moe(config, replace(arch, linear_users=users), _GELU, routing)
        return split.cycles - steps["unified linear unit"].report.cycles

    return (
        Unknown(
            "expert-by-expert order",
            "cycles of a beat of weights when each token loads its own experts",
            float(arch.beat_cycles),
            needed("expert-by-expert order") / (runs * beats),
        ),
        Unknown(
            "single-pass softmax",
            "cycles that a score adds without it",
            evaluation,
            needed("single-pass softmax") / scores,
        ),
        Unknown(
            "GELU table", "cycles that a GELU adds without it", evaluation,
            needed("GELU table") / values,
        ),
        Unknown(
            "unified linear unit",
            f"what part of the {arch.tile_inputs * arch.tile_outputs} multipliers a layer has "
            "without it: one in",
            float(arch.linear_users),
            _nearest(saved_by_sharing, needed("unified linear unit")),
        ),
        Unknown(
            "attention order",
            "cycles of a query and a key without it",
            float(token),
            (needed("attention order") + attention) / (2 * layers * tokens**2),
        ),
    )  # fmt: skip


def _nearest(saving: Callable[[int], float], target: float) -> float:
    """The whole number below 1000 whose saving, which grows with it, comes nearest."""
    low, high = 1, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if saving(middle) < target else (low, middle)
    return float(min((low, high), key=lambda users: abs(saving(users) - target)))
