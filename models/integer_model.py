"""The integer model: operators on integer codes with scales beside them. It is the golden of
everything below.

Activations are int64 tensors that hold int8 or int16 codes, [batch, tokens, features]; a code
times its scale is the value. Execution is exact integer arithmetic in scheme `edge` (see
`models.integer`) or `ivit` (`models.integer.ivit`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import VitruviusError
from .integer.attention import AttentionCodes
from .integer.gate import Routing, route
from .integer.layernorm import LayerNormCodes
from .integer_bounds import AccumulatorBound, accumulator_bounds
from .integer_checks import problems
from .integer_operator import IntegerOperator, LayerQuality
from .integer_plan import Plan
from .integer_reference import attention_codes, evaluate_reference, layernorm_codes, patches
from .weights import load_weights, save_weights

__all__ = ["IntegerModel", "IntegerOperator", "LayerQuality", "patches"]

FORMAT = "vitruvius-integer-model-1"


class IntegerModel:
    """A list of `IntegerOperator` in order of execution, with their tensors.

    Parameters
    ----------
    name: of the model. operators: in order of execution, the last one gives the logits.
    tensors: int8/int16/int32 parameters by key. quality: measured when the model was quantized.

    Raises VitruviusError when a bound is broken: an accumulator that could leave 32 bits (with
    the layer's name), an input that does not exist; or when an operator has a scale, width, factor
    or tensor that none has (`models.integer_checks`).
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
        self._bounds: dict[str, list[AccumulatorBound]] = {}
        self._check()
        self._plan = Plan(self.operators, self.tensors)

    def operator(self, name: str) -> IntegerOperator:
        """The operator called ``name``; KeyError if there is none."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    @property
    def tasks(self) -> int:
        """How many tasks it has gates for."""
        return max(operator.tasks for operator in self.operators)

    def for_task(self, task: int) -> IntegerModel:
        """The model with the gates of ``task``, from 0, alone. As it stands, a model for several
        tasks runs the first one.

        Raises VitruviusError if there is no such task.
        """
        if not 0 <= task < self.tasks:
            raise VitruviusError(
                f"{self.name}: expected a task of 0 to {self.tasks - 1}, got {task}"
            )
        if self.tasks == 1:
            return self
        operators = tuple(operator.for_task(task) for operator in self.operators)
        keys = {key for operator in operators for key in operator.tensors.values()}
        tensors = {key: tensor for key, tensor in self.tensors.items() if key in keys}
        return IntegerModel(self.name, operators, tensors, self.quality)

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
        self,
        images: Tensor,
        observe: Callable[[IntegerOperator, Tensor], None] | None = None,
        *,
        reference: bool = False,
    ) -> Tensor:
        """Codes of the last operator of float images [B, C, H, W], int64: logits [B, classes], or
        [B, tokens, features] of a model that ends in a matrix of several tokens.

        ``observe`` sees every operator's int64 codes [B, tokens, features]. ``reference`` runs
        plain int64 arithmetic, slowly; the result is the same. Raises VitruviusError for images of
        another shape or with values that are not finite.
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
        run = self._run_reference if reference else self._plan.run
        result = run(images, observe)
        return result[:, 0] if self.operators[-1].output[0] == 1 else result

    def _run_reference(
        self, images: Tensor, observe: Callable[[IntegerOperator, Tensor], None] | None
    ) -> Tensor:
        values: dict[str, Tensor] = {}
        result = images
        for operator in self.operators:
            operands = [values[name] for name in operator.inputs]
            result = evaluate_reference(operator, operands, images, self.tensors)
            values[operator.name] = result
            if observe is not None:
                observe(operator, result)
        return result

    def routing(self, images: Tensor) -> dict[str, Routing]:
        """Experts and weights [B, tokens, k] that every Gate chooses, by the Gate's name."""
        gates = {
            operator.inputs[0]: operator for operator in self.operators if operator.kind == "Gate"
        }
        chosen: dict[str, Routing] = {}

        def look(operator: IntegerOperator, codes: Tensor) -> None:
            if operator.name in gates:
                reader = gates[operator.name]
                chosen[reader.name] = route(codes, int(reader.attributes["k"]))

        self.run(images, observe=look)
        return chosen

    def logits(self, images: Tensor) -> Tensor:
        """`run` as float64 values: codes times their scale."""
        return self.run(images).to(torch.float64) * self.operators[-1].scale

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images whose largest logit is the label's."""
        return float((self.run(images).argmax(-1) == labels).double().mean())

    def image_codes(self, images: Tensor) -> Tensor:
        """int64 [B, tokens, features]: the codes of the patches of float images, as the hardware
        takes them.
        """
        return evaluate_reference(self.operators[0], (), images, self.tensors)

    def evaluate(
        self, operator: IntegerOperator, operands: Sequence[Tensor], images: Tensor
    ) -> Tensor:
        """The codes [B, tokens, features] of one operator of the model; ``operands`` are the codes
        of its inputs, ``images`` float images for the first one.
        """
        return self._plan.evaluate(operator, operands, images)

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
        try:
            return cls(name, operators, tensors, quality)
        except VitruviusError as error:
            raise VitruviusError(f"{path}: {error}") from None

    def layernorm_codes(self, operator: IntegerOperator) -> LayerNormCodes:
        """The integer affine of a LayerNorm operator."""
        return layernorm_codes(operator, self.tensors)

    def attention_codes(self, operator: IntegerOperator) -> AttentionCodes:
        """The dyadic factors of an Attention operator."""
        return attention_codes(operator, self.tensors)

    def accumulator_bounds(self) -> list[AccumulatorBound]:
        """What every accumulator can reach at most, whatever the image, beside its limit."""
        return [bound for rows in self._bounds.values() for bound in rows]

    def _check(self) -> None:
        """Inputs exist, and no accumulator can leave its width whatever the image."""
        known: dict[str, IntegerOperator] = {}
        broken = []
        for operator in self.operators:
            missing = [name for name in operator.inputs if name not in known]
            absent = [key for key in operator.tensors.values() if key not in self.tensors]
            if missing or absent:
                broken.append(f"{operator.name}: reads unknown {', '.join(missing + absent)}")
                continue
            known[operator.name] = operator
            if wrong := problems(operator, self.tensors):
                broken += [f"{operator.name}: {text}" for text in wrong]
                continue
            inputs = [known[name] for name in operator.inputs]
            try:
                rows = [
                    row
                    for task in range(operator.tasks)
                    for row in accumulator_bounds(operator.for_task(task), inputs, self.tensors)
                ]
            except KeyError as error:
                broken.append(f"{operator.name}: a {operator.kind} without {error}")
                continue
            self._bounds[operator.name] = rows
            broken += [
                f"{row.operator}: {row.what} can reach {row.bound}, limit {row.limit}"
                for row in rows
                if row.bound > row.limit
            ]
        if broken:
            raise VitruviusError(f"integer model {self.name}: " + "; ".join(broken))
