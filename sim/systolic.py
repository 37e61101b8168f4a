"""Cycles of matrix products on a systolic array: closed forms of three published models.

A product [M, K] x [K, N] (a GEMM) runs on ``rows`` x ``cols`` multiply-accumulate cells that pass
operands to their neighbours, one cell a cycle. One operand, the *stationary* one, lies in the
cells; what does not fit is cut into *folds*, one array-full each, done one after another.

SCALE-Sim (Samajdar et al., arXiv 1811.02883; ISPASS 2020; version 3, arXiv 2504.15377)
---------------------------------------------------------------------------------------
With ``Sr`` the extent laid along the rows, ``Sc`` along the columns and ``T`` the streamed one:

========  ====================  ==  ==  =  =====================
dataflow  lies in the cells     Sr  Sc  T  cycles of a fold
========  ====================  ==  ==  =  =====================
``ws``    weights               K   N   M  2 rows + cols + T - 2
``os``    outputs               M   N   K  rows + cols + T - 2
``is``    inputs                K   M   N  2 rows + cols + T - 2
========  ====================  ==  ==  =  =====================

``cycles = ceil(Sr / rows) * ceil(Sc / cols) * cycles of a fold``. The parts of a fold:

- *load*, ``rows`` cycles (``ws``, ``is``): the stationary operand is pushed in from the top, a row
  a cycle, before the stream starts; the next fold's load is not hidden behind this fold.
- *fill*, ``rows - 1`` cycles: operands enter skewed, row r by r cycles, so that they meet.
- *stream*, ``T`` cycles.
- *drain*, ``cols - 1`` cycles, until the last operand has crossed to the farthest column. The
  paper's closed form charges ``os`` another ``rows`` cycles to shift the outputs out; the code of
  versions 2 and 3 does not, and it is the code that is followed here.
- *ragged folds*, at the edges of a matrix that the array does not divide, cost as much as full
  ones: the array always runs to its far corner.

The tool reports the index of the last cycle, counted from 0: one less than the cycles
(scalesim-project/SCALE-Sim issues 60 and 125). ``scalesim_report`` gives that figure, and is the
only place where the one is taken off.

STONNE (Munoz-Martinez et al., IISWC 2021) is ``stonne_os_cycles``, ZigZag (Mei et al., IEEE
Transactions on Computers 2021) is ``zigzag_ws_cycles``. No constant is fitted to a measurement.

All functions take whole numbers or arrays of them, broadcast as numpy does, and count in int64.
Memory never stalls the array.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import VitruviusError

__all__ = [
    "Cycles",
    "Dataflow",
    "ideal_cycles",
    "scalesim_cycles",
    "scalesim_report",
    "stonne_os_cycles",
    "zigzag_ws_cycles",
]

Cycles: TypeAlias = NDArray[np.int64]


class Dataflow(StrEnum):
    """What lies in the cells of the array, by SCALE-Sim's abbreviation."""

    WEIGHT = "ws"
    OUTPUT = "os"
    INPUT = "is"


def ideal_cycles(
    M: ArrayLike, N: ArrayLike, K: ArrayLike, *, rows: ArrayLike, cols: ArrayLike
) -> Cycles:
    """Every cell does a useful product in every cycle: ``ceil(M N K / (rows cols))``. No schedule
    on the array is faster.

    >>> int(ideal_cycles(197, 576, 192, rows=16, cols=16))
    85104
    """
    m, n, k, r, c = _checked(M=M, N=N, K=K, rows=rows, cols=cols)
    return _ceil(m * n * k, r * c)


def scalesim_cycles(
    M: ArrayLike,
    N: ArrayLike,
    K: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    dataflow: Dataflow | str,
) -> Cycles:
    """Cycles by SCALE-Sim's model: folds times (load + fill + stream + drain), see above.

    Raises VitruviusError for an extent below 1 or an unknown dataflow.

    >>> scalesim_cycles([197, 197], [576, 197], [192, 64], rows=16, cols=16, dataflow="ws")
    array([104976,  12636])
    """
    m, n, k, r, c = _checked(M=M, N=N, K=K, rows=rows, cols=cols)
    flow = _dataflow(dataflow)
    if flow is Dataflow.OUTPUT:
        along_rows, along_cols, streamed, load = m, n, k, np.zeros_like(r)
    elif flow is Dataflow.WEIGHT:
        along_rows, along_cols, streamed, load = k, n, m, r
    else:
        along_rows, along_cols, streamed, load = k, m, n, r
    fill, drain = r - 1, c - 1
    return _ceil(along_rows, r) * _ceil(along_cols, c) * (load + fill + streamed + drain)


