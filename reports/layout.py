"""Where boxes and lines of a directed graph go: layers from top to bottom, long lines at the side.

Boxes have one size. A box lies in the layer after its last predecessor. A line to the next layer
goes through the gap between; a longer one goes down a lane of its own right of all boxes, so that
no line crosses a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BOX_HEIGHT", "BOX_WIDTH", "Layout", "Point", "layered"]

BOX_WIDTH = 232.0
BOX_HEIGHT = 44.0
_GAP_X = 22.0
_GAP_Y = 42.0
_LANE = 12.0
_FIRST_LANE = 16.0
# heights in the gap below a box: its label, then a long line that leaves, then one to the next
# layer, then a long line that arrives
_LEAVES = 19.0
_BETWEEN = 26.0
_ARRIVES = 33.0
# where long lines leave and arrive, as parts of a box's width; short ones do in the middle
_SIDE = 0.78

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Top left corners of boxes by key, corners of the lines in the order of the edges, and the
    size of it all; in pixels from the top left.
    """

    boxes: Mapping[str, Point]
    lines: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def layered(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> Layout:
    """The layout of a graph without cycles; ``keys`` are in topological order.

    The same graph gives the same layout.
    """
    layer = _layers(keys, edges)
    rows = _rows(keys, edges, layer)
    widest = max((len(row) for row in rows), default=1)
    content = widest * BOX_WIDTH + (widest - 1) * _GAP_X
    boxes: dict[str, Point] = {}
    for depth, row in enumerate(rows):
        left = (content - len(row) * BOX_WIDTH - (len(row) - 1) * _GAP_X) / 2
        for place, key in enumerate(row):
            boxes[key] = (left + place * (BOX_WIDTH + _GAP_X), depth * (BOX_HEIGHT + _GAP_Y))
    lanes = _lanes([edge for edge in edges if layer[edge[1]] - layer[edge[0]] > 1], layer)
    lines = tuple(_line(edge, boxes, lanes, content) for edge in edges)
    count = max(lanes.values(), default=-1) + 1
    return Layout(
        boxes,
        lines,
        width=content + (_FIRST_LANE + count * _LANE if count else 0.0),
        height=len(rows) * BOX_HEIGHT + max(0, len(rows) - 1) * _GAP_Y,
    )


def _layers(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    before: dict[str, list[str]] = {key: [] for key in keys}
    for source, target in edges:
        before[target].append(source)
    layer: dict[str, int] = {}
    for key in keys:
        layer[key] = max((layer[source] + 1 for source in before[key]), default=0)
    # a box without predecessors is drawn just above the first that reads it
    for key in reversed(keys):
        if not before[key]:
            readers = [layer[target] for source, target in edges if source == key]
            layer[key] = max(0, min(readers, default=1) - 1)
    return layer


def _rows(
    keys: Sequence[str], edges: Sequence[tuple[str, str]], layer: Mapping[str, int]
) -> list[list[str]]:
    """Keys by layer, each row ordered by the middle of its predecessors' places."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for key in keys:
        rows[layer[key]].append(key)
    place: dict[str, float] = {}
    for row in rows:
        middle = {}
        for number, key in enumerate(row):
            sources = [place[source] for source, target in edges if target == key]
            middle[key] = (sum(sources) / len(sources) if sources else 0.0, number)
        row.sort(key=middle.__getitem__)
        for number, key in enumerate(row):
            place[key] = number - (len(row) - 1) / 2
    return rows


def _lanes(
    edges: Sequence[tuple[str, str]], layer: Mapping[str, int]
) -> dict[tuple[str, str], int]:
    """A lane for every long edge, short ones innermost; edges that overlap have different lanes."""
    taken: list[list[tuple[int, int]]] = []
    found: dict[tuple[str, str], int] = {}
    for edge in sorted(set(edges), key=lambda e: (layer[e[1]] - layer[e[0]], layer[e[0]], e)):
        first, last = layer[edge[0]], layer[edge[1]]
        lane = 0
        while lane < len(taken) and any(a < last and first < b for a, b in taken[lane]):
            lane += 1
        if lane == len(taken):
            taken.append([])
        taken[lane].append((first, last))
        found[edge] = lane
    return found


def _line(
    edge: tuple[str, str],
    boxes: Mapping[str, Point],
    lanes: Mapping[tuple[str, str], int],
    content: float,
) -> tuple[Point, ...]:
    (from_x, from_y), (to_x, to_y) = boxes[edge[0]], boxes[edge[1]]
    bottom = from_y + BOX_HEIGHT
    if edge not in lanes:
        start, end = from_x + BOX_WIDTH / 2, to_x + BOX_WIDTH / 2
        if start == end:
            return ((start, bottom), (end, to_y))
        return (
            (start, bottom),
            (start, bottom + _BETWEEN),
            (end, bottom + _BETWEEN),
            (end, to_y),
        )
    start, end = from_x + _SIDE * BOX_WIDTH, to_x + _SIDE * BOX_WIDTH
    lane = content + _FIRST_LANE + lanes[edge] * _LANE
    arrives = to_y - (_GAP_Y - _ARRIVES)
    return (
        (start, bottom),
        (start, bottom + _LEAVES),
        (lane, bottom + _LEAVES),
        (lane, arrives),
        (end, arrives),
        (end, to_y),
    )
