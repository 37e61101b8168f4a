"""The Estimate record that every backend returns, and the FPGA backend's way to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ..errors import VitruviusError
from ..fpga_targets.device import load_target
from ..fpga_targets.energy import EnergyTable, load_energy
from ..hwgen.instruction import Destination, Opcode, Source
from ..hwgen.machine import Machine
from ..hwgen.product_engine import schedule
from ..hwgen.program import Program, Step
from ..hwgen.sequencer import END_CYCLES
from ..hwgen.units.layernorm import NormScale
from .cycle import StepCycles, simulate

__all__ = ["Assumption", "Estimate", "OperatorCost", "estimate_fpga"]


@dataclass(frozen=True)
class Assumption:
    """Something an estimate takes for granted, and who says so."""

    text: str
    source: str


@dataclass(frozen=True)
class OperatorCost:
    """What one operator costs.

    cycles, latency_s: time in which the machine works for it alone; energy_j: dynamic energy of
    its actions plus static energy over its latency; utilisation: useful products per product that
    the array could have done;
    bytes: read and written in buffers, and beyond the chip's pins; bottleneck: what its time is
    bound by; source:
    how the figures were found.
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


@dataclass(frozen=True)
class Estimate:
    """One model on one target: the same record from every backend.

    unmapped: (operator, reason) of everything that the backend cannot do.
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
    unmapped: tuple[tuple[str, str], ...] = ()

    def record(self) -> dict[str, object]:
        """The estimate as plain values for JSON."""
        return asdict(self)


@dataclass
class _Work:
    """What an operator does: its cycles, counted actions, bytes and useful products."""

    cycles: int = 0
    macs: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    off_chip_bytes: int = 0
    bottleneck: str = ""

    @property
    def on_chip_bytes(self) -> int:
        return self.actions["sram_read_byte"] + self.actions["sram_write_byte"]


def estimate_fpga(model: str, program: Program, target: str) -> Estimate:
    """Time and energy of one image of ``program`` on the FPGA ``target`` (such as
    ``"fpga:zcu102"``).

    Cycles are the cycle simulator's, which the RTL's counters equal. Energy is counted actions
    times the coefficients of `fpga_targets.energy`, plus static power over the latency.

    Raises VitruviusError for an unknown target, a machine with more multipliers than the device,
    or an operator that no step accounts for.
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
    report = simulate(program)
    work = _work(program, report.steps)
    rows = []
    for operator in program.model.operators:
        item = work.get(operator.name)
        if item is None:
            raise VitruviusError(
                f"estimate of {model}: operator {operator.kind} '{operator.name}' has no cost"
            )
        latency = item.cycles / clock_hz
        possible = item.cycles * machine.multipliers
        rows.append(
            OperatorCost(
                name=operator.name,
                kind=operator.kind,
                cycles=item.cycles,
                latency_s=latency,
                energy_j=_energy(item.actions, energy) + static_w * latency,
                macs=item.macs,
                utilisation=item.macs / possible if possible else 0.0,
                on_chip_bytes=item.on_chip_bytes,
                off_chip_bytes=item.off_chip_bytes,
                bottleneck=item.bottleneck,
                source="simulated: sim.cycle, equal to the RTL's counters; energy by formula: "
                + (_formula(item.actions) or "addressing only, no action")
                + " + static",
            )
        )
    control = END_CYCLES
    latency = report.total / clock_hz
    rows.append(
        OperatorCost(
            name="end",
            kind="Control",
            cycles=control,
            latency_s=control / clock_hz,
            energy_j=static_w * control / clock_hz,
            macs=0,
            utilisation=0.0,
            on_chip_bytes=0,
            off_chip_bytes=0,
            bottleneck="sequencer",
            source="simulated: sim.cycle, the END step",
        )
    )
    total = sum(row.cycles for row in rows)
    if total != report.total:
        raise VitruviusError(
            f"estimate of {model}: operators account for {total} of {report.total} cycles"
        )
    return Estimate(
        model=model,
        target=target,
        machine=machine.name,
        cycles=report.total,
        latency_s=latency,
        energy_j=sum(row.energy_j for row in rows),
        clock_hz=clock_hz,
        macs=report.macs,
        utilisation=report.utilisation,
        operators=tuple(rows),
        assumptions=_assumptions(machine, clock_hz, energy, work),
    )


def _energy(actions: Mapping[str, int], energy: EnergyTable) -> float:
    return sum(count * energy.action(name).value for name, count in actions.items())


def _formula(actions: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in sorted(actions.items()) if count)


def _assumptions(
    machine: Machine, clock_hz: float, energy: EnergyTable, work: Mapping[str, _Work]
) -> tuple[Assumption, ...]:
    used = sorted({name for item in work.values() for name, count in item.actions.items() if count})
    coefficients = [energy.action(name) for name in [*used, "static_w"]]
    return (
        Assumption(
            f"clock {clock_hz / 1e6:g} MHz, the slower of machine '{machine.name}' and the device",
            "assumed: no place-and-route result stands behind it",
        ),
        Assumption(
            "program, weights and constants are in on-chip memory before the first image",
            "formula: loading them is not part of an image",
        ),
        Assumption(
            "one product per DSP block and cycle; a padded lane costs the energy of a product",
            "formula: rows x cols x depth products a cycle",
        ),
        *(
            Assumption(f"{item.name}: {item.value:.4g} {item.unit}", f"{item.basis}: {item.source}")
            for item in coefficients
        ),
    )


