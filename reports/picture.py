"""A graph as an SVG that a person can read: see ``diagram_overview.py`` for what is on it.

Text is set in a monospaced font, whose width is known without the font: no text is wider than its
box, and what would be is shortened in the middle. The same graph gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .diagram import COLOURS, Diagram, Node
from .diagram_overview import diagrams
from .layout import BOX_HEIGHT, BOX_WIDTH, Layout, Point, layered
from .quantities import count, quantity

if TYPE_CHECKING:
    from ..models.graph import Graph

__all__ = ["graph_picture", "shortened"]

_MARGIN = 28.0
_BETWEEN = 56.0
_TITLE = 34.0
_HEADER = 58.0
_LEGEND = 44.0
_PADDING = 12.0
# a glyph of Courier, DejaVu Sans Mono, Menlo or Liberation Mono is at most this wide for its size
_GLYPH = 0.605
_FONT = "'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,'Courier New',monospace"
_NOTE = "bar, %: share of the MACs of this column; ×: blocks alike; a letter: drawn beside"
_LEAST_SHARE = 0.0005
_LINE = "#4a5568"
_TEXT = "#1a202c"
_PALE = "#5a6678"


def graph_picture(graph: Graph) -> str:
    """The picture of ``graph`` as the text of an SVG file."""
    drawn = diagrams(graph)
    layouts = [layered([node.key for node in item.nodes], item.edges) for item in drawn]
    heading, below = _heading(graph)
    legend = [name for name in COLOURS if any(n.colour == name for d in drawn for n in d.nodes)]
    content = sum(layout.width for layout in layouts) + _BETWEEN * (len(layouts) - 1)
    widths = (content, _width(heading, 18), _width(below, 11), _legend_width(legend))
    width = max(widths) + 2 * _MARGIN
    top = _MARGIN + _HEADER + _TITLE
    height = top + max(layout.height for layout in layouts) + _LEGEND + 2 * _MARGIN
    body: list[str] = [
        _text(_MARGIN, _MARGIN + 18, heading, 18, bold=True),
        _text(_MARGIN, _MARGIN + 40, below, 11, colour=_PALE),
    ]
    left = _MARGIN
    for item, layout in zip(drawn, layouts, strict=True):
        body.append(f'<g transform="translate({_n(left)} {_n(top)})">')
        if item is not drawn[0]:
            title = shortened(item.title, layout.width, 13)
            body.append(_text(0, -14, title, 13, bold=True))
        body += _diagram(item, layout)
        body.append("</g>")
        left += layout.width + _BETWEEN
    body += _legend(legend, height - _MARGIN - 22)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
            f'viewBox="0 0 {_n(width)} {_n(height)}" font-family="{_FONT}">',
            f"<title>{escape(heading)}</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker>'
            "</defs>",
            f'<rect width="{_n(width)}" height="{_n(height)}" fill="#ffffff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def shortened(text: str, width: float, size: float) -> str:
    """``text``, or its two ends, so that it is at most ``width`` wide in a font of ``size``.

    >>> shortened("encoder.layers.0.attention", 100, 10)
    'encoder.…tention'
    """
    room = int(width / (_GLYPH * size))
    if len(text) <= room:
        return text
    kept = max(room - 1, 1)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :] if kept > 1 else ''}"[:room]


def _heading(graph: Graph) -> tuple[str, str]:
    operators = graph.operators()
    macs = sum(op.macs for op in operators)
    parts = [
        f"{count(len(operators))} operators",
        f"{quantity(macs, '').strip()} MACs",
        f"{quantity(sum(op.params for op in operators), '').strip()} parameters",
        f"{count(len(graph.regions))} attention regions",
    ]
    if graph.mixtures:
        parts.append(f"{count(len(graph.mixtures))} mixtures of experts")
    if graph.unmapped:
        parts.append(f"{count(len(graph.unmapped))} operators on the host")
    return graph.name, ", ".join(parts)


def _diagram(item: Diagram, layout: Layout) -> list[str]:
    lines = [_line(points) for points in layout.lines]
    boxes = [text for node in item.nodes for text in _box(node, layout.boxes[node.key])]
    return lines + boxes


def _line(points: tuple[Point, ...]) -> str:
    path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path d="{path}" fill="none" stroke="{_LINE}" marker-end="url(#arrow)"/>'


def _box(node: Node, place: Point) -> list[str]:
    """The box, its colour, two lines of text, the bar of its share, and its shape below."""
    x, y = place
    colour = COLOURS[node.colour]
    dashed = ' stroke-dasharray="4 3"' if node.colour == "in and out" else ""
    right = [f"×{node.times}"] if node.times > 1 else []
    right += [node.panel] if node.panel else []
    badge = " ".join(right)
    room = BOX_WIDTH - 2 * _PADDING
    title_room = room - (_width(badge, 11) + 6 if badge else 0)
    part = f"{100 * node.share:.1f} %" if node.share >= _LEAST_SHARE else ""
    detail_room = room - (_width(part, 9.5) + 6 if part else 0)
    found = [
        f'<rect class="box" x="{_n(x)}" y="{_n(y)}" width="{_n(BOX_WIDTH)}" '
        f'height="{_n(BOX_HEIGHT)}" rx="5" fill="{colour}" fill-opacity="0.10" '
        f'stroke="{colour}"{dashed}/>',
    ]
    if node.times > 1:
        # a second edge behind, as of a stack
        found.insert(
            0,
            f'<path d="M{_n(x + 5)} {_n(y - 4)}H{_n(x + BOX_WIDTH + 4)}V{_n(y + BOX_HEIGHT - 5)}" '
            f'fill="none" stroke="{colour}"/>',
        )
    baseline = y + 19 if node.detail else y + 27
    found.append(
        _text(x + _PADDING, baseline, shortened(node.title, title_room, 11), 11, bold=True)
    )
    if badge:
        found.append(_text(x + BOX_WIDTH - _PADDING, y + 19, badge, 11, bold=True, anchor="end"))
    if node.detail:
        detail = shortened(node.detail, detail_room, 9.5)
        found.append(_text(x + _PADDING, y + 34, detail, 9.5, colour=_PALE))
    if part:
        found.append(_text(x + BOX_WIDTH - _PADDING, y + 34, part, 9.5, colour=_PALE, anchor="end"))
        found.append(
            f'<rect x="{_n(x + 1)}" y="{_n(y + BOX_HEIGHT - 4)}" '
            f'width="{_n(max(1.0, node.share * (BOX_WIDTH - 2)))}" height="3" fill="{colour}"/>'
        )
    if node.shape:
        label = shortened(node.shape, BOX_WIDTH / 2 - 8, 9)
        found.append(
            _text(x + BOX_WIDTH / 2 - 6, y + BOX_HEIGHT + 12, label, 9, colour=_PALE, anchor="end")
        )
    return found


def _legend(names: list[str], y: float) -> list[str]:
    found: list[str] = []
    x = _MARGIN
    for name in names:
        found.append(
            f'<rect x="{_n(x)}" y="{_n(y - 9)}" width="12" height="12" rx="2" '
            f'fill="{COLOURS[name]}"/>'
        )
        found.append(_text(x + 17, y + 1, name, 10))
        x += 17 + _width(name, 10) + 18
    found.append(_text(_MARGIN, y + 21, _NOTE, 10, colour=_PALE))
    return found


def _legend_width(names: list[str]) -> float:
    return max(sum(35 + _width(name, 10) for name in names), _width(_NOTE, 10))


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    bold: bool = False,
    colour: str = _TEXT,
    anchor: str = "start",
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    end = ' text-anchor="end"' if anchor == "end" else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{colour}"{weight}{end}>'
        f"{escape(text)}</text>"
    )


def _width(text: str, size: float) -> float:
    return len(text) * _GLYPH * size


def _n(value: float) -> str:
    """A coordinate with at most two digits after the point, without needless zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
