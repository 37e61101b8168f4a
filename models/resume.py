"""An interrupted training run on disk: after each epoch one complete file, the next run's start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import VitruviusError
from .weights import load_weights, save_weights

__all__ = ["Resumable"]


@dataclass(frozen=True)
class Resumable:
    """The file of an unfinished run, and the setting that the run must have to go on from it.

    It holds the weights, the optimizers' moments and the state of torch's generator: going on gives
    the weights that an uninterrupted run gives. Optimizers are told apart by their parameters.
    """

    path: Path
    setting: Mapping[str, str]

    def keep(
        self, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], epoch: int
    ) -> None:
        """Writes the state after ``epoch`` epochs in place of the one before.

        Raises ``VitruviusError`` when it cannot be written or a weight is not finite.
        """
        tensors = {f"weights.{name}": value for name, value in module.state_dict().items()}
        for name, parameter in module.named_parameters():
            for optimizer in optimizers:
                for moment, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"moments.{name}.{moment}"] = value
        tensors["generator"] = torch.get_rng_state()
        save_weights(tensors, self.path, {**self.setting, "epoch": str(epoch)})

    def restore(self, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> int:
        """Puts the kept state back, if there is one; the number of epochs done, 0 without a file.

        Raises ``VitruviusError`` when the file is of a run with another setting, or damaged.
        """
        if not self.path.exists():
            return 0
        tensors, metadata = load_weights(self.path)
        if any(metadata.get(key) != value for key, value in self.setting.items()):
            raise VitruviusError(
                f"{self.path} is of an unfinished run with {_listed(metadata, self.setting)}; "
                f"expected {_listed(self.setting, self.setting)}: "
                "finish that run, or remove the file"
            )
        try:
            module.load_state_dict(_under("weights.", tensors))
            parameters = dict(module.named_parameters())
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    names = [name for name in parameters if _among(parameters[name], group)]
                    for name in names:
                        optimizer.state[parameters[name]] = _under(f"moments.{name}.", tensors)
            torch.set_rng_state(tensors["generator"])
            return int(metadata["epoch"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise VitruviusError(
                f"{self.path} is not the state of an unfinished run of {self.setting['model']}; "
                "remove it to train from nothing"
            ) from error

    def discard(self) -> None:
        """Removes the file, once the run is finished."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _among(parameter: nn.Parameter, group: Mapping[str, list[nn.Parameter]]) -> bool:
    return any(parameter is member for member in group["params"])


def _listed(values: Mapping[str, str], keys: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {values.get(key, 'unknown')}" for key in keys)
