"""The electronic side of a 4f accelerator: operators that no lens does, and conversions.

Both run on one NPU. What the lenses compute arrives in its external memory, and what they are shown
is fetched from there. Conversions are counted as operations of its vector unit: parts of a signed
input taken apart, the square root of each reading by a table, readings added up with their signs
over passes, bit planes and channels, and one rescaling of each output. Kernels that come from the
image need their Fourier masks computed, 2.5 N log2 N operations for a real plane of N samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil, log2, prod

from ..models.graph import Graph, Operator
from ..sim.npu.cost import cost_of
from ..sim.npu.energy import npu_energy
from ..sim.npu.operators import Job, Moved
from ..sim.npu.target import NpuTarget
from ..sim.npu.vector import VectorWork, actions
from .cost import OpticalCost
from .mapping import OpticalWork
from .target import OpticalSystem

__all__ = ["Conversion", "conversion", "left_over"]

_SHOWN = " to the panel"


@dataclass(frozen=True)
class Conversion:
    """What electronics do for one operator on optics. operations: of the vector unit; bytes: from
    and to external memory.
    """

    time_s: float
    energy_j: float
    operations: dict[str, int]
    bytes: int


def left_over(graph: Graph, on_optics: Collection[str]) -> Graph:
    """``graph`` as its electronics see it: results of operators on optics come in as inputs, and
    what those operators are shown goes out.
    """
    operators = []
    for op in graph.operators():
        if op.name in on_optics:
            for name in dict.fromkeys(op.inputs):
                spec = graph.operator(name).output
                operators.append(
                    Operator(f"{name}{_SHOWN} of {op.name}", "Output", "", "", (name,), spec)
                )
            op = replace(op, kind="Input", inputs=(), attributes={}, tensors={}, macs=0, params=0)
        operators.append(op)
    regions = [region for region in graph.regions if region.scores not in on_optics]
    return Graph(graph.name, operators, graph.tensors, regions=regions, unmapped=graph.unmapped)


def conversion(
    op: Operator,
    work: OpticalWork,
    cost: OpticalCost,
    system: OpticalSystem,
    npu: NpuTarget,
    *,
    masks: bool,
) -> Conversion:
    """What electronics do for ``op``, once, on optics at ``cost`` for one input of the model.

    ``masks``: whether masks of kernels from the image are computed.
    """
    jobs = [_shown(op, work, npu), _read(op, cost, system, npu)]
    if work.dynamic and masks:
        jobs.append(_masks(op, cost, system, npu))
    energy = npu_energy(npu)
    cycles, moved = 0, 0
    operations: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for job in jobs:
        done = cost_of(job, npu, {})
        cycles += done.cycles
        moved += sum(done.dram.values())
        operations.update(job.actions or {})
        for buffer, both in done.sram.items():
            counts[f"{buffer}_buffer_byte"] += sum(both)
    counts.update(operations)
    counts["dram_byte"] = moved
    time_s = cycles / npu.clock_hz
    return Conversion(
        time_s=time_s,
        energy_j=sum(energy.action(name).value * number for name, number in counts.items()),
        operations={name: number for name, number in sorted(operations.items()) if number},
        bytes=moved,
    )


def _job(op: Operator, work: VectorWork, npu: NpuTarget, read: int, written: int) -> Job:
    return Job(
        op,
        "vector unit",
        vector=work,
        reads=(Moved("inputs", read, "dram"),),
        write=Moved("outputs", written, "dram"),
        actions=actions(work, npu),
    )


def _shown(op: Operator, work: OpticalWork, npu: NpuTarget) -> Job:
    """Positive and negative parts, or the values as they are, on their way to the panel."""
    samples = work.images * work.in_channels * prod(work.size)
    parts = 2 if work.signed_input else 1
    each = npu.widths.activation
    return _job(
        op,
        VectorWork(1, samples, {"alu": parts}),
        npu,
        -(-samples * each // 8),
        -(-samples * parts * each // 8),
    )


def _read(op: Operator, cost: OpticalCost, system: OpticalSystem, npu: NpuTarget) -> Job:
    """Readings to outputs: the root, the sum with signs, one rescaling with the bias."""
    outputs = prod(op.output.shape)
    terms = -(-cost.results // outputs)
    rooted = system.scheme in ("split", "offset", "absolute")
    each = {"alu": terms + ("bias" in op.tensors), "requantize": 1}
    if rooted:
        each["lookup"] = terms
    if system.scheme == "offset":
        each["alu"] += 2 * terms
        each["multiply"] = terms
    return _job(
        op,
        VectorWork(1, outputs, each),
        npu,
        -(-cost.results * system.read_bits // 8),
        -(-outputs * npu.widths.activation // 8),
    )


def _masks(op: Operator, cost: OpticalCost, system: OpticalSystem, npu: NpuTarget) -> Job:
    """Fourier transforms of the kernels' planes, one for each pattern of the filter panel."""
    count = cost.count.rounds * cost.count.filters
    half = ceil(2.5 * log2(system.pixels) / 2)
    size = system.pixels * count
    return _job(
        op,
        VectorWork(1, size, {"multiply": half, "alu": half}),
        npu,
        -(-size * npu.widths.activation // 8),
        -(-size * system.write_bits // 8),
    )
