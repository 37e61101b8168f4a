"""One operator of an integer model, and what is known of its quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .integer.requantize import Dyadic

__all__ = ["ACTIVATIONS", "IntegerOperator", "LayerQuality", "role_of"]

ACTIVATIONS = ("Gelu", "GeluTanh", "QuickGelu", "Silu", "Relu")
"""Kinds that compute ``relu(x) - delta(|x|)`` of 16-bit codes, each with its own table."""


@dataclass(frozen=True)
class IntegerOperator:
    """One integer operator.

    kind: Quantize, Linear, one of `ACTIVATIONS`, LayerNorm, RmsNorm, Attention, Embed, Add,
    Select, Mean, Requantize, Gate, Mixture, or one of scheme `ivit` (`models.ivit_operators`).
    inputs: names of the operators read. output: [tokens, features] of the result; bits: width of
    its codes;
    scale: value of one step. origin: the graph operator that computes the same tensor in float
    ("" if none).
    tensors: role -> key into IntegerModel.tensors; what another task has in the place of a role
    stands under `role_of` it. macs: multiply-accumulates for one image.
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

    def dyadic(self, role: str) -> Dyadic:
        """The factor that the attributes ``<role>_multiplier`` and ``<role>_shift`` hold."""
        return Dyadic(
            int(self.attributes[f"{role}_multiplier"]), int(self.attributes[f"{role}_shift"])
        )

    @property
    def tasks(self) -> int:
        """How many tasks it has tensors of."""
        return 1 + max(
            (int(role.rpartition("@")[2]) for role in self.tensors if "@" in role), default=0
        )

    def for_task(self, task: int) -> IntegerOperator:
        """The operator with the tensors of ``task`` alone; those of which it has one are of all."""
        roles = {role: key for role, key in self.tensors.items() if "@" not in role}
        if task:
            roles = {
                role: self.tensors.get(role_of(role, task), key) for role, key in roles.items()
            }
        return replace(self, tensors=roles)


def role_of(role: str, task: int) -> str:
    """The role that a tensor of ``task`` in the place of ``role`` has.

    >>> role_of("weight", 0), role_of("weight", 1)
    ('weight', 'weight@1')
    """
    return f"{role}@{task}" if task else role


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
