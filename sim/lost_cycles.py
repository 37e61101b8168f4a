"""Where the cycles of a run went that did no useful product; the parts sum to the total."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from ..hwgen.core.schedule import schedule
from .cycle import CycleReport, ProductTimes

__all__ = [
    "CAUSES",
    "LostCycles",
    "OperatorCycles",
    "by_operator",
    "lost_cycles",
    "lost_in_product",
]

CAUSES = {
    "useful": "products that the model asks for, at all multipliers",
    "skew": "slots without a row: the first steps of a product, and its last rows",
    "void rows": "rows of tokens that are constants",
    "ragged columns": "outputs less than a whole tile",
    "ragged reduction": "reduction less than whole words, and gaps between heads",
    "drain": "steps shorter than the rows that must drain",
    "switch": "from one product to the next",
    "memory": "waiting for weights or an image",
    "softmax": "waiting for softmax weights",
    "norm": "waiting for normalised rows",
    "dependency": "waiting for rows of an earlier product",
    "context": "waiting for the product before the last to drain",
    "store": "waiting for results to be sent",
    "boot": "loading programs and constants",
    "tail": "from the last product to the acknowledgement of the last results",
}
"""Every part, and what it is."""

_WAITS = {
    "SWITCH_CYCLES": "switch",
    "WAIT_FETCHED": "memory",
    "WAIT_WEIGHED": "softmax",
    "WAIT_NORMALISED": "norm",
    "WAIT_DRAINED": "dependency",
    "WAIT_CONTEXT": "context",
    "WAIT_STORE": "store",
}


@dataclass(frozen=True)
class LostCycles:
    """Cycles by cause (`CAUSES`), as fractions of the whole array: a cycle in which half of the
    multipliers do useful products is half a useful cycle. They sum to ``total`` exactly.
    """

    total: int
    parts: dict[str, Fraction]


@dataclass(frozen=True)
class OperatorCycles:
    """One operator, an image on average: its products, the cycles from the end of the product
    before its first to the end of its last, and the share of them that is useful products.
    """

    operator: str
    products: int
    cycles: float
    useful: float


def by_operator(report: CycleReport) -> list[OperatorCycles]:
    """The operators in the order of their first products. Their cycles and those of boot and tail
    sum to the run's.
    """
    images = len(report.images)
    cycles: dict[str, int] = {}
    macs: dict[str, int] = {}
    products: dict[str, int] = {}
    before = report.begun + 1
    for times in report.products:
        name = times.operator
        cycles[name] = cycles.get(name, 0) + times.end - before
        macs[name] = macs.get(name, 0) + times.macs
        products[name] = products.get(name, 0) + 1
        before = times.end
    multipliers = report.program.machine.multipliers
    return [
        OperatorCycles(
            name, products[name] // images, spent / images, macs[name] / (spent * multipliers)
        )
        for name, spent in cycles.items()
    ]


def lost_cycles(report: CycleReport) -> LostCycles:
    """The parts of a run's CYCLES."""
    parts = dict.fromkeys(CAUSES, Fraction(0))
    for times in report.products:
        for cause, cycles in lost_in_product(report, times).items():
            parts[cause] += cycles
    last = report.products[-1]
    parts["boot"] += report.begun
    # The last product may end before the engine has seen that it was the last.
    seen = report.counters["SWITCH_CYCLES"] - sum(
        times.lost.get("SWITCH_CYCLES", 0) for times in report.products
    )
    parts["switch"] += seen
    parts["tail"] += report.cycles - (last.end - 1) - seen
    return LostCycles(report.cycles, parts)


def lost_in_product(report: CycleReport, times: ProductTimes) -> dict[str, Fraction]:
    """The parts of the cycles from the end of the product before to the end of this one."""
    machine = report.program.machine
    item = replace(report.program.steps[times.index].instruction, tokens=times.tokens)
    if not item.tokens:
        return {_WAITS[name]: Fraction(cycles) for name, cycles in times.lost.items()}
    rows, cols = machine.rows, machine.cols
    plan = schedule(
        tokens=item.tokens,
        tiles=item.tiles,
        words=item.words,
        rows=rows,
        order=machine.order,
        queued=item.expert > 0,
    )
    groups = item.tiles // item.group_tiles
    outputs = groups * ((item.group_tiles - 1) * cols + item.last_count)
    slots = Fraction(item.words, rows)
    useful = Fraction(times.macs, machine.multipliers)
    skew = (plan.steps * rows - item.tokens * item.tiles) * slots
    void = item.void * item.tiles * slots
    counted = (item.tokens - item.void) * slots
    columns = counted * (item.tiles - Fraction(outputs, cols))
    parts = {
        "useful": useful,
        "skew": skew,
        "void rows": void,
        "ragged columns": columns,
        "ragged reduction": times.product_cycles - useful - skew - void - columns,
        "drain": Fraction(times.padding),
    }
    for name, cycles in times.lost.items():
        parts[_WAITS[name]] = parts.get(_WAITS[name], Fraction(0)) + cycles
    return parts
