"""Systolic arrays: equal to the tools' own counts, and to an array stepped cell by cell."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.systolic import (
    Dataflow,
    ideal_cycles,
    scalesim_cycles,
    scalesim_report,
    stonne_os_cycles,
    zigzag_ws_cycles,
)

DATA = Path(__file__).parent / "data"
SEED = 20261


def measured(name="systolic_gemm.csv"):
    lines = [line for line in (DATA / name).read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


COLUMNS = {
    "scalesim_ws": lambda *gemm, **array: scalesim_report(*gemm, **array, dataflow="ws"),
    "scalesim_os": lambda *gemm, **array: scalesim_report(*gemm, **array, dataflow="os"),
    "scalesim_is": lambda *gemm, **array: scalesim_report(*gemm, **array, dataflow="is"),
    "stonne_os": stonne_os_cycles,
    "zigzag_temporal_ws": zigzag_ws_cycles,
}
CYCLES = {
    **{
        flow.value: lambda *gemm, flow=flow, **array: scalesim_cycles(*gemm, **array, dataflow=flow)
        for flow in Dataflow
    },
    "stonne": stonne_os_cycles,
    "zigzag": zigzag_ws_cycles,
}


# -- the tools' own counts ------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", measured(), ids=lambda row: f"{row['array']}-{row['layer']}")
def test_a_tool_counts_the_same(row, column):
    array = int(row["array"])
    gemm = (int(row[name]) for name in "MNK")
    assert int(COLUMNS[column](*gemm, rows=array, cols=array)) == int(row[column])


def test_all_rows_at_once_are_the_same():
    table = measured()
    array, M, N, K = (np.array([int(row[name]) for row in table]) for name in ("array", *"MNK"))
    assert len(table) == 10
    for column, function in COLUMNS.items():
        expected = [int(row[column]) for row in table]
        assert function(M, N, K, rows=array, cols=array).tolist() == expected


def small(row):
    return ".".join(row[name] for name in ("rows", "cols", *"MNK"))


@pytest.mark.parametrize("row", measured("systolic_small.csv"), ids=small)
def test_scalesim_counts_the_same_on_small_arrays_that_are_not_square(row):
    M, N, K = (int(row[name]) for name in "MNK")
    for flow in Dataflow:
        shape = {"rows": int(row["rows"]), "cols": int(row["cols"]), "dataflow": flow}
        if row[flow.value]:
            assert int(scalesim_report(M, N, K, **shape)) == int(row[flow.value]), flow


# -- a small array, cell by cell ------------------------------------------------------------------


def weight_stationary_array(inputs, weights, rows, cols):
    """The product and the cycles of an array whose every register is stepped.

    Weights come in from the top, a row a cycle; then inputs from the left, row r after r cycles,
    and sums move down. A fold ends when the last sum has left the last column.
    """
    (M, K), N = inputs.shape, weights.shape[1]
    result, cycles = np.zeros((M, N), int), 0
    for first_k in range(0, K, rows):
        for first_n in range(0, N, cols):
            block = np.zeros((rows, cols), int)
            part = weights[first_k : first_k + rows, first_n : first_n + cols]
            block[: part.shape[0], : part.shape[1]] = part
            streamed = np.zeros((M, rows), int)
            columns = inputs[:, first_k : first_k + rows]
            streamed[:, : columns.shape[1]] = columns
            held = np.zeros((rows, cols), int)
            for row in reversed(range(rows)):
                held = np.vstack([block[row], held[:-1]])
                cycles += 1
            moving = np.zeros((rows, cols), int)
            sums = np.zeros((rows, cols), int)
            left = [0] * cols
            step = 0
            while left[-1] < M:
                entering = [
                    streamed[step - row, row] if 0 <= step - row < M else 0 for row in range(rows)
                ]
                moving = np.column_stack([entering, moving[:, :-1]])
                sums = np.vstack([np.zeros(cols, int), sums[:-1]]) + moving * held
                for col in range(cols):
                    if step - (rows - 1) - col >= 0 and left[col] < M:
                        if first_n + col < N:
                            result[left[col], first_n + col] += sums[-1, col]
                        left[col] += 1
                step += 1
                cycles += 1
    return result, cycles


def output_stationary_array(inputs, weights, rows, cols):
    """The same for outputs in the cells: inputs from the left, weights from the top, both skewed.
    A fold ends when the far corner has met its K pairs.
    """
    (M, K), N = inputs.shape, weights.shape[1]
    result, cycles = np.zeros((M, N), int), 0
    for first_m in range(0, M, rows):
        for first_n in range(0, N, cols):
            left = np.zeros((rows, K), int)
            part = inputs[first_m : first_m + rows]
            left[: len(part)] = part
            top = np.zeros((K, cols), int)
            part = weights[:, first_n : first_n + cols]
            top[:, : part.shape[1]] = part
            a, b, total = (np.zeros((rows, cols), int) for _ in range(3))
            met, full, step = np.zeros((rows, cols), int), np.zeros((rows, cols), int), 0
            while met[-1, -1] < K:
                a_in = [left[r, step - r] if 0 <= step - r < K else 0 for r in range(rows)]
                b_in = [top[step - c, c] if 0 <= step - c < K else 0 for c in range(cols)]
                valid = [int(0 <= step - r < K) for r in range(rows)]
                a = np.column_stack([a_in, a[:, :-1]])
                full = np.column_stack([valid, full[:, :-1]])
                b = np.vstack([b_in, b[:-1]])
                total += a * b
                met += full
                step += 1
            cycles += step
            used = result[first_m : first_m + rows, first_n : first_n + cols]
            used += total[: used.shape[0], : used.shape[1]]
    return result, cycles


def stepped(inputs, weights, rows, cols, flow):
    if flow is Dataflow.WEIGHT:
        return weight_stationary_array(inputs, weights, rows, cols)
    if flow is Dataflow.OUTPUT:
        return output_stationary_array(inputs, weights, rows, cols)
    # inputs in the cells: the transposed product has them where the weights were
    result, cycles = weight_stationary_array(weights.T, inputs.T, rows, cols)
    return result.T, cycles


@pytest.mark.parametrize("flow", Dataflow)
def test_an_array_stepped_cell_by_cell_takes_as_long(flow):
    random = np.random.default_rng(SEED)
    for _ in range(25):
        M, N, K = (int(value) for value in random.integers(1, 9, 3))
        rows, cols = (int(value) for value in random.integers(1, 6, 2))
        inputs, weights = random.integers(-9, 9, (M, K)), random.integers(-9, 9, (K, N))
        result, cycles = stepped(inputs, weights, rows, cols, flow)
        case = f"seed {SEED}: {M} x {N} x {K} on {rows} x {cols}"
        assert np.array_equal(result, inputs @ weights), case
        assert cycles == scalesim_cycles(M, N, K, rows=rows, cols=cols, dataflow=flow), case


# -- counted on paper -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gemm", "array", "expected"),
    [
        # load 1, multiply 1; without a load, multiply 1
        ((1, 1, 1), (1, 1), {"ws": 2, "os": 1, "is": 2, "zigzag": 1}),
        # one cell of 4 x 5 is used, and the fold runs to the far corner all the same:
        # load 4 + fill 3 + stream 1 + drain 4; STONNE: configure, send, four hops
        ((1, 1, 1), (4, 5), {"ws": 12, "os": 8, "is": 12, "stonne": 6, "zigzag": 1}),
        # all three extents below the array's; streams are M = 3, K = 2 and N = 5
        ((3, 5, 2), (8, 6), {"ws": 23, "os": 14, "is": 25, "stonne": 13, "zigzag": 3}),
        # the array divides everything: 2 x 2 folds
        ((4, 4, 4), (2, 2), {"ws": 32, "os": 24, "is": 32, "stonne": 44, "zigzag": 16}),
        # one more of each extent: 3 x 3 folds
        ((5, 5, 5), (2, 2), {"ws": 81, "os": 63, "is": 81, "stonne": 102, "zigzag": 45}),
        # long and thin, both ways: rows and columns are not the same
        ((1, 100, 1), (1, 10), {"ws": 110, "os": 100, "is": 110, "zigzag": 10}),
        ((1, 1, 100), (10, 1), {"ws": 200, "os": 109, "is": 200, "zigzag": 10}),
    ],
)
def test_counted_on_paper(gemm, array, expected):
    rows, cols = array
    for name, cycles in expected.items():
        assert int(CYCLES[name](*gemm, rows=rows, cols=cols)) == cycles, name


def test_stonne_adds_up_its_folds():
    """The closed form against the sum that it stands for, fold by fold."""
    random = np.random.default_rng(SEED)
    for M, N, K, rows, cols in random.integers(1, 40, (50, 5)).tolist():
        folds = sum(
            min(rows, M - m) + min(cols, N - n) + K + 3
            for m in range(0, M, rows)
            for n in range(0, N, cols)
        )
        assert stonne_os_cycles(M, N, K, rows=rows, cols=cols) == folds, f"seed {SEED}"


def test_the_report_counts_from_zero():
    for flow in Dataflow:
        array = {"rows": 3, "cols": 7, "dataflow": flow}
        assert scalesim_report(9, 8, 7, **array) == scalesim_cycles(9, 8, 7, **array) - 1


# -- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CYCLES)
def test_never_below_ideal(name):
    random = np.random.default_rng(SEED)
    M, N, K = random.integers(1, 3000, (3, 5000))
    rows, cols = random.integers(1, 200, (2, 5000))
    ideal = ideal_cycles(M, N, K, rows=rows, cols=cols)
    assert np.all(ideal >= 1)
    assert np.all(ideal * rows * cols >= M * N * K)
    below = np.flatnonzero(CYCLES[name](M, N, K, rows=rows, cols=cols) < ideal)
    cases = [(M[i], N[i], K[i], rows[i], cols[i]) for i in below[:3]]
    assert not cases, f"seed {SEED}"


def test_many_are_each_as_one_alone():
    random = np.random.default_rng(SEED)
    gemms = random.integers(1, 500, (100, 3))
    for function in CYCLES.values():
        together = function(*gemms.T, rows=7, cols=9)
        assert together.dtype == np.int64
        alone = [int(function(*gemm, rows=7, cols=9)) for gemm in gemms.tolist()]
        assert together.tolist() == alone, f"seed {SEED}"


def test_large_products_do_not_wrap():
    """2^16 cubed needs 2^40 cycles and more; small types given must not narrow the sums."""
    side = np.array([1 << 16], np.uint32)
    for flow in Dataflow:
        (cycles,) = scalesim_cycles(side, side, side, rows=16, cols=16, dataflow=flow)
        load = 0 if flow is Dataflow.OUTPUT else 16
        assert int(cycles) == (1 << 24) * (load + 15 + (1 << 16) + 15)


# -- mistakes -------------------------------------------------------------------------------------


def test_an_unknown_dataflow_is_named():
    with pytest.raises(VitruviusError, match="expected a dataflow out of ws, os, is, got 'rs'"):
        scalesim_cycles(1, 1, 1, rows=1, cols=1, dataflow="rs")


def test_every_extent_at_fault_is_named():
    with pytest.raises(VitruviusError) as error:
        scalesim_cycles(0, [4, -1], 2, rows=1.5, cols=3, dataflow="ws")
    expected = "expected whole numbers from 1, got M = 0, N = [4, -1], rows = 1.5"
    assert str(error.value) == f"systolic array: {expected}"
