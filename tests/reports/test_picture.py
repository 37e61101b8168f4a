"""The picture: what is on it, text inside boxes, no box over another, the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
import transformers
from PIL import ImageFont
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig
from vitruvius.reports.picture import graph_picture, shortened

SVG = "{http://www.w3.org/2000/svg}"
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"


class Branches(nn.Module):
    """No list of blocks, branches of different lengths, two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a_branch_with_a_name_that_is_much_too_long_for_any_box = nn.Conv2d(3, 4, 3, padding=1)
        self.short = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.a_branch_with_a_name_that_is_much_too_long_for_any_box(x)
        b = torch.relu(torch.sigmoid(torch.tanh(self.short(x)) + y))
        return a + b + x.mean(), torch.relu(a * y)


def vision_transformer(**sizes: object) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    config = VisionTransformerConfig(
        image_size=16, patch_size=8, classes=3, dim=24, heads=3, **sizes
    )
    return VisionTransformer(config), (torch.zeros(1, 3, 16, 16),)


def deit() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return vision_transformer(depth=3, distilled=True, registers=2, layer_scale=0.1)


def m3vit() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return vision_transformer(
        depth=6, experts={"count": 16, "top_k": 2, "hidden_ratio": 1.0, "tasks": 2}
    )


def swin() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    config = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=12, depths=[2, 4], num_heads=[2, 3], window_size=4
    )
    return transformers.SwinForImageClassification(config), (torch.zeros(1, 3, 64, 64),)


def convnext() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 32], depths=[2, 3], image_size=32, num_stages=2
    )
    return transformers.ConvNextForImageClassification(config), (torch.zeros(1, 3, 32, 32),)


def branches() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Branches(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8))


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "deit": deit,
    "m3vit": m3vit,
    "swin": swin,
    "convnext": convnext,
    "branches": branches,
}


@cache
def traced(name: str) -> Graph:
    torch.manual_seed(0)
    module, inputs = MODELS[name]()
    return trace(module, inputs, name=name, unmapped="host")


