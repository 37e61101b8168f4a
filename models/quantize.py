"""From a float Graph and calibration images to an IntegerModel in scheme `edge`.

The pass walks the graph once. A product (Linear, Conv2d, attention) stays pending until its
consumer says which
codes it wants: int8 for queries, keys and values, 16 bits with 10 fraction bits for GELU, the
residual stream's int16 for an Add. Reshapes, permutations and splits cost nothing: the walk
carries, for every element of a pending tensor, its index in the producer's [tokens, features]
result, and folds any reordering of features into the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import VitruviusError
from .calibration import Observations, mean_square_scale, observe
from .graph import AttentionRegion, Graph, Operator, evaluate, execute
from .integer.gelu import FRACTION as GELU_FRACTION
from .integer.layernorm import MAX_WIDTH, NORMAL_FRACTION
from .integer.requantize import Dyadic, dyadic, dyadic_tensor
from .integer.rounding import saturate
from .integer.softmax import SCORE_FRACTION
from .integer_model import IntegerModel, IntegerOperator, LayerQuality

__all__ = ["quantize"]

RESIDUAL_MARGIN = 1.05
"""Head room of the residual stream's range over the largest value seen in calibration."""


@dataclass(frozen=True)
class _Pending:
    """A product whose code format is not chosen yet. index: int64, the graph tensor's shape, into
    [tokens, features].
    """

    producer: Operator
    tokens: int
    features: int
    index: Tensor


@dataclass(frozen=True)
class _Codes:
    """int8 codes of an emitted operator, rearranged by index as in `_Pending`."""

    operator: str
    tokens: int
    features: int
    scale: float
    index: Tensor


@dataclass(frozen=True)
class _Stream:
    """The int16 residual stream after an emitted Embed or Add."""

    operator: str


@dataclass(frozen=True)
class _Assembly:
    """A patch embedding placed behind constant tokens, plus constants: not emitted until the
    stream begins.
    """

    patches: _Pending
    constant: Tensor
    first_token: int


@dataclass(frozen=True)
class _Constant:
    value: Tensor


@dataclass(frozen=True)
class _Image:
    operator: Operator


@dataclass(frozen=True)
class _Scores:
    """Inside an attention region: what its parts have collected."""

    region: AttentionRegion


_Value = _Pending | _Codes | _Stream | _Assembly | _Constant | _Image | _Scores


class _NoIntegerFormError(Exception):
    """The operator, read this way, has no integer form; the text says why."""


def quantize(graph: Graph, calibration: Tensor, *, name: str | None = None) -> IntegerModel:
    """The integer model of ``graph``, calibrated on ``calibration`` [n, C, H, W] float images.

    Raises VitruviusError listing every operator without an integer form (with module path and
    source line), or naming the first layer whose weights or activations are not finite.
    """
    for key, tensor in graph.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise VitruviusError(f"weights of {graph.name}: {key} holds NaN or Inf")
    seen = observe(graph, calibration)
    lowering = _Lowering(graph, seen)
    lowering.run()
    model = IntegerModel(name or graph.name, tuple(lowering.emitted), lowering.tensors)
    quality = _quality(model, graph, calibration)
    return IntegerModel(model.name, model.operators, model.tensors, quality)


