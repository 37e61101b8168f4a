"""The model zoo: names, what they are, and how to build them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..datasets import Dataset

__all__ = ["ZOO", "ZooModel"]

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ZooModel:
    """One entry of the zoo.

    ``build`` gives the untrained module; ``weights`` is the shipped safetensors file or None;
    ``input_shape`` is one image with its batch axis, [1, C, H, W].
    """

    name: str
    summary: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    weights: Path | None = None
    dataset: Callable[[], Dataset] | None = None

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right shape, zeros, float32."""
        import torch

        return (torch.zeros(self.input_shape),)


# The zoo can be listed without torch: each function imports what it needs.
def _vit_digits() -> nn.Module:
    from .vit_digits import vit_digits

    return vit_digits()


def _digits() -> Dataset:
    from ..datasets import digits

    return digits()


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel(
            name="vit_digits",
            summary="8x8 grey digits, patch 2, dim 64, 4 heads, 4 blocks; trained, weights shipped",
            build=_vit_digits,
            input_shape=(1, 1, 8, 8),
            weights=_WEIGHTS / "vit_digits.safetensors",
            dataset=_digits,
        ),
    )
}