@pytest.fixture(params=MODELS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return traced(request.param)


def groups(text: str) -> Iterator[ElementTree.Element]:
    """The columns of a picture: the model, then the insides of its blocks."""
    yield from ElementTree.fromstring(text).findall(f"{SVG}g")


def boxes(group: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    return [
        tuple(float(box.get(name, "")) for name in ("x", "y", "width", "height"))
        for box in group.findall(f"{SVG}rect")
        if box.get("class") == "box"
    ]


def corners(line: ElementTree.Element) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", line.get("d", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def lines(group: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [corners(line) for line in group.findall(f"{SVG}path") if line.get("marker-end")]


def texts(group: ElementTree.Element) -> Iterator[tuple[str, float, float, float]]:
    """(text, left, right, baseline) with the widths of a real monospaced font."""
    for item in group.findall(f"{SVG}text"):
        bold = "-Bold" if item.get("font-weight") else ""
        size = float(item.get("font-size", ""))
        font = ImageFont.truetype(str(FONTS / f"DejaVuSansMono{bold}.ttf"), 100)
        width = font.getlength(item.text or "") * size / 100
        x = float(item.get("x", ""))
        left = x - width if item.get("text-anchor") else x
        yield item.text or "", left, left + width, float(item.get("y", ""))


def test_boxes_do_not_touch(graph: Graph) -> None:
    for group in groups(graph_picture(graph)):
        placed = boxes(group)
        assert placed
        for n, (x, y, width, height) in enumerate(placed):
            for other_x, other_y, _, _ in placed[n + 1 :]:
                assert abs(x - other_x) >= width + 4 or abs(y - other_y) >= height + 4


def test_text_lies_in_its_box_or_in_the_gap_below(graph: Graph) -> None:
    for group in groups(graph_picture(graph)):
        placed = boxes(group)
        for text, left, right, baseline in texts(group):
            if baseline < 0:
                continue  # the column's title
            assert any(
                x <= left and right <= x + width and y < baseline - 6 and baseline < y + height + 16
                for x, y, width, height in placed
            ), text


def test_texts_do_not_overlap(graph: Graph) -> None:
    for group in groups(graph_picture(graph)):
        found = sorted(texts(group), key=lambda item: (item[3], item[1]))
        for (text, _, right, baseline), (after, left, _, next_baseline) in pairwise(found):
            assert baseline != next_baseline or right < left, (text, after)


def test_lines_cross_no_box_and_end_at_boxes(graph: Graph) -> None:
    for group in groups(graph_picture(graph)):
        placed = boxes(group)
        for line in lines(group):
            assert any(y + h == line[0][1] and x < line[0][0] < x + w for x, y, w, h in placed)
            assert any(y == line[-1][1] and x < line[-1][0] < x + w for x, y, w, _ in placed)
            for (x1, y1), (x2, y2) in pairwise(line):
                assert x1 == x2 or y1 == y2
                for x, y, w, h in placed:
                    beside = max(x1, x2) <= x or min(x1, x2) >= x + w
                    above_or_below = max(y1, y2) <= y or min(y1, y2) >= y + h
                    assert beside or above_or_below


def test_everything_is_on_the_sheet(graph: Graph) -> None:
    root = ElementTree.fromstring(graph_picture(graph))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for group in root.findall(f"{SVG}g"):
        left, top = (float(n) for n in re.findall(r"[\d.]+", group.get("transform", "")))
        points = [point for line in lines(group) for point in line]
        points += [(x + w, y + h) for x, y, w, h in boxes(group)]
        assert max(x for x, _ in points) + left < width
        assert max(y for _, y in points) + top < height
    for _, _, right, baseline in texts(root):
        assert right < width
        assert baseline < height


def test_the_same_bytes_every_time(graph: Graph) -> None:
    twin = Graph(
        graph.name,
        graph.operators(),
        graph.tensors,
        regions=graph.regions,
        mixtures=graph.mixtures,
        unmapped=graph.unmapped,
    )
    assert graph_picture(graph) == graph_picture(twin)


def words(graph_text: str) -> list[list[str]]:
    return [[text for text, *_ in texts(group)] for group in groups(graph_text)]


def test_vit_digits_shows_one_block_of_four(digits_graph: Graph) -> None:
    """Every block of a ViT is alike; its inside has the two residual lines."""
    text = graph_picture(digits_graph)
    model, inside = words(text)
    assert [word for word in model if word.startswith("blocks")] == ["blocks.0…3"]
    assert "×4 A" in model
    assert inside[0] == "A: blocks.0…3"
    assert "4 heads, 17 x 16" in inside
    panel = list(groups(text))[1]
    assert len(boxes(panel)) == 12  # in, 2 norms, qkv, attention, proj, 2 adds, fc1, act, fc2, out
    assert sum(len(line) > 4 for line in lines(panel)) == 2


def test_experts_are_one_box() -> None:
    model, dense, sparse = words(graph_picture(traced("m3vit")))
    assert {"blocks.0,2,4", "blocks.1,3,5", "×3 A", "×3 B"} <= set(model)
    assert "16 experts" not in dense
    assert sparse.count("16 experts") == 1
    assert "mlp.route" in sparse


def test_swin_shows_its_two_kinds_of_block() -> None:
    """Plain and shifted windows alternate: in the second stage twice, as two boxes."""
    model, *insides = words(graph_picture(traced("swin")))
    blocks = {"layers.0.blocks.0", "layers.0.blocks.1"}
    blocks |= {"layers.1.blocks.0,2", "layers.1.blocks.1,3"}
    assert blocks <= set(model)
    assert sum("roll" in words_inside for words_inside in insides) == 1


def test_text_is_escaped() -> None:
    graph = traced("branches")
    text = graph_picture(Graph("<a & b>", graph.operators(), graph.tensors))
    assert "&lt;a &amp; b&gt;" in text
    ElementTree.fromstring(text)


@pytest.mark.parametrize("width", [1, 6, 13, 50, 500])
def test_shortened_text_fits(width: float) -> None:
    text = shortened("encoder.layers.10.attention.self.query", width, 10)
    assert len(text) * 6.05 <= width
    assert width < 500 or text == "encoder.layers.10.attention.self.query"
