"""What a scheme of integer operators changes in the accelerator: widths, and cycles of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from ..units.gelu import Gelu
from ..units.ivit.dyadic import Requantizer31
from ..units.ivit.gelu_table import ShiftGeluTables
from ..units.ivit.layernorm import INormLane, RowSpread
from ..units.ivit.shiftmax import SCORE_BITS, Shiftmax
from ..units.layernorm import NormLane
from ..units.norm_scale import NormScale, RowMoments
from ..units.requantize import Requantizer
from ..units.score_rows import ScoreRows
from ..units.softmax import Softmax

__all__ = ["SCHEMES", "SPREADS", "Arithmetic", "Scheme"]

Scheme = Literal["edge", "ivit"]

SPREADS = 4
"""Rows whose mean and reciprocal root are worked out at the same time in scheme ivit."""


@dataclass(frozen=True)
class Arithmetic:
    """Of one scheme.

    column, norm_column: what the drain path and the norm engine need of each column.
    score_bits, weight_bytes, result_bits: a score, an attention weight in its buffer, a result.
    requantized: cycles from a row at the drain to its codes; activated: from there to the int8
    codes behind GELU; complete: from a row at the drain to the cycle in which all of it is written,
    its statistics included, and in which it counts as drained.
    softmax_start, softmax_passes, softmax_tail: a row of ``tiles`` tiles whose last scores arrive
    in cycle t begins in t + start, and is complete passes * (tiles - 1) + tail later.
    norm_late: cycles from the address of a chunk to the one in which it is written, normalised.
    norm_scale, norm_scales: cycles from the offer of a row's sums to its scale, and how many rows
    are in work at the same time.
    """

    column: data.StructLayout
    norm_column: data.StructLayout
    score_bits: int
    weight_bytes: int
    result_bits: int
    requantized: int
    activated: int
    complete: int
    softmax_start: int
    softmax_passes: int
    softmax_tail: int
    norm_late: int
    norm_scale: int
    norm_scales: int

    @property
    def column_bytes(self) -> int:
        """What a column takes of the column buffer, in whole bytes."""
        return -(-self.column.size // 8)

    @property
    def norm_column_bytes(self) -> int:
        """What a column takes of the norm columns, in whole bytes."""
        return -(-self.norm_column.size // 8)


_EDGE_REQUANTIZED = 2 + Requantizer.LATENCY  # bias, factor, requantizer
_EDGE_ACTIVATED = Gelu.LATENCY + Requantizer.LATENCY
_IVIT_REQUANTIZED = 2 + Requantizer31.LATENCY

SCHEMES: Mapping[Scheme, Arithmetic] = {
    "edge": Arithmetic(
        column=data.StructLayout(
            {"bias": signed(32), "multiplier": unsigned(16), "shift": unsigned(6)}
        ),
        norm_column=data.StructLayout({"offset": signed(32), "gain": signed(16)}),
        score_bits=16,
        weight_bytes=1,
        result_bits=16,
        requantized=_EDGE_REQUANTIZED,
        activated=_EDGE_ACTIVATED,
        complete=_EDGE_REQUANTIZED + _EDGE_ACTIVATED,
        softmax_start=Softmax.START,
        softmax_passes=1,
        softmax_tail=Softmax.SCALE,
        norm_late=1 + NormLane.LATENCY,
        norm_scale=NormScale.cycles(),
        norm_scales=1,
    ),
    "ivit": Arithmetic(
        column=data.StructLayout(
            {"bias": signed(32), "multiplier": unsigned(31), "shift": unsigned(6)}
        ),
        norm_column=data.StructLayout(
            {
                "bias": signed(32),
                "multiplier": signed(32),
                "shift": unsigned(6),
                "alive": unsigned(1),
            }
        ),
        score_bits=SCORE_BITS,
        weight_bytes=2,
        result_bits=32,
        requantized=_IVIT_REQUANTIZED,
        activated=ShiftGeluTables.LATENCY,
        # both addends of the residual stream, their sum, its statistics
        complete=_IVIT_REQUANTIZED + Requantizer31.LATENCY + 1 + RowMoments.LATENCY,
        softmax_start=ScoreRows.START,
        softmax_passes=2,
        softmax_tail=Shiftmax.WEIGHING + 1,  # the weights are written a cycle later
        norm_late=1 + INormLane.LATENCY + Requantizer31.LATENCY,
        norm_scale=RowSpread.cycles(),
        norm_scales=SPREADS,
    ),
}
