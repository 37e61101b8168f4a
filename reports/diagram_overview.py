"""The model as a whole for its picture: modules as nodes, repeated ones once.

A model is cut into its blocks: the outermost numbered modules that add, normalise or otherwise
compute something themselves, and everything beside them. Blocks that follow each other and do the
same are one node with a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from .diagram import (
    SEEN_THROUGH,
    Diagram,
    Node,
    Part,
    colour,
    cost,
    edges_between,
    owners_of,
    size,
)
from .diagram_inside import inside

if TYPE_CHECKING:
    from ..models.graph import Graph, Operator

__all__ = ["diagrams", "numbered"]

_SILENT = frozenset({*SEEN_THROUGH, "Constant", "Input", "Output"})
_MOST_PANELS = 4
_LEAST_INSIDE = 3


def diagrams(graph: Graph) -> tuple[Diagram, ...]:
    """The model as a whole, then the inside of its largest different blocks, at most four.

    Blocks that differ in their sizes only share one inside, that of the first.
    """
    total = sum(op.macs for op in graph.operators()) or 1
    parts = _parts(graph)
    groups, edges = _collapsed(parts, edges_between(graph, owners_of(parts)))
    titles = _titles(groups)
    panels: dict[tuple[object, ...], list[int]] = {}
    for place, group in enumerate(groups):
        if len(group[0].operators) >= _LEAST_INSIDE:
            panels.setdefault(_structure(group[0]), []).append(place)

    def weight(places: Sequence[int]) -> int:
        return sum(part.macs for place in places for part in groups[place])

    chosen = sorted(sorted(panels.values(), key=lambda p: (-weight(p), p))[:_MOST_PANELS])
    letters = {place: "ABCD"[n] for n, places in enumerate(chosen) for place in places}
    nodes = tuple(
        _module_node(group, title, total, letters.get(place, ""))
        for place, (group, title) in enumerate(zip(groups, titles, strict=True))
    )
    insides = tuple(
        inside(graph, groups[places[0]][0], f"{letters[places[0]]}: {titles[places[0]]}")
        for places in chosen
    )
    return (Diagram(graph.name, nodes, edges), *insides)


def numbered(paths: Sequence[str]) -> str:
    """Members of one list by their numbers.

    >>> numbered(["blocks.0", "blocks.1", "blocks.2"]), numbered([f"b.{n}" for n in (1, 3, 5, 7)])
    ('blocks.0…2', 'b.1,3…7')
    """
    owner = paths[0].rpartition(".")[0]
    words = [path.rpartition(".")[2] for path in paths]
    if len(paths) == 1 or not all(word.isdigit() for word in words):
        return paths[0]
    numbers = [int(word) for word in words]
    steps = {after - before for before, after in pairwise(numbers)}
    if steps == {1}:
        listing = f"{words[0]}…{words[-1]}"
    elif len(steps) == 1 and len(words) > 3:
        listing = f"{words[0]},{words[1]}…{words[-1]}"
    else:
        listing = ",".join(words)
    return f"{owner}.{listing}" if owner else listing


def _parts(graph: Graph) -> list[Part]:
    """Neighbouring operators of the same block, in order."""
    from ..models.summary import levels

    operators = [op for op in graph.operators() if op.kind not in {*SEEN_THROUGH, "Constant"}]
    paths = {levels(op.path) for op in operators}
    own = {levels(op.path) for op in operators if op.kind not in _SILENT}
    listed = {
        path[:depth]
        for path in paths
        for depth in range(len(path))
        if any(word.rpartition(".")[2].isdigit() for word in path[depth:])
    }

    def block(op: Operator) -> tuple[tuple[str, ...], bool]:
        """The path of the operator's block, and whether the operator is beside all blocks."""
        path = levels(op.path)
        for depth in range(1, len(path) + 1):
            prefix = path[:depth]
            member = prefix[-1].rpartition(".")[2].isdigit()
            if prefix not in listed or (member and prefix in own):
                return prefix, False
        return path, True

    parts: list[Part] = []
    previous: object = None
    for op in operators:
        place, beside = block(op)
        key = op.name if op.kind in ("Input", "Output") else (place, beside)
        if key == previous:
            last = parts[-1]
            parts[-1] = replace(last, operators=(*last.operators, op))
        else:
            path = "" if beside else ".".join(place)
            parts.append(Part(f"n{len(parts)}", path, (op,)))
        previous = key
    return parts


