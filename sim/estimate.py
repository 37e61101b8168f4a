"""The Estimate record that every backend returns, and the FPGA backend's way to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from ..errors import VitruviusError
from ..fpga_targets.device import load_target
from ..fpga_targets.energy import EnergyTable, load_energy
from ..hwgen.axi.memory_model import DEFAULT_MEMORY, MemoryModel
from ..hwgen.core.core import Target
from ..hwgen.core.counters import Counter as Waited
from ..hwgen.core.image import ParameterImage
from ..hwgen.core.instruction import Destination, Source
from ..hwgen.core.machine import Machine
from ..hwgen.core.program import NormStep, Program, Step
from ..hwgen.core.schedule import schedule
from .cycle import CycleReport, simulate

__all__ = ["Assumption", "Estimate", "OperatorCost", "estimate_fpga"]


_STORE = "results"
_STALL_WORTH_A_WARNING = 0.05
_CAUSES = {
    "PADDING_CYCLES": "drain: fewer words than rows",
    "SWITCH_CYCLES": "fill: between products",
    "WAIT_DRAINED": "dependency: rows of the product before",
    "WAIT_WEIGHED": "softmax",
    "WAIT_NORMALISED": "LayerNorm",
    "WAIT_FETCHED": "memory: weights",
    "WAIT_CONTEXT": "drain: products behind each other",
    "WAIT_STORE": "memory: results before",
}
"""Why no product was issued, by the counter that says so."""


@dataclass(frozen=True)
class Assumption:
    """Something an estimate takes for granted, and who says so."""

    text: str
    source: str


@dataclass(frozen=True)
class OperatorCost:
    """What one operator costs.

    cycles, latency_s: from the last word of what was issued before to its own last word, waits
    included; what runs beside the products has no time of its own. product_cycles: those in which
    products were issued; lost: those in which none was, by the counter that says why. energy_j:
    dynamic energy of its actions plus static energy over its latency; utilisation: useful products
    per product that the array could have done; bytes: read and written in buffers, and beyond the
    chip's pins; bottleneck: what its time is bound by; source: how the figures were found.
    """

    name: str
    kind: str
    cycles: int
    latency_s: float
    energy_j: float
    macs: int
    utilisation: float
    on_chip_bytes: int
    off_chip_bytes: int
    bottleneck: str
    source: str
    product_cycles: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """One model on one target: the same record from every backend.

    memory: the timing of external memory that cycles were simulated with. warnings: what a user may
    want to change. unmapped: (operator, reason) of everything that the backend cannot do.
    """

    model: str
    target: str
    machine: str
    cycles: int
    latency_s: float
    energy_j: float
    clock_hz: float
    macs: int
    utilisation: float
    operators: tuple[OperatorCost, ...]
    assumptions: tuple[Assumption, ...]
    memory: MemoryModel | None = None
    traffic_bytes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unmapped: tuple[tuple[str, str], ...] = ()

    def record(self) -> dict[str, object]:
        """The estimate as plain values for JSON."""
        return asdict(self)


@dataclass
class _Work:
    """What an operator does: its cycles, counted actions, bytes and useful products."""

    cycles: int = 0
    product_cycles: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    macs: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    bottleneck: str = ""

    @property
    def on_chip_bytes(self) -> int:
        return self.actions["sram_read_byte"] + self.actions["sram_write_byte"]

    @property
    def off_chip_bytes(self) -> int:
        return self.actions["dram_byte"]


def estimate_fpga(
    model: str, program: Program, target: str, *, memory: MemoryModel = DEFAULT_MEMORY
) -> Estimate:
    """Time and energy of one image of ``program`` on the FPGA ``target`` (such as
    ``"fpga:zcu102"``), with program and columns loaded by an earlier run.

    Cycles are the cycle simulator's, which the RTL's counters equal. Energy is counted actions
    times the coefficients of `fpga_targets.energy`, plus static power over the latency.

    Raises VitruviusError for an unknown target, a machine with more multipliers than the device,
    or an operator that nothing accounts for.
    """
    device = load_target(target)
    machine = program.machine
    if (needed := machine.dsps(device.family)) > device.dsp:
        raise VitruviusError(
            f"machine '{machine.name}' needs {needed} multipliers, "
            f"{device.name} has {device.dsp} ({device.dsp_kind})"
        )
    energy = load_energy(device)
    clock_hz = min(machine.clock_hz, device.clock_hz)
    static_w = energy.action("static_w").value
    report = simulate(program, memory=memory, booted=True)
    work = _work(program, report)
    rows = []
    for name, kind in [
        *((operator.name, operator.kind) for operator in program.model.operators),
        (_STORE, "Store"),
    ]:
        item = work.get(name)
        if item is None:
            raise VitruviusError(f"estimate of {model}: operator {kind} '{name}' has no cost")
        latency = item.cycles / clock_hz
        possible = item.cycles * machine.multipliers
        rows.append(
            OperatorCost(
                name=name,
                kind=kind,
                cycles=item.cycles,
                latency_s=latency,
                energy_j=_energy(item.actions, energy) + static_w * latency,
                macs=item.macs,
                utilisation=item.macs / possible if possible else 0.0,
                on_chip_bytes=item.on_chip_bytes,
                off_chip_bytes=item.off_chip_bytes,
                bottleneck=item.bottleneck,
                source="simulated: sim.cycle, whose counters equal the RTL's; energy by formula: "
                + (_formula(item.actions) or "addressing only, no action")
                + " + static",
                product_cycles=item.product_cycles,
                lost={name: cycles for name, cycles in sorted(item.lost.items()) if cycles},
            )
        )
    total = sum(row.cycles for row in rows)
    if total != report.cycles:
        raise VitruviusError(
            f"estimate of {model}: operators account for {total} of {report.cycles} cycles"
        )
    return Estimate(
        model=model,
        target=target,
        machine=machine.name,
        cycles=report.cycles,
        latency_s=report.cycles / clock_hz,
        energy_j=sum(row.energy_j for row in rows),
        clock_hz=clock_hz,
        macs=program.macs,
        utilisation=report.utilisation,
        operators=tuple(rows),
        assumptions=_assumptions(report, clock_hz, energy, work),
        memory=report.memory,
        traffic_bytes=ParameterImage(program).traffic,
        warnings=_warnings(report),
    )


def _warnings(report: CycleReport) -> tuple[str, ...]:
    waited = report.counters["WAIT_FETCHED"]
    if waited < _STALL_WORTH_A_WARNING * report.cycles:
        return ()
    machine = report.program.machine
    return (
        f"products wait {waited} of {report.cycles} cycles ({waited / report.cycles:.0%}) for "
        f"weights and image: the memory port of {machine.port_bits} bits, "
        f"{machine.outstanding} bursts in flight, is slower than the array",
    )


def _energy(actions: Mapping[str, int], energy: EnergyTable) -> float:
    return sum(count * energy.action(name).value for name, count in actions.items())


def _formula(actions: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in sorted(actions.items()) if count)


def _assumptions(
    report: CycleReport, clock_hz: float, energy: EnergyTable, work: Mapping[str, _Work]
) -> tuple[Assumption, ...]:
    used = sorted({name for item in work.values() for name, count in item.actions.items() if count})
    coefficients = [energy.action(name) for name in [*used, "static_w"]]
    machine, memory = report.program.machine, report.memory
    where = "memory on the chip" if machine.memory else "external memory"
    return (
        Assumption(
            f"clock {clock_hz / 1e6:g} MHz, the slower of machine '{machine.name}' and the device",
            "assumed: no place-and-route result stands behind it",
        ),
        Assumption(
            f"{where}: {machine.port_bits} bits, a burst answered after {memory.latency} cycles, "
            f"{memory.gap} idle cycles between beats, {memory.outstanding} bursts pending",
            "formula: hwgen.axi.onchip"
            if machine.memory
            else "assumed: options --latency, --gap and --outstanding",
        ),
        Assumption(
            "one image alone; program and columns are on the chip, loaded by an earlier run",
            "formula: an image behind another one overlaps with its end and takes less",
        ),
        Assumption(
            "one product per DSP block and cycle; a padded lane costs the energy of a product",
            "formula: rows x cols x depth products a cycle",
        ),
        *_routing_assumed(report),
        *(
            Assumption(f"{item.name}: {item.value:.4g} {item.unit}", f"{item.basis}: {item.source}")
            for item in coefficients
        ),
    )


def _routing_assumed(report: CycleReport) -> list[Assumption]:
    if not report.program.mixtures:
        return []
    used = [sum(length > 0 for length in lengths) for lengths in report.routing[0].values()]
    return [
        Assumption(
            f"routing: tokens spread evenly over the experts; {min(used)} to {max(used)} of them "
            "used in a layer",
            "assumed: no image was looked at; co-simulation takes each image's own routing",
        )
    ]


# -- counting -------------------------------------------------------------------------------------


def _work(program: Program, report: CycleReport) -> dict[str, _Work]:
    """Work by operator. What runs beside the products has actions but no cycles of its own."""
    work: dict[str, _Work] = {}
    products = report.products
    for step, times, span in zip(program.steps, products, report.spans(), strict=True):
        item = work.setdefault(step.operator, _Work())
        item.cycles += span
        item.product_cycles += times.product_cycles
        item.lost["PADDING_CYCLES"] += times.padding
        item.lost.update(times.lost)
        item.macs += times.macs
        _product(program, step, times.tokens, item, work)
    for item in work.values():
        if item.cycles:
            item.bottleneck = _bottleneck(item)
    for norm in program.norms:
        _norm(program, norm, work.setdefault(norm.operator, _Work()))
    _transfers(report, work)
    first, last = program.model.operators[0], products[-1]
    image = work.setdefault(first.name, _Work())
    image.cycles = report.begun + 1
    image.bottleneck = "start; what waits for it is the first product"
    work[_STORE] = _Work(cycles=report.cycles - last.end, bottleneck="drain, and memory's answer")
    sent = ParameterImage(program).traffic["results"]
    result_bytes = program.machine.arithmetic.result_bits // 8 * program.results
    work[_STORE].actions.update({"sram_read_byte": result_bytes, "dram_byte": sent})
    for operator in program.model.operators:
        if operator.kind == "Select":
            work[operator.name] = _Work(bottleneck="none: addressing only")
        elif program.mixtures:
            work.setdefault(operator.name, _Work(bottleneck="none: an expert without tokens"))
    return work


def _bottleneck(item: _Work) -> str:
    """What took most of an operator's cycles."""
    causes = {"products": item.product_cycles}
    causes |= {_CAUSES[name]: cycles for name, cycles in item.lost.items()}
    return max(causes, key=lambda name: causes[name])


