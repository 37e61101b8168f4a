"""Packs a model's parameters into the words that the accelerator's memories hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from amaranth.lib import data
from torch import Tensor

from ...models.integer_model import IntegerModel, IntegerOperator
from ..placement import Rows, ceil_div
from .machine import Machine

__all__ = ["Packing", "packed_columns"]


def packed_columns(layout: data.StructLayout, columns: Sequence[Mapping[str, int]]) -> int:
    """A word of columns with the fields of ``layout``, from each one's values by name.

    Raises ValueError if a value does not fit its field.
    """
    word = 0
    for index, column in enumerate(columns):
        for name, value in column.items():
            field = layout[name]
            low = -(1 << (field.width - 1)) if field.shape.signed else 0
            if not low <= value < low + (1 << field.width):
                raise ValueError(f"column field {name}: expected {field.width} bits, got {value}")
            bits = value & ((1 << field.width) - 1)
            word |= bits << (index * layout.size + field.offset)
    return word


class Packing:
    """The weights of one model on one machine, matrix by matrix, and what goes with them.

    A weight word holds, for each of ``cols`` columns, ``depth`` elements of the reduction; the
    words of a tile follow each other, then those of the next tile. A column word holds what each
    column of a tile needs.
    """

    def __init__(self, model: IntegerModel, machine: Machine) -> None:
        self._model = model
        self._machine = machine
        self._weights: list[Tensor] = []
        self._weight_words = 0

    @property
    def weights(self) -> Tensor:
        """uint8 [words, cols * depth]."""
        return torch.cat(self._weights)

    def columns_of(self, operator: IntegerOperator, outputs: Tensor) -> list[int]:
        """Column words of a Linear, one integer a word; ``outputs``: [tiles, cols] output index of
        each lane, -1 for none.
        """
        layout = self._machine.arithmetic.column
        bias, multiplier, shift = (
            self._model.tensors[operator.tensors[role]].to(torch.int64).tolist()
            for role in ("bias", "multiplier", "shift")
        )
        return [
            packed_columns(
                layout,
                [
                    {"bias": bias[at], "multiplier": multiplier[at], "shift": shift[at]}
                    if at >= 0
                    else {}
                    for at in tile
                ],
            )
            for tile in outputs.tolist()
        ]

    def outputs(self, groups: int, group_features: int) -> Tensor:
        """[tiles, cols]: which output each column of each tile computes; groups are padded to
        whole tiles.
        """
        cols = self._machine.cols
        tiles = ceil_div(group_features, cols)
        lanes = torch.full((groups, tiles * cols), -1, dtype=torch.int64)
        lanes[:, :group_features] = torch.arange(groups * group_features).reshape(groups, -1)
        return lanes.reshape(groups * tiles, cols)

    def weights_of(
        self, operator: IntegerOperator, source: Rows, outputs: Tensor, words: int, row_lanes: int
    ) -> tuple[int, int]:
        """Packs the rows ``outputs`` of a weight matrix tile by tile, ``words`` words a tile;
        returns (first word, words in all). A row of the source's buffer has ``row_lanes`` bytes.
        """
        machine = self._machine
        weight = self._model.tensors[operator.tensors["weight"]].to(torch.int8)
        lanes = max(source.pitch * row_lanes, words * machine.depth)
        spread = torch.zeros(len(weight) + 1, lanes, dtype=torch.int8)
        group_lanes = source.group_pitch * row_lanes
        spread[:-1, : source.pitch * row_lanes].reshape(-1, source.groups, group_lanes)[
            :, :, : source.group_features
        ] = weight.reshape(-1, source.groups, source.group_features)
        spread = spread[:, : words * machine.depth]
        tiles = spread[outputs]  # index -1 is the appended row of zeros
        packed = tiles.reshape(len(outputs), machine.cols, words, machine.depth).transpose(1, 2)
        flat = packed.reshape(len(outputs) * words, machine.cols * machine.depth).contiguous()
        base = self._weight_words
        self._weights.append(flat.view(torch.uint8))
        self._weight_words += len(flat)
        return base, len(flat)

    def reduction(self, source: Rows, row_lanes: int) -> tuple[int, int]:
        """(words, valid lanes of the last word) of a whole row; gaps between groups meet zero
        weights.
        """
        depth = self._machine.depth
        lanes = (source.groups - 1) * source.group_pitch * row_lanes + source.group_features
        words = ceil_div(lanes, depth)
        return words, lanes - (words - 1) * depth
