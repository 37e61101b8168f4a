"""The products of a model on a systolic array: every operator, its extents, and what is left."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from vitruvius.cli.output import Output
from vitruvius.cli.systolic_option import parse_systolic, show_systolic
from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, Operator, TensorSpec
from vitruvius.models.summary import summarise
from vitruvius.models.trace import trace
from vitruvius.sim.systolic import Dataflow
from vitruvius.sim.systolic_report import Gemm, products, systolic_report


def gemms(module, *shape):
    graph = trace(module.eval(), (torch.zeros(shape),), name="small")
    found, others = products(graph)
    return [(gemm.kind, gemm.M, gemm.N, gemm.K, gemm.count) for gemm in found], dict(others)


def test_a_linear_is_tokens_by_outputs_by_inputs():
    assert gemms(nn.Linear(5, 7), 1, 3, 5) == ([("Linear", 3, 7, 5, 1)], {})


def test_a_convolution_is_pixels_by_channels_by_window():
    """6 channels in 2 groups, 4 outputs; 8 x 10 pixels with a 3 x 5 window: 6 x 6 are left."""
    convolution = nn.Conv2d(6, 4, (3, 5), groups=2)
    assert gemms(convolution, 1, 6, 8, 10) == ([("Conv2d", 36, 2, 45, 2)], {})


def test_a_transposed_convolution_spreads_its_input_pixels():
    convolution = nn.ConvTranspose2d(6, 4, (3, 5), groups=2, stride=2)
    assert gemms(convolution, 1, 6, 8, 10) == ([("ConvTranspose2d", 80, 30, 3, 2)], {})


class Heads(nn.Module):
    """Two heads with matrices of their own, then one matrix for both."""

    def forward(self, x):
        scores = torch.softmax(x @ x.transpose(-2, -1), dim=-1)
        shared = x.mean(dim=1, keepdim=True)
        return (scores @ x) @ shared.transpose(-2, -1)


def test_heads_are_separate_and_a_shared_matrix_is_not():
    found, others = gemms(Heads(), 1, 2, 3, 9)
    assert found == [
        ("MatMul", 3, 3, 9, 2),
        ("MatMul", 3, 9, 3, 2),
        ("MatMul", 6, 3, 9, 1),
    ]
    assert others == {"Softmax": 1, "Mean": 1}


def test_vit_digits_on_paper(digits_graph):
    """Extents from the model's card: 16 patches of 4, 17 tokens, width 64, 4 heads, 4 blocks; the
    array takes 2 rows + cols + M - 2 cycles for each of ceil(K / 16) ceil(N / 16) folds.
    """
    report = systolic_report(digits_graph, 16, 16, "ws")
    block = 63 * (4 * 12 + 4 * 4 + 4 * 16 + 16 * 4) + 4 * 63 * (1 * 2) + 4 * 63 * (2 * 1)
    assert report.cycles == 62 * 4 + 4 * block + 47 * 4
    assert report.macs == summarise(digits_graph).macs
    assert report.utilisation == pytest.approx(report.macs / (report.cycles * 256))
    assert len(report.products) == 1 + 4 * 6 + 1
    assert report.not_on_array == (
        ("Add", 9),
        ("Concat", 1),
        ("Gelu", 4),
        ("LayerNorm", 9),
        ("Softmax", 4),
    )


def test_an_integer_model_has_the_products_of_its_graph(digits_graph, digits_model):
    """It computes q, k and v one by one; everything else is as in the graph."""
    expected = []
    for gemm in products(digits_graph)[0]:
        parts = 3 if gemm.N == 3 * 64 else 1
        expected += parts * [(gemm.M, gemm.N // parts, gemm.K, gemm.count)]
    found, others = products(digits_model)
    assert [(gemm.M, gemm.N, gemm.K, gemm.count) for gemm in found] == expected
    assert (others["LayerNorm"], others["Gelu"], others["Linear"]) == (9, 4, 0)


def test_a_program_stands_for_its_integer_model(digits_model):
    class Made:
        model = digits_model

    report = systolic_report(Made(), 5, 7, "os")
    assert report == systolic_report(digits_model, 5, 7, "os")
    assert report.macs == 3_495_040


def test_utilisation_is_whole_when_the_array_is_one_cell():
    graph = trace(nn.Linear(5, 7), (torch.zeros(1, 3, 5),), name="small")
    (row,) = systolic_report(graph, 1, 1, "os").products
    assert (row.gemm, row.cycles) == (Gemm("linear", "Linear", 3, 7, 5), 105)
    assert row.utilisation == 1.0


def test_a_count_that_does_not_fit_is_refused():
    spec = TensorSpec((1, 3, 7), "float32")
    operators = [
        Operator("x", "Input", "", "", (), TensorSpec((1, 3, 5), "float32")),
        Operator("a", "Linear", "", "", ("x",), spec, {}, {"weight": "w"}, macs=106),
        Operator("y", "Output", "", "", ("a",), spec),
    ]
    graph = Graph("odd", operators, {"w": torch.zeros(7, 5)})
    with pytest.raises(
        VitruviusError, match=r"Linear 'a' has 106 .*, its products account for 105"
    ):
        systolic_report(graph, 4, 4, "ws")


def test_a_kind_without_a_rule_is_refused_when_it_multiplies():
    spec = TensorSpec((1, 3), "float32")
    operators = [
        Operator("x", "Input", "", "", (), spec),
        Operator("a", "Relu", "", "", ("x",), spec, macs=9),
        Operator("y", "Output", "", "", ("a",), spec),
    ]
    with pytest.raises(VitruviusError, match=r"Relu 'a' has 9 .*, its products account for 0"):
        systolic_report(Graph("odd", operators, {}), 4, 4, "ws")


# -- the option -----------------------------------------------------------------------------------


def test_the_option_reads_rows_columns_and_dataflow():
    array = parse_systolic("16x32:os")
    assert (array.rows, array.cols, array.dataflow) == (16, 32, Dataflow.OUTPUT)


@pytest.mark.parametrize("text", ["", "16:ws", "16x16", "0x4:ws", "4x0:is", "4x4:rs", "-4x4:ws"])
def test_the_option_refuses_what_it_cannot_read(text):
    with pytest.raises(VitruviusError) as error:
        parse_systolic(text)
    assert str(error.value) == (
        "--systolic: expected rows x cols and a dataflow out of ws, os, is, such as 16x16:ws, "
        f"got '{text}'"
    )


def test_the_option_shows_a_table_and_writes_json(digits_graph, tmp_path, capsys):
    path = tmp_path / "systolic.json"
    show_systolic(digits_graph, parse_systolic("16x16:ws"), Output(str(path)))
    shown = capsys.readouterr().out
    report = systolic_report(digits_graph, 16, 16, "ws")
    assert f"products: {report.cycles:,} cycles" in shown
    assert "not on the array, and not counted: 9 Add, 1 Concat, 4 Gelu" in shown
    assert "blocks.3.attn.apply" in shown
    record = json.loads(path.read_text())
    assert record["cycles"] == report.cycles
    assert record["dataflow"] == "ws"
    assert record["products"][0]["gemm"]["M"] == 16
