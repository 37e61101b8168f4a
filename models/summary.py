"""What a graph amounts to: counts by kind and by module, memory that is alive at once, and the
critical path.

All counts are for one image. Operators that only name values have no cost here: ``View`` and
``Select`` alias what they read, ``Constant`` is a parameter, ``Input`` and ``Output`` are the
caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from .graph import Graph, Operator

__all__ = [
    "CriticalPath",
    "ModuleRow",
    "Run",
    "Summary",
    "Tally",
    "levels",
    "repeats",
    "summarise",
]

# for one image, a constant repeated for each image is the constant
_ALIASES = frozenset({"View", "Select", "RepeatBatch"})
_FREE = _ALIASES | {"Constant", "Input", "Output"}
_LONGEST_PERIOD = 400
_WRAPPER = 0.9


@dataclass(frozen=True)
class Tally:
    """Operators of one sort: how many do work (aliases and constants are not counted), their
    multiply-accumulates, parameters, and the bytes of their outputs.
    """

    name: str
    count: int
    macs: int
    params: int
    activation_bytes: int


@dataclass(frozen=True)
class ModuleRow:
    """Modules alike, as one row of a tree: members of one list with equal counts.

    ``paths`` are theirs at this level; ``times`` is how many there are in all, those in repetitions
    of the rows above too; ``total`` is over all of them and everything in them; ``depth`` is the
    level from 0. With ``own``, only over operators that belong to no module inside.
    """

    depth: int
    paths: tuple[str, ...]
    times: int
    total: Tally
    own: bool = False


@dataclass(frozen=True)
class Run:
    """Operators on a path, in order, of the first of ``times`` repetitions alike."""

    operators: tuple[str, ...]
    times: int


@dataclass(frozen=True)
class CriticalPath:
    """The chain of operators with the largest sum: of multiply-accumulates (``macs``), or of one
    for each operator (``length``, aliases not counted).
    """

    operators: tuple[str, ...]
    macs: int
    length: int
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Summary:
    """A graph in numbers, for one image.

    ``macs`` counts every product that the module computes; ``routed_macs`` only the experts that
    the gates choose, k of E for every token, and equals ``macs`` without mixtures.
    ``activation_bytes`` is the sum of all operators' outputs in the module's own element type
    (float32). ``peak_bytes`` is the largest sum that is alive at once when operators run one after
    another in the graph's order: an output lives from its operator to the last that reads it or an
    alias of it, and an operator's operands and output are alive together; inputs count, parameters
    do not. ``peak_at`` names the operator where it is reached.
    """

    name: str
    operators: int
    macs: int
    routed_macs: int
    params: int
    activation_bytes: int
    peak_bytes: int
    peak_at: str
    kinds: tuple[Tally, ...]
    modules: tuple[ModuleRow, ...]
    by_macs: CriticalPath
    by_length: CriticalPath


def summarise(graph: Graph, *, depth: int = 2) -> Summary:
    """The summary of ``graph``, with modules to ``depth`` levels.

    A numbered module is one level with the list it is in (``blocks.0``); numbered neighbours with
    equal counts are one row. A module that holds nine tenths of all multiply-accumulates, and is
    not numbered, uses up no level.
    """
    operators = graph.operators()
    whole = _tally("", operators)
    peak_bytes, peak_at = _peak(graph)
    return Summary(
        name=graph.name,
        operators=len(operators),
        macs=whole.macs,
        routed_macs=whole.macs - _not_routed(graph),
        params=whole.params,
        activation_bytes=whole.activation_bytes,
        peak_bytes=peak_bytes,
        peak_at=peak_at,
        kinds=_by_kind(operators),
        modules=tuple(_by_module(operators, depth, (), whole.macs)),
        by_macs=_longest(graph, [op.macs for op in operators]),
        by_length=_longest(graph, [int(op.kind not in _FREE) for op in operators]),
    )


def levels(path: str) -> tuple[str, ...]:
    """The levels of a module path; a number belongs to the list it is in.

    >>> levels("encoder.layers.0.attention")
    ('encoder', 'layers.0', 'attention')
    """
    found: list[str] = []
    for word in path.split(".") if path else []:
        numbered = bool(found) and word.isdigit() and not found[-1].rpartition(".")[2].isdigit()
        if numbered:
            found[-1] += f".{word}"
        else:
            found.append(word)
    return tuple(found)


def repeats(tokens: Sequence[object]) -> list[tuple[int, int, int]]:
    """Where a sequence repeats itself at once: (start, period, times), covering it from left to
    right; the longest repetition first, then the shortest period.

    >>> repeats("xababy")
    [(0, 1, 1), (1, 2, 2), (5, 1, 1)]
    """
    numbers: dict[object, int] = {}
    codes = [numbers.setdefault(token, len(numbers)) for token in tokens]
    found: list[tuple[int, int, int]] = []
    start = 0
    while start < len(codes):
        best = (1, 1)
        for period in range(1, min(_LONGEST_PERIOD, (len(codes) - start) // 2) + 1):
            if codes[start] != codes[start + period]:
                continue
            pattern, times = codes[start : start + period], 1
            while codes[start + times * period : start + (times + 1) * period] == pattern:
                times += 1
            if times > 1 and times * period > best[0] * best[1]:
                best = (period, times)
        period, times = best
        found.append((start, period, times))
        start += period * times
    return found


def _bytes(op: Operator) -> int:
    itemsize: int = getattr(torch, op.output.dtype).itemsize
    return prod(op.output.shape) * itemsize


def _tally(name: str, operators: Iterable[Operator]) -> Tally:
    held = list(operators)
    work = [op for op in held if op.kind not in _FREE]
    return Tally(
        name=name,
        count=len(work),
        macs=sum(op.macs for op in held),
        params=sum(op.params for op in held),
        activation_bytes=sum(_bytes(op) for op in work),
    )


def _by_kind(operators: Sequence[Operator]) -> tuple[Tally, ...]:
    """Kinds that do work or hold parameters, most multiply-accumulates first."""
    kinds: dict[str, list[Operator]] = {}
    for op in operators:
        kinds.setdefault(op.kind, []).append(op)
    rows = [_tally(kind, members) for kind, members in kinds.items()]
    rows = [row for row in rows if row.count or row.params]
    return tuple(sorted(rows, key=lambda row: (-row.macs, -row.activation_bytes, row.name)))


def _by_module(
    operators: Sequence[Operator], levels_left: int, prefix: tuple[str, ...], whole: int
) -> list[ModuleRow]:
    """Rows in the order of the modules' first operators, each module before those inside it.

    A module that holds most of the ``whole`` model's multiply-accumulates and is no member of a
    list is a wrapper, which uses up no level.
    """
    level = len(prefix)
    if not levels_left:
        return []
    inside: dict[str, list[Operator]] = {}
    own: list[Operator] = []
    for op in operators:
        place = levels(op.path)
        if len(place) > level:
            inside.setdefault(place[level], []).append(op)
        else:
            own.append(op)
    rows: list[ModuleRow] = []
    for alike in _alike({name: _tally("", members) for name, members in inside.items()}):
        total = _tally(alike[0], (op for name in alike for op in inside[name]))
        if not total.count and not total.params:
            continue
        paths = tuple(".".join((*prefix, name)) for name in alike)
        rows.append(ModuleRow(level, paths, len(alike), total))
        wraps = not alike[0].rpartition(".")[2].isdigit() and total.macs > _WRAPPER * whole
        below = _by_module(inside[alike[0]], levels_left - (not wraps), (*prefix, alike[0]), whole)
        rows += [_times(row, len(alike)) for row in below]
    rest = _tally("", own)
    if inside and rest.count:
        rows.append(ModuleRow(level, (".".join(prefix),), 1, rest, own=True))
    return rows


def _times(row: ModuleRow, times: int) -> ModuleRow:
    total = Tally(
        row.total.name,
        row.total.count * times,
        row.total.macs * times,
        row.total.params * times,
        row.total.activation_bytes * times,
    )
    return replace(row, times=row.times * times, total=total)


def _alike(counted: Mapping[str, Tally]) -> list[list[str]]:
    """Names, with numbered members of one list that have equal counts brought together."""
    groups: dict[object, list[str]] = {}
    for name, counts in counted.items():
        owner, _, number = name.rpartition(".")
        groups.setdefault((owner, counts) if number.isdigit() else name, []).append(name)
    return list(groups.values())


def _peak(graph: Graph) -> tuple[int, str]:
    operators = graph.operators()
    held: dict[str, str] = {}  # the operator whose bytes a name stands for
    last: dict[str, int] = {}
    for place, op in enumerate(operators):
        held[op.name] = held[op.inputs[0]] if op.kind in _ALIASES else op.name
        for name in op.inputs:
            last[held[name]] = place
    alive = peak = 0
    where = ""
    for place, op in enumerate(operators):
        if op.kind not in (*_ALIASES, "Constant", "Output"):
            alive += _bytes(op)
        if alive > peak:
            peak, where = alive, op.name
        done = {held[name] for name in (*op.inputs, op.name)}
        for name in done:
            owner = graph.operator(name)
            if last.get(name, place) == place and owner.kind not in ("Constant", "Output"):
                alive -= _bytes(owner)
    return peak, where


def _not_routed(graph: Graph) -> int:
    """Multiply-accumulates of experts that the gates do not choose."""
    idle = 0
    for mixture in graph.mixtures:
        experts = [sum(graph.operator(name).macs for name in expert) for expert in mixture.experts]
        idle += sum(experts) - sum(experts) * mixture.k // len(experts)
    return idle


def _longest(graph: Graph, weights: Sequence[int]) -> CriticalPath:
    """The path with the largest sum of weights; of equals the one with more operators."""
    operators = graph.operators()
    best: dict[str, tuple[int, int]] = {}
    before: dict[str, str] = {}
    for op, weight in zip(operators, weights, strict=True):
        reached = (0, 0)
        if op.inputs:
            before[op.name] = max(op.inputs, key=best.__getitem__)
            reached = best[before[op.name]]
        best[op.name] = (reached[0] + weight, reached[1] + int(op.kind not in _FREE))
    path = [max(best, key=best.__getitem__)] if best else []
    while path and path[-1] in before:
        path.append(before[path[-1]])
    chosen = [graph.operator(name) for name in reversed(path)]
    work = [op for op in chosen if op.kind not in _FREE]
    tokens = [(op.kind, op.output.shape, op.macs, _unnumbered(op.path)) for op in work]
    runs = [
        Run(tuple(op.name for op in work[start : start + period]), times)
        for start, period, times in repeats(tokens)
    ]
    return CriticalPath(
        operators=tuple(op.name for op in work),
        macs=sum(op.macs for op in work),
        length=len(work),
        runs=tuple(_joined(runs)),
    )


def _joined(runs: Iterable[Run]) -> list[Run]:
    """Neighbours that occur once become one run."""
    joined: list[Run] = []
    for run in runs:
        if joined and run.times == joined[-1].times == 1:
            joined[-1] = Run(joined[-1].operators + run.operators, 1)
        else:
            joined.append(run)
    return joined


def _unnumbered(path: str) -> str:
    return ".".join("#" if word.isdigit() else word for word in path.split("."))
