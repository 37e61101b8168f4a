"""A mixture of experts on integer codes: the sum into the residual stream, and the experts run
queue by queue as hardware does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .activation import activation
from .gate import GATE_FRACTION, Routing
from .matmul import matmul_reference
from .requantize import Dyadic, requantize
from .rounding import round_shift, saturate

__all__ = ["Expert", "ProductCodes", "accumulate", "mixture", "run_queues"]


@dataclass(frozen=True)
class ProductCodes:
    """A Linear: weight int64 [O, K] of int8 codes, bias, multiplier and shift int64 [O]."""

    weight: Tensor
    bias: Tensor
    multiplier: Tensor
    shift: Tensor

    def __call__(self, x: Tensor, bits: int) -> Tensor:
        """Codes of ``bits`` [..., O] of int64 codes [..., K]."""
        total = matmul_reference(x, self.weight.t()) + self.bias
        return requantize(total, self.multiplier, self.shift, bits)


@dataclass(frozen=True)
class Expert:
    """Linear, activation (``kind``, then ``factor`` to codes of ``bits``), Linear."""

    fc1: ProductCodes
    kind: str
    factor: Dyadic
    fc2: ProductCodes
    bits: int = 8

    def __call__(self, x: Tensor) -> Tensor:
        """16-bit codes at the residual scale of int8 codes [..., D]."""
        inside = activation(self.kind, self.fc1(x, 16))
        codes = requantize(inside, self.factor.multiplier, self.factor.shift, self.bits)
        return self.fc2(codes, 16)


def accumulate(stream: Tensor, output: Tensor, weight: Tensor) -> Tensor:
    """``saturate16(stream + round_half_even(output * weight / 2**15))``: one expert's share.

    ``stream``, ``output``: int64 [..., D] of 16-bit codes; ``weight``: int64 [...] gate weights.
    """
    share = round_shift(output * weight.unsqueeze(-1), GATE_FRACTION)
    return saturate(stream + share, 16)


def mixture(stream: Tensor, gates: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """The stream after every expert has added its share, in ascending order of experts.

    ``gates``: int64 [..., E], zero where a token does not go; ``outputs``: E tensors like
    ``stream``. What an expert gives for tokens that do not go to it does not matter.
    """
    for index, output in enumerate(outputs):
        stream = accumulate(stream, output, gates[..., index])
    return stream


def run_queues(
    stream: Tensor, source: Tensor, routing: Routing, experts: Sequence[Expert]
) -> Tensor:
    """`mixture` the way hardware runs it: expert by expert, each on the tokens in its queue only.

    ``stream``: int64 [N, D] of 16-bit codes; ``source``: int64 [N, D], what gate and experts read.
    """
    stream = stream.clone()
    for index, expert in enumerate(experts):
        token, place = torch.nonzero(routing.experts == index, as_tuple=True)
        if len(token):
            weight = routing.weights[token, place]
            stream[token] = accumulate(stream[token], expert(source[token]), weight)
    return stream
