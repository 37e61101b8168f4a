"""The walk from a float Graph to integer operators in scheme `ivit` (I-ViT, arXiv 2207.01405).

The data flow is the published one: 8 bits between products, with one scale for queries, keys and
values together; 16 bits on the residual stream, where every sum and every branch has a scale of its
own and an addition requantizes both; LayerNorm's channels are brought to one scale behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .calibration import scale_of
from .emission import NoIntegerFormError
from .graph import Operator
from .integer.ivit.dyadic import Dyadic31, dyadic31
from .integer.ivit.layernorm import affine
from .integer.ivit.shift_exp import reciprocal_step
from .integer.ivit.shift_gelu import LARGEST_STEP, SLOPE
from .integer.ivit.shiftmax import OCTAVES, WIDEST_STEP, largest_step, octaves_reached
from .integer.rounding import saturate
from .integer_operator import IntegerOperator
from .ivit_operators import ROOTS
from .lowered import Assembly, Codes, Normed, Pending, Stream, Value
from .lowering import Lowering
from .lowering_streams import is_stream
from .regions import AttentionRegion

__all__ = ["IvitLowering"]

_LEAST_SCALE = 2.0**-23
_STREAM_BITS = 16
_LOGIT_BITS = 32


class IvitLowering(Lowering):
    """As `Lowering`, with the operators of `models.ivit_operators`."""

    linear_kind = "Linear31"
    attention_kind = "ShiftAttention"

    # -- scales -------------------------------------------------------------------------------

    def activation_scale(self, name: str) -> float:
        """As the base's, a number of float32 of at least its epsilon."""
        return _float32(super().activation_scale(name))

    def stream_scale(self, name: str) -> float:
        """The scale of 16-bit codes of the graph operator ``name``: nothing seen is clipped."""
        return _float32(self.seen.largest[name] / ((1 << (_STREAM_BITS - 1)) - 1))

    def scale_of(self, emitted: str) -> float:
        """The scale of an emitted operator."""
        return next(item.scale for item in self.emitted if item.name == emitted)

    def factors(self, ratios: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [_dyadic(ratio) for ratio in ratios.tolist()]
        return (
            torch.tensor([pair.multiplier for pair in pairs], dtype=torch.int64),
            torch.tensor([pair.shift for pair in pairs], dtype=torch.int64),
        )

    # -- the residual stream ------------------------------------------------------------------

    def stream(self, value: Value, name: str) -> Stream:
        if isinstance(value, Normed):
            raise NoIntegerFormError("a norm whose output is the residual stream")
        if isinstance(value, Pending) and value.producer.kind == "Linear":
            self.whole(value)
            producer = value.producer.name
            emitted = self.product(
                value,
                name=producer,
                bits=_STREAM_BITS,
                scale=self.stream_scale(producer),
                origin=producer,
            )
            index = torch.arange(value.tokens * value.features).reshape(
                1, value.tokens, value.features
            )
            self.values[name] = stream = Stream(emitted, value.tokens, value.features, index)
            return stream
        return super().stream(value, name)

    def codes(self, value: Value, name: str) -> Codes:
        if isinstance(value, (Stream, Assembly)):
            raise NoIntegerFormError("a product reads the residual stream without a norm")
        return super().codes(value, name)

    def tokens(self, stream: Stream) -> str:
        scale = self.scale_of(stream.operator)
        as_codes = Codes(stream.operator, stream.tokens, stream.features, scale, stream.index)
        name, order = self.rows(as_codes, _STREAM_BITS)
        if not torch.equal(order, torch.arange(stream.features)):
            raise NoIntegerFormError("reads the residual stream's features in another order")
        return name

    def _emitted_stream(self, operator: Operator, kind: str, inputs: tuple[str, ...]) -> Stream:
        if kind != "Add":
            raise NoIntegerFormError("a mixture of experts has no form in scheme ivit")
        shape = operator.output.shape
        tokens, features = math.prod(shape[:-1]), shape[-1]
        scale = self.stream_scale(operator.name)
        attributes: dict[str, int | float] = {}
        for role, source in zip(("left", "right"), inputs, strict=True):
            attributes |= _factor(role, self.scale_of(source) / scale)
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="Add31",
                inputs=inputs,
                output=(tokens, features),
                bits=_STREAM_BITS,
                scale=scale,
                origin=operator.name,
                attributes=attributes,
            )
        )
        return Stream(name, tokens, features, torch.arange(tokens * features).reshape(shape))

    def _embed(self, value: Assembly, name: str) -> str:
        patches = value.patches
        index, first = self.placed(value)
        producer = patches.producer.name
        own = self.stream_scale(producer)
        branch = self.product(patches, name=producer, bits=_STREAM_BITS, scale=own, origin="")
        scale = self.stream_scale(name)
        constant = value.constant.reshape(index.shape).to(torch.float64) / scale
        return self.emit(
            IntegerOperator(
                name=name,
                kind="Embed31",
                inputs=(branch,),
                output=(index.shape[0], index.shape[1]),
                bits=_STREAM_BITS,
                scale=scale,
                origin=name,
                attributes={"first_token": first, **_factor("patches", own / scale)},
            ),
            {"constant": saturate(torch.round(constant), _STREAM_BITS).to(torch.int16)},
        )

    # -- operators ----------------------------------------------------------------------------

    def _norm(self, value: Normed, bits: int, scale: float) -> str:
        operator = value.operator
        if operator.kind != "LayerNorm":
            raise NoIntegerFormError("only LayerNorm has a form in scheme ivit")
        known = [item.name for item in self.emitted if item.origin == operator.name]
        if known:
            return known[0]
        gamma, beta = torch.ones(value.features), torch.zeros(value.features)
        if "weight" in operator.tensors:
            gamma = self.graph.tensors[operator.tensors["weight"]]
        if "bias" in operator.tensors:
            beta = self.graph.tensors[operator.tensors["bias"]]
        parameters = affine(gamma, beta)
        multiplier, shift = self.factors(parameters.scale / scale)
        return self.emit(
            IntegerOperator(
                name=operator.name,
                kind="ILayerNorm",
                inputs=(value.source,),
                output=(value.tokens, value.features),
                bits=bits,
                scale=scale,
                origin=operator.name,
                attributes={"newton": ROOTS.index("newton") if self._faithful else 0},
            ),
            {
                "bias": parameters.bias.to(torch.int32),
                "alive": parameters.alive.to(torch.int8),
                "multiplier": multiplier.to(torch.int32),
                "shift": shift.to(torch.uint8),
            },
        )

    @property
    def _faithful(self) -> bool:
        return self.options.ivit_mode == "faithful"

    def activation(self, operator: Operator) -> Value:
        if operator.kind != "Gelu":
            raise NoIntegerFormError("only GELU has a form in scheme ivit")
        pending = self.values[operator.inputs[0]]
        if not isinstance(pending, Pending) or pending.producer.kind != "Linear":
            raise NoIntegerFormError("reads something other than a linear layer's output")
        self.whole(pending)
        producer = pending.producer.name
        inside = max(self.activation_scale(producer), 1 / (SLOPE * LARGEST_STEP))
        a = reciprocal_step(SLOPE * inside, nearest=not self._faithful)
        before = self.product(pending, name=producer, bits=self.bits, scale=inside, origin=producer)
        scale = self.activation_scale(operator.name)
        name = self.emit(
            IntegerOperator(
                name=operator.name,
                kind="ShiftGelu",
                inputs=(before,),
                output=(pending.tokens, pending.features),
                bits=self.bits,
                scale=scale,
                origin=operator.name,
                attributes={
                    "a": min(a, LARGEST_STEP),
                    "faithful": int(self._faithful),
                    **_factor("output", inside / 128 / scale),
                },
            )
        )
        return Codes(name, pending.tokens, pending.features, scale, pending.index)

    def projection_scales(self, sources: Sequence[str]) -> list[float]:
        """One for queries, keys and values together, as I-ViT's quantizer behind them has it."""
        samples = torch.cat([self.seen.samples[source] for source in sources])
        largest = max(self.seen.largest[source] for source in sources)
        return [_float32(scale_of(samples, largest, self.bits, self.options))] * 3

    def attention_factors(
        self, region: AttentionRegion, scales: Sequence[float], out_scale: float
    ) -> dict[str, int | float]:
        if region.bias:
            raise NoIntegerFormError("a mask or position bias has no form in scheme ivit")
        # A finer step than that of the widest range of `a` would gain nothing: half a step of it
        # changes an exponential by a thousandth.
        limit = min(largest_step(region.keys), WIDEST_STEP)
        scores = max(self.activation_scale(region.scores), 1 / limit)
        a = min(reciprocal_step(scores, nearest=not self._faithful), limit)
        return {
            "a": a,
            "octaves": octaves_reached(a) if self.options.ivit_octaves == "fitted" else OCTAVES,
            **_factor("score", scales[0] * scales[1] * region.scale / scores),
            **_factor("apply", scales[2] / (1 << 15) / out_scale),
        }

    def mean(self, operator: Operator) -> Value:
        if is_stream(self.values[operator.inputs[0]]) and not isinstance(
            self.values[operator.inputs[0]], Normed
        ):
            raise NoIntegerFormError("averages the residual stream without a norm")
        return super().mean(operator)

    def output(self, operator: Operator) -> Value:
        """Logits of 32 bits at the largest of their columns' scales, so that they compare."""
        name = operator.inputs[0]
        value = self.values[name]
        if not isinstance(value, Pending) or is_stream(value):
            return super().output(operator)
        self.whole(value)
        producer = value.producer.name
        source = self.values[value.producer.inputs[0]]
        if not isinstance(source, Codes):
            raise NoIntegerFormError("reads a tensor that is not int8 codes")
        scale = float(self.weights[producer].scale.max()) * source.scale
        self.result = self.product(
            value, name=producer, bits=_LOGIT_BITS, scale=scale, origin=producer
        )
        return value


def _float32(scale: float) -> float:
    return float(torch.tensor(max(scale, _LEAST_SCALE), dtype=torch.float32))


def _dyadic(ratio: float) -> Dyadic31:
    try:
        return dyadic31(ratio)
    except ValueError:
        raise NoIntegerFormError(
            f"its operand's scale is {ratio:.3g} times its own, at most 2**30 fits"
        ) from None


def _factor(role: str, ratio: float) -> dict[str, int | float]:
    factor = _dyadic(ratio)
    return {f"{role}_multiplier": factor.multiplier, f"{role}_shift": factor.shift}
