"""What every job of an NPU takes: cycles and how they are made up, bytes, counted actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...models.graph import AttentionRegion
from .gemm import GemmWork
from .operators import Job
from .schedule import Schedule
from .target import NpuTarget
from .tiling import best_schedule
from .vector import vector_cycles, vector_mapping

__all__ = ["Cost", "array_cost", "behind_heads", "cost_of"]

_CHUNKS = (1, 2, 4, 8, 16, 32, 64)
_MEMORY = ("memory: DRAM", "memory: activation buffer")


@dataclass(frozen=True)
class Cost:
    """What a job takes. cycles: product_cycles, in which its ``unit`` works, and stalls by cause.
    mapping: useful share of the cells or lanes while they work. sram: bytes read and written, by
    buffer; dram: bytes by operand. actions: counted, buffers and DRAM apart. reason: why there are
    no cycles. vector_cycles: of the vector unit, hidden or not.
    """

    unit: str
    cycles: int = 0
    product_cycles: int = 0
    stalls: Mapping[str, int] = field(default_factory=dict)
    mapping: float = 0.0
    sram: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    dram: Mapping[str, int] = field(default_factory=dict)
    actions: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    vector_cycles: int = 0
    schedule: Schedule | None = None

    @property
    def bottleneck(self) -> str:
        """What took most of the cycles."""
        if self.reason:
            return self.reason
        parts = {self.unit: self.product_cycles, **self.stalls}
        return max(parts, key=lambda name: parts[name])


def cost_of(job: Job, target: NpuTarget, schedules: dict[GemmWork, Schedule]) -> Cost:
    """The cost of one job; ``schedules`` keeps those that were found for products."""
    if job.gemm is not None:
        if job.gemm not in schedules:
            schedules[job.gemm] = best_schedule(job.gemm, target)
        return array_cost(schedules[job.gemm], target, job.operand, job.actions or Counter())
    if job.unit in ("vector unit", "DMA"):
        return _stream(job, target)
    return Cost(job.unit, reason=job.reason or "none", actions=job.actions or {})


def behind_heads(region: AttentionRegion, dones: Mapping[str, Cost]) -> Cost:
    """The softmax of an attention whose heads follow each other: while the vector unit is at one
    head, the array is at the scores of the next and the outputs of the one before. The first
    head's softmax, and what is longer than a head's products, is waited for.
    """
    softmax = dones[region.softmax]
    products = [dones[name] for name in (region.scores, region.apply)]
    if softmax.unit != "vector unit" or any(done.unit != "array" for done in products):
        return softmax
    heads = (region.kv_heads or region.heads) * region.windows
    one = -(-softmax.cycles // heads)
    beside = sum(done.cycles for done in products) // heads
    exposed = min(softmax.cycles, one + (heads - 1) * max(0, one - beside))
    # What is hidden is the unit's own work first, then its waits.
    hidden = softmax.cycles - exposed
    busy = max(0, softmax.product_cycles - hidden)
    hidden -= softmax.product_cycles - busy
    stalls = {}
    for cause, cycles in softmax.stalls.items():
        stalls[cause] = max(0, cycles - hidden)
        hidden -= cycles - stalls[cause]
    return replace(softmax, cycles=exposed, product_cycles=busy, stalls=stalls)


def array_cost(
    schedule: Schedule, target: NpuTarget, operand: str, operations: Mapping[str, int]
) -> Cost:
    """The cost of products on the array. operand: what the right one is called; operations: of the
    vector unit.
    """
    work, moved = schedule.work, schedule.accesses
    accumulator = target.widths.accumulator
    fetched = {
        name: schedule.dram_bytes[name] + schedule.chip_bytes[name] for name in schedule.dram_bytes
    }
    chip = schedule.chip_bytes
    sram = {
        "input": (
            moved.input_reads * work.input_bits // 8,
            fetched["inputs"] * work.input_share[1] // work.input_share[0],
        ),
        "weight": (
            moved.weight_reads * work.weight_bits // 8,
            fetched["weights"] * work.weight_share[1] // work.weight_share[0],
        ),
        "output": (
            moved.output_reads * accumulator // 8,
            moved.output_writes * accumulator // 8,
        ),
        "activation": (chip["inputs"] + chip["weights"] + chip["side"], chip["outputs"]),
    }
    names = {"weights": operand, "sums": "partial sums", "side": "fused operands"}
    possible = schedule.product_cycles * target.cells
    actions = Counter(operations)
    actions["mac"] = work.macs * schedule.passes
    return Cost(
        unit="array",
        cycles=schedule.cycles,
        product_cycles=schedule.product_cycles,
        stalls=schedule.lost,
        mapping=work.macs * schedule.passes / possible,
        sram=sram,
        dram={names.get(name, name): size for name, size in schedule.dram_bytes.items()},
        actions=actions,
        vector_cycles=schedule.vector_cycles,
        schedule=schedule,
    )


def _stream(job: Job, target: NpuTarget) -> Cost:
    """A vector operator or a copy, cut into the number of chunks that takes the fewest cycles: one
    is worked on while the next is fetched and the one before is stored.
    """
    assert job.write is not None
    work = job.vector
    busy = 0 if work is None else vector_cycles(work, target)
    reads = job.reads
    again = 1 if work is None else work.reads
    room = (target.buffers.operand_halves[0], target.buffers.output_half)
    if work is not None and sum(moved.bytes for moved in reads) > room[0] * work.rows:
        # A row that the buffer does not hold is fetched for every time that it is read.
        reads = tuple(replace(moved, bytes=moved.bytes * again) for moved in reads)
        again = 1
    size = {
        (way, place): sum(moved.bytes for moved in side if moved.place == place)
        for way, side in (("read", reads), ("write", (job.write,)))
        for place in ("dram", "chip")
    }
    least = max(
        -(-(size["read", "dram"] + size["read", "chip"]) // room[0]),
        -(-(size["write", "dram"] + size["write", "chip"]) // room[1]),
        1,
    )
    cycles, waits = min(
        (_chunked(least * more, busy, size, target) for more in _CHUNKS), key=lambda item: item[0]
    )
    bytes_in = size["read", "dram"] + size["read", "chip"]
    bytes_out = size["write", "dram"] + size["write", "chip"]
    dram: Counter[str] = Counter()
    for moved in (*reads, job.write):
        if moved.place == "dram":
            dram[moved.operand] += moved.bytes
    sram = {
        "input": (bytes_in * again, bytes_in),
        "output": (bytes_out, bytes_out),
        "activation": (size["read", "chip"], size["write", "chip"]),
    }
    return Cost(
        unit=job.unit,
        cycles=cycles,
        product_cycles=busy,
        stalls=waits,
        mapping=0.0 if work is None else vector_mapping(work, target),
        sram=sram,
        dram=dram,
        actions=job.actions or {},
        vector_cycles=busy,
    )


def _chunked(
    chunks: int, busy: int, size: Mapping[tuple[str, str], int], target: NpuTarget
) -> tuple[int, dict[str, int]]:
    """Cycles with so many equal chunks, and the waits among them."""

    def memory(*ways: str) -> tuple[int, str]:
        dram, chip = (
            sum(-(-size[way, place] // chunks) for way in ways) for place in ("dram", "chip")
        )
        latency = target.dram.latency_cycles if dram else 0
        times = (
            latency + int(-(-dram // target.dram_bytes_per_cycle)),
            -(-chip // target.buffers.activation_bytes_per_cycle),
        )
        return max(times), _MEMORY[times[1] > times[0]]

    waits: Counter[str] = Counter()
    first, cause = memory("read")
    waits[cause] += first
    each = -(-busy // chunks)
    total = first + busy
    kinds = {("read",): 1, ("read", "write"): chunks - 2, ("write",): 1} if chunks > 1 else {}
    for ways, times in kinds.items():
        time, cause = memory(*ways)
        late = max(0, time - each) * times
        waits[cause] += late
        total += late
    last, cause = memory("write")
    waits[cause] += last
    return total + last, dict(waits)
