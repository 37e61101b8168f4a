"""The integer model: operators on integer codes with scales beside them. It is the golden of
everything below.

Activations are int64 tensors that hold int8 or int16 codes, [batch, tokens, features]; a code
times its scale is the value. Execution is exact integer arithmetic in the `edge` scheme (see
`models.integer`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError
from .integer.attention import AttentionCodes, attention
from .integer.gelu import gelu
from .integer.layernorm import LayerNormCodes, layernorm
from .integer.matmul import matmul
from .integer.requantize import Dyadic, requantize
from .integer.rounding import saturate
from .weights import load_weights, save_weights

__all__ = ["IntegerModel", "IntegerOperator", "LayerQuality", "patches"]

FORMAT = "vitruvius-integer-model-1"


@dataclass(frozen=True)
class IntegerOperator:
    """One integer operator.

    kind: Quantize, Linear, Gelu, LayerNorm, Attention, Embed, Add, Select.
    inputs: names of the operators read. output: [tokens, features] of the result; bits: width of
    its codes;
    scale: value of one step. origin: the graph operator that computes the same tensor in float
    ("" if none).
    tensors: role -> key into IntegerModel.tensors. macs: multiply-accumulates for one image.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: tuple[int, int]
    bits: int
    scale: float
    origin: str = ""
    attributes: Mapping[str, int | float] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    macs: int = 0


@dataclass(frozen=True)
class LayerQuality:
    """How well an operator's codes represent the float tensor on the calibration images.

    sqnr_db: signal to quantization noise, accumulated up to here; clipped: share of codes at the
    range's ends.
    """

    name: str
    kind: str
    bits: int
    scale: float
    sqnr_db: float
    clipped: float


