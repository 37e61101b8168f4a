"""What a trace found, as tables for the terminal and as a record for JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..models.blocks import blocks_of
from .diagram_overview import numbered
from .quantities import count, percent, quantity
from .table import plain, shape, some_count, titled

if TYPE_CHECKING:
    from ..models.blocks import Block
    from ..models.graph import Graph, Operator
    from ..models.regions import AttentionRegion
    from ..models.summary import CriticalPath, ModuleRow, Run, Summary, Tally

__all__ = [
    "attention_table",
    "blocks_table",
    "critical_path_lines",
    "kinds_table",
    "modules_table",
    "operators_table",
    "overview_lines",
    "trace_record",
]

_SILENT = ("View", "Select", "Constant", "Input", "Output")
_NUMBERS = ("operators", "MACs", "share", "parameters", "activations")


def overview_lines(summary: Summary, graph: Graph) -> Group:
    """The model in four lines: operators, products, parameters, memory; in float32."""
    lines = [
        Text(f"{summary.name}: {count(summary.operators)} operators", style="bold"),
        Text(f"  {_macs_line(summary, graph)}"),
        Text(
            f"  {count(summary.params)} parameters, {quantity(4 * summary.params, 'B')} in float32"
        ),
        Text(
            f"  activations {quantity(summary.activation_bytes, 'B')} written in all, at most "
            f"{quantity(summary.peak_bytes, 'B')} alive at once, at {summary.peak_at}"
        ),
    ]
    return Group(*lines)


def _macs_line(summary: Summary, graph: Graph) -> str:
    line = f"{count(summary.macs)} MACs"
    if not graph.mixtures:
        return line
    routings = sorted({(item.k, len(item.experts)) for item in graph.mixtures})
    chosen = ", ".join(f"{k} of {experts}" for k, experts in routings)
    return f"{line} for all experts, {count(summary.routed_macs)} with routing: {chosen}"


def kinds_table(summary: Summary) -> Group:
    """Operators by kind: how many, and what they cost."""
    table = _table("kind")
    for row in summary.kinds:
        table.add_row(escape(row.name), *_cells(row, summary))
    table.add_section()
    whole = sum(row.count for row in summary.kinds)
    table.add_row(
        "total",
        count(whole),
        count(summary.macs),
        "",
        count(summary.params),
        quantity(summary.activation_bytes, "B"),
    )
    return titled("By kind", table)


def modules_table(summary: Summary) -> Group:
    """Operators by module, as a tree; modules alike are one row with the sums of all of them."""
    table = _table("module")
    for row in summary.modules:
        table.add_row(escape("  " * row.depth + _module(row)), *_cells(row.total, summary))
    return titled("By module", table)


def _module(row: ModuleRow) -> str:
    if row.own:
        return "(itself)" if row.depth else "(the model itself)"
    # a row says what its parent's does not: the last word, with the list a number belongs to
    words = numbered(row.paths).split(".")
    kept = 2 if len(words) > 1 and words[-1][0].isdigit() else 1
    label = ".".join(words[-kept:]) if row.depth else ".".join(words)
    return f"{label}  ×{row.times}" if row.times > 1 else label


def attention_table(regions: Sequence[AttentionRegion]) -> Group:
    """Attention regions, those alike in one row; windows and bias only where there are some."""
    columns = ["times", "heads", "queries", "keys", "head dim", "scale"]
    windows = any(region.windows > 1 for region in regions)
    bias = any(region.bias for region in regions)
    shared = any(region.kv_heads for region in regions)
    columns += ["windows"] * windows + ["kv heads"] * shared
    table = plain(["attention", *columns, *["bias"] * bias], numbers=columns)
    groups: dict[tuple[str, ...], list[AttentionRegion]] = {}
    for region in regions:
        cells = [str(region.heads), str(region.tokens), str(region.keys), str(region.head_dim)]
        cells.append(f"{region.scale:.4g}")
        cells += [str(region.windows)] * windows
        cells += [str(region.kv_heads or region.heads)] * shared
        cells += ["yes" if region.bias else "none"] * bias
        groups.setdefault(tuple(cells), []).append(region)
    for cells_alike, members in groups.items():
        first = members[0].scores.rpartition(".")[0] or members[0].scores
        label = first if len(members) == 1 else f"{first} …"
        table.add_row(escape(label), str(len(members)), *cells_alike)
    return titled(f"Attention: {len(regions)} regions", table)


def blocks_table(blocks: Sequence[Block]) -> Group:
    """Gated short convolutions, gated MLPs, caches and scans, those alike in one row."""
    sizes = {
        "gated short convolution": "kernel",
        "gated MLP": "hidden",
        "cache": "kept",
        "scan": "tokens",
    }
    numbers = ["times", "width", "size"]
    table = plain(["block", *numbers, "size is", "first"], numbers=numbers)
    groups: dict[tuple[str, int, int], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.kind, block.width, block.size), []).append(block)
    for (kind, width, size), members in groups.items():
        cells = [str(len(members)), str(width), str(size), sizes[kind]]
        table.add_row(kind, *cells, escape(members[0].operators[0]))
    return titled("Blocks", table)


def critical_path_lines(summary: Summary) -> Group:
    """The longest chains, with repeated parts once."""
    heavy, long = summary.by_macs, summary.by_length
    share = percent(heavy.macs / summary.macs, digits=0) if summary.macs else "none"
    lines: list[RenderableType] = [
        Text("Critical path", style="bold"),
        Text(f"  most MACs: {count(heavy.macs)} ({share} of all) in {heavy.length} operators"),
        *(_run(run) for run in heavy.runs),
    ]
    if long.operators == heavy.operators:
        lines.append(Text(f"  most operators: the same {long.length}"))
    else:
        lines.append(Text(f"  most operators: {long.length}"))
        lines += [_run(run) for run in long.runs]
    return Group(*lines)


def _run(run: Run) -> Group:
    """One run of operators, a line for each block, wrapped below itself."""
    lines: list[RenderableType] = []
    indent = 4
    if run.times > 1:
        lines.append(Text(f"    ×{run.times}, the first:"))
        indent = 6
    for block, members in groupby(run.operators, key=_block):
        names = [
            name if times == 1 else f"{name} ×{times}"
            for name, times in _counted([name.removeprefix(block) for name in members])
        ]
        place = f"{block.rstrip('.')}: " if block else ""
        lines.append(Padding(Text(place + " → ".join(names)), (0, 0, 0, indent)))
    return Group(*lines)


def _block(name: str) -> str:
    """The path to the outermost numbered module that an operator lies in, with its dot."""
    words = name.split(".")
    for place, word in enumerate(words[:-1]):
        if word.isdigit():
            return ".".join(words[: place + 1]) + "."
    return ""


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours that differ in their last number only (add, add_1, add_2), counted."""
    found: list[tuple[str, int]] = []
    for name in names:
        plain_name = re.sub(r"_\d+\Z", "", name)
        if found and re.sub(r"_\d+\Z", "", found[-1][0]) == plain_name:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found