def _transfers(report: CycleReport, work: dict[str, _Work]) -> None:
    """Bytes from memory, each with the operator whose product waits for them first."""
    program = report.program
    machine, layout = program.machine, ParameterImage(program)
    widths = {Target.WEIGHT: machine.cols * machine.depth, Target.IMAGE: machine.depth}
    readers = sorted(
        (step.instruction.start_threshold, step.operator, times.tokens)
        for step, times in zip(program.steps, report.products, strict=True)
        if step.instruction.start_wait is Waited.FETCHED
    )
    for number, fetch in enumerate(program.fetches, 1):
        name, tokens = next(
            (name, tokens) for threshold, name, tokens in readers if threshold >= number
        )
        if fetch.expert and not tokens:
            continue
        if fetch.target is Target.IMAGE:
            name = program.model.operators[0].name
        item = work.setdefault(name, _Work())
        item.actions["dram_byte"] += layout.place(fetch, 0)[1] * layout.beat_bytes
        item.actions["sram_write_byte"] += fetch.words * widths[fetch.target]


def _norm(program: Program, norm: NormStep, item: _Work) -> None:
    i, cols = norm.instruction, program.machine.cols
    column_bits = program.machine.arithmetic.norm_column.size
    chunks = i.tokens * i.tiles
    ivit = program.machine.scheme == "ivit"
    item.actions["i_layernorm_element" if ivit else "layernorm_element"] += chunks * cols
    item.actions["sram_read_byte"] += chunks * (2 * cols + cols * column_bits // 8)
    item.actions["sram_write_byte"] += chunks * cols
    item.bottleneck = "none: beside the products"


def _product(
    program: Program, step: Step, tokens: int, item: _Work, work: dict[str, _Work]
) -> None:
    """What a product of ``tokens`` rows does."""
    if not tokens:
        return
    i, machine = replace(step.instruction, tokens=tokens), program.machine
    cols, depth = machine.cols, machine.depth
    plan = schedule(
        tokens=i.tokens,
        tiles=i.tiles,
        words=i.words,
        rows=machine.rows,
        order=machine.order,
        queued=i.expert > 0,
    )
    row_words = i.tokens * i.tiles * i.words
    outputs = i.tokens * i.tiles * cols
    item.actions["mac_int8"] += row_words * cols * depth
    # Token side: each row is read once into its slot and from the slot for every tile.
    item.actions["sram_read_byte"] += (i.tokens * i.words + row_words) * depth
    item.actions["sram_write_byte"] += i.tokens * i.words * depth
    item.actions["sram_read_byte"] += plan.steps * i.words * cols * depth
    item.actions["requantize"] += outputs
    if i.b_source is Source.WEIGHT:
        item.actions["sram_read_byte"] += plan.steps * _column_bytes(machine)
    follower = _follower(program, step)
    ivit, arithmetic = machine.scheme == "ivit", machine.arithmetic
    if i.destination is Destination.GELU:
        other = work.setdefault(follower, _Work(bottleneck="none: in the drain path"))
        if ivit:
            other.actions["code_table"] += outputs
        else:
            other.actions["gelu"] += outputs
            other.actions["requantize"] += outputs
        other.actions["sram_write_byte"] += outputs
    elif i.destination in (Destination.RESIDUAL, Destination.EMBED):
        other = work.setdefault(follower, _Work(bottleneck="none: in the drain path"))
        other.actions["add_int32"] += outputs
        other.actions["multiply_int32"] += outputs  # the square for LayerNorm's statistics
        other.actions["add_int32"] += 2 * outputs
        other.actions["sram_read_byte"] += 2 * outputs
        other.actions["sram_write_byte"] += 2 * outputs
        if ivit:
            other.actions["requantize"] += 2 * outputs  # both addends
        if i.scatter:
            other.actions["requantize"] += outputs  # the share of each token
    elif i.destination is Destination.GATE:
        other = work.setdefault(follower, _Work(bottleneck="none: beside the products"))
        other.actions["softmax_weight"] += outputs
        other.actions["sram_write_byte"] += 5 * outputs
        other.actions["sram_read_byte"] += (2 + 2 * i.top) * outputs
    elif i.destination is Destination.SCORE:
        item.actions["shiftmax_weight" if ivit else "softmax_weight"] += outputs
        # The score and, in scheme ivit, its exponential of 24 bits are kept until the row is known.
        kept = arithmetic.score_bits // 8 + 3 * ivit
        item.actions["sram_write_byte"] += (kept + arithmetic.weight_bytes) * outputs
        item.actions["sram_read_byte"] += kept * outputs
    elif i.destination is Destination.RESULT:
        item.actions["sram_write_byte"] += arithmetic.result_bits // 8 * outputs
    else:
        item.actions["sram_write_byte"] += outputs


def _follower(program: Program, step: Step) -> str:
    """The operator that runs in the drain path of a Linear's step."""
    for operator in program.model.operators:
        if step.operator in operator.inputs:
            return operator.name
    return step.operator


def _column_bytes(machine: Machine) -> int:
    bits: int = machine.cols * machine.arithmetic.column.size
    return -(-bits // 8)