def scalesim_report(
    M: ArrayLike,
    N: ArrayLike,
    K: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    dataflow: Dataflow | str,
) -> Cycles:
    """The column "Total Cycles" of SCALE-Sim's compute report: the index of the last cycle,
    ``scalesim_cycles - 1``.

    >>> int(scalesim_report(4, 4, 4, rows=4, cols=4, dataflow="os"))
    9
    """
    return scalesim_cycles(M, N, K, rows=rows, cols=cols, dataflow=dataflow) - 1


def stonne_os_cycles(
    M: ArrayLike, N: ArrayLike, K: ArrayLike, *, rows: ArrayLike, cols: ArrayLike
) -> Cycles:
    """Cycles of STONNE's output stationary mesh (``-DenseGEMM``, TPU architecture), with as many
    memory ports as the edges and outputs need.

    A fold of m x n outputs takes ``m + n + K + 3``: one cycle to configure the mesh; K in which the
    memory sends an operand to each edge, the last of them in the K-th; (m - 1) + (n - 1) hops to
    the far corner; and four hops from unit to unit, each seen a cycle later: memory to first cell,
    cell to accumulator, accumulator to bus, bus to memory. (Order of units in ``Stonne::cycle``,
    states of ``OSMeshSDMemory``.) Ragged folds cost less than full ones, since only the cells in
    use count. The sum over all ``ceil(M / rows) * ceil(N / cols)`` folds has a closed form: the m
    of a column of folds add up to M, the n of a row of folds to N.

    >>> int(stonne_os_cycles(197, 576, 192, rows=16, cols=16))
    105840
    """
    m, n, k, r, c = _checked(M=M, N=N, K=K, rows=rows, cols=cols)
    folds_down, folds_across = _ceil(m, r), _ceil(n, c)
    configure, hops = 1, 4
    corner: Cycles = folds_across * m + folds_down * n - 2 * folds_down * folds_across
    return corner + folds_down * folds_across * (configure + k + hops)


def zigzag_ws_cycles(
    M: ArrayLike, N: ArrayLike, K: ArrayLike, *, rows: ArrayLike, cols: ArrayLike
) -> Cycles:
    """ZigZag's ideal temporal cycles with K unrolled along the rows and N along the columns: the
    product of the loops that are left, ``ceil(K / rows) * ceil(N / cols) * M``. No load, fill or
    drain.

    >>> int(zigzag_ws_cycles(197, 576, 192, rows=16, cols=16))
    85104
    """
    m, n, k, r, c = _checked(M=M, N=N, K=K, rows=rows, cols=cols)
    return _ceil(k, r) * _ceil(n, c) * m


def _ceil(numerator: Cycles, denominator: Cycles) -> Cycles:
    quotient: Cycles = -(-numerator // denominator)
    return quotient


def _dataflow(value: Dataflow | str) -> Dataflow:
    try:
        return Dataflow(value)
    except ValueError:
        known = ", ".join(flow.value for flow in Dataflow)
        raise VitruviusError(f"expected a dataflow out of {known}, got '{value}'") from None


def _checked(**extents: ArrayLike) -> list[Cycles]:
    """The extents as int64 arrays of one shape, each value at least 1.

    Raises VitruviusError that names every extent at fault.
    """
    arrays: Mapping[str, NDArray[np.generic]] = {
        name: np.asarray(value) for name, value in extents.items()
    }
    faults = [
        f"{name} = {array.tolist()}"
        for name, array in arrays.items()
        if not np.issubdtype(array.dtype, np.integer) or bool(np.any(array.astype(np.int64) < 1))
    ]
    if faults:
        raise VitruviusError(
            f"systolic array: expected whole numbers from 1, got {', '.join(faults)}"
        )
    return list(np.broadcast_arrays(*(array.astype(np.int64) for array in arrays.values())))
