"""A language model on an NPU over the length of its context: prefill, and decode token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import VitruviusError
from ...models.phases import PHASES, Phase, check_contexts, piece_graph
from ...models.zoo.language_config import LanguageConfig
from .report import NpuEstimate, estimate_npu
from .target import NpuTarget

__all__ = ["LanguagePoint", "LanguageReport", "language_report"]

_KEYS = "keys and values"


@dataclass(frozen=True)
class LanguagePoint:
    """One phase at one context length.

    tokens: all of the context in prefill, in ``pieces`` runs one after the other; one in decode.
    weight_bytes, kv_bytes, dram_bytes: moved to or from DRAM in all runs; cache_bytes,
    state_bytes: kept between tokens, in attentions and in other layers. dram_bytes_per_s: while it
    runs. bottleneck: the unit that is busy longest, and of DRAM the operand that takes most.
    """

    phase: Phase
    context: int
    tokens: int
    pieces: int
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
    *,
    piece: int | None = None,
) -> LanguageReport:
    """Every phase at every context length; prefill in pieces of ``piece`` tokens, one after the
    other, or in one.

    Raises VitruviusError for a context that the model does not take, or a piece below 1.
    """
    check_contexts(contexts, config, name)
    if piece is not None and piece < 1:
        raise VitruviusError(f"{name}: expected pieces of at least 1 token, got {piece}")
    found: dict[tuple[int, int], NpuEstimate] = {}
    points = []
    for phase in phases:
        for context in contexts:
            runs = [(1, context)]
            if phase == "prefill":
                size = piece or context
                runs = [(min(size, context - past), past) for past in range(0, context, size)]
            for run in runs:
                if run not in found:
                    found[run] = estimate_npu(piece_graph(config, *run, name), target)
            bits = target.widths.activation
            kept = -(-config.kv_values_per_token * context * bits // 8)
            points.append(_point(phase, context, kept, [found[run] for run in runs]))
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
    phase: Phase, context: int, cache_bytes: int, runs: Sequence[NpuEstimate]
) -> LanguagePoint:
    """One phase that takes ``runs``, one after the other; several leave ``cache_bytes``."""
    memories = [run.memory_use for run in runs if run.memory_use is not None]
    traffic: Counter[str] = Counter()
    busy: dict[str, float] = {}
    for run in runs:
        traffic.update(run.traffic_bytes)
        for unit, share in run.busy.items():
            busy[unit] = busy.get(unit, 0.0) + share * run.cycles
    tokens = context if phase == "prefill" else 1
    latency_s = sum(run.latency_s for run in runs)
    moved = sum(traffic.values())
    fullest = max(range(len(runs)), key=lambda place: memories[place].peak_bytes)
    last = memories[-1]
    return LanguagePoint(
        phase=phase,
        context=context,
        tokens=tokens,
        pieces=len(runs),
        cycles=sum(run.cycles for run in runs),
        latency_s=latency_s,
        tokens_per_s=tokens / latency_s,
        energy_j=sum(run.energy_j for run in runs),
        macs=sum(run.macs for run in runs),
        weight_bytes=traffic["weights"],
        kv_bytes=traffic[_KEYS],
        dram_bytes=moved,
        dram_bytes_per_s=moved / latency_s,
        cache_bytes=last.kv_bytes if len(runs) == 1 else cache_bytes,
        state_bytes=last.state_bytes,
        peak_bytes=memories[fullest].peak_bytes,
        fits=all(memory.fits for memory in memories),
        bottleneck=_bottleneck(busy, traffic),
        estimate=runs[fullest],
    )


def _bottleneck(busy: Mapping[str, float], traffic: Mapping[str, int]) -> str:
    unit = max(busy, key=lambda name: busy[name])
    if unit != "DRAM":
        return unit
    return f"DRAM: {max(traffic, key=lambda name: traffic[name])}"
