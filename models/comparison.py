"""A float graph and its integer model executed side by side, one operator after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .emission import Product
from .graph import Graph, Operator, execute
from .integer_model import IntegerModel, IntegerOperator, LayerQuality

__all__ = ["Visit", "measure", "quality_of", "side_by_side", "tokens_read"]


class Visit(Protocol):
    """Called for each integer operator with the codes of its inputs, and the float tensor it
    stands for in the shape of its codes (None if there is none); returns its codes.
    """

    def __call__(
        self, operator: IntegerOperator, operands: Sequence[Tensor], value: Tensor | None
    ) -> Tensor: ...


def side_by_side(
    model: IntegerModel,
    graph: Graph,
    images: Tensor,
    products: Mapping[str, Product],
    visit: Visit,
) -> None:
    """Runs ``graph`` on ``images`` [n, C, H, W] in float and, as soon as a float tensor is there,
    the integer operators up to the one that stands for it.

    Both forget a tensor after its last reader, so this needs no more memory than a run of both.
    """
    names = {operator.name for operator in graph.operators()}
    queue = [(operator, _float_name(operator, products, names)) for operator in model.operators]
    last = {name: index for index, (item, _) in enumerate(queue) for name in item.inputs}
    last_float = {name: index for index, (_, name) in enumerate(queue)}
    codes: dict[str, Tensor] = {}
    floats: dict[str, Tensor] = {}
    place = 0

    def look(operator: Operator, value: Tensor) -> None:
        nonlocal place
        if operator.name in last_float:
            floats[operator.name] = value.detach()
        while place < len(queue) and (not queue[place][1] or queue[place][1] in floats):
            item, name = queue[place]
            operands = [codes[source] for source in item.inputs]
            counterpart = _in_shape(floats[name], item, products) if name else None
            codes[item.name] = visit(item, operands, counterpart)
            for source in set(item.inputs):
                if last[source] == place:
                    del codes[source]
            if name and last_float[name] == place:
                del floats[name]
            place += 1

    execute(graph, images, observe=look)


def measure(
    model: IntegerModel, graph: Graph, images: Tensor, products: Mapping[str, Product]
) -> IntegerModel:
    """``model`` with how well each tensor represents its float counterpart on ``images``."""
    rows: list[LayerQuality] = []
    read = tokens_read(model)

    def visit(
        operator: IntegerOperator, operands: Sequence[Tensor], value: Tensor | None
    ) -> Tensor:
        codes = model.evaluate(operator, list(operands), images)
        if value is not None:
            rows.append(quality_of(operator, codes, value, read))
        return codes

    side_by_side(model, graph, images, products, visit)
    return IntegerModel(model.name, model.operators, model.tensors, tuple(rows))


def quality_of(
    operator: IntegerOperator,
    codes: Tensor,
    value: Tensor,
    read: Mapping[str, list[int]],
) -> LayerQuality:
    """SQNR and clipping of ``codes`` as an image of ``value``, both [n, tokens, features].

    ``read`` says for which operators only some tokens count (`tokens_read`).
    """
    tokens = read.get(operator.name, slice(None))
    codes, exact = codes[:, tokens], value[:, tokens].to(torch.float64)
    noise = float((codes * operator.scale - exact).square_().sum())
    signal = float(exact.square().sum())
    top = (1 << (operator.bits - 1)) - 1
    return LayerQuality(
        name=operator.name,
        kind=operator.kind,
        bits=operator.bits,
        scale=operator.scale,
        sqnr_db=round(10 * math.log10(signal / noise), 3) if noise and signal else math.inf,
        clipped=float(((codes >= top) | (codes <= -top - 1)).double().mean()),
    )


def tokens_read(model: IntegerModel) -> dict[str, list[int]]:
    """The tokens that are read of those operators of which only Selects read anything."""
    found: dict[str, list[int]] = {}
    other: set[str] = set()
    for operator in model.operators:
        if operator.kind == "Select" and "token" in operator.attributes:
            found.setdefault(operator.inputs[0], []).append(int(operator.attributes["token"]))
        else:
            other.update(operator.inputs)
    return {name: tokens for name, tokens in found.items() if name not in other}


def _float_name(operator: IntegerOperator, products: Mapping[str, Product], names: set[str]) -> str:
    product = products.get(operator.name)
    name = product.producer.name if product is not None else operator.origin
    return name if name in names else ""


def _in_shape(value: Tensor, operator: IntegerOperator, products: Mapping[str, Product]) -> Tensor:
    """A float tensor as [n, tokens, features] in the order of the operator's codes."""
    product = products.get(operator.name)
    if product is not None:
        if product.producer.kind == "Conv2d":
            value = value.flatten(2).transpose(1, 2)
        value = value.reshape(len(value), -1, value.shape[-1])
        if product.columns is not None:
            value = value[..., product.columns]
    elif operator.kind in ("Attention", "ShiftAttention"):
        value = value.transpose(1, 2)
    return value.reshape(len(value), *operator.output)
