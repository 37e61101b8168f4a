"""The integer model prepared to run fast: the same integers as `integer_reference`, in floats.

Codes travel as float32 (16 bits are exact in it), products go through BLAS in the type that their
bound allows, and everything after an accumulator happens in float64 on pieces that fit a cache:
an accumulator of 32 bits times a multiplier of 16, scaled by a power of two, is exact in 53 bits,
and ``torch.round`` rounds ties to even. Every step is exact, so neither the number of threads nor
the split of a batch can change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import VitruviusError
from .integer.activation import activation
from .integer.gate import gate
from .integer.inverse_sqrt import inverse_sqrt
from .integer.layernorm import NORMAL_FRACTION
from .integer.matmul import accumulator_type, product_bound
from .integer.requantize import requantize
from .integer.softmax import SCORE_BITS, exponential_table, row_scale
from .integer_operator import ACTIVATIONS, IntegerOperator
from .integer_reference import attention_codes, evaluate_reference, layernorm_codes, role
from .ivit_operators import KINDS as IVIT
from .ivit_plan import prepared_step
from .plan_pieces import PIECE, Step, narrow, pieces

__all__ = ["Plan"]

_LIVE = 1 << 22
"""Elements of the widest tensor in one pass; a batch is split into passes of that size."""


class Plan:
    """Prepared steps of a list of operators.

    Weights are kept transposed in the type they are multiplied in: 4 bytes per weight beside the
    int8 ones of the model (8 where a bound needs float64). Preparation happens at the first use of
    an operator.
    """

    def __init__(self, operators: Sequence[IntegerOperator], tensors: Mapping[str, Tensor]) -> None:
        self._operators = tuple(operators)
        self._tensors = tensors
        self._by_name = {operator.name: operator for operator in operators}
        self._steps: dict[str, Step] = {}
        self._last_use = {name: operator.name for operator in operators for name in operator.inputs}
        widest = max(operator.output[0] * operator.output[1] for operator in operators)
        self._images_per_pass = max(1, _LIVE // max(1, widest))

    def run(
        self, images: Tensor, observe: Callable[[IntegerOperator, Tensor], None] | None = None
    ) -> Tensor:
        """int64 codes [B, tokens, features] of the last operator for float images [B, C, H, W].

        ``observe`` sees each operator's int64 codes, of the whole batch at once.
        """
        passes = [images] if observe is not None else torch.split(images, self._images_per_pass)
        with torch.no_grad():
            results = [self._pass(part, observe) for part in passes]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _pass(
        self, images: Tensor, observe: Callable[[IntegerOperator, Tensor], None] | None
    ) -> Tensor:
        values: dict[str, Tensor] = {}
        result = torch.empty(0)
        for operator in self._operators:
            result = self._result(operator, [values[name] for name in operator.inputs], images)
            values[operator.name] = result
            if observe is not None:
                observe(operator, result.to(torch.int64))
            for name in set(operator.inputs):
                if self._last_use[name] == operator.name:
                    del values[name]
        return result.to(torch.int64)

    def evaluate(
        self, operator: IntegerOperator, operands: Sequence[Tensor], images: Tensor
    ) -> Tensor:
        """int64 codes of one operator from int64 codes of its inputs."""
        with torch.no_grad():
            floats = [codes.to(torch.float32) for codes in operands]
            return self._result(operator, floats, images).to(torch.int64)

    def _result(
        self, operator: IntegerOperator, operands: Sequence[Tensor], images: Tensor
    ) -> Tensor:
        if operator.kind == "Quantize":
            return evaluate_reference(operator, (), images, self._tensors).to(torch.float32)
        step = self._steps.get(operator.name)
        if step is None:
            step = self._steps[operator.name] = self._prepare(operator)
        return step(operands)

    def _prepare(self, operator: IntegerOperator) -> Step:
        kind = operator.kind
        if kind == "Linear":
            return self._linear(operator)
        if kind in IVIT:
            inputs = [self._by_name[name] for name in operator.inputs]
            weight = self._weight(operator) if kind == "Linear31" else None
            return prepared_step(operator, inputs, self._tensors, weight)
        if kind in ACTIVATIONS:
            return self._activation(operator)
        if kind in ("LayerNorm", "RmsNorm"):
            return self._layernorm(operator)
        if kind == "Attention":
            return self._attention(operator)
        if kind == "Embed":
            return self._embed(operator)
        if kind in ("Add", "Mixture"):
            return self._mixture(operator) if kind == "Mixture" else _adder(operator.bits)
        if kind == "Select":
            first, count = int(operator.attributes["token"]), operator.output[0]
            return lambda operands: operands[0][:, first : first + count]
        if kind in ("Mean", "Requantize", "Gate"):
            return self._small(operator)
        raise VitruviusError(f"integer operator {operator.name}: unknown kind {kind}")

    def _weight(self, operator: IntegerOperator) -> Tensor:
        """The weight of a product, transposed, in the type that its sums are exact in."""
        weight = role(operator, self._tensors, "weight").t()
        bound = product_bound(weight, 1 << (self._by_name[operator.inputs[0]].bits - 1))
        return weight.to(accumulator_type(bound)).contiguous()

    def _linear(self, operator: IntegerOperator) -> Step:
        prepared = self._weight(operator)
        multiplier = role(operator, self._tensors, "multiplier").to(torch.float64)
        ratio = torch.ldexp(multiplier, -role(operator, self._tensors, "shift"))
        bias = role(operator, self._tensors, "bias").to(torch.float64) * ratio
        bits = operator.bits

        def step(operands: Sequence[Tensor]) -> Tensor:
            x = operands[0]
            rows = x.reshape(-1, x.shape[-1])
            accumulator = rows.to(prepared.dtype) @ prepared
            out = accumulator if prepared.dtype is torch.float32 else torch.empty(accumulator.shape)
            for source, target in pieces(accumulator, out):
                piece = source.to(torch.float64)
                target.copy_(narrow(piece.mul_(ratio).add_(bias), bits))
            return out.reshape(*x.shape[:-1], -1)

        return step

    def _activation(self, operator: IntegerOperator) -> Step:
        """All 65536 inputs are computed once: the step is a look-up."""
        every = torch.arange(-(1 << 15), 1 << 15)
        factor = operator.dyadic("output")
        inside = activation(operator.kind, every)
        table = requantize(inside, factor.multiplier, factor.shift, operator.bits)
        table = table.to(torch.float32)

        def step(operands: Sequence[Tensor]) -> Tensor:
            out = torch.empty_like(operands[0])
            for source, target in pieces(operands[0].flatten(), out.flatten()):
                torch.index_select(table, 0, (source + (1 << 15)).to(torch.int32), out=target)
            return out

        return step

    def _layernorm(self, operator: IntegerOperator) -> Step:
        codes = layernorm_codes(operator, self._tensors)
        scale = 2.0**-codes.shift
        gain = codes.gain.to(torch.float64) * scale
        offset = codes.offset.to(torch.float64) * scale

        def step(operands: Sequence[Tensor]) -> Tensor:
            x = operands[0]
            width = x.shape[-1]
            out = torch.empty_like(x)
            for source, target in pieces(x.reshape(-1, width), out.view(-1, width)):
                piece = source.to(torch.float64)
                total = piece.sum(-1, keepdim=True) * int(codes.centred)
                squares = piece.square().sum(-1, keepdim=True)
                variance = width * squares - total * total + codes.epsilon
                r, half = inverse_sqrt(variance.to(torch.int64))
                ratio = torch.ldexp(r.to(torch.float64), -(half + (23 - NORMAL_FRACTION)))
                z = narrow(piece.mul_(width).sub_(total).mul_(ratio), 16)
                target.copy_(narrow(z.mul_(gain).add_(offset), codes.bits))
            return out

        return step

    def _attention(self, operator: IntegerOperator) -> Step:
        codes = attention_codes(operator, self._tensors)
        tokens, features = operator.output
        heads, width = codes.heads, features // codes.heads
        q_bits, k_bits, v_bits = (self._by_name[name].bits for name in operator.inputs)
        score_type = accumulator_type(width << (q_bits + k_bits - 2))
        ratio = codes.score.multiplier * 2.0**-codes.score.shift
        table = torch.tensor(exponential_table(), dtype=torch.float32)
        bias = None if codes.bias is None else codes.bias.to(torch.float64)
        if bias is not None:
            bias = bias.expand(heads, *bias.shape[1:])

        def image(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
            """Heads of one image: q [H, N, d], k and v [H, M, d] into out [H, N, d]."""
            keys = k.shape[1]
            mixed_type = accumulator_type(keys * 255 << (v_bits - 1))
            mixed = torch.empty(heads, tokens, width, dtype=mixed_type)
            total = torch.empty(heads, tokens)
            step = max(1, PIECE // (tokens * keys))
            for first in range(0, heads, step):
                some = slice(first, first + step)
                product = q[some].to(score_type) @ k[some].to(score_type).transpose(-1, -2)
                scores = narrow(product.to(torch.float64).mul_(ratio), SCORE_BITS)
                if bias is not None:
                    scores = narrow(scores.add_(bias[some]), SCORE_BITS)
                scores.sub_(scores.amax(-1, keepdim=True)).neg_().clamp_(max=len(table) - 1)
                weights = table.index_select(0, scores.to(torch.int32).flatten())
                weights = weights.view(scores.shape)
                torch.sum(weights, -1, out=total[some])
                mixed[some] = weights.to(mixed_type) @ v[some].to(mixed_type)
            multiplier, shift = row_scale(total.to(torch.int64), codes.apply)
            row = torch.ldexp(multiplier.to(torch.float64), -shift).unsqueeze(-1)
            out.copy_(narrow(mixed.to(torch.float64).mul_(row), codes.bits))

        def run(operands: Sequence[Tensor]) -> Tensor:
            parts = [x.reshape(*x.shape[:-1], heads, width).transpose(1, 2) for x in operands]
            out = torch.empty(len(operands[0]), tokens, features)
            targets = out.view(-1, tokens, heads, width).transpose(1, 2)
            for q, k, v, target in zip(*parts, targets, strict=True):
                image(q, k, v, target)
            return out

        return run

    def _embed(self, operator: IntegerOperator) -> Step:
        constant = role(operator, self._tensors, "constant").to(torch.float32)
        first = int(operator.attributes["first_token"])

        def step(operands: Sequence[Tensor]) -> Tensor:
            x = operands[0]
            out = constant.expand(len(x), *constant.shape).clone()
            out[:, first : first + x.shape[1]] += x
            return narrow(out, 16)

        return step

    def _mixture(self, operator: IntegerOperator) -> Step:
        """The experts add their shares one after another, in place."""

        def step(operands: Sequence[Tensor]) -> Tensor:
            stream, gates, *outputs = operands
            width = stream.shape[-1]
            stream = stream.reshape(-1, width).clone()
            gates = gates.reshape(-1, gates.shape[-1]).to(torch.float64) * 2.0**-15
            for index, output in enumerate(outputs):
                rows = torch.nonzero(gates[:, index]).flatten()
                share = output.reshape(-1, width)[rows].to(torch.float64)
                share.mul_(gates[rows, index].unsqueeze(-1)).round_()
                stream[rows] = narrow(share.add_(stream[rows]), 16).to(torch.float32)
            return stream.reshape(operands[0].shape)

        return step

    def _small(self, operator: IntegerOperator) -> Step:
        """Operators that take next to no time run as the reference does."""
        empty = torch.empty(0)

        def step(operands: Sequence[Tensor]) -> Tensor:
            codes = [x.to(torch.int64) for x in operands]
            if operator.kind == "Gate":
                return gate(codes[0], int(operator.attributes["k"])).to(torch.float32)
            result = evaluate_reference(operator, codes, empty, self._tensors)
            return result.to(torch.float32)

        return step


def _adder(bits: int) -> Step:
    return lambda operands: narrow(operands[0] + operands[1], bits)
