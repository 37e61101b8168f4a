"""The walk from a float Graph to integer operators in scheme `edge`.

A product (Linear, Conv2d, attention) stays pending until its consumer says which codes it wants:
int8 for queries, keys and values, 16 bits with 10 fraction bits for GELU, the residual stream's
int16 for an Add.
Reshapes, permutations and splits cost nothing: the walk carries, for every element of a pending
tensor, its index in the producer's [tokens, features] result, and folds any reordering of
features into the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..errors import VitruviusError
from .calibration import Observations
from .emission import Emission, NoIntegerFormError, factor
from .graph import AttentionRegion, Graph, Operator, evaluate
from .integer.gelu import FRACTION as GELU_FRACTION
from .integer.layernorm import MAX_WIDTH, NORMAL_FRACTION
from .integer.requantize import dyadic
from .integer.softmax import SCORE_FRACTION
from .integer_model import IntegerOperator
from .lowered import Assembly, Codes, Constant, Image, Pending, Scores, Stream, Value
from .quantization_options import QuantizationOptions
from .weight_codes import WeightCodes

__all__ = ["Lowering"]


class Lowering(Emission):
    """Walks ``graph`` once; ``emitted`` and ``tensors`` then hold the integer model.

    ``seen`` are the ranges of the float tensors. ``run`` raises VitruviusError listing every
    operator without an integer form, with module path and source line.
    """

    def __init__(
        self,
        graph: Graph,
        seen: Observations,
        options: QuantizationOptions | None = None,
        weights: Mapping[str, WeightCodes] | None = None,
    ) -> None:
        super().__init__(graph, seen, options, weights)
        self.regions = {region.apply: region for region in graph.regions}
        self.region_of = {
            part: region for region in graph.regions for part in (region.scores, region.softmax)
        }

    def run(self) -> None:
        """Lowers every operator of the graph, in order."""
        problems: list[str] = []
        blocked: set[str] = set()
        for operator in self.graph.operators():
            if blocked.intersection(operator.inputs):
                blocked.add(operator.name)
                if operator.kind not in _HANDLERS:
                    problems.append(self._problem(operator, f"{operator.kind} has no integer form"))
                continue
            handler = _HANDLERS.get(operator.kind)
            try:
                if handler is None:
                    raise NoIntegerFormError(f"{operator.kind} has no integer form")
                self.values[operator.name] = handler(self, operator)
            except NoIntegerFormError as error:
                problems.append(self._problem(operator, str(error)))
                blocked.add(operator.name)
        if problems:
            raise VitruviusError(
                f"{self.graph.name}: {len(problems)} operator(s) without an integer form:\n  "
                + "\n  ".join(problems)
            )

    @staticmethod
    def _problem(operator: Operator, text: str) -> str:
        return (
            f"{operator.name} (module '{operator.path}', {operator.source or 'no source'}): {text}"
        )

    # -- one handler per graph kind -----------------------------------------------------------

    def input(self, operator: Operator) -> Value:
        if len(operator.output.shape) != 4:
            raise NoIntegerFormError(f"expected an image, got shape {operator.output.shape}")
        return Image(operator)

    def constant(self, operator: Operator) -> Value:
        return Constant(self.graph.tensors[operator.tensors["value"]])

    def conv2d(self, operator: Operator) -> Value:
        weight = self.graph.tensors[operator.tensors["weight"]]
        kernel = tuple(weight.shape[-2:])
        whole = (
            tuple(operator.attributes["stride"]) == kernel  # type: ignore[arg-type]
            and kernel[0] == kernel[1]
            and not any(operator.attributes["padding"])  # type: ignore[arg-type]
            and operator.attributes["groups"] == 1
        )
        image = self.values[operator.inputs[0]]
        if not (whole and isinstance(image, Image)):
            raise NoIntegerFormError(
                "only a patch embedding of the image (stride equal to a square kernel, "
                "no padding) has one"
            )
        height, width = image.operator.output.shape[-2:]
        if height % kernel[0] or width % kernel[0]:
            raise NoIntegerFormError(
                f"image {height}x{width} is no multiple of the patch {kernel[0]}"
            )
        _, features, rows, cols = operator.output.shape
        index = torch.arange(rows * cols * features).reshape(1, rows, cols, features)
        return Pending(operator, rows * cols, features, index.permute(0, 3, 1, 2))

    def linear(self, operator: Operator) -> Value:
        if not isinstance(self.values[operator.inputs[0]], Codes):
            raise NoIntegerFormError("reads a tensor that is not int8 codes")
        shape = operator.output.shape
        features = shape[-1]
        tokens = math.prod(shape[:-1])
        return Pending(operator, tokens, features, torch.arange(tokens * features).reshape(shape))

    def rearrange(self, operator: Operator) -> Value:
        value = self.values[operator.inputs[0]]
        if isinstance(value, Constant):
            return Constant(evaluate(operator, [value.value], self.graph))
        if isinstance(value, Pending):
            index = evaluate(operator, [value.index], self.graph)
            return Pending(value.producer, value.tokens, value.features, index)
        if isinstance(value, Codes):
            index = evaluate(operator, [value.index], self.graph)
            return Codes(value.operator, value.tokens, value.features, value.scale, index)
        raise NoIntegerFormError("rearranges the residual stream or the image")

    def concat(self, operator: Operator) -> Value:
        parts = [self.values[name] for name in operator.inputs]
        *constants, patches = parts
        axis = len(operator.output.shape) - 2
        if (
            not isinstance(patches, Pending)
            or not all(isinstance(part, Constant) for part in constants)
            or operator.attributes["dim"] not in (axis, -2)
        ):
            raise NoIntegerFormError("only constant tokens in front of the patches have one")
        tokens = torch.cat(
            [
                part.value.reshape(-1, patches.features)
                for part in constants
                if isinstance(part, Constant)
            ]
        )
        self.whole(patches)
        constant = torch.cat([tokens, torch.zeros(patches.tokens, patches.features)])
        return Assembly(patches, constant, len(tokens))

    def add(self, operator: Operator) -> Value:
        left, right = (self.values[name] for name in operator.inputs)
        if isinstance(left, Constant):
            left, right = right, left
        if isinstance(right, Constant):
            if isinstance(left, Pending) and left.producer.kind == "Conv2d":
                self.whole(left)
                left = Assembly(left, torch.zeros(left.tokens, left.features), 0)
            if not isinstance(left, Assembly):
                raise NoIntegerFormError(
                    "adds a constant to something other than the patch embedding"
                )
            constant = right.value.expand(1, *left.constant.shape).reshape(left.constant.shape)
            return Assembly(left.patches, left.constant + constant, left.first_token)
        names = list(operator.inputs)
        if isinstance(left, Pending):
            left, right = right, left
            names.reverse()
        stream = self.stream(left, names[0])
        if not isinstance(right, Pending):
            raise NoIntegerFormError("adds two tensors of which neither is a linear layer's output")
        self.whole(right)
        branch = self.product(
            right,
            name=right.producer.name,
            bits=16,
            scale=self.residual_scale,
            origin=right.producer.name,
        )
        return Stream(
            self.emit(
                IntegerOperator(
                    name=operator.name,
                    kind="Add",
                    inputs=(stream, branch),
                    output=(right.tokens, right.features),
                    bits=16,
                    scale=self.residual_scale,
                    origin=operator.name,
                )
            )
        )

    def layernorm(self, operator: Operator) -> Value:
        stream = self.stream(self.values[operator.inputs[0]], operator.inputs[0])
        shape = operator.output.shape
        tokens, width = math.prod(shape[:-1]), shape[-1]
        if operator.attributes["normalized"] != width:
            raise NoIntegerFormError("normalises something other than the last axis")
        if width > MAX_WIDTH:
            raise NoIntegerFormError(f"normalises {width} features, at most {MAX_WIDTH}")
        gamma, beta = (
            torch.ones(width, dtype=torch.float64),
            torch.zeros(width, dtype=torch.float64),
        )
        if "weight" in operator.tensors:
            gamma = self.graph.tensors[operator.tensors["weight"]].to(torch.float64)
        if "bias" in operator.tensors:
            beta = self.graph.tensors[operator.tensors["bias"]].to(torch.float64)
        scale = self.activation_scale(operator.name)
        # gain = gamma / scale in units of 2**(10 - shift); the largest shift that keeps both in
        # range.
        shift = 31
        while shift > 0 and (
            float((gamma / scale * 2.0 ** (shift - NORMAL_FRACTION)).abs().max()) > 32766
            or float((beta / scale * 2.0**shift).abs().max()) > 2.0**30
        ):
            shift -= 1
        gain = torch.round(gamma / scale * 2.0 ** (shift - NORMAL_FRACTION))
        epsilon = float(operator.attributes["eps"]) * (width / self.residual_scale) ** 2  # type: ignore[arg-type]
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="LayerNorm",
                inputs=(stream,),
                output=(tokens, width),
                bits=self.bits,
                scale=scale,
                origin=operator.name,
                attributes={
                    "affine_shift": shift,
                    "epsilon": min(max(1, round(epsilon)), (1 << 50) - 1),
                },
            ),
            {
                "gain": gain.to(torch.int16),
                "offset": torch.round(beta / scale * 2.0**shift).to(torch.int32),
            },
        )
        return Codes(name, tokens, width, scale, torch.arange(tokens * width).reshape(shape))

    def gelu(self, operator: Operator) -> Value:
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, Pending) or pending.producer.kind != "Linear":
            raise NoIntegerFormError("reads something other than a linear layer's output")
        if operator.attributes["approximate"] != "none":
            raise NoIntegerFormError(
                "only the exact (erf) GELU has one, not the tanh approximation"
            )
        self.whole(pending)
        before = self.product(
            pending,
            name=pending.producer.name,
            bits=16,
            scale=2.0**-GELU_FRACTION,
            origin=pending.producer.name,
        )
        scale = self.activation_scale(operator.name)
        output_factor = dyadic(2.0**-GELU_FRACTION / scale)
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="Gelu",
                inputs=(before,),
                output=(pending.tokens, pending.features),
                bits=self.bits,
                scale=scale,
                origin=operator.name,
                attributes=factor("output", output_factor),
            )
        )
        return Codes(name, pending.tokens, pending.features, scale, pending.index)

    def softmax(self, operator: Operator) -> Value:
        value = self.values[operator.inputs[0]]
        if not isinstance(value, Scores):
            raise NoIntegerFormError("softmax outside an attention")
        return value

    def matmul(self, operator: Operator) -> Value:
        region = self.region_of.get(operator.name)
        if region is not None:
            if region.bias:
                raise NoIntegerFormError("attention with a mask or position bias")
            return Scores(region)
        region = self.regions.get(operator.name)
        if region is None:
            raise NoIntegerFormError("product of two activations outside an attention")
        if region.tokens != region.keys:
            raise NoIntegerFormError("attention with keys from another sequence")
        scores = self.graph.operator(region.scores)
        features = region.heads * region.head_dim
        operands, scales = [], []
        for role, source in (
            ("q", scores.inputs[0]),
            ("k", scores.inputs[1]),
            ("v", operator.inputs[1]),
        ):
            emitted, scale = self._projection(source, region, f"{region.apply}.{role}")
            operands.append(emitted)
            scales.append(scale)
        out_scale = self.activation_scale(operator.name)
        score_factor = dyadic(scales[0] * scales[1] * region.scale * (1 << SCORE_FRACTION))
        name = self.emit(
            IntegerOperator(
                name=region.apply,
                kind="Attention",
                inputs=tuple(operands),
                output=(region.tokens, features),
                bits=self.bits,
                scale=out_scale,
                origin=region.apply,
                attributes={
                    "heads": region.heads,
                    **factor("score", score_factor),
                    **factor("apply", dyadic(scales[2] / out_scale)),
                },
                macs=2 * region.tokens * region.tokens * features,
            )
        )
        index = torch.arange(region.tokens * features)
        by_head = index.reshape(1, region.tokens, region.heads, region.head_dim).transpose(1, 2)
        return Codes(name, region.tokens, features, out_scale, by_head)

    def _projection(self, source: str, region: AttentionRegion, name: str) -> tuple[str, float]:
        """Emits the int8 projection of queries, keys or values, heads side by side; returns its
        name and scale.
        """
        pending = self.values[source]
        if not isinstance(pending, Pending) or pending.producer.kind != "Linear":
            raise NoIntegerFormError("attention reads something other than linear projections")
        index = pending.index.reshape(region.heads, region.tokens, -1)
        columns = index[:, 0, :]
        rows = torch.arange(region.tokens).reshape(1, -1, 1) * pending.features
        if not torch.equal(index, columns.unsqueeze(1) + rows):
            raise NoIntegerFormError("attention reads a projection whose tokens are rearranged")
        scale = self.activation_scale(source)
        emitted = self.product(
            pending, name=name, bits=self.bits, scale=scale, columns=columns.flatten(), origin=""
        )
        return emitted, scale

    def output(self, operator: Operator) -> Value:
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, Pending) or pending.tokens != 1:
            raise NoIntegerFormError("the output is not one row of logits from a linear layer")
        self.whole(pending)
        scale = self.seen.largest[operator.inputs[0]] * 2 / 32767 or 1.0
        emitted = self.product(
            pending, name=pending.producer.name, bits=16, scale=scale, origin=pending.producer.name
        )
        return Stream(emitted)


_HANDLERS = {
    "Input": Lowering.input,
    "Constant": Lowering.constant,
    "Conv2d": Lowering.conv2d,
    "Linear": Lowering.linear,
    "View": Lowering.rearrange,
    "Select": Lowering.rearrange,
    "Concat": Lowering.concat,
    "Add": Lowering.add,
    "LayerNorm": Lowering.layernorm,
    "Gelu": Lowering.gelu,
    "Softmax": Lowering.softmax,
    "MatMul": Lowering.matmul,
    "Output": Lowering.output,
}
