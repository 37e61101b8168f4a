"""Emits integer operators: products with their requantization, the input, and the residual
stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .calibration import Observations, scale_of
from .graph import Graph, Operator
from .integer.requantize import Dyadic, dyadic_tensor
from .integer_operator import IntegerOperator, role_of
from .lowered import Codes, Image, Pending, Value
from .quantization_options import QuantizationOptions
from .weight_codes import WeightCodes, encode_weights, nearest

__all__ = ["Emission", "NoIntegerFormError", "Product", "factor"]

_BIAS_LIMIT = 1 << 30
RESIDUAL_MARGIN = 1.05
"""Head room of the residual stream's range over the largest value seen in calibration."""


class NoIntegerFormError(Exception):
    """The operator, read this way, has no integer form; the text says why."""


@dataclass(frozen=True)
class Product:
    """Where an emitted Linear comes from: the float operator and which of its output features, in
    which order (all of them in order if None).
    """

    producer: Operator
    columns: Tensor | None


class Emission:
    """The integer operators made so far, and what each graph operator has become.

    ``seen`` are the ranges of the float tensors of ``graph``, ``weights`` the codes of its products
    by operator name (the nearest ones if None), ``task_gates`` those of the gates of each task
    after the first; ``emitted`` and ``tensors`` are the integer model, ``products`` says of each
    emitted Linear where it comes from. ``bits`` is the width of activations, ``linear_kind`` what a
    product becomes.
    """

    linear_kind = "Linear"

    def __init__(
        self,
        graph: Graph,
        seen: Observations,
        options: QuantizationOptions | None = None,
        weights: Mapping[str, WeightCodes] | None = None,
        task_gates: Sequence[Mapping[str, WeightCodes]] = (),
    ) -> None:
        self.graph = graph
        self.seen = seen
        self.options = options or QuantizationOptions()
        self.bits = self.options.activation_bits
        if weights is None:
            weights = encode_weights(graph, torch.empty(0), 8)
        self.weights = weights
        self.task_gates = task_gates
        self.products: dict[str, Product] = {}
        self.emitted: list[IntegerOperator] = []
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Value] = {}
        self.residual_scale = self._residual_scale()

    def _residual_scale(self) -> float:
        """One scale for the whole stream: everything that a norm reads, or a sum that something
        else than a norm reads.
        """
        stream = []
        for operator in self.graph.operators():
            if operator.kind in ("LayerNorm", "RmsNorm"):
                stream.append(operator.inputs[0])
            elif operator.kind in ("Linear", "Mean", "Output"):
                source = self.graph.operator(operator.inputs[0])
                while source.kind in ("View", "Select"):
                    source = self.graph.operator(source.inputs[0])
                if source.kind == "Add" and len(source.output.shape) > 2:
                    stream.append(source.name)
        largest = max((self.seen.largest.get(name, 0.0) for name in stream), default=0.0)
        return (largest or 1.0) * RESIDUAL_MARGIN / 32767

    def emit(self, operator: IntegerOperator, tensors: Mapping[str, Tensor] | None = None) -> str:
        """Appends an operator with its tensors and returns its name."""
        keys = {}
        for role, tensor in (tensors or {}).items():
            keys[role] = f"{operator.name}.{role}"
            self.tensors[keys[role]] = tensor.contiguous()
        fields = {**operator.__dict__, "tensors": keys}
        self.emitted.append(IntegerOperator(**fields))
        return operator.name

    def activation_scale(self, name: str) -> float:
        """The scale of the codes of the graph operator ``name``.

        Where every reader selects a part of it (one token for a head), only that part counts.
        """
        readers = self.graph.consumers(name)
        read = [name]
        if readers and all(reader.kind == "Select" for reader in readers):
            read = [reader.name for reader in readers]
        values = torch.cat([self.seen.samples[item] for item in read])
        largest = max(self.seen.largest[item] for item in read)
        return scale_of(values, largest, self.bits, self.options)

    def product(
        self,
        pending: Pending,
        *,
        name: str,
        bits: int,
        scale: float,
        columns: Tensor | None = None,
        origin: str,
    ) -> str:
        """Emits the product with its requantization; ``columns`` selects and orders output
        features.
        """
        producer = pending.producer
        source = self.values[producer.inputs[0]]
        if isinstance(source, Image):
            operand, in_scale = self.image(source, producer)
            order = None
        else:
            if not isinstance(source, Codes):
                raise NoIntegerFormError("reads a tensor that is not int8 codes")
            operand, order = self.rows(source, self.bits)
            in_scale = source.scale
        choices = [self.weights[producer.name]]
        choices += [gates[producer.name] for gates in self.task_gates if producer.name in gates]
        tensors: dict[str, Tensor] = {}
        for task, weight in enumerate(choices):
            made = self._weights(producer, weight, order, columns, in_scale, scale)
            tensors.update({role_of(role, task): tensor for role, tensor in made.items()})
        self.products[name] = Product(producer, columns)
        features, reduction = tensors["weight"].shape
        return self.emit(
            IntegerOperator(
                name=name,
                kind=self.linear_kind,
                inputs=(operand,),
                output=(pending.tokens, features),
                bits=bits,
                scale=scale,
                origin=origin,
                macs=pending.tokens * features * reduction,
            ),
            tensors,
        )

    def _weights(
        self,
        producer: Operator,
        weight: WeightCodes,
        order: Tensor | None,
        columns: Tensor | None,
        in_scale: float,
        scale: float,
    ) -> dict[str, Tensor]:
        """The tensors of a Linear by their roles: ``order`` is that of its operand's features,
        ``columns`` are its own, ``in_scale`` and ``scale`` those of its operand and its result.
        """
        codes, column_scale = weight.codes, weight.scale
        bias = torch.zeros(len(codes), dtype=torch.float64)
        if "bias" in producer.tensors:
            bias = self.graph.tensors[producer.tensors["bias"]].to(torch.float64)
        if order is not None:
            codes = codes[:, order]
        if columns is not None:
            codes, column_scale, bias = codes[columns], column_scale[columns], bias[columns]
        # A column's scale follows its weights, unless they are so small that its bias would not
        # fit.
        by_bias = bias.abs() / (in_scale * _BIAS_LIMIT)
        coarser = by_bias > column_scale
        if bool(coarser.any()):
            values = codes[coarser] * column_scale[coarser].unsqueeze(1)
            codes = codes.clone()
            codes[coarser] = nearest(values, by_bias[coarser], self.options.weight_bits)
            column_scale = torch.maximum(column_scale, by_bias)
        bias_codes = torch.round(bias / (column_scale * in_scale))
        multiplier, shift = self.factors(column_scale * in_scale / scale)
        return {
            "weight": codes,
            "bias": bias_codes.to(torch.int32),
            "multiplier": multiplier.to(torch.int32),
            "shift": shift.to(torch.uint8),
        }

    def factors(self, ratios: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers and shifts of a product's columns, int64 [features] each."""
        return dyadic_tensor(ratios)

    def image(self, image: Image, conv: Operator) -> tuple[str, float]:
        """The Quantize operator in front of a patch embedding."""
        channels, height, width = image.operator.output.shape[1:]
        patch = self.graph.tensors[conv.tensors["weight"]].shape[-1]
        scale = self.seen.largest[image.operator.name] / 127 or 1.0
        grid = (height // patch) * (width // patch)
        name = self.emit(
            IntegerOperator(
                name=image.operator.name,
                kind="Quantize",
                inputs=(),
                output=(grid, channels * patch * patch),
                bits=8,
                scale=scale,
                attributes={
                    "channels": channels,
                    "height": height,
                    "width": width,
                    "patch": patch,
                },
            )
        )
        return name, scale

    def rows(self, codes: Codes, bits: int) -> tuple[str, Tensor]:
        """(operator, feature order) of codes of ``bits`` read: all tokens in order, or one."""
        index = codes.index.reshape(-1, codes.index.shape[-1])
        token, order = index[:, 0] // codes.features, index[0] % codes.features
        regular = token.unsqueeze(1) * codes.features + order
        if not torch.equal(index, regular):
            raise NoIntegerFormError(
                "reads tokens and features in an order that no product can take"
            )
        if torch.equal(token, torch.arange(codes.tokens)):
            return codes.operator, order
        if len(token) != 1:
            raise NoIntegerFormError(f"reads {len(token)} of {codes.tokens} tokens")
        name = f"{codes.operator}.token{int(token[0])}"
        if all(operator.name != name for operator in self.emitted):
            self.emit(
                IntegerOperator(
                    name=name,
                    kind="Select",
                    inputs=(codes.operator,),
                    output=(1, codes.features),
                    bits=bits,
                    scale=codes.scale,
                    attributes={"token": int(token[0])},
                )
            )
        return name, order

    @staticmethod
    def whole(pending: Pending) -> None:
        """The pending tensor must be the producer's [tokens, features] result, nothing moved."""
        expected = torch.arange(pending.tokens * pending.features)
        if not torch.equal(pending.index.flatten(), expected):
            raise NoIntegerFormError(
                "tokens or features reach the residual stream in another order"
            )


def factor(role: str, factor: Dyadic) -> dict[str, int | float]:
    """A dyadic factor as the attributes of an integer operator."""
    return {f"{role}_multiplier": factor.multiplier, f"{role}_shift": factor.shift}
