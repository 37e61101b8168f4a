"""The walk from a float Graph to integer operators in scheme `edge`.

A product (Linear, Conv2d, attention) stays pending until its consumer says which codes it wants:
int8 for queries, keys and values, 16 bits with 10 fraction bits for an activation, the residual
stream's int16 for an Add. A norm waits in the same way for a product (int8) or the stream (int16).
Reshapes, permutations and splits cost nothing: the walk carries, for every element of a pending
tensor, its index in the producer's [tokens, features] result, and folds any reordering of
features into the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import VitruviusError
from .calibration import Observations
from .emission import NoIntegerFormError, factor
from .graph import Graph, Operator, evaluate
from .integer.gate import GATE_FRACTION
from .integer.gelu import FRACTION as GELU_FRACTION
from .integer.requantize import dyadic
from .integer.rounding import saturate
from .integer.softmax import SCORE_BITS, SCORE_FRACTION
from .integer_operator import IntegerOperator
from .lowered import (
    Assembly,
    Codes,
    Constant,
    Image,
    Inside,
    Mixed,
    Normed,
    Pending,
    Scores,
    Stream,
    Total,
    Value,
)
from .lowering_refusals import Refusals
from .lowering_streams import Streams, is_stream, normed
from .quantization_options import QuantizationOptions
from .regions import AttentionRegion
from .weight_codes import WeightCodes

__all__ = ["Lowering"]


class Lowering(Streams):
    """Walks ``graph`` once; ``emitted`` and ``tensors`` then hold the integer model.

    ``seen`` are the ranges of the float tensors, ``weights`` and ``task_gates`` codes, as in
    `Emission`. ``run`` raises VitruviusError listing every operator without an integer form, with
    module path and source line.
    """

    attention_kind = "Attention"

    def __init__(
        self,
        graph: Graph,
        seen: Observations,
        options: QuantizationOptions | None = None,
        weights: Mapping[str, WeightCodes] | None = None,
        task_gates: Sequence[Mapping[str, WeightCodes]] = (),
    ) -> None:
        super().__init__(graph, seen, options, weights, task_gates)
        self.refusals = Refusals(graph, _HANDLERS)
        self.regions = {region.apply: region for region in graph.regions}
        self.mixtures = {region.combine: region for region in graph.mixtures}
        self.gates: dict[str, str] = {}
        self.result = ""

    def run(self) -> None:
        """Lowers every operator of the graph, in order."""
        problems: list[str] = []
        blocked: set[str] = set()
        for operator in self.graph.operators():
            operands = [self.values.get(name) for name in operator.inputs]
            if operands and all(isinstance(value, Constant) for value in operands):
                known = [value.value for value in operands if isinstance(value, Constant)]
                self.values[operator.name] = Constant(evaluate(operator, known, self.graph))
                continue
            try:
                if reason := self.refusals.reason(operator):
                    raise NoIntegerFormError(reason)
                if blocked.isdisjoint(operator.inputs):
                    handler = getattr(self, _HANDLERS[operator.kind].__name__)
                    self.values[operator.name] = handler(operator)
                else:
                    blocked.add(operator.name)
            except NoIntegerFormError as error:
                problems.append(self._problem(operator, str(error)))
                blocked.add(operator.name)
        if problems:
            raise VitruviusError(
                f"{self.graph.name}: {len(problems)} operator(s) without an integer form:\n  "
                + "\n  ".join(problems)
            )
        self._keep_what_the_result_needs()

    def _keep_what_the_result_needs(self) -> None:
        needed = {self.result}
        for item in reversed(self.emitted):
            if item.name in needed:
                needed.update(item.inputs)
        self.emitted = [item for item in self.emitted if item.name in needed]
        keys = {key for item in self.emitted for key in item.tensors.values()}
        self.tensors = {key: tensor for key, tensor in self.tensors.items() if key in keys}

    @staticmethod
    def _problem(operator: Operator, text: str) -> str:
        return (
            f"{operator.name} (module '{operator.path}', {operator.source or 'no source'}): {text}"
        )

    # -- one handler per graph kind -----------------------------------------------------------

    def input(self, operator: Operator) -> Value:
        return Image(operator)

    def constant(self, operator: Operator) -> Value:
        return Constant(self.graph.tensors[operator.tensors["value"]])

    def conv2d(self, operator: Operator) -> Value:
        _, features, rows, cols = operator.output.shape
        index = torch.arange(rows * cols * features).reshape(1, rows, cols, features)
        return Pending(operator, rows * cols, features, index.permute(0, 3, 1, 2))

    def linear(self, operator: Operator) -> Value:
        name = operator.inputs[0]
        self.values[name] = self.codes(self.values[name], name)
        shape = operator.output.shape
        features = shape[-1]
        tokens = math.prod(shape[:-1])
        return Pending(operator, tokens, features, torch.arange(tokens * features).reshape(shape))

    def rearrange(self, operator: Operator) -> Value:
        value = self.values[operator.inputs[0]]
        if isinstance(value, Inside):
            return value
        if isinstance(value, Assembly):
            return Assembly(
                value.patches,
                evaluate(operator, [value.index], self.graph),
                evaluate(operator, [value.constant], self.graph),
            )
        if not isinstance(value, (Pending, Codes, Stream, Normed)):
            raise NoIntegerFormError("rearranges the image, scores or logits")
        fields = {**value.__dict__, "index": evaluate(operator, [value.index], self.graph)}
        return type(value)(**fields)

    def concat(self, operator: Operator) -> Value:
        parts = [self._assembly(self.values[name]) for name in operator.inputs]
        patches = [part.patches for part in parts if isinstance(part, Assembly)]
        if len({part.producer.name for part in patches}) != 1:
            raise NoIntegerFormError("only constant tokens beside the patches have one")
        indices, constants = [], []
        for part in parts:
            value = part.value if isinstance(part, Constant) else part.constant
            constants.append(value)
            indices.append(
                part.index if isinstance(part, Assembly) else torch.full(value.shape, -1)
            )
        return Assembly(
            patches[0],
            evaluate(operator, indices, self.graph),
            evaluate(operator, constants, self.graph),
        )

    @staticmethod
    def _assembly(value: Value) -> Assembly | Constant:
        if isinstance(value, Pending) and value.producer.kind == "Conv2d":
            return Assembly(value, value.index, torch.zeros(value.index.shape))
        if isinstance(value, (Assembly, Constant)):
            return value
        raise NoIntegerFormError("only constant tokens beside the patches have one")

    def add(self, operator: Operator) -> Value:
        left, right = (self.values[name] for name in operator.inputs)
        names = list(operator.inputs)
        if operator.name in self.mixtures:
            return self._mixed(operator)
        if isinstance(left, Inside) or isinstance(right, Inside):
            return left if isinstance(left, Inside) else right
        if isinstance(left, Constant):
            left, right = right, left
        if isinstance(right, Constant):
            return self._plus_constant(left, right.value, operator)
        if not is_stream(left):
            left, right = right, left
            names.reverse()
        if isinstance(left, Pending) and isinstance(right, Pending) and not is_stream(left):
            return Total(left, right, 1.0)
        stream = self.stream(left, names[0])
        if isinstance(right, Mixed):
            return self._joined(operator, stream, right)
        if not (isinstance(right, Pending) or is_stream(right)):
            raise NoIntegerFormError(
                "adds two tensors of which neither is a linear layer's output or the stream"
            )
        inputs = (self.tokens(stream), self.tokens(self.stream(right, names[1])))
        return self._emitted_stream(operator, "Add", inputs)

    def _plus_constant(self, value: Value, constant: Tensor, operator: Operator) -> Value:
        if isinstance(value, Scores):
            if value.region.bias != operator.name or value.bias is not None:
                raise NoIntegerFormError("adds more than one mask or position bias to scores")
            return Scores(value.region, constant)
        assembly = self._assembly(value) if not isinstance(value, Constant) else value
        if not isinstance(assembly, Assembly):
            raise NoIntegerFormError("adds a constant to something other than the patch embedding")
        return Assembly(assembly.patches, assembly.index, assembly.constant + constant)

    def _emitted_stream(self, operator: Operator, kind: str, inputs: tuple[str, ...]) -> Stream:
        shape = operator.output.shape
        tokens, features = math.prod(shape[:-1]), shape[-1]
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind=kind,
                inputs=inputs,
                output=(tokens, features),
                bits=16,
                scale=self.residual_scale,
                origin=operator.name,
            )
        )
        return Stream(name, tokens, features, torch.arange(tokens * features).reshape(shape))

    def scale(self, operator: Operator) -> Value:
        """Mul or Div: by one number where two heads are averaged, or inside a mixture."""
        left, right = (self.values[name] for name in operator.inputs)
        if isinstance(left, Inside) or isinstance(right, Inside):
            return left if isinstance(left, Inside) else right
        if operator.kind == "Mul" and isinstance(left, Constant):
            left, right = right, left
        if not (isinstance(left, Total) and isinstance(right, Constant)):
            raise NoIntegerFormError("scales something other than a sum of logits")
        number = float(right.value)
        ratio = number if operator.kind == "Mul" else 1 / number
        if ratio <= 0:
            raise NoIntegerFormError(f"scales logits by {ratio:g}, not by a positive number")
        return Total(left.left, left.right, left.factor * ratio)

    def norm(self, operator: Operator) -> Value:
        name = operator.inputs[0]
        source = self.tokens(self.stream(self.values[name], name))
        return normed(operator, source, math.prod(operator.output.shape[:-1]))

    def activation(self, operator: Operator) -> Value:
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, Pending) or pending.producer.kind != "Linear":
            raise NoIntegerFormError("reads something other than a linear layer's output")
        self.whole(pending)
        before = self.product(
            pending,
            name=pending.producer.name,
            bits=16,
            scale=2.0**-GELU_FRACTION,
            origin=pending.producer.name,
        )
        # What comes in has a fixed step: where the calibration saw next to nothing leave, far finer
        # codes would tell nothing, and the factor to them would not fit.
        scale = max(self.activation_scale(operator.name), 2.0**-GELU_FRACTION / _FINEST_CODES)
        tanh = operator.attributes.get("approximate") == "tanh"
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="GeluTanh" if tanh else operator.kind,
                inputs=(before,),
                output=(pending.tokens, pending.features),
                bits=self.bits,
                scale=scale,
                origin=operator.name,
                attributes=factor("output", dyadic(2.0**-GELU_FRACTION / scale)),
            )
        )
        return Codes(name, pending.tokens, pending.features, scale, pending.index)

    def mean(self, operator: Operator) -> Value:
        """Over tokens, of codes or of the stream: a sum and one dyadic factor."""
        name = operator.inputs[0]
        value = self.values[name]
        if isinstance(value, Normed):
            value = self.codes(value, name)
        elif is_stream(value):
            value = self.stream(value, name)
        if not isinstance(value, (Codes, Stream)):
            raise NoIntegerFormError("averages something other than codes or the stream")
        index = value.index.reshape(-1, value.index.shape[-1])
        first, count = int(index[0, 0]) // value.features, len(index)
        expected = torch.arange(first * value.features, (first + count) * value.features)
        if not torch.equal(index.flatten(), expected):
            raise NoIntegerFormError("averages tokens that do not follow each other")
        in_codes = isinstance(value, Codes)
        scale = self.activation_scale(operator.name) if in_codes else self.residual_scale
        before = value.scale if isinstance(value, Codes) else self.residual_scale
        emitted = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="Mean",
                inputs=(value.operator,),
                output=(1, value.features),
                bits=self.bits if in_codes else 16,
                scale=scale,
                origin=operator.name,
                attributes={
                    "token": first,
                    "count": count,
                    **factor("output", dyadic(before / scale / count)),
                },
            )
        )
        index = torch.arange(value.features).reshape(operator.output.shape)
        if in_codes:
            return Codes(emitted, 1, value.features, scale, index)
        return Stream(emitted, 1, value.features, index)

    def softmax(self, operator: Operator) -> Value:
        value = self.values[operator.inputs[0]]
        if isinstance(value, Scores):
            return value
        region = next(item for item in self.graph.mixtures if item.softmax == operator.name)
        return Inside(region)

    def route(self, operator: Operator) -> Value:
        """A Gate, and before it the gate's scores: 16 bits with the softmax's fraction."""
        region = next(item for item in self.graph.mixtures if item.route == operator.name)
        gate = self.values[region.gate]
        if not isinstance(gate, Pending):
            raise NoIntegerFormError("the gate is not a linear layer")
        self.whole(gate)
        scores = self.product(
            gate,
            name=region.gate,
            bits=SCORE_BITS,
            scale=2.0**-SCORE_FRACTION,
            origin=region.gate,
        )
        self.gates[region.combine] = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="Gate",
                inputs=(scores,),
                output=(gate.tokens, gate.features),
                bits=16,
                scale=2.0**-GATE_FRACTION,
                origin=operator.name,
                attributes={"k": region.k},
            )
        )
        return Inside(region)

    def _mixed(self, operator: Operator) -> Mixed:
        region = self.mixtures[operator.name]
        outputs = []
        for _, _, last in region.experts:
            pending = self.values[last]
            if not isinstance(pending, Pending):
                raise NoIntegerFormError(f"expert '{last}' is not a linear layer")
            outputs.append(self.stream(pending, last).operator)
        return Mixed(region, self.gates[operator.name], tuple(outputs))

    def _joined(self, operator: Operator, stream: Stream, mixed: Mixed) -> Stream:
        inputs = (self.tokens(stream), mixed.gate, *mixed.outputs)
        return self._emitted_stream(operator, "Mixture", inputs)

    def matmul(self, operator: Operator) -> Value:
        region = self.regions.get(operator.name)
        if region is None:
            return Scores(self.refusals.region_of[operator.name])
        held = self.values[region.softmax]
        bias = held.bias if isinstance(held, Scores) else None
        scores = self.graph.operator(region.scores)
        features = region.heads * region.head_dim
        sources = (*scores.inputs[:2], operator.inputs[1])
        scales = self.projection_scales(sources)
        operands = [
            self._projection(source, region, f"{region.apply}.{role}", scale)
            for role, source, scale in zip("qkv", sources, scales, strict=True)
        ]
        out_scale = self.activation_scale(operator.name)
        name = self.emit(
            IntegerOperator(
                name=region.apply,
                kind=self.attention_kind,
                inputs=tuple(operands),
                output=(region.tokens, features),
                bits=self.bits,
                scale=out_scale,
                origin=region.apply,
                attributes={
                    "heads": region.heads,
                    **self.attention_factors(region, scales, out_scale),
                },
                macs=2 * region.tokens * region.tokens * features,
            ),
            {} if bias is None else {"bias": _score_codes(bias, region)},
        )
        index = torch.arange(region.tokens * features)
        by_head = index.reshape(1, region.tokens, region.heads, region.head_dim).transpose(1, 2)
        shape = operator.output.shape
        return Codes(name, region.tokens, features, out_scale, by_head.reshape(shape))

    def projection_scales(self, sources: Sequence[str]) -> list[float]:
        """The scales of queries, keys and values."""
        return [self.activation_scale(source) for source in sources]

    def attention_factors(
        self, region: AttentionRegion, scales: Sequence[float], out_scale: float
    ) -> dict[str, int | float]:
        """The attributes of an attention beside its heads."""
        score = scales[0] * scales[1] * region.scale * (1 << SCORE_FRACTION)
        return {
            **factor("score", dyadic(score)),
            **factor("apply", dyadic(scales[2] / out_scale)),
        }

    def _projection(self, source: str, region: AttentionRegion, name: str, scale: float) -> str:
        """Emits the int8 projection of queries, keys or values, heads side by side."""
        pending = self.values[source]
        if not isinstance(pending, Pending) or pending.producer.kind != "Linear":
            raise NoIntegerFormError("attention reads something other than linear projections")
        index = pending.index.reshape(region.heads, region.tokens, -1)
        columns = index[:, 0, :]
        rows = torch.arange(region.tokens).reshape(1, -1, 1) * pending.features
        if not torch.equal(index, columns.unsqueeze(1) + rows):
            raise NoIntegerFormError("attention reads a projection whose tokens are rearranged")
        return self.product(
            pending, name=name, bits=self.bits, scale=scale, columns=columns.flatten(), origin=""
        )

    def output(self, operator: Operator) -> Value:
        """Logits at 16 bits with a range of their own, or the codes that are there already."""
        name = operator.inputs[0]
        value = self.values[name]
        if isinstance(value, Total):
            return self._total(value, name)
        if isinstance(value, Pending) and not is_stream(value):
            self.whole(value)
            producer = value.producer.name
            scale = self.seen.largest[name] * 2 / 32767 or 1.0
            self.result = self.product(value, name=producer, bits=16, scale=scale, origin=producer)
            return value
        if is_stream(value) and not isinstance(value, Normed):
            self.result = self.tokens(self.stream(value, name))
            return value
        codes = self.codes(value, name)
        self.result, order = self.rows(codes, self.bits)
        if not torch.equal(order, torch.arange(codes.features)):
            raise NoIntegerFormError("the output's features are in another order")
        return value

    def _total(self, value: Total, name: str) -> Value:
        """Both heads at one scale, which holds their sum, added with saturation."""
        largest = max(
            self.seen.largest[name] / value.factor,
            *(self.seen.largest[part.producer.name] for part in (value.left, value.right)),
        )
        scale = largest * 2 / 32767 or 1.0
        heads = []
        for part in (value.left, value.right):
            self.whole(part)
            producer = part.producer.name
            heads.append(self.product(part, name=producer, bits=16, scale=scale, origin=producer))
        self.result = self.emit(
            IntegerOperator(
                name=name,
                kind="Add",
                inputs=tuple(heads),
                output=(value.left.tokens, value.left.features),
                bits=16,
                scale=scale * value.factor,
                origin=name,
            )
        )
        return value


def _score_codes(bias: Tensor, region: AttentionRegion) -> Tensor:
    """int16 codes [heads or 1, N, N] of a mask or position bias; minus infinity becomes the least
    code.
    """
    values = torch.nan_to_num(bias.to(torch.float64), neginf=-1e9, posinf=1e9)
    codes = saturate(torch.round(values * (1 << SCORE_FRACTION)), SCORE_BITS).to(torch.int16)
    codes = codes.reshape(-1, *bias.shape[-2:]) if bias.dim() > 1 else codes.reshape(1, 1, -1)
    return codes.expand(len(codes), region.tokens, region.keys)


_FINEST_CODES = 1 << 14
"""Most codes of an activation's result to a step of its operand."""

_HANDLERS = {
    "Input": Lowering.input,
    "Constant": Lowering.constant,
    "Conv2d": Lowering.conv2d,
    "Linear": Lowering.linear,
    "View": Lowering.rearrange,
    "Select": Lowering.rearrange,
    "Concat": Lowering.concat,
    "Add": Lowering.add,
    "Mul": Lowering.scale,
    "Div": Lowering.scale,
    "LayerNorm": Lowering.norm,
    "RmsNorm": Lowering.norm,
    "Gelu": Lowering.activation,
    "QuickGelu": Lowering.activation,
    "Silu": Lowering.activation,
    "Relu": Lowering.activation,
    "Mean": Lowering.mean,
    "Softmax": Lowering.softmax,
    "Gate": Lowering.route,
    "MatMul": Lowering.matmul,
    "Output": Lowering.output,
}
