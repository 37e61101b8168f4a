"""Edge-MoE's ideas on the accelerator, with and without each: tables, a page, a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from .table import plain

if TYPE_CHECKING:
    from ..sim.ideas import Comparison, Row
    from ..sim.ideas_cells import CellTable

__all__ = [
    "cells_table",
    "ideas_lines",
    "ideas_notes",
    "ideas_plot",
    "ideas_record",
    "ideas_table",
    "ideas_worth",
]

_FIGURES = ("cycles", "times", "port words", "Q words", "peak", "K, V words", "Mbit", "mult.")
_CELLS = ("LUT", "FF", "DSP", "BRAM36")
_COLUMNS = (
    "times: cycles, of those with all six; port words: read from memory, each as wide as the port; "
    "Q words, and K and V words: read on the chip for scores and weighted values; peak: most Q "
    "words in a cycle; Mbit: memory on the chip; mult.: multipliers of all units"
)
_SOURCES = (
    "RTL: the hardware has the switch, and its counters equal the simulation; simulated: a design "
    "described to the cycle simulator, no RTL exists; formula: the accelerator's own cycles, which "
    "the part in the idea's place keeps, with the cost of that part"
)


def _figures(found: Comparison, row: Row) -> list[str]:
    return [
        f"{row.cycles:,}",
        f"{row.cycles / found.full.cycles:.2f}",
        f"{row.port_words:,}",
        f"{row.query_words:,}",
        f"{row.peak_query_words}",
        f"{row.key_value_words:,}",
        f"{row.storage_bits / 1e6:.2f}",
        f"{row.multipliers:,}",
    ]


def _named(row: Row, ladder: bool) -> str:
    return row.text if ladder else f"{row.idea}: {row.text}"


def ideas_table(found: Comparison, *, ladder: bool) -> Table:
    """The ladder from none of the ideas to all of them, or each taken away alone."""
    first = "the design has" if ladder else "all six but"
    table = plain((first, *_FIGURES, "source"), numbers=_FIGURES)
    for row in found.ladder if ladder else found.alone:
        table.add_row(_named(row, ladder), *_figures(found, row), row.source)
    return table


def cells_table(cells: CellTable) -> Table:
    """What Yosys counted."""
    table = plain(("cells", *_CELLS, "source"), numbers=_CELLS)
    for item in cells.cells:
        table.add_row(
            item.text,
            f"{item.lut:,}",
            f"{item.ff:,}",
            f"{item.dsp:,}",
            f"{item.bram36:g}",
            "yosys",
        )
    return table


def ideas_notes(found: Comparison, cells: CellTable) -> list[str]:
    """What the tables are of."""
    images = f"{found.images} image" + ("s" if found.images > 1 else "")
    machine, memory = found.machine, found.memory
    timing = f"its memory with latency {memory.latency}, gap {memory.gap}"
    if machine.memory:
        timing = "its memory on the chip"
    notes = [
        f"{found.model} on {machine.name}, {images} from nothing loaded: {machine.multipliers} "
        f"multipliers, a port of {machine.port_bits} bits, {timing}; {len(found.kinds)} kinds of "
        "products.",
        *(f"{idea}: nothing to switch off, {why}." for idea, why in found.without),
        f"Columns. {_COLUMNS}.",
        f"Sources. {_SOURCES}.",
        f"Cells: yosys, before placement, {cells.device}, {cells.machine}; measured by "
        f"{cells.command}.",
    ]
    if not any(idea == "expert-by-expert order" for idea, _ in found.without):
        notes.insert(1, "Routing is assumed: tokens spread evenly, all experts in use.")
    return notes


def ideas_worth(found: Comparison) -> list[str]:
    """A line for each idea, what its alternatives cost more than it; the dearest idea first."""
    lines = {}
    for idea in dict.fromkeys(row.idea for row in found.alone):
        rows = [row for row in found.alone if row.idea == idea]
        costs = "; or ".join(f"{_more(found.full, row)} ({row.text})" for row in rows)
        lines[f"{idea}: {costs}."] = rows[0].cycles
    return sorted(lines, key=lambda line: -lines[line])


def _more(full: Row, row: Row) -> str:
    """What ``row`` costs more than the accelerator, in words."""
    costs = []
    for name, most, least in (
        ("the cycles", row.cycles, full.cycles),
        ("the words from memory", row.port_words, full.port_words),
        ("the multipliers", row.multipliers, full.multipliers),
        ("the K and V words", row.key_value_words, full.key_value_words),
        ("the Q words in a cycle", row.peak_query_words, full.peak_query_words),
    ):
        if round(most / least, 2) != 1:
            costs.append(f"{most / least:.2f} times {name}")
    if row.storage_bits != full.storage_bits:
        costs.append(f"{(row.storage_bits - full.storage_bits) / 1e6:.2f} Mbit more on the chip")
    return " and ".join(costs) or "nothing"


def _markdown(head: Sequence[str], numbers: int, rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first column and those behind ``numbers`` more are text."""
    rules = ["---", *["---:"] * numbers, *["---"] * (len(head) - 1 - numbers)]
    return [f"| {' | '.join(line)} |" for line in (head, rules, *rows)]


