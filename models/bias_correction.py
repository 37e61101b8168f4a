"""The mean error that quantization leaves in each product, taken out of its bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from .comparison import quality_of, side_by_side, tokens_read
from .emission import Product
from .graph import Graph
from .integer.matmul import matmul
from .integer.requantize import requantize
from .integer_model import IntegerModel, IntegerOperator, LayerQuality

__all__ = ["correct_biases"]

_BIAS_LIMIT = (1 << 30) - 1


def correct_biases(
    model: IntegerModel,
    graph: Graph,
    images: Tensor,
    products: Mapping[str, Product],
    only: Collection[str] | None = None,
) -> IntegerModel:
    """``model`` with the biases of its products moved so that the mean output of each feature is
    the float graph's on ``images`` [n, C, H, W], and with its quality there. ``only``: names of
    the products that are corrected, all if None.

    Products are corrected in order of execution, each with those before it corrected already
    (empirical bias correction: Nagel et al., arXiv 1906.04721, section 4.2 and appendix D). The
    mean over ``n`` images is uncertain by a variance ``v / n``; the correction is scaled by
    ``max(0, 1 - v / n / mean**2)``, so that an effect that is not there is not corrected. With one
    image nothing is.
    """
    tensors = dict(model.tensors)
    rows: list[LayerQuality] = []
    read = tokens_read(model)
    chosen = products if only is None else only

    def visit(
        operator: IntegerOperator, operands: Sequence[Tensor], value: Tensor | None
    ) -> Tensor:
        if (
            operator.kind in ("Linear", "Linear31")
            and value is not None
            and operator.name in chosen
        ):
            codes = corrected(operator, operands, value)
        else:
            codes = model.evaluate(operator, list(operands), images)
        if value is not None:
            rows.append(quality_of(operator, codes, value, read))
        return codes

    def corrected(operator: IntegerOperator, operands: Sequence[Tensor], value: Tensor) -> Tensor:
        role = {name: tensors[key].to(torch.int64) for name, key in operator.tensors.items()}
        sums = matmul(operands[0], role["weight"].t())
        factor = role["multiplier"], role["shift"]
        # A unit of the accumulator is worth scale * multiplier / 2**shift.
        unit = operator.scale * role["multiplier"].double() * 2.0 ** -role["shift"].double()
        given = sums.sum(1).to(torch.float64) / sums.shape[1] + role["bias"]
        error = value.mean(1, dtype=torch.float64) - given * unit
        shift = torch.round(_shrunk(error) / unit).to(torch.int64)
        bias = (role["bias"] + shift).clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
        tensors[operator.tensors["bias"]] = bias.to(torch.int32)
        return requantize(sums + bias, *factor, operator.bits)

    side_by_side(model, graph, images, products, visit)
    return IntegerModel(model.name, model.operators, tensors, tuple(rows))


def _shrunk(error: Tensor) -> Tensor:
    """The mean of ``error`` [n, features] over images, shrunk by what is uncertain about it."""
    if len(error) < 2:
        return torch.zeros_like(error[0])
    mean = error.mean(0)
    uncertain = error.var(0) / len(error)
    return mean * (1 - uncertain / mean.square().clamp(min=1e-300)).clamp(min=0)