def operators_table(graph: Graph) -> Group:
    """Every operator of a graph with what it costs, and the totals.

    Operators that only move or name data (views, selections, constants, inputs and outputs) are
    counted in a last line instead of listed.
    """
    operators = graph.operators()
    shown = [item for item in operators if item.kind not in _SILENT]
    table = plain(
        ["operator", "kind", "output", "MACs", "parameters", "source"],
        numbers=["output", "MACs", "parameters"],
    )
    for item in shown:
        table.add_row(
            escape(item.name),
            item.kind,
            shape(item.output.shape),
            some_count(item.macs),
            some_count(item.params),
            escape(item.source),
        )
    rest = [item for item in operators if item.kind in _SILENT]
    table.add_row(
        f"{len(rest)} more",
        "",
        "",
        some_count(sum(item.macs for item in rest)),
        some_count(sum(item.params for item in rest)),
        "views, selections, constants, inputs, outputs",
    )
    return titled(f"{graph.name}: {len(operators)} operators", table)


def trace_record(graph: Graph, summary: Summary) -> dict[str, object]:
    """Everything the tables show, operator by operator, as plain values."""
    return {
        "model": graph.name,
        "operators": [_operator(item) for item in graph.operators()],
        "total": {
            "macs": summary.macs,
            "routed_macs": summary.routed_macs,
            "params": summary.params,
            "activation_bytes": summary.activation_bytes,
            "peak_activation_bytes": summary.peak_bytes,
            "peak_at": summary.peak_at,
        },
        "kinds": [{"kind": row.name, **_tally(row)} for row in summary.kinds],
        "modules": [
            {
                "paths": list(row.paths),
                "depth": row.depth,
                "times": row.times,
                "own": row.own,
                **_tally(row.total),
            }
            for row in summary.modules
        ],
        "critical_path": {
            "by_macs": _path(summary.by_macs),
            "by_operators": _path(summary.by_length),
        },
        "attention": [
            {
                "scores": region.scores,
                "softmax": region.softmax,
                "apply": region.apply,
                "heads": region.heads,
                "kv_heads": region.kv_heads,
                "tokens": region.tokens,
                "keys": region.keys,
                "head_dim": region.head_dim,
                "scale": region.scale,
                "windows": region.windows,
                "bias": region.bias,
            }
            for region in graph.regions
        ],
        "blocks": [asdict(block) for block in blocks_of(graph)],
        "mixtures": [
            {
                "gate": mixture.gate,
                "combine": mixture.combine,
                "experts": len(mixture.experts),
                "k": mixture.k,
                "tokens": mixture.tokens,
            }
            for mixture in graph.mixtures
        ],
        "unmapped": [
            {
                "name": item.name,
                "target": item.target,
                "path": item.path,
                "source": item.source,
                "reason": item.reason,
            }
            for item in graph.unmapped
        ],
    }


def _operator(item: Operator) -> dict[str, object]:
    return {
        "name": item.name,
        "kind": item.kind,
        "path": item.path,
        "source": item.source,
        "inputs": list(item.inputs),
        "shape": list(item.output.shape),
        "macs": item.macs,
        "params": item.params,
    }


def _tally(row: Tally) -> dict[str, object]:
    return {
        "count": row.count,
        "macs": row.macs,
        "params": row.params,
        "activation_bytes": row.activation_bytes,
    }


def _path(path: CriticalPath) -> dict[str, object]:
    return {"macs": path.macs, "length": path.length, "operators": list(path.operators)}


def _cells(row: Tally, summary: Summary) -> tuple[str, ...]:
    share = percent(row.macs / summary.macs) if row.macs else ""
    memory = quantity(row.activation_bytes, "B") if row.activation_bytes else ""
    return some_count(row.count), some_count(row.macs), share, some_count(row.params), memory


def _table(first: str) -> Table:
    return plain([first, *_NUMBERS], numbers=_NUMBERS)