def patches(images: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] to [B, tokens, C*patch*patch], rows of patches first, features in the order of
    a conv weight.
    """
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)


class IntegerModel:
    """A list of `IntegerOperator` in order of execution, with their tensors.

    Parameters
    ----------
    name: of the model. operators: in order of execution, the last one gives the logits.
    tensors: int8/int16/int32 parameters by key. quality: measured when the model was quantized.

    Raises VitruviusError when a bound is broken: an accumulator that could leave 32 bits (with
    the layer's name), an input that does not exist.
    """

    def __init__(
        self,
        name: str,
        operators: tuple[IntegerOperator, ...],
        tensors: Mapping[str, Tensor],
        quality: tuple[LayerQuality, ...] = (),
    ) -> None:
        self.name = name
        self.operators = operators
        self.tensors = dict(tensors)
        self.quality = quality
        self._check()

    def operator(self, name: str) -> IntegerOperator:
        """The operator called ``name``; KeyError if there is none."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an input image."""
        attributes = self.operators[0].attributes
        return (
            int(attributes["channels"]),
            int(attributes["height"]),
            int(attributes["width"]),
        )

    def run(
        self, images: Tensor, observe: Callable[[IntegerOperator, Tensor], None] | None = None
    ) -> Tensor:
        """Logit codes, int64 [B, classes], of float images [B, C, H, W].

        ``observe`` sees every operator's codes [B, tokens, features]. Raises VitruviusError for
        images of another shape or with values that are not finite.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise VitruviusError(
                f"images for {self.name}: expected [n, {', '.join(map(str, self.image_shape))}], "
                f"got {list(images.shape)}"
            )
        if not bool(torch.isfinite(images).all()):
            raise VitruviusError(
                f"images for {self.name}: expected finite values, found NaN or Inf"
            )
        values: dict[str, Tensor] = {}
        result = images
        for operator in self.operators:
            operands = [values[name] for name in operator.inputs]
            result = self.evaluate(operator, operands, images)
            values[operator.name] = result
            if observe is not None:
                observe(operator, result)
        return result[:, 0]

    def logits(self, images: Tensor) -> Tensor:
        """Logits as float64 values [B, classes]: the codes of `run` times their scale."""
        return self.run(images).to(torch.float64) * self.operators[-1].scale

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images whose largest logit is the label's."""
        return float((self.run(images).argmax(-1) == labels).double().mean())

    def image_codes(self, images: Tensor) -> Tensor:
        """int64 [B, tokens, features]: the codes of the patches of float images, as the hardware
        takes them.
        """
        return self.evaluate(self.operators[0], [], images)

    def save(self, path: Path) -> None:
        """Writes safetensors with the structure as JSON in its metadata; the same model gives the
        same bytes.
        """
        structure = {
            "name": self.name,
            "operators": [asdict(operator) for operator in self.operators],
            "quality": [asdict(quality) for quality in self.quality],
        }
        save_weights(
            self.tensors,
            path,
            {"format": FORMAT, "structure": json.dumps(structure, sort_keys=True)},
        )

    @classmethod
    def load(cls, path: Path) -> IntegerModel:
        """Reads what `save` wrote. Raises VitruviusError for a truncated or foreign file."""
        tensors, metadata = load_weights(path)
        if metadata.get("format") != FORMAT:
            raise VitruviusError(
                f"{path}: expected an integer model ({FORMAT}), got a safetensors file of format "
                f"'{metadata.get('format', 'none')}'"
            )
        try:
            structure = json.loads(metadata["structure"])
            operators = tuple(
                IntegerOperator(
                    **{
                        **fields,
                        "inputs": tuple(fields["inputs"]),
                        "output": tuple(fields["output"]),
                    }
                )
                for fields in structure["operators"]
            )
            quality = tuple(LayerQuality(**fields) for fields in structure["quality"])
            name = str(structure["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise VitruviusError(
                f"{path}: the integer model's structure is damaged: {error}"
            ) from None
        return cls(name, operators, tensors, quality)

    def _tensor(self, operator: IntegerOperator, role: str) -> Tensor:
        return self.tensors[operator.tensors[role]].to(torch.int64)

    def _dyadic(self, operator: IntegerOperator, role: str) -> Dyadic:
        attributes = operator.attributes
        return Dyadic(int(attributes[f"{role}_multiplier"]), int(attributes[f"{role}_shift"]))

    def evaluate(
        self, operator: IntegerOperator, operands: list[Tensor], images: Tensor
    ) -> Tensor:
        """The codes [B, tokens, features] of one operator of the model; ``operands`` are the codes
        of its inputs, ``images`` float images for the first one.
        """
        attributes = operator.attributes
        if operator.kind == "Quantize":
            codes = torch.round(images.to(torch.float64) / operator.scale).to(torch.int64)
            return patches(saturate(codes, 8), int(attributes["patch"]))
        if operator.kind == "Linear":
            weight = self._tensor(operator, "weight")
            accumulator = matmul(operands[0], weight.t()) + self._tensor(operator, "bias")
            return requantize(
                accumulator,
                self._tensor(operator, "multiplier"),
                self._tensor(operator, "shift"),
                operator.bits,
            )
        if operator.kind == "Gelu":
            factor = self._dyadic(operator, "output")
            return requantize(gelu(operands[0]), factor.multiplier, factor.shift, operator.bits)
        if operator.kind == "LayerNorm":
            return saturate(layernorm(operands[0], self.layernorm_codes(operator)), operator.bits)
        if operator.kind == "Attention":
            q, k, v = operands
            return saturate(attention(q, k, v, self.attention_codes(operator)), operator.bits)
        if operator.kind == "Embed":
            constant = self._tensor(operator, "constant")
            first = int(attributes["first_token"])
            pad = functional.pad(
                operands[0], (0, 0, first, len(constant) - first - operands[0].shape[1])
            )
            return saturate(constant + pad, 16)
        if operator.kind == "Add":
            return saturate(operands[0] + operands[1], 16)
        if operator.kind == "Select":
            token = int(attributes["token"])
            return operands[0][:, token : token + 1]
        raise VitruviusError(f"integer operator {operator.name}: unknown kind {operator.kind}")

    def layernorm_codes(self, operator: IntegerOperator) -> LayerNormCodes:
        """The integer affine of a LayerNorm operator."""
        return LayerNormCodes(
            gain=self._tensor(operator, "gain"),
            offset=self._tensor(operator, "offset"),
            shift=int(operator.attributes["affine_shift"]),
            epsilon=int(operator.attributes["epsilon"]),
        )

    def attention_codes(self, operator: IntegerOperator) -> AttentionCodes:
        """The dyadic factors of an Attention operator."""
        return AttentionCodes(
            heads=int(operator.attributes["heads"]),
            score=self._dyadic(operator, "score"),
            apply=self._dyadic(operator, "apply"),
        )

    def _check(self) -> None:
        """Inputs exist, and no accumulator can leave 32 bits whatever the image."""
        known: set[str] = set()
        broken = []
        for operator in self.operators:
            missing = [name for name in operator.inputs if name not in known]
            absent = [key for key in operator.tensors.values() if key not in self.tensors]
            if missing or absent:
                broken.append(f"{operator.name}: reads unknown {', '.join(missing + absent)}")
                continue
            known.add(operator.name)
            bound = self._accumulator_bound(operator)
            if bound >= 1 << 31:
                broken.append(
                    f"{operator.name}: an accumulator can reach {bound}, limit {(1 << 31) - 1}"
                )
        if broken:
            raise VitruviusError(f"integer model {self.name}: " + "; ".join(broken))

    def _accumulator_bound(self, operator: IntegerOperator) -> int:
        if operator.kind == "Linear":
            weight = self._tensor(operator, "weight").abs().sum(1) * 128
            return int((weight + self._tensor(operator, "bias").abs()).max())
        if operator.kind == "Attention":
            tokens, features = operator.output
            head_dim = features // int(operator.attributes["heads"])
            return max(head_dim * 128 * 128, tokens * 255 * 128)
        return 0
