"""How the functions of a protocol are put together, where there is a choice."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MpcOptions"]


class MpcOptions(BaseModel):
    """Choices that change rounds and bytes, each with the published way as the default.

    maximum: of a row, CrypTen's ``reduction`` (halving, then all pairs, with the index of the
    maximum as a by-product), a lean ``tree`` of max(u, v) = relu(u - v) + v, or all ``pairs`` at
    once. gelu: by its ``tanh`` form, by x * ``sigmoid``(1.702 x), or in ``pieces`` of polynomials
    as in PUMA. division: a reciprocal for each ``row`` that shares a divisor, or for each
    ``element``. weights: opened under their mask for ``each`` image, or ``once`` for all. rsqrt:
    ``newton`` from an exponential start, or ``goldschmidt`` from a constant one. heads: of an
    attention ``batched`` into the same rounds, or ``apart``, one after another. fraction_bits: of
    the fixed-point numbers, None for the protocol's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maximum: Literal["reduction", "tree", "pairs"] = "reduction"
    gelu: Literal["tanh", "sigmoid", "pieces"] = "tanh"
    division: Literal["row", "element"] = "row"
    weights: Literal["each", "once"] = "each"
    rsqrt: Literal["newton", "goldschmidt"] = "newton"
    heads: Literal["batched", "apart"] = "batched"
    fraction_bits: int | None = Field(default=None, ge=1, le=60)
