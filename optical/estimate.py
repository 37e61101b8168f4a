"""What a model costs on a 4f accelerator: time and energy of light, panels, camera, converters and
electronics, operator by operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import TypeAlias, get_args

from ..errors import VitruviusError
from ..models.graph import Graph, Operator
from ..sim.estimate import Assumption, Estimate, OperatorCost
from ..sim.npu.report import NpuEstimate, estimate_npu
from ..sim.npu.routing import routed
from .cost import Brackets, OpticalCost, fits, optical_cost, slots
from .electronics import Conversion, conversion, left_over
from .mapping import OpticalWork, Placed, mapped
from .target import OpticalTarget, load_optical
from .tiling import Tiling

__all__ = ["OpticalDetail", "OpticalEstimate", "estimate_optical", "full_batch"]

_Seen: TypeAlias = "dict[tuple[OpticalWork, int, int, bool], tuple[OpticalCost, Conversion]]"

_REAL_LINK_BITS_S = 50e9
"""CoaXPress 2.0 (JIIA, 2019), four cables of 12.5 Gbit/s: the fastest link of a camera on sale."""

_FORMULA = (
    "formula: optical.cost, frames x the longest of panels, exposure and read-out; energy: light, "
    "converters and static power, and conversions by sim.npu.vector"
)


@dataclass(frozen=True)
class OpticalDetail:
    """What one operator does on a 4f accelerator.

    where: optics or electronics; reason: why in electronics. Of those on optics: tiling, tile grids
    (images, channels, kernels on a plane), passes, frames, share of the planes' tiles in use.
    optics_s, conversion_s, electronics_s add up to the operator's latency for one image. batch: the
    same for all images of a batch; brackets: light, panels and read-out alone.
    """

    name: str
    kind: str
    where: str
    reason: str = ""
    tiling: str = ""
    tiles: tuple[int, int, int] = (0, 0, 0)
    merged: int = 1
    passes: int = 0
    frames: int = 0
    use: float = 0.0
    optics_s: float = 0.0
    conversion_s: float = 0.0
    electronics_s: float = 0.0
    brackets: Brackets = Brackets()
    energy_j: Mapping[str, float] = field(default_factory=dict)
    batch_frames: int = 0
    batch_tiling: str = ""
    batch_use: float = 0.0
    batch_optics_s: float = 0.0
    batch_s: float = 0.0
    batch_brackets: Brackets = Brackets()
    batch_energy_j: float = 0.0


@dataclass(frozen=True)
class OpticalEstimate(Estimate):
    """The record of every backend, with what optics add in ``optical``, one by operator.

    There is no clock and no array. latency_s, energy_j and the operators' figures are those of one
    image alone, whose planes are mostly empty; per_image_s and per_image_energy_j are those of one
    image among ``batch`` at full planes. optics_s, conversion_s, electronics_s add up to latency_s;
    the per_image ones to per_image_s. utilisation: of the planes' tiles at full planes. system: its
    figures, None where there is no limit.
    """

    optical: tuple[OpticalDetail, ...] = ()
    system: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    batch: int = 1
    optics_s: float = 0.0
    conversion_s: float = 0.0
    electronics_s: float = 0.0
    brackets: Brackets = Brackets()
    per_image_s: float = 0.0
    per_image_optics_s: float = 0.0
    per_image_electronics_s: float = 0.0
    per_image_brackets: Brackets = Brackets()
    per_image_energy_j: float = 0.0
    energy_by_part_j: Mapping[str, float] = field(default_factory=dict)
    frames: int = 0

    def record(self) -> dict[str, object]:
        """The estimate as plain values for JSON."""
        found = super().record()
        found["ruling"] = self.brackets.ruling
        found["per_image_ruling"] = self.per_image_brackets.ruling
        return found


def full_batch(works: list[OpticalWork], target: OpticalTarget) -> int:
    """Images at which the planes are full for the operator of which they hold most; 1 where every
    kernel comes from the image.
    """
    counts = [slots(work, target.system) // work.images for work in works if not work.dynamic]
    return max([1, *counts])


def estimate_optical(graph: Graph, target: str | OpticalTarget) -> OpticalEstimate:
    """Time and energy of one image of ``graph`` on a target such as ``"optical:4f-2mhz"``, alone
    and at full planes.

    Operators run one after another. What neither lenses nor electronics can do is in ``unmapped``
    with the reason.

    Raises VitruviusError for an unknown target.
    """
    chosen = load_optical(target) if isinstance(target, str) else target
    system, settings = chosen.system, chosen.settings
    graph = routed(graph)
    non_negative = settings.inputs == "non-negative"
    placed = [
        _fitted(item, chosen)
        for item in mapped(graph, settings.map, non_negative_inputs=non_negative)
    ]
    works = [item.work for item in placed if item.work is not None]
    batch = settings.batch or full_batch(works, chosen)
    rest = estimate_npu(
        left_over(graph, {item.operator.name for item in placed if item.work}), chosen.npu
    )
    by_name = {row.name: row for row in rest.operators}
    details, rows = [], []
    seen: _Seen = {}
    for item in placed:
        op = item.operator
        if item.work is None:
            detail, row = _electronic(item, by_name[op.name], chosen, batch)
        else:
            detail, row = _optical(op, item.work, chosen, batch, seen)
        details.append(detail)
        rows.append(row)
    if missing := [r.name for r in rows if not r.source]:
        raise VitruviusError(f"optical estimate of {graph.name}: nothing does {missing}")
    energy: dict[str, float] = {}
    for detail in details:
        for part, joules in detail.energy_j.items():
            energy[part] = energy.get(part, 0.0) + joules
    brackets = sum((detail.brackets for detail in details), Brackets())
    many = sum((detail.batch_brackets for detail in details), Brackets())
    frames = [detail.batch_frames * detail.batch_use for detail in details]
    optics_s = sum(detail.optics_s for detail in details)
    conversion_s = sum(detail.conversion_s for detail in details)
    batch_optics_s = sum(detail.batch_optics_s for detail in details)
    batch_s = sum(detail.batch_s for detail in details)
    latency_s = sum(row.latency_s for row in rows)
    return OpticalEstimate(
        model=graph.name,
        target=chosen.name,
        machine=f"{system.rows} x {system.cols} pixels, {chosen.npu.target}",
        cycles=0,
        latency_s=latency_s,
        energy_j=sum(row.energy_j for row in rows),
        clock_hz=0.0,
        macs=sum(row.macs for row in rows),
        utilisation=sum(frames) / max(1, sum(detail.batch_frames for detail in details)),
        operators=tuple(rows),
        assumptions=_assumptions(chosen, batch, rest),
        traffic_bytes=rest.traffic_bytes,
        warnings=_warnings(details, many, batch, chosen, rest),
        unmapped=rest.unmapped,
        optical=tuple(details),
        system={
            name: None if value == inf else value
            for name, value in system.model_dump(exclude={"sources"}).items()
        },
        settings=settings.model_dump(),
        batch=batch,
        optics_s=optics_s,
        conversion_s=conversion_s,
        electronics_s=latency_s - optics_s - conversion_s,
        brackets=brackets,
        per_image_s=batch_s / batch,
        per_image_optics_s=batch_optics_s / batch,
        per_image_electronics_s=(batch_s - batch_optics_s) / batch,
        per_image_brackets=Brackets(
            many.light_s / batch, many.panels_s / batch, many.read_s / batch
        ),
        per_image_energy_j=sum(detail.batch_energy_j for detail in details) / batch,
        energy_by_part_j=energy,
        frames=sum(detail.frames for detail in details),
    )


def _fitted(item: Placed, target: OpticalTarget) -> Placed:
    """The operator in electronics where the planes are too small for it."""
    if item.work is None or not (problem := fits(item.work, target.system)):
        return item
    return Placed(item.operator, None, problem)


def _optical(
    op: Operator, work: OpticalWork, target: OpticalTarget, batch: int, seen: _Seen
) -> tuple[OpticalDetail, OperatorCost]:
    alone, once = _quickest(op, work, target, 1, seen)
    many, each = _quickest(op, work, target, batch, seen)
    latency_s = alone.time_s + once.time_s
    batch_s = many.time_s + batch * each.time_s
    energy = _energy(alone, once, latency_s, target)
    count = alone.count
    detail = OpticalDetail(
        name=op.name,
        kind=op.kind,
        where="optics",
        tiling=count.tiling,
        tiles=_tiles(alone),
        merged=count.merged,
        passes=count.passes,
        frames=count.frames,
        use=count.use,
        optics_s=alone.time_s,
        conversion_s=once.time_s,
        brackets=alone.brackets,
        energy_j=energy,
        batch_frames=many.count.frames,
        batch_tiling=many.count.tiling,
        batch_use=many.count.use,
        batch_optics_s=many.time_s,
        batch_s=batch_s,
        batch_brackets=many.brackets,
        batch_energy_j=sum(_energy(many, each, batch_s, target, batch).values()),
    )
    parts = {
        "light": alone.brackets.light_s,
        "panels": alone.brackets.panels_s,
        "read-out": alone.brackets.read_s,
        "conversions": once.time_s,
    }
    return detail, OperatorCost(
        name=op.name,
        kind=op.kind,
        cycles=0,
        latency_s=latency_s,
        energy_j=sum(energy.values()),
        macs=op.macs,
        utilisation=count.use,
        on_chip_bytes=0,
        off_chip_bytes=once.bytes,
        bottleneck=max(parts, key=parts.__getitem__),
        source=_FORMULA,
    )


def _quickest(
    op: Operator, work: OpticalWork, target: OpticalTarget, batch: int, seen: _Seen
) -> tuple[OpticalCost, Conversion]:
    """A batch on optics, and the conversions of one image of it, under the tiling of the settings,
    or whichever takes the least time; ``seen`` keeps what was found for equal operators.
    """
    system, settings = target.system, target.settings
    key = (work, batch, prod(op.output.shape), "bias" in op.tensors)
    if key not in seen:
        tilings = get_args(Tiling) if settings.tiling == "auto" else (settings.tiling,)
        found = []
        for tiling in tilings:
            cost = optical_cost(work, system, tiling, batch)
            own = _one_of(cost, batch, work)
            masks = settings.masks == "computed"
            found.append((cost, conversion(op, work, own, system, target.npu, masks=masks)))
        seen[key] = min(found, key=lambda item: item[0].time_s + batch * item[1].time_s)
    return seen[key]


def _one_of(many: OpticalCost, batch: int, work: OpticalWork) -> OpticalCost:
    """One image's share of the results, and of the masks where the kernels are its own."""
    rounds = many.count.rounds // batch if work.dynamic else many.count.rounds
    return replace(many, results=many.results // batch, count=replace(many.count, rounds=rounds))


def _electronic(
    item: Placed, row: OperatorCost, target: OpticalTarget, batch: int
) -> tuple[OpticalDetail, OperatorCost]:
    """An operator of the NPU, while the panels and the camera wait with their power on."""
    static_j = target.system.static_w * row.latency_s
    total = row.energy_j + static_j
    detail = OpticalDetail(
        name=row.name,
        kind=row.kind,
        where="electronics",
        reason=item.reason,
        electronics_s=row.latency_s,
        energy_j={"electronics": row.energy_j, "static": static_j},
        batch_s=batch * row.latency_s,
        batch_energy_j=batch * total,
    )
    return detail, replace(row, energy_j=total, cycles=0, product_cycles=0, lost={})


def _energy(
    cost: OpticalCost, done: Conversion, seconds: float, target: OpticalTarget, batch: int = 1
) -> dict[str, float]:
    return {
        "light": cost.light_j,
        "DAC": cost.dac_j,
        "ADC": cost.adc_j,
        "static": target.system.static_w * seconds,
        "electronics": batch * done.energy_j + target.npu.static_w * seconds,
    }


def _tiles(cost: OpticalCost) -> tuple[int, int, int]:
    layout = cost.count.layout
    rows, cols = zip(layout.images, layout.channels, layout.kernels, strict=True)
    images, channels, kernels = (row * col for row, col in zip(rows, cols, strict=True))
    return images, channels, kernels


def _warnings(
    details: list[OpticalDetail],
    many: Brackets,
    batch: int,
    target: OpticalTarget,
    rest: NpuEstimate,
) -> tuple[str, ...]:
    found = []
    system = target.system
    frames = sum(detail.batch_frames for detail in details)
    optics_s = sum(detail.batch_optics_s for detail in details)
    if frames and system.read == "frame" and optics_s:
        rate = frames * system.pixels * system.read_bits / optics_s
        if rate > 1.01 * _REAL_LINK_BITS_S:
            real = frames * system.pixels * system.read_bits / _REAL_LINK_BITS_S / batch
            found.append(
                f"the camera sends {rate / 8e12:.3g} TB/s, which no link does: at "
                f"{_REAL_LINK_BITS_S / 1e9:.0f} Gbit/s the optics take {real * 1e3:,.2f} ms an "
                f"image at full planes, not {optics_s / batch * 1e6:,.2f} µs (optical:4f-readout)"
            )
    computed = [d for d in details if d.kind == "MatMul" and d.where == "optics"]
    if computed and target.settings.masks == "computed":
        spent = sum(d.conversion_s for d in computed)
        found.append(
            "masks of scores are Fourier transforms that the electronics compute: "
            f"{spent * 1e3:,.1f} ms an image; map=conv+linear keeps scores in electronics"
        )
    return (*found, *rest.warnings)


def _assumptions(target: OpticalTarget, batch: int, rest: NpuEstimate) -> tuple[Assumption, ...]:
    system, settings = target.system, target.settings
    found = [
        Assumption(
            "one image alone leaves planes mostly empty; at full planes "
            f"{batch:,} images are computed together",
            "assumed: option batch" if settings.batch else "formula: tiles of the emptiest plane",
        ),
        Assumption(
            "optics, conversions and electronics follow one another; inside optics the parts work "
            + ("at once" if system.pipelined else "one after another"),
            "assumed: layers depend on each other",
        ),
        Assumption(
            "masks of weights are computed beforehand, and those of scores by the electronics"
            if settings.masks == "computed"
            else "all masks are there when they are needed, those of scores too",
            "formula: 2.5 N log2 N operations a mask"
            if settings.masks == "computed"
            else "assumed: option masks=given, as published models have it",
        ),
        Assumption(
            "square roots by a table, sums over passes and channels by the vector unit",
            "formula: optical.electronics",
        ),
        Assumption("time of flight, 0.33 ns per 100 mm, is not counted", "formula: path over c"),
        Assumption(
            f"inputs of the model are {settings.inputs}; signs of others follow the graph",
            "formula: sim.mpc.secrecy",
        ),
    ]
    figures = system.model_dump(exclude={"name", "sources"})
    found += [
        Assumption(f"{system.name}, {name}: {_plain(value)}", system.sources[name])
        for name, value in figures.items()
    ]
    return (*found, *rest.assumptions)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
