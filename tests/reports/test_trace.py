"""The tables of a trace: what they say, at the widths of a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console, RenderableType
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.summary import summarise
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig
from vitruvius.reports.trace import (
    attention_table,
    critical_path_lines,
    kinds_table,
    modules_table,
    operators_table,
    overview_lines,
    trace_record,
)


@pytest.fixture(scope="module")
def mixture() -> Graph:
    config = VisionTransformerConfig(
        image_size=16,
        patch_size=8,
        classes=3,
        dim=24,
        depth=8,
        heads=3,
        experts={"count": 4, "top_k": 2, "hidden_ratio": 1.0},
    )
    module = VisionTransformer(config)
    return trace(module, (torch.zeros(1, 3, 16, 16),), name="mixture")


def printed(part: RenderableType, width: int = 120) -> list[str]:
    file = StringIO()
    Console(file=file, width=width).print(part)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines: list[str], start: str) -> list[str]:
    """The cells of the one line that begins with ``start``."""
    (line,) = (line for line in lines if line.strip().startswith(start))
    return line.strip().removeprefix(start).split()


@pytest.mark.parametrize("width", [80, 120])
def test_numbers_and_names_are_whole_at_usual_widths(digits_graph: Graph, width: int) -> None:
    summary = summarise(digits_graph)
    for part in (
        kinds_table(summary),
        modules_table(summary),
        attention_table(digits_graph.regions),
    ):
        lines = printed(part, width)
        assert max(len(line) for line in lines) <= width
        assert lines == [line.rstrip() for line in printed(part, 200)]


def test_overview(digits_graph: Graph, mixture: Graph) -> None:
    lines = printed(overview_lines(summarise(digits_graph), digits_graph))
    assert lines[0].startswith("vit_digits: ")
    # published with the model: 3.5 M products, 202,186 parameters of four bytes
    assert "  3,495,040 MACs" in lines
    assert "  202,186 parameters, 809 kB in float32" in lines
    # 17 tokens x (64 + 256 + 256) floats
    assert lines[3].endswith("at most 39.2 kB alive at once, at blocks.0.mlp.act")
    text = " ".join(printed(overview_lines(summarise(mixture), mixture)))
    assert "for all experts" in text
    assert "with routing: 2 of 4" in text


def test_kinds(digits_graph: Graph) -> None:
    lines = printed(kinds_table(summarise(digits_graph)))
    # four blocks of two products, 17 x 17 x 64 each
    assert row(lines, "MatMul")[:4] == ["8", "147,968", "4.2", "%"]
    assert row(lines, "total")[1:3] == ["3,495,040", "202,186"]


def test_modules_alike_are_one_line(digits_graph: Graph, mixture: Graph) -> None:
    lines = printed(modules_table(summarise(digits_graph)))
    block = 17 * 64 * (3 * 64 + 64 + 2 * 256) + 2 * 17 * 17 * 64
    assert row(lines, "blocks.0…3  ×4")[1] == f"{4 * block:,}"
    assert row(lines, "mlp  ×4")[1] == f"{4 * 17 * 2 * 64 * 256:,}"
    lines = printed(modules_table(summarise(mixture)))
    assert any(line.startswith("blocks.0,2…6  ×4") for line in lines)
    assert any(line.startswith("blocks.1,3…7  ×4") for line in lines)


def test_attention(digits_graph: Graph) -> None:
    lines = printed(attention_table(digits_graph.regions))
    assert lines[0] == "Attention: 4 regions"
    assert lines[1].split() == [
        *("attention", "times", "heads", "queries", "keys", "head", "dim", "scale")
    ]
    assert row(lines, "blocks.0.attn …") == ["4", "4", "17", "17", "16", "0.25"]


def test_the_critical_path_says_repeated_blocks_once(digits_graph: Graph, mixture: Graph) -> None:
    lines = printed(critical_path_lines(summarise(digits_graph)), 400)
    assert lines[1] == "  most MACs: 3,495,040 (100 % of all) in 53 operators"
    assert lines[2:6] == [
        "    patch_embed → concat → add",
        "    ×4, the first:",
        "      blocks.0: norm1 → attn.qkv → attn.scores → attn.softmax → attn.apply → attn.proj → "
        "add → norm2 → mlp.fc1 → mlp.act → mlp.fc2 → add_1",
        "    norm → head",
    ]
    text = "\n".join(printed(critical_path_lines(summarise(mixture)), 400))
    assert "×4, the first:" in text
    assert "mlp.add ×3 → add_1" in text


def test_operators_without_products_have_an_empty_cell(digits_graph: Graph) -> None:
    lines = printed(operators_table(digits_graph))
    assert row(lines, "blocks.0.norm1 ")[:3] == ["LayerNorm", "1x17x64", "128"]


def test_the_record_is_plain(mixture: Graph) -> None:
    record = trace_record(mixture, summarise(mixture))
    assert record["mixtures"] == [
        {
            "gate": f"blocks.{layer}.mlp.gate",
            "combine": next(m.combine for m in mixture.mixtures if f".{layer}." in m.gate),
            "experts": 4,
            "k": 2,
            "tokens": 5,
        }
        for layer in (1, 3, 5, 7)
    ]


def test_a_model_without_products() -> None:
    graph = trace(nn.ReLU(), (torch.zeros(1, 4),), name="relu")
    summary = summarise(graph)
    assert "most MACs: 0 (none of all) in 1 operators" in " ".join(
        printed(critical_path_lines(summary))
    )
    assert row(printed(kinds_table(summary)), "Relu") == ["1", "16.0", "B"]
