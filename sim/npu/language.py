"""A language model on an NPU over the length of its context: prefill, and decode token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...models.phases import PHASES, Phase, check_contexts, phase_graph
from ...models.zoo.language_config import LanguageConfig
from .report import NpuEstimate, estimate_npu
from .target import NpuTarget

__all__ = ["LanguagePoint", "LanguageReport", "language_report"]

_KEYS = "keys and values"


@dataclass(frozen=True)
class LanguagePoint:
    """One phase at one context length.

    tokens: that one run takes, all of the context in prefill, one in decode. weight_bytes,
    kv_bytes, dram_bytes: moved to or from DRAM in one run; cache_bytes, state_bytes: kept between
    tokens, in attentions and in other layers. dram_bytes_per_s: while it runs. bottleneck: the unit
    that is busy longest, and of DRAM the operand that takes most.
    """

    phase: Phase
    context: int
    tokens: int
    cycles: int
    latency_s: float
    tokens_per_s: float
    energy_j: float
    macs: int
    weight_bytes: int
    kv_bytes: int
    dram_bytes: int
    dram_bytes_per_s: float
    cache_bytes: int
    state_bytes: int
    peak_bytes: int
    fits: bool
    bottleneck: str
    estimate: NpuEstimate

    def record(self) -> dict[str, object]:
        """The point as plain values for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "estimate"}
        return plain | {"estimate": self.estimate.record()}


@dataclass(frozen=True)
class LanguageReport:
    """All points of one model on one NPU; limit_bytes: what it may take of memory, if known."""

    model: str
    target: str
    weight_bits: int
    weight_group: int
    activation_bits: int
    limit_bytes: int | None
    points: tuple[LanguagePoint, ...]

    def record(self) -> dict[str, object]:
        """The report as plain values for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "points"}
        return plain | {"points": [point.record() for point in self.points]}


def language_report(
    name: str,
    config: LanguageConfig,
    target: NpuTarget,
    contexts: Sequence[int],
    phases: Sequence[Phase] = PHASES,
) -> LanguageReport:
    """Every phase at every context length.

    Raises VitruviusError for a context that the model does not take.
    """
    check_contexts(contexts, config, name)
    points = [
        _point(name, config, target, phase, context) for phase in phases for context in contexts
    ]
    return LanguageReport(
        model=name,
        target=target.target,
        weight_bits=target.widths.weight,
        weight_group=target.widths.weight_group,
        activation_bits=target.widths.activation,
        limit_bytes=None if target.memory is None else target.memory.limit_mib << 20,
        points=tuple(points),
    )


def _point(
    name: str, config: LanguageConfig, target: NpuTarget, phase: Phase, context: int
) -> LanguagePoint:
    found = estimate_npu(phase_graph(config, phase, context, name), target)
    memory, traffic = found.memory_use, found.traffic_bytes
    assert memory is not None
    tokens = context if phase == "prefill" else 1
    moved = sum(traffic.values())
    return LanguagePoint(
        phase=phase,
        context=context,
        tokens=tokens,
        cycles=found.cycles,
        latency_s=found.latency_s,
        tokens_per_s=tokens / found.latency_s,
        energy_j=found.energy_j,
        macs=found.macs,
        weight_bytes=traffic.get("weights", 0),
        kv_bytes=traffic.get(_KEYS, 0),
        dram_bytes=moved,
        dram_bytes_per_s=moved / found.latency_s,
        cache_bytes=memory.kv_bytes,
        state_bytes=memory.state_bytes,
        peak_bytes=memory.peak_bytes,
        fits=memory.fits,
        bottleneck=_bottleneck(found),
        estimate=found,
    )


def _bottleneck(found: NpuEstimate) -> str:
    unit = max(found.busy, key=lambda name: found.busy[name])
    if unit != "DRAM":
        return unit
    return f"DRAM: {max(found.traffic_bytes, key=lambda name: found.traffic_bytes[name])}"