# -- counting -------------------------------------------------------------------------------------


def _work(program: Program, cycles: tuple[StepCycles, ...]) -> dict[str, _Work]:
    """Work by operator. What runs hidden in a drain path has actions but no cycles of its own."""
    work: dict[str, _Work] = {}
    for step, counted in zip(program.steps, cycles, strict=True):
        if step.instruction.opcode is Opcode.END:
            continue
        item = work.setdefault(step.operator, _Work())
        item.cycles += counted.cycles
        item.macs += step.macs
        _COUNTERS[step.instruction.opcode](program, step, item, work)
    for operator in program.model.operators:
        if operator.kind == "Select":
            work[operator.name] = _Work(bottleneck="none: addressing only")
    return work


def _load(program: Program, step: Step, item: _Work, work: dict[str, _Work]) -> None:
    written = program.image_tokens * program.image_words * program.machine.depth
    item.actions["sram_write_byte"] += written
    item.off_chip_bytes += written
    item.bottleneck = "image stream"


def _init(program: Program, step: Step, item: _Work, work: dict[str, _Work]) -> None:
    i, cols = step.instruction, program.machine.cols
    item.actions["sram_read_byte"] += i.tokens * i.tiles * _column_bytes(cols)
    item.actions["sram_write_byte"] += i.tokens * i.tiles * cols * 2
    item.bottleneck = "constant copy"


def _norm(program: Program, step: Step, item: _Work, work: dict[str, _Work]) -> None:
    i, cols = step.instruction, program.machine.cols
    chunks = i.tokens * i.tiles
    item.actions["layernorm_element"] += chunks * cols
    item.actions["sram_read_byte"] += chunks * (2 * cols + _column_bytes(cols))
    item.actions["sram_write_byte"] += chunks * cols
    item.bottleneck = "inverse square root" if i.tiles <= NormScale.cycles() else "chunks"


def _store(program: Program, step: Step, item: _Work, work: dict[str, _Work]) -> None:
    sent = 2 * step.instruction.results
    item.actions["sram_read_byte"] += sent
    item.off_chip_bytes += sent


def _product(program: Program, step: Step, item: _Work, work: dict[str, _Work]) -> None:
    i, machine = step.instruction, program.machine
    cols, depth = machine.cols, machine.depth
    plan = schedule(tokens=i.tokens, tiles=i.tiles, words=i.words, rows=machine.rows)
    row_words = i.tokens * i.tiles * i.words
    outputs = i.tokens * i.tiles * cols
    item.actions["mac_int8"] += row_words * cols * depth
    # Token side: each row is read once into its slot and from the slot for every tile.
    item.actions["sram_read_byte"] += (i.tokens * i.words + row_words) * depth
    item.actions["sram_write_byte"] += i.tokens * i.words * depth
    item.actions["sram_read_byte"] += plan.steps * i.words * cols * depth
    item.actions["requantize"] += outputs
    if i.b_source is Source.WEIGHT:
        item.actions["sram_read_byte"] += plan.steps * _column_bytes(cols)
    item.bottleneck = "products" if i.words >= max(machine.rows, 2) else "drain"
    follower = _follower(program, step)
    if i.destination is Destination.GELU:
        other = work.setdefault(follower, _Work(bottleneck="none: in the drain path"))
        other.actions["gelu"] += outputs
        other.actions["requantize"] += outputs
        other.actions["sram_write_byte"] += outputs
    elif i.destination is Destination.RESIDUAL:
        other = work.setdefault(follower, _Work(bottleneck="none: in the drain path"))
        other.actions["add_int32"] += outputs
        other.actions["multiply_int32"] += outputs  # the square for LayerNorm's statistics
        other.actions["add_int32"] += 2 * outputs
        other.actions["sram_read_byte"] += 2 * outputs
        other.actions["sram_write_byte"] += 2 * outputs
    elif i.destination is Destination.SCORE:
        item.actions["softmax_weight"] += outputs
        item.actions["sram_write_byte"] += 3 * outputs
        item.actions["sram_read_byte"] += 2 * outputs
    elif i.destination is Destination.RESULT:
        item.actions["sram_write_byte"] += 2 * outputs
    else:
        item.actions["sram_write_byte"] += outputs


def _follower(program: Program, step: Step) -> str:
    """The operator that runs in the drain path of a Linear's step."""
    for operator in program.model.operators:
        if step.operator in operator.inputs:
            return operator.name
    return step.operator


def _column_bytes(cols: int) -> int:
    return 7 * cols


_COUNTERS = {
    Opcode.LOAD: _load,
    Opcode.INIT: _init,
    Opcode.PRODUCT: _product,
    Opcode.NORM: _norm,
    Opcode.STORE: _store,
}
