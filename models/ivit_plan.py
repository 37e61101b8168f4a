"""The operators of scheme `ivit` prepared to run fast: the same integers as `ivit_operators`, in
floats.

A requantization multiplies up to 32 bits by 31, more than the 53 bits of a float64. Its product is
exact all the same where either operand is known to be small enough (`Scaling`); elsewhere it is
rounded once, which can change the result only where it lands on a tie, and those few elements are
computed again in int64. What depends on an 8-bit code alone, or on one and its row's largest, is a
look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .integer.ivit.dyadic import MAX_SHIFT, requantize31
from .integer.ivit.layernorm import half_even_quotient, integer_root
from .integer.ivit.shift_exp import shift_exp
from .integer.ivit.shift_gelu import shift_gelu
from .integer.matmul import accumulator_type, product_bound
from .integer_operator import IntegerOperator
from .ivit_operators import MODES, ROOTS, dyadic_of
from .plan_pieces import PIECE, Step, narrow, pieces

__all__ = ["Scaling", "prepared_step"]

_TOP = (1 << 31) - 1
_EXACT = 53
"""Bits of an integer that every float64 up to it holds."""
_MULTIPLIER = 31
_CODES = 1 << 8
"""How many 8-bit codes there are; half of them are negative."""
_EXACT_OCTAVES = 8
"""From so many octaves on, an exponential times its row's reciprocal fits float32: the
exponential has the significant bits of ``2 a`` and the reciprocal is below ``2**(31 - n) / a``.
"""


class Scaling:
    """`requantize31` of integers in float64, in place: ``multiplier`` and ``shift`` broadcast to
    them, ``bound`` is their largest magnitude.

    >>> Scaling(1690499128, 37, 8, 1 << 31)(torch.tensor([1000.0, 12345, -12345]).double())
    tensor([  12.,  127., -128.], dtype=torch.float64)
    """

    def __init__(
        self, multiplier: Tensor | int, shift: Tensor | int, bits: int, bound: int
    ) -> None:
        self._multiplier = torch.as_tensor(multiplier, dtype=torch.int64)
        self._shift = torch.as_tensor(shift, dtype=torch.int64)
        self._bits = bits
        self._ratio = torch.ldexp(self._multiplier.to(torch.float64), -self._shift)
        self._ratio *= self._shift < MAX_SHIFT
        # A product is a multiple of 2**-shift, and one that does not saturate is below
        # 2**(bits - 1).
        self.exact = (
            bound <= 1 << (_EXACT - _MULTIPLIER) or int(self._shift.max()) <= _EXACT + 1 - bits
        )

    def __call__(self, values: Tensor) -> Tensor:
        kept = None if self.exact else values.clone()
        values.mul_(self._ratio)
        if kept is not None:
            # Rounding is monotone and ties are floats, so only what became a tie can be wrong.
            tie = (values - values.round()).abs_() == 0.5
            if bool(tie.any()):
                return self._mended(narrow(values, self._bits), kept, tie)
        return narrow(values, self._bits)

    def _mended(self, rounded: Tensor, values: Tensor, tie: Tensor) -> Tensor:
        multiplier, shift = (
            factor.expand(values.shape)[tie] for factor in (self._multiplier, self._shift)
        )
        codes = requantize31(values[tie].to(torch.int64), multiplier, shift, self._bits)
        rounded[tie] = codes.to(torch.float64)
        return rounded


def prepared_step(
    operator: IntegerOperator,
    inputs: Sequence[IntegerOperator],
    tensors: Mapping[str, Tensor],
    weight: Tensor | None,
) -> Step:
    """The fast step of an operator of `ivit_operators.KINDS`.

    ``weight``: of a Linear31, [in, out] in the type its sums are exact in; None for the others.
    """
    roles = {name: tensors[key].to(torch.int64) for name, key in operator.tensors.items()}
    if operator.kind == "Linear31":
        assert weight is not None
        return _linear(operator, inputs[0], roles, weight)
    if operator.kind == "ShiftGelu":
        return _gelu(operator)
    if operator.kind == "ILayerNorm":
        return _norm(operator, roles)
    if operator.kind == "ShiftAttention":
        return _attention(operator, inputs)
    if operator.kind == "Embed31":
        return _embed(operator, inputs[0], roles["constant"])
    return _add(operator, inputs)


def _scaling(operator: IntegerOperator, role: str, bits: int, bound: int) -> Scaling:
    factor = dyadic_of(operator, role)
    return Scaling(factor.multiplier, factor.shift, bits, bound)


def _linear(
    operator: IntegerOperator,
    source: IntegerOperator,
    roles: Mapping[str, Tensor],
    weight: Tensor,
) -> Step:
    bias = roles["bias"].to(torch.float64)
    bound = product_bound(roles["weight"].t(), 1 << (source.bits - 1)) + int(bias.abs().max())
    scaled = Scaling(roles["multiplier"], roles["shift"], operator.bits, bound)
    # Codes of more than 24 bits, the logits', do not fit float32.
    kind = torch.float32 if operator.bits <= 24 else torch.float64

    def step(operands: Sequence[Tensor]) -> Tensor:
        x = operands[0]
        sums = x.reshape(-1, x.shape[-1]).to(weight.dtype) @ weight
        out = sums if sums.dtype is kind else torch.empty(sums.shape, dtype=kind)
        for piece, target in pieces(sums, out):
            target.copy_(scaled(piece.to(torch.float64).add_(bias)))
        return out.reshape(*x.shape[:-1], -1)

    return step


def _gelu(operator: IntegerOperator) -> Step:
    """A look-up among all codes, in the faithful mode beside all largest codes of a row."""
    mode = MODES[int(operator.attributes["faithful"])]
    a, factor = int(operator.attributes["a"]), dyadic_of(operator, "output")
    every = torch.arange(-_CODES // 2, _CODES // 2)
    rows = every.unsqueeze(0)
    if mode == "faithful":
        # Each row as it is beside its largest code, which stands last.
        code, largest = every.repeat(_CODES), every.repeat_interleave(_CODES)
        pairs = torch.stack([code.minimum(largest), largest], -1)
        rows = shift_gelu(pairs, a, mode)[:, 0].reshape(_CODES, _CODES)
    else:
        rows = shift_gelu(rows, a, mode)
    table = requantize31(rows, factor.multiplier, factor.shift, operator.bits)
    table = table.flatten().to(torch.float32)

    def step(operands: Sequence[Tensor]) -> Tensor:
        x = operands[0].reshape(-1, operands[0].shape[-1])
        out = torch.empty_like(x)
        for source, target in pieces(x, out):
            place = source + _CODES // 2
            if mode == "faithful":
                place += place.amax(-1, keepdim=True) * _CODES
            places = place.to(torch.int32).flatten()
            torch.index_select(table, 0, places, out=target.view(-1))
        return out.reshape(operands[0].shape)

    return step


def _norm(operator: IntegerOperator, roles: Mapping[str, Tensor]) -> Step:
    scaled = Scaling(roles["multiplier"], roles["shift"], operator.bits, 1 << 31)
    alive, bias = roles["alive"].to(torch.float64), roles["bias"].to(torch.float64)
    root = ROOTS[int(operator.attributes["newton"])]

    def step(operands: Sequence[Tensor]) -> Tensor:
        x = operands[0]
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty_like(rows)
        for source, target in pieces(rows, out):
            piece = source.to(torch.float64)
            total = piece.sum(-1, keepdim=True).to(torch.int64)
            piece -= half_even_quotient(total, x.shape[-1])
            spread = integer_root(piece.square().sum(-1, keepdim=True).to(torch.int64), root)
            # 17 bits times 31, half of it rounded down: exact.
            half = torch.div(_TOP, spread, rounding_mode="floor").to(torch.float64) / 2
            piece.mul_(half).floor_().mul_(alive).add_(bias).clamp_(-_TOP - 1, _TOP)
            target.copy_(scaled(piece))
        return out.reshape(x.shape)

    return step


def _attention(operator: IntegerOperator, inputs: Sequence[IntegerOperator]) -> Step:
    heads, a = int(operator.attributes["heads"]), int(operator.attributes["a"])
    octaves = int(operator.attributes["octaves"])
    tokens, features = operator.output
    width, keys = features // heads, inputs[1].output[0]
    q_bits, k_bits, v_bits = (source.bits for source in inputs)
    bound = width << (q_bits + k_bits - 2)
    score_type, mixed_type = accumulator_type(bound), accumulator_type(1 << (v_bits + 14))
    score = _scaling(operator, "score", 8, bound)
    # The weights of a row add up to 2**15 at most.
    apply = _scaling(operator, "apply", operator.bits, 1 << (v_bits + 14))
    fine = torch.float32 if octaves >= _EXACT_OCTAVES else torch.float64
    table = shift_exp(-torch.arange(_CODES), a, octaves).to(fine)

    def image(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Heads of one image: q [H, N, d], k and v [H, M, d] into out [H, N, d]."""
        mixed = torch.empty(heads, tokens, width, dtype=mixed_type)
        step = max(1, PIECE // (tokens * keys))
        for first in range(0, heads, step):
            some = slice(first, first + step)
            product = q[some].to(score_type) @ k[some].to(score_type).transpose(-1, -2)
            scores = score(product.to(torch.float64))
            scores.sub_(scores.amax(-1, keepdim=True)).neg_()
            weights = table.index_select(0, scores.to(torch.int32).flatten()).view(scores.shape)
            total = weights.sum(-1, keepdim=True, dtype=torch.float64).clamp_(max=_TOP)
            share = torch.div(_TOP, total.to(torch.int64), rounding_mode="floor").to(fine)
            weights.mul_(share * 2.0**-16).floor_()
            mixed[some] = weights.to(mixed_type) @ v[some].to(mixed_type)
        out.copy_(apply(mixed.to(torch.float64)))

    def run(operands: Sequence[Tensor]) -> Tensor:
        parts = [x.reshape(*x.shape[:-1], heads, width).transpose(1, 2) for x in operands]
        out = torch.empty(len(operands[0]), tokens, features)
        targets = out.view(-1, tokens, heads, width).transpose(1, 2)
        for q, k, v, target in zip(*parts, targets, strict=True):
            image(q, k, v, target)
        return out

    return run


def _embed(operator: IntegerOperator, source: IntegerOperator, constant: Tensor) -> Step:
    scaled = _scaling(operator, "patches", 32, 1 << (source.bits - 1))
    first, bits = int(operator.attributes["first_token"]), operator.bits
    codes = constant.to(torch.float64)

    def step(operands: Sequence[Tensor]) -> Tensor:
        x = operands[0]
        out = codes.expand(len(x), *codes.shape).clone()
        out[:, first : first + x.shape[1]] += scaled(x.to(torch.float64))
        return narrow(out, bits).to(torch.float32)

    return step


def _add(operator: IntegerOperator, inputs: Sequence[IntegerOperator]) -> Step:
    sides = [
        _scaling(operator, role, 32, 1 << (source.bits - 1))
        for role, source in zip(("left", "right"), inputs, strict=True)
    ]

    def step(operands: Sequence[Tensor]) -> Tensor:
        left, right = (x.reshape(-1, x.shape[-1]) for x in operands)
        out = torch.empty_like(left)
        for (one, target), (other, _) in zip(pieces(left, out), pieces(right, out), strict=True):
            total = sides[0](one.to(torch.float64))
            total += sides[1](other.to(torch.float64))
            target.copy_(narrow(total, operator.bits))
        return out.reshape(operands[0].shape)

    return step