def _collapsed(
    parts: Sequence[Part], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[Part]], tuple[tuple[str, str], ...]]:
    """Parts alike that follow each other as one group, and the edges between the groups' first."""
    from ..models.summary import repeats

    place = {part.key: number for number, part in enumerate(parts)}
    numbers = [(place[source], place[target]) for source, target in edges]
    groups: list[list[Part]] = []
    first: dict[int, int] = {}
    for start, period, times in repeats([_signature(part) for part in parts]):
        if not _follow(numbers, start, period, times):
            groups += [[part] for part in parts[start : start + period * times]]
            first |= {n: n for n in range(start, start + period * times)}
            continue
        for offset in range(period):
            members = range(start + offset, start + period * times, period)
            groups.append([parts[n] for n in members])
            first |= dict.fromkeys(members, start + offset)
    kept: dict[tuple[str, str], None] = {}
    for source, target in numbers:
        if first[source] < first[target]:
            kept[parts[first[source]].key, parts[first[target]].key] = None
    return groups, tuple(kept)


def _follow(edges: Iterable[tuple[int, int]], start: int, period: int, times: int) -> bool:
    """Whether repetitions read each other alike, and only the last is read from outside."""
    if times == 1:
        return True
    stop = start + period * times
    read: list[set[tuple[int, int]]] = [set() for _ in range(times)]
    for source, target in edges:
        if start <= target < stop:
            turn = (target - start) // period
            before = source - target if source >= start else -1 - source - stop
            read[turn].add(((target - start) % period, before))
        elif start <= source < stop - period:
            return False
    return all(found == read[1] for found in read[2:])


def _signature(part: Part) -> tuple[object, ...]:
    """Parts with equal signatures do the same with other parameters."""
    return tuple((op.kind, op.output.shape, op.macs, _unnumbered(op.path)) for op in part.operators)


def _structure(part: Part) -> tuple[object, ...]:
    """Parts of equal structure do the same on other sizes."""
    depth = len(part.path.split(".")) if part.path else 0
    return tuple((op.kind, tuple(op.path.split(".")[depth:])) for op in part.operators)


def _unnumbered(path: str) -> str:
    return ".".join("#" if word.isdigit() else word for word in path.split("."))


def _titles(groups: Sequence[Sequence[Part]]) -> list[str]:
    """Paths of the groups without the modules that only wrap several of them, numbers brought
    together; names of operators where there is no path.
    """
    paths = [numbered([part.path for part in group]).split(".") for group in groups]
    shared = Counter(tuple(path[:depth]) for path in paths for depth in range(1, len(path)))
    titles = []
    for group, path in zip(groups, paths, strict=True):
        start = 0
        # a list keeps its name before the number
        while shared[tuple(path[: start + 1])] > 1 and not path[start + 1][0].isdigit():
            start += 1
        titles.append(".".join(path[start:]) or _named(group[0].operators))
    return titles


def _module_node(group: Sequence[Part], title: str, total: int, panel: str) -> Node:
    first, macs = group[0], sum(part.macs for part in group)
    last = first.operators[-1]
    if last.kind in ("Input", "Output"):
        kind = last.kind.lower()
        shown = size(last.output) if last.kind == "Input" else ""
        detail = "" if last.name == kind else kind
        return Node(first.key, last.name, detail, "in and out", shape=shown)
    return Node(
        key=first.key,
        title=title,
        detail=cost(first.operators, macs),
        colour=colour(first.operators),
        share=macs / total,
        times=len(group),
        panel=panel,
        shape=size(last.output),
    )


def _named(operators: Sequence[Operator]) -> str:
    """Names of a few operators that belong to no block."""
    return ", ".join(dict.fromkeys(op.name.rpartition(".")[2] for op in operators))
