"""What a model costs on an NPU: cycles, stalls, utilisation, traffic and energy, operator by
operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from ...errors import VitruviusError
from ...fpga_targets.energy import EnergyTable
from ...models.graph import Graph
from ..estimate import Assumption, Estimate, OperatorCost
from ..systolic import ideal_cycles
from .cost import Cost, array_cost, behind_heads, cost_of
from .energy import npu_energy
from .gemm import GemmWork
from .memory import MemoryUse, memory_use
from .operators import Job, jobs_of
from .routing import routed
from .schedule import Schedule
from .target import NpuTarget, covering, leaves, load_npu
from .tiling import best_schedule

__all__ = ["GemmReport", "NpuEstimate", "OperatorDetail", "estimate_npu", "gemm_report"]

_FORMULA = (
    "formula: sim.npu.schedule, the array's folds as in SCALE-Sim with hidden loads",
    "formula: sim.npu.vector, operations by I-ViT",
    "formula: bytes over the slower of DRAM and activation buffer",
)


@dataclass(frozen=True)
class OperatorDetail:
    """What an NPU does for one operator, beyond what every backend tells.

    unit: what does the work. cycles are product_cycles (the unit works) plus stalls by cause.
    mapping_utilisation: useful products over what the cells could do while they stream, or useful
    lanes over all lanes; utilisation: useful products over what the array could do in all cycles.
    sram_bytes: read and written, by buffer; dram_bytes: by operand; energy_j: by action, static
    energy included. tiling: tile, loop order and dataflow; folds, tiles: how many; passes: of the
    array for one product.
    """

    name: str
    unit: str
    cycles: int
    product_cycles: int
    stalls: Mapping[str, int]
    mapping_utilisation: float
    utilisation: float
    sram_bytes: Mapping[str, tuple[int, int]]
    dram_bytes: Mapping[str, int]
    energy_j: Mapping[str, float]
    bottleneck: str
    vector_cycles: int = 0
    tiling: str = ""
    folds: int = 0
    tiles: int = 0
    passes: int = 1


@dataclass(frozen=True)
class NpuEstimate(Estimate):
    """The record of every backend, with the NPU's own details in ``npu``, one for each operator.

    ideal_cycles: every cell busy with a useful product in every cycle. busy: share of the cycles in
    which the array streams, the vector unit works, and DRAM moves bytes. sram_bytes: read and
    written, by buffer. activation_peak_bytes: most that the activation buffer held. memory_use:
    what lies in external memory.
    """

    npu: tuple[OperatorDetail, ...] = ()
    ideal_cycles: int = 0
    busy: Mapping[str, float] = field(default_factory=dict)
    sram_bytes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    activation_peak_bytes: int = 0
    memory_use: MemoryUse | None = None

    def record(self) -> dict[str, object]:
        """The estimate as plain values for JSON."""
        found = super().record()
        if self.memory_use is not None:
            whole = {"peak_bytes": self.memory_use.peak_bytes, "fits": self.memory_use.fits}
            found["memory_use"] = asdict(self.memory_use) | whole
        return found


@dataclass(frozen=True)
class GemmReport:
    """One product on one NPU. ideal_cycles, scalesim_cycles: the bounds around it when memory does
    not matter.
    """

    target: str
    M: int
    N: int
    K: int
    rows: int
    cols: int
    overlap: bool
    ideal_cycles: int
    scalesim_cycles: int
    clock_hz: float
    detail: OperatorDetail

    def record(self) -> dict[str, object]:
        """The report as plain values for JSON."""
        return asdict(self) | {"latency_s": self.detail.cycles / self.clock_hz}


def estimate_npu(graph: Graph, target: str | NpuTarget) -> NpuEstimate:
    """Cycles, traffic and energy of one image of ``graph`` on an NPU such as ``"npu:edge16"``.

    Operators run one after another; inside one, array, vector unit and DMA overlap. What the NPU
    cannot do is in ``unmapped`` with the reason, and costs nothing here but its traffic.

    Raises VitruviusError for an unknown target, or an operator that nothing accounts for.
    """
    npu = load_npu(target) if isinstance(target, str) else target
    graph = routed(graph)
    jobs, placement = jobs_of(graph, npu)
    energy = npu_energy(npu)
    schedules: dict[GemmWork, Schedule] = {}
    rows, details = [], []
    dones = {job.op.name: cost_of(job, npu, schedules) for job in jobs}
    if npu.vector.overlap_heads:
        for region in graph.regions:
            dones[region.softmax] = behind_heads(region, dones)
    for job in jobs:
        done = dones[job.op.name]
        detail = _detail(job.op.name, done, job.op.macs, npu, energy)
        details.append(detail)
        rows.append(_row(job, done, detail, npu))
    if missing := [op.name for op in graph.operators() if op.macs and op.name not in _doers(jobs)]:
        raise VitruviusError(f"NPU estimate of {graph.name}: nothing does {', '.join(missing)}")
    cycles = sum(row.cycles for row in rows)
    spent = max(1, cycles)
    macs = sum(row.macs for row in rows)
    traffic: Counter[str] = Counter()
    sram: dict[str, tuple[int, int]] = {}
    for detail in details:
        traffic.update(detail.dram_bytes)
        sram = _joined(sram, detail.sram_bytes)
    memory = memory_use(graph, npu, placement)
    unmapped = tuple((job.op.name, job.reason) for job in jobs if job.unit == "host")
    return NpuEstimate(
        model=graph.name,
        target=npu.target,
        machine=f"{npu.array.rows} x {npu.array.cols}, {npu.array.dataflow}",
        cycles=cycles,
        latency_s=cycles / npu.clock_hz,
        energy_j=sum(row.energy_j for row in rows),
        clock_hz=npu.clock_hz,
        macs=macs,
        utilisation=macs / (spent * npu.cells),
        operators=tuple(rows),
        assumptions=_assumptions(graph, npu, energy, details),
        traffic_bytes={name: size for name, size in sorted(traffic.items()) if size},
        warnings=(*_not_fitting(memory), *_warnings(details, cycles)),
        unmapped=unmapped,
        npu=tuple(details),
        ideal_cycles=-(-macs // npu.cells),
        busy={
            "array": sum(d.product_cycles for d in details if d.unit == "array") / spent,
            "vector unit": sum(d.vector_cycles for d in details) / spent,
            "DRAM": sum(traffic.values()) / npu.dram_bytes_per_cycle / spent,
        },
        sram_bytes=sram,
        activation_peak_bytes=placement.peak_bytes,
        memory_use=memory,
    )


def gemm_report(M: int, N: int, K: int, target: NpuTarget, *, overlap: bool = True) -> GemmReport:
    """One int8 product from and to DRAM, requantized to int8.

    Raises VitruviusError for an extent below 1, or a product too large to count.
    """
    rows, cols = target.array.rows, target.array.cols
    work = GemmWork(M, N, K, 1, M * N * K, epilogue=target.vector.interval.requantize)
    work = replace(work, epilogue_latency=target.vector.latency.requantize)
    schedule = best_schedule(work, target, overlap=overlap)
    done = array_cost(schedule, target, "weights", Counter({"requantize": M * N}))
    detail = _detail("gemm", done, work.macs, target, npu_energy(target))
    alone = best_schedule(
        work,
        target.model_copy(
            update={
                "array": target.array.model_copy(
                    update={"dataflow": schedule.tiling.dataflow.value}
                )
            }
        ),
        overlap=False,
    )
    return GemmReport(
        target=target.target,
        M=M,
        N=N,
        K=K,
        rows=rows,
        cols=cols,
        overlap=overlap,
        ideal_cycles=int(ideal_cycles(M, N, K, rows=rows, cols=cols)),
        scalesim_cycles=alone.cycles,
        clock_hz=target.clock_hz,
        detail=detail,
    )


# -- one job --------------------------------------------------------------------------------------


def _detail(
    name: str, done: Cost, macs: int, target: NpuTarget, energy: EnergyTable
) -> OperatorDetail:
    counts: Counter[str] = Counter(done.actions)
    for buffer, moved in done.sram.items():
        counts[f"{buffer}_buffer_byte"] += sum(moved)
    counts["dram_byte"] = sum(done.dram.values())
    joules = {
        action: count * energy.action(action).value for action, count in counts.items() if count
    }
    if done.cycles:
        joules["static"] = target.static_w * done.cycles / target.clock_hz
    possible = done.cycles * target.cells
    schedule = done.schedule
    return OperatorDetail(
        name=name,
        unit=done.unit,
        cycles=done.cycles,
        product_cycles=done.product_cycles,
        stalls={cause: cycles for cause, cycles in done.stalls.items() if cycles},
        mapping_utilisation=done.mapping,
        utilisation=macs / possible if possible and done.unit == "array" else 0.0,
        sram_bytes={buffer: moved for buffer, moved in done.sram.items() if sum(moved)},
        dram_bytes={operand: size for operand, size in done.dram.items() if size},
        energy_j=joules,
        bottleneck=done.bottleneck,
        vector_cycles=done.vector_cycles,
        tiling=schedule.tiling.text if schedule else "",
        folds=schedule.folds if schedule else 0,
        tiles=schedule.tiles if schedule else 0,
        passes=schedule.passes if schedule else 1,
    )


def _row(job: Job, done: Cost, detail: OperatorDetail, target: NpuTarget) -> OperatorCost:
    source = {"array": _FORMULA[0], "vector unit": _FORMULA[1], "tiles": _FORMULA[1]}.get(
        job.unit, _FORMULA[2] if job.unit == "DMA" else f"formula: {job.unit}"
    )
    return OperatorCost(
        name=job.op.name,
        kind=job.op.kind,
        cycles=detail.cycles,
        latency_s=detail.cycles / target.clock_hz,
        energy_j=sum(detail.energy_j.values()),
        macs=0 if job.unit == "host" else job.op.macs,
        utilisation=detail.utilisation,
        on_chip_bytes=sum(sum(moved) for moved in detail.sram_bytes.values()),
        off_chip_bytes=sum(detail.dram_bytes.values()),
        bottleneck=detail.bottleneck,
        source=source,
        product_cycles=detail.product_cycles,
        lost=dict(detail.stalls),
    )


def _doers(jobs: list[Job]) -> set[str]:
    """Operators that something does, or that are said to be on the host."""
    return {job.op.name for job in jobs if job.gemm or job.vector or job.unit == "host"}


def _joined(
    one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    none = (0, 0)
    return {
        name: (
            one.get(name, none)[0] + other.get(name, none)[0],
            one.get(name, none)[1] + other.get(name, none)[1],
        )
        for name in sorted({*one, *other})
    }


# -- what is taken for granted --------------------------------------------------------------------


def _assumptions(
    graph: Graph, target: NpuTarget, energy: EnergyTable, details: list[OperatorDetail]
) -> tuple[Assumption, ...]:
    used = sorted({name for detail in details for name in detail.energy_j} - {"static"})
    found = [
        Assumption(
            "operators run one after another; the first tile of each is not fetched ahead",
            "assumed: no command stream is modelled",
        ),
        Assumption(
            "an attention is done head by head: "
            + (
                "softmax of one beside the products of others, scores of two on the chip"
                if target.vector.overlap_heads
                else "one head's scores and softmax outputs are on the chip"
            ),
            "assumed: the order of the heads is free",
        ),
        Assumption(
            "cells without a useful product take static energy only; registers are not counted",
            "assumed: clock gating",
        ),
        Assumption(
            "windows of a convolution are unfolded between DMA and input buffer, borders of "
            "tiles not fetched twice",
            "assumed: as an im2col unit does",
        ),
    ]
    if target.widths.weight < target.array.cell_bits:
        found.append(
            Assumption(
                f"{target.widths.weight}-bit weights are widened between buffer and array at no "
                "cost, and multiplied as those of the cells' width",
                "assumed: as part of the weights' path; scales of groups take the vector unit",
            )
        )
    if graph.mixtures:
        found.append(
            Assumption(
                "routing: tokens spread evenly over the experts, whose queues the DMA follows",
                "assumed: no image was looked at",
            )
        )
    found += [Assumption(f"{target.target}, {fields}", text) for fields, text in _sources(target)]
    found += [
        Assumption(f"{item.name}: {item.value:.4g} {item.unit}", f"{item.basis}: {item.source}")
        for item in (energy.action(name) for name in [*used, "static_w"])
    ]
    return tuple(found)


def _sources(target: NpuTarget) -> list[tuple[str, str]]:
    """Every source of the target, with the fields and values that it stands for."""
    fields: dict[str, list[str]] = {}
    for path, value in leaves(target.model_dump(exclude={"name", "sources"}, exclude_none=True)):
        source = next(s for s in covering(path) if s in target.sources)
        own = path.removeprefix(source).removeprefix(".")
        fields.setdefault(source, []).append(f"{own} {value}".strip())
    return [
        (f"{path}: {', '.join(fields[path])}", text)
        for path, text in sorted(target.sources.items())
        if path in fields
    ]


def _not_fitting(memory: MemoryUse) -> tuple[str, ...]:
    if memory.fits or memory.limit_bytes is None:
        return ()
    largest = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in memory.largest)
    return (
        f"does not fit: {memory.peak_bytes / 2**20:,.0f} MiB at {memory.at}, where the target has "
        f"{memory.limit_bytes / 2**20:,.0f} MiB; the largest: {largest}",
    )


def _warnings(details: list[OperatorDetail], cycles: int) -> tuple[str, ...]:
    found = []
    for cause, remedy in (
        ("memory: DRAM", "more bandwidth or larger buffers"),
        ("vector unit", "more lanes"),
    ):
        waited = sum(detail.stalls.get(cause, 0) for detail in details)
        if waited > cycles // 20:
            found.append(
                f"{waited:,} of {cycles:,} cycles ({waited / cycles:.0%}) wait for {cause}: "
                f"{remedy} would help"
            )
    return tuple(found)