class _Lowering:
    def __init__(self, graph: Graph, seen: Observations) -> None:
        self.graph = graph
        self.seen = seen
        self.emitted: list[IntegerOperator] = []
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, _Value] = {}
        self.regions = {region.apply: region for region in graph.regions}
        self.region_of = {
            part: region for region in graph.regions for part in (region.scores, region.softmax)
        }
        self.residual_scale = self._residual_scale()

    def run(self) -> None:
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
                    raise _NoIntegerFormError(f"{operator.kind} has no integer form")
                self.values[operator.name] = handler(self, operator)
            except _NoIntegerFormError as error:
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

    # -- the residual stream's scale -----------------------------------------------------------

    def _residual_scale(self) -> float:
        """One scale for the whole stream: everything that a LayerNorm reads, or that such a
        tensor is added to.
        """
        stream = [
            operator.inputs[0]
            for operator in self.graph.operators()
            if operator.kind == "LayerNorm"
        ]
        largest = max((self.seen.largest.get(name, 0.0) for name in stream), default=0.0)
        return (largest or 1.0) * RESIDUAL_MARGIN / 32767

    # -- emitting --------------------------------------------------------------------------------

    def _emit(self, operator: IntegerOperator, tensors: Mapping[str, Tensor] | None = None) -> str:
        keys = {}
        for role, tensor in (tensors or {}).items():
            keys[role] = f"{operator.name}.{role}"
            self.tensors[keys[role]] = tensor.contiguous()
        fields = {**operator.__dict__, "tensors": keys}
        self.emitted.append(IntegerOperator(**fields))
        return operator.name

    def _activation_scale(self, name: str) -> float:
        return mean_square_scale(self.seen.samples[name], 8)

    def _linear(
        self,
        pending: _Pending,
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
        weight = self.graph.tensors[producer.tensors["weight"]].to(torch.float64).flatten(1)
        bias = torch.zeros(len(weight), dtype=torch.float64)
        if "bias" in producer.tensors:
            bias = self.graph.tensors[producer.tensors["bias"]].to(torch.float64)
        source = self.values[producer.inputs[0]]
        if isinstance(source, _Image):
            operand, in_scale = self._image(source, producer)
        else:
            if not isinstance(source, _Codes):
                raise _NoIntegerFormError("reads a tensor that is not int8 codes")
            operand, order = self._rows(source, producer)
            in_scale = source.scale
            weight = weight[:, order]
        if columns is not None:
            weight, bias = weight[columns], bias[columns]
        column_scale = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        codes = torch.round(weight / column_scale.unsqueeze(1)).to(torch.int8)
        bias_codes = torch.round(bias / (column_scale * in_scale))
        if bool((bias_codes.abs() >= 1 << 31).any()):
            raise _NoIntegerFormError("a bias does not fit 32 bits at the product's scale")
        multiplier, shift = dyadic_tensor(column_scale * in_scale / scale)
        return self._emit(
            IntegerOperator(
                name=name,
                kind="Linear",
                inputs=(operand,),
                output=(pending.tokens, len(weight)),
                bits=bits,
                scale=scale,
                origin=origin,
                macs=pending.tokens * weight.numel(),
            ),
            {
                "weight": codes,
                "bias": bias_codes.to(torch.int32),
                "multiplier": multiplier.to(torch.int32),
                "shift": shift.to(torch.uint8),
            },
        )

    def _image(self, image: _Image, conv: Operator) -> tuple[str, float]:
        """The Quantize operator in front of a patch embedding."""
        channels, height, width = image.operator.output.shape[1:]
        patch = self.graph.tensors[conv.tensors["weight"]].shape[-1]
        scale = self.seen.largest[image.operator.name] / 127 or 1.0
        grid = (height // patch) * (width // patch)
        name = self._emit(
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

    def _rows(self, codes: _Codes, reader: Operator) -> tuple[str, Tensor]:
        """(operator, feature order) that a Linear reads: all tokens in order, or one token."""
        index = codes.index.reshape(-1, codes.index.shape[-1])
        token, order = index[:, 0] // codes.features, index[0] % codes.features
        regular = token.unsqueeze(1) * codes.features + order
        if not torch.equal(index, regular):
            raise _NoIntegerFormError(
                "reads tokens and features in an order that no product can take"
            )
        if torch.equal(token, torch.arange(codes.tokens)):
            return codes.operator, order
        if len(token) != 1:
            raise _NoIntegerFormError(f"reads {len(token)} of {codes.tokens} tokens")
        name = f"{codes.operator}.token{int(token[0])}"
        if all(operator.name != name for operator in self.emitted):
            self._emit(
                IntegerOperator(
                    name=name,
                    kind="Select",
                    inputs=(codes.operator,),
                    output=(1, codes.features),
                    bits=8,
                    scale=codes.scale,
                    attributes={"token": int(token[0])},
                )
            )
        return name, order

    # -- one handler per graph kind -----------------------------------------------------------

    def input(self, operator: Operator) -> _Value:
        if len(operator.output.shape) != 4:
            raise _NoIntegerFormError(f"expected an image, got shape {operator.output.shape}")
        return _Image(operator)

    def constant(self, operator: Operator) -> _Value:
        return _Constant(self.graph.tensors[operator.tensors["value"]])

    def conv2d(self, operator: Operator) -> _Value:
        weight = self.graph.tensors[operator.tensors["weight"]]
        kernel = tuple(weight.shape[-2:])
        whole = (
            tuple(operator.attributes["stride"]) == kernel  # type: ignore[arg-type]
            and kernel[0] == kernel[1]
            and not any(operator.attributes["padding"])  # type: ignore[arg-type]
            and operator.attributes["groups"] == 1
        )
        image = self.values[operator.inputs[0]]
        if not (whole and isinstance(image, _Image)):
            raise _NoIntegerFormError(
                "only a patch embedding of the image (stride equal to a square kernel, "
                "no padding) has one"
            )
        height, width = image.operator.output.shape[-2:]
        if height % kernel[0] or width % kernel[0]:
            raise _NoIntegerFormError(
                f"image {height}x{width} is no multiple of the patch {kernel[0]}"
            )
        _, features, rows, cols = operator.output.shape
        index = torch.arange(rows * cols * features).reshape(1, rows, cols, features)
        return _Pending(operator, rows * cols, features, index.permute(0, 3, 1, 2))

    def linear(self, operator: Operator) -> _Value:
        if not isinstance(self.values[operator.inputs[0]], _Codes):
            raise _NoIntegerFormError("reads a tensor that is not int8 codes")
        shape = operator.output.shape
        features = shape[-1]
        tokens = math.prod(shape[:-1])
        return _Pending(operator, tokens, features, torch.arange(tokens * features).reshape(shape))

    def rearrange(self, operator: Operator) -> _Value:
        value = self.values[operator.inputs[0]]
        if isinstance(value, _Constant):
            return _Constant(evaluate(operator, [value.value], self.graph))
        if isinstance(value, _Pending):
            index = evaluate(operator, [value.index], self.graph)
            return _Pending(value.producer, value.tokens, value.features, index)
        if isinstance(value, _Codes):
            index = evaluate(operator, [value.index], self.graph)
            return _Codes(value.operator, value.tokens, value.features, value.scale, index)
        raise _NoIntegerFormError("rearranges the residual stream or the image")

    def concat(self, operator: Operator) -> _Value:
        parts = [self.values[name] for name in operator.inputs]
        *constants, patches = parts
        axis = len(operator.output.shape) - 2
        if (
            not isinstance(patches, _Pending)
            or not all(isinstance(part, _Constant) for part in constants)
            or operator.attributes["dim"] not in (axis, -2)
        ):
            raise _NoIntegerFormError("only constant tokens in front of the patches have one")
        tokens = torch.cat(
            [
                part.value.reshape(-1, patches.features)
                for part in constants
                if isinstance(part, _Constant)
            ]
        )
        self._whole(patches)
        constant = torch.cat([tokens, torch.zeros(patches.tokens, patches.features)])
        return _Assembly(patches, constant, len(tokens))

    def add(self, operator: Operator) -> _Value:
        left, right = (self.values[name] for name in operator.inputs)
        if isinstance(left, _Constant):
            left, right = right, left
        if isinstance(right, _Constant):
            if isinstance(left, _Pending) and left.producer.kind == "Conv2d":
                self._whole(left)
                left = _Assembly(left, torch.zeros(left.tokens, left.features), 0)
            if not isinstance(left, _Assembly):
                raise _NoIntegerFormError(
                    "adds a constant to something other than the patch embedding"
                )
            constant = right.value.expand(1, *left.constant.shape).reshape(left.constant.shape)
            return _Assembly(left.patches, left.constant + constant, left.first_token)
        names = list(operator.inputs)
        if isinstance(left, _Pending):
            left, right = right, left
            names.reverse()
        stream = self._stream(left, names[0])
        if not isinstance(right, _Pending):
            raise _NoIntegerFormError(
                "adds two tensors of which neither is a linear layer's output"
            )
        self._whole(right)
        branch = self._linear(
            right,
            name=right.producer.name,
            bits=16,
            scale=self.residual_scale,
            origin=right.producer.name,
        )
        return _Stream(
            self._emit(
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

    def _stream(self, value: _Value, name: str) -> str:
        """The name of the emitted operator that holds the residual stream."""
        if isinstance(value, _Stream):
            return value.operator
        if isinstance(value, _Pending) and value.producer.kind == "Conv2d":
            self._whole(value)
            value = _Assembly(value, torch.zeros(value.tokens, value.features), 0)
        if not isinstance(value, _Assembly):
            raise _NoIntegerFormError("expected the residual stream")
        branch = self._linear(
            value.patches,
            name=value.patches.producer.name,
            bits=16,
            scale=self.residual_scale,
            origin="",
        )
        constant = saturate(torch.round(value.constant.to(torch.float64) / self.residual_scale), 16)
        emitted = self._emit(
            IntegerOperator(
                name=name,
                kind="Embed",
                inputs=(branch,),
                output=(constant.shape[0], constant.shape[1]),
                bits=16,
                scale=self.residual_scale,
                origin=name,
                attributes={"first_token": value.first_token},
            ),
            {"constant": constant.to(torch.int16)},
        )
        self.values[name] = _Stream(emitted)
        return emitted

    @staticmethod
    def _whole(pending: _Pending) -> None:
        """The pending tensor must be the producer's [tokens, features] result, nothing moved."""
        expected = torch.arange(pending.tokens * pending.features)
        if not torch.equal(pending.index.flatten(), expected):
            raise _NoIntegerFormError(
                "tokens or features reach the residual stream in another order"
            )

    def layernorm(self, operator: Operator) -> _Value:
        stream = self._stream(self.values[operator.inputs[0]], operator.inputs[0])
        shape = operator.output.shape
        tokens, width = math.prod(shape[:-1]), shape[-1]
        if operator.attributes["normalized"] != width:
            raise _NoIntegerFormError("normalises something other than the last axis")
        if width > MAX_WIDTH:
            raise _NoIntegerFormError(f"normalises {width} features, at most {MAX_WIDTH}")
        gamma, beta = (
            torch.ones(width, dtype=torch.float64),
            torch.zeros(width, dtype=torch.float64),
        )
        if "weight" in operator.tensors:
            gamma = self.graph.tensors[operator.tensors["weight"]].to(torch.float64)
        if "bias" in operator.tensors:
            beta = self.graph.tensors[operator.tensors["bias"]].to(torch.float64)
        scale = self._activation_scale(operator.name)
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
        name = self._emit(
            IntegerOperator(
                name=operator.name,
                kind="LayerNorm",
                inputs=(stream,),
                output=(tokens, width),
                bits=8,
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
        return _Codes(name, tokens, width, scale, torch.arange(tokens * width).reshape(shape))

    def gelu(self, operator: Operator) -> _Value:
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, _Pending) or pending.producer.kind != "Linear":
            raise _NoIntegerFormError("reads something other than a linear layer's output")
        if operator.attributes["approximate"] != "none":
            raise _NoIntegerFormError(
                "only the exact (erf) GELU has one, not the tanh approximation"
            )
        self._whole(pending)
        before = self._linear(
            pending,
            name=pending.producer.name,
            bits=16,
            scale=2.0**-GELU_FRACTION,
            origin=pending.producer.name,
        )
        scale = self._activation_scale(operator.name)
        factor = dyadic(2.0**-GELU_FRACTION / scale)
        name = self._emit(
            IntegerOperator(
                name=operator.name,
                kind="Gelu",
                inputs=(before,),
                output=(pending.tokens, pending.features),
                bits=8,
                scale=scale,
                origin=operator.name,
                attributes=_factor("output", factor),
            )
        )
        return _Codes(name, pending.tokens, pending.features, scale, pending.index)

    def softmax(self, operator: Operator) -> _Value:
        value = self.values[operator.inputs[0]]
        if not isinstance(value, _Scores):
            raise _NoIntegerFormError("softmax outside an attention")
        return value

    def matmul(self, operator: Operator) -> _Value:
        region = self.region_of.get(operator.name)
        if region is not None:
            if region.bias:
                raise _NoIntegerFormError("attention with a mask or position bias")
            return _Scores(region)
        region = self.regions.get(operator.name)
        if region is None:
            raise _NoIntegerFormError("product of two activations outside an attention")
        if region.tokens != region.keys:
            raise _NoIntegerFormError("attention with keys from another sequence")
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
        out_scale = self._activation_scale(operator.name)
        score_factor = dyadic(scales[0] * scales[1] * region.scale * (1 << SCORE_FRACTION))
        name = self._emit(
            IntegerOperator(
                name=region.apply,
                kind="Attention",
                inputs=tuple(operands),
                output=(region.tokens, features),
                bits=8,
                scale=out_scale,
                origin=region.apply,
                attributes={
                    "heads": region.heads,
                    **_factor("score", score_factor),
                    **_factor("apply", dyadic(scales[2] / out_scale)),
                },
                macs=2 * region.tokens * region.tokens * features,
            )
        )
        index = torch.arange(region.tokens * features)
        by_head = index.reshape(1, region.tokens, region.heads, region.head_dim).transpose(1, 2)
        return _Codes(name, region.tokens, features, out_scale, by_head)

    def _projection(self, source: str, region: AttentionRegion, name: str) -> tuple[str, float]:
        """Emits the int8 projection of queries, keys or values, heads side by side; returns its
        name and scale.
        """
        pending = self.values[source]
        if not isinstance(pending, _Pending) or pending.producer.kind != "Linear":
            raise _NoIntegerFormError("attention reads something other than linear projections")
        index = pending.index.reshape(region.heads, region.tokens, -1)
        columns = index[:, 0, :]
        rows = torch.arange(region.tokens).reshape(1, -1, 1) * pending.features
        if not torch.equal(index, columns.unsqueeze(1) + rows):
            raise _NoIntegerFormError("attention reads a projection whose tokens are rearranged")
        scale = self._activation_scale(source)
        emitted = self._linear(
            pending, name=name, bits=8, scale=scale, columns=columns.flatten(), origin=""
        )
        return emitted, scale

    def output(self, operator: Operator) -> _Value:
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, _Pending) or pending.tokens != 1:
            raise _NoIntegerFormError("the output is not one row of logits from a linear layer")
        self._whole(pending)
        scale = self.seen.largest[operator.inputs[0]] * 2 / 32767 or 1.0
        emitted = self._linear(
            pending, name=pending.producer.name, bits=16, scale=scale, origin=pending.producer.name
        )
        return _Stream(emitted)


_HANDLERS = {
    "Input": _Lowering.input,
    "Constant": _Lowering.constant,
    "Conv2d": _Lowering.conv2d,
    "Linear": _Lowering.linear,
    "View": _Lowering.rearrange,
    "Select": _Lowering.rearrange,
    "Concat": _Lowering.concat,
    "Add": _Lowering.add,
    "LayerNorm": _Lowering.layernorm,
    "Gelu": _Lowering.gelu,
    "Softmax": _Lowering.softmax,
    "MatMul": _Lowering.matmul,
    "Output": _Lowering.output,
}


def _factor(role: str, factor: Dyadic) -> dict[str, int | float]:
    return {f"{role}_multiplier": factor.multiplier, f"{role}_shift": factor.shift}


def _quality(model: IntegerModel, graph: Graph, images: Tensor) -> tuple[LayerQuality, ...]:
    """SQNR of every operator that has a float counterpart, on at most 64 of the calibration
    images.
    """
    images = images[:64]
    wanted = {operator.origin for operator in model.operators if operator.origin}
    floats: dict[str, Tensor] = {}

    def look(operator: Operator, value: Tensor) -> None:
        if operator.name in wanted:
            floats[operator.name] = value.detach().to(torch.float64)

    execute(graph, images, observe=look)
    rows: list[LayerQuality] = []

    def compare(operator: IntegerOperator, codes: Tensor) -> None:
        if operator.origin not in floats:
            return
        value = floats[operator.origin]
        if operator.kind == "Attention":
            value = value.transpose(1, 2)
        value = value.reshape(codes.shape)
        noise = float(((codes * operator.scale - value) ** 2).sum())
        signal = float((value**2).sum())
        top = (1 << (operator.bits - 1)) - 1
        rows.append(
            LayerQuality(
                name=operator.name,
                kind=operator.kind,
                bits=operator.bits,
                scale=operator.scale,
                sqnr_db=round(10 * math.log10(signal / noise), 3) if noise and signal else math.inf,
                clipped=float(((codes >= top) | (codes <= -top - 1)).double().mean()),
            )
        )

    model.run(images, observe=compare)
    return tuple(rows)
