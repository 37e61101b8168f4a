"""The two code formats that most tensors end in, and how the others get there: the residual
stream's int16 and a reader's int8 codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .emission import Emission, NoIntegerFormError, factor
from .graph import Operator
from .integer.layernorm import NORMAL_FRACTION
from .integer.requantize import dyadic
from .integer.rounding import saturate
from .integer_operator import IntegerOperator
from .lowered import Assembly, Codes, Normed, Pending, Stream, Value

__all__ = ["Streams", "is_stream", "normed"]

_EPSILON_LIMIT = (1 << 50) - 1


def is_stream(value: Value) -> bool:
    """Whether `Streams.stream` takes the value without a product of its own."""
    if isinstance(value, Pending):
        return value.producer.kind == "Conv2d"
    return isinstance(value, (Stream, Assembly, Normed))


class Streams(Emission):
    """Turns values into the stream or into codes, emitting what that takes."""

    def stream(self, value: Value, name: str) -> Stream:
        """``value``, which the graph calls ``name``, as the residual stream."""
        if isinstance(value, Stream):
            return value
        if isinstance(value, Normed):
            emitted = self._norm(value, 16, self.residual_scale)
        elif isinstance(value, Assembly):
            emitted = self._embed(value, name)
        elif isinstance(value, Pending) and value.producer.kind == "Conv2d":
            constant = torch.zeros(value.index.shape)
            emitted = self._embed(Assembly(value, value.index, constant), name)
        elif isinstance(value, Pending):
            self.whole(value)
            emitted = self.product(
                value,
                name=value.producer.name,
                bits=16,
                scale=self.residual_scale,
                origin=value.producer.name,
            )
        else:
            raise NoIntegerFormError("expected the residual stream")
        tokens, features = next(item.output for item in self.emitted if item.name == emitted)
        if isinstance(value, Normed):
            index = value.index
        else:
            index = torch.arange(tokens * features).reshape(1, tokens, features)
        stream = Stream(emitted, tokens, features, index)
        if not isinstance(value, Normed):
            self.values[name] = stream
        return stream

    def codes(self, value: Value, name: str) -> Codes:
        """``value``, which the graph calls ``name``, as codes that a product can read."""
        if isinstance(value, Codes):
            return value
        if isinstance(value, Normed):
            scale = self.activation_scale(value.operator.name)
            emitted = self._norm(value, self.bits, scale)
            return Codes(emitted, value.tokens, value.features, scale, value.index)
        if isinstance(value, (Stream, Assembly)):
            stream = self.stream(value, name)
            scale = self.activation_scale(name)
            emitted = self.emit(
                IntegerOperator(
                    name=f"{name}.codes",
                    kind="Requantize",
                    inputs=(stream.operator,),
                    output=(stream.tokens, stream.features),
                    bits=self.bits,
                    scale=scale,
                    attributes=factor("output", dyadic(self.residual_scale / scale)),
                )
            )
            return Codes(emitted, stream.tokens, stream.features, scale, stream.index)
        raise NoIntegerFormError("reads a tensor that is not int8 codes")

    def tokens(self, stream: Stream) -> str:
        """The emitted operator that holds the tokens of ``stream``, all in order or one."""
        as_codes = Codes(
            stream.operator, stream.tokens, stream.features, self.residual_scale, stream.index
        )
        name, order = self.rows(as_codes, 16)
        if not torch.equal(order, torch.arange(stream.features)):
            raise NoIntegerFormError("reads the residual stream's features in another order")
        return name

    def _norm(self, value: Normed, bits: int, scale: float) -> str:
        """Emits the norm with results of ``bits`` at ``scale``, once for each width."""
        operator = value.operator
        known = [item for item in self.emitted if item.origin == operator.name]
        for item in known:
            if item.bits == bits:
                return item.name
        width = value.features
        gamma = torch.ones(width, dtype=torch.float64)
        beta = torch.zeros(width, dtype=torch.float64)
        if "weight" in operator.tensors:
            gamma = self.graph.tensors[operator.tensors["weight"]].to(torch.float64)
        if "bias" in operator.tensors:
            beta = self.graph.tensors[operator.tensors["bias"]].to(torch.float64)
        # gain = gamma / scale in units of 2**(10 - shift); the largest shift that keeps both in
        # range.
        shift = 31
        while shift > 0 and (
            float((gamma / scale * 2.0 ** (shift - NORMAL_FRACTION)).abs().max()) > 32766
            or float((beta / scale * 2.0**shift).abs().max()) > 2.0**30
        ):
            shift -= 1
        gain = torch.round(gamma / scale * 2.0 ** (shift - NORMAL_FRACTION))
        offset = torch.round(beta / scale * 2.0**shift)
        if float(gain.abs().max()) > 32767 or float(offset.abs().max()) > 2.0**31 - 1:
            raise NoIntegerFormError("its weights are too large beside its output's range")
        epsilon = float(operator.attributes["eps"]) * (width / self.residual_scale) ** 2  # type: ignore[arg-type]
        return self.emit(
            IntegerOperator(
                name=f"{operator.name}.{bits}bits" if known else operator.name,
                kind=operator.kind,
                inputs=(value.source,),
                output=(value.tokens, width),
                bits=bits,
                scale=scale,
                origin=operator.name,
                attributes={
                    "affine_shift": shift,
                    "epsilon": min(max(1, round(epsilon)), _EPSILON_LIMIT),
                },
            ),
            {"gain": gain.to(torch.int16), "offset": offset.to(torch.int32)},
        )

    def _embed(self, value: Assembly, name: str) -> str:
        """Emits the patch embedding and the Embed that puts it among the constant tokens."""
        patches = value.patches
        index, first = self.placed(value)
        branch = self.product(
            patches, name=patches.producer.name, bits=16, scale=self.residual_scale, origin=""
        )
        constant = value.constant.reshape(index.shape).to(torch.float64) / self.residual_scale
        return self.emit(
            IntegerOperator(
                name=name,
                kind="Embed",
                inputs=(branch,),
                output=(index.shape[0], index.shape[1]),
                bits=16,
                scale=self.residual_scale,
                origin=name,
                attributes={"first_token": first},
            ),
            {"constant": saturate(torch.round(constant), 16).to(torch.int16)},
        )

    @staticmethod
    def placed(value: Assembly) -> tuple[Tensor, int]:
        """The index of an Assembly as [tokens, features], and its first patch; all patches in
        order must follow that one.
        """
        patches = value.patches
        index = value.index.reshape(-1, value.index.shape[-1])
        of_patch = index[:, 0] >= 0
        first = int(of_patch.nonzero()[0]) if bool(of_patch.any()) else 0
        expected = torch.full_like(index, -1)
        whole = torch.arange(patches.tokens * patches.features).reshape(patches.tokens, -1)
        if len(index) >= first + patches.tokens and index.shape[1] == patches.features:
            expected[first : first + patches.tokens] = whole
        if not torch.equal(index, expected):
            raise NoIntegerFormError(
                "tokens or features of the patch embedding reach the residual stream in another "
                "order"
            )
        return index, first


def normed(operator: Operator, source: str, tokens: int) -> Normed:
    """A norm of the emitted stream ``source`` whose graph shape is ``operator``'s."""
    shape = operator.output.shape
    index = torch.arange(tokens * shape[-1]).reshape(shape)
    return Normed(operator, source, tokens, shape[-1], index)