def ideas_lines(found: Comparison, cells: CellTable) -> list[str]:
    """The tables in Markdown, with what they are of."""

    def table(first: str, rows: Sequence[Row], ladder: bool) -> list[str]:
        return _markdown(
            (first, *_FIGURES, "source"),
            len(_FIGURES),
            [(_named(row, ladder), *_figures(found, row), row.source) for row in rows],
        )

    counted = [
        (item.text, f"{item.lut:,}", f"{item.ff:,}", f"{item.dsp:,}", f"{item.bram36:g}", "yosys")
        for item in cells.cells
    ]
    head, *notes = ideas_notes(found, cells)
    return [
        "## The answer",
        "",
        "What stands in an idea's place, and what it costs in place of the accelerator as it is:",
        "",
        *(f"- {line}" for line in ideas_worth(found)),
        "",
        head,
        "",
        "## One after the other",
        "",
        *table("the design has", found.ladder, True),
        "",
        "## Each taken away alone",
        "",
        *table("all six but", found.alone, False),
        "",
        "## Cells",
        "",
        *_markdown(("", *_CELLS, "source"), len(_CELLS), counted),
        "",
        *(f"- {note}" for note in notes),
    ]


def ideas_plot(found: Comparison, path: Path) -> None:
    """Cycles of every row, the ladder beside each idea taken away alone."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9}):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        ladder, alone = figure.subplots(1, 2)
        sides = (
            (ladder, found.ladder, True, "one after the other"),
            (alone, found.alone, False, "all six but"),
        )
        for axes, rows, is_ladder, title in sides:
            names = [row.text if is_ladder else f"{row.idea}:\n{row.text}" for row in rows]
            values = [row.cycles for row in rows]
            colours = ["#1f6f8b" if row.source == "RTL" else "#9aa5b1" for row in rows]
            bars = axes.barh(range(len(rows)), values, 0.7, color=colours, log=True)
            labels = [f"{row.cycles:,}{_beside(found.full, row)}" for row in rows]
            axes.bar_label(bars, labels, padding=2, fontsize=7)
            axes.set_yticks(range(len(rows)), names, fontsize=7)
            axes.invert_yaxis()
            axes.set(xlabel="cycles", title=title, xlim=(found.full.cycles / 2, 20 * max(values)))
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(
            f"{found.model} on {found.machine.name}; dark: RTL, light: simulated or formula",
            fontsize=9,
        )
        temporary = path.with_suffix(".part")
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        temporary.replace(path)


def _beside(full: Row, row: Row) -> str:
    """What a row has more of than multipliers' time, for the chart."""
    more = ""
    if row.storage_bits != full.storage_bits:
        more += f", +{(row.storage_bits - full.storage_bits) / 1e6:.1f} Mbit"
    if row.multipliers != full.multipliers:
        more += f", {row.multipliers / full.multipliers:g} x multipliers"
    return more


def ideas_record(found: Comparison, cells: CellTable) -> dict[str, object]:
    """The same for ``--json``."""
    return {
        "model": found.model,
        "machine": found.machine.name,
        "images": found.images,
        "memory": asdict(found.memory),
        "kinds": list(found.kinds),
        "ladder": [asdict(row) for row in found.ladder],
        "alone": [asdict(row) for row in found.alone],
        "without": [{"idea": idea, "why": why} for idea, why in found.without],
        "cells": asdict(cells),
    }
