"""One training of the search: seeded, resumable, and reused when it was finished before."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ....errors import VitruviusError
from ....models.optimizers import one_thread, rate_share
from ....models.resume import Resumable
from ....models.train import accuracy
from ....models.weights import load_into, load_weights, save_weights
from ....models.zoo.mpcvit import MpcVit
from .lessons import Lesson

__all__ = ["Loss", "Progress", "digest", "fitted"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of images [n, C, H, W] and targets, a number to make small."""

Progress = Callable[[int, int, float], None]
"""Called after every epoch with its number from 1, the number of epochs, and the mean loss."""


def fitted(
    path: Path,
    setting: Mapping[str, str],
    lesson: Lesson,
    make: Callable[[], MpcVit],
    loss_of: Callable[[MpcVit], Loss],
    *,
    epochs: int,
    seed: int,
    apart: Callable[[MpcVit], Sequence[nn.Parameter]] = lambda _: (),
    progress: Progress | None = None,
) -> tuple[MpcVit, float]:
    """The model that ``make`` builds, trained with ``seed`` and written to ``path``, in eval mode,
    with its accuracy on the test images.

    What lies at ``path`` from a run of the same ``setting`` is loaded instead; an unfinished run
    goes on from its last epoch. Either way the same bytes as of one run.

    Raises ``VitruviusError`` when the file is of another setting.
    """
    setting = {**setting, "epochs": str(epochs), "seed": str(seed), "data": lesson.name}
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        if path.exists():
            return module, _finished(module, path, setting)
        unfinished = Resumable(path.with_name(f"{path.name}.unfinished"), setting)
        _fit(module, lesson, loss_of(module), epochs, apart(module), unfinished, progress)
        module.eval()
        score = accuracy(module, lesson.data.test_images, lesson.data.test_labels)
    save_weights(module.state_dict(), path, {**setting, "test_accuracy": f"{score:.6f}"})
    unfinished.discard()
    return module, round(score, 6)


def digest(module: nn.Module) -> str:
    """A short name for the weights of ``module``: equal for equal bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _finished(module: MpcVit, path: Path, setting: Mapping[str, str]) -> float:
    metadata = load_weights(path)[1]
    other = sorted(key for key, value in setting.items() if metadata.get(key) != value)
    if other or "test_accuracy" not in metadata:
        told = ", ".join(
            f"{key} {metadata.get(key, 'unknown')} where {setting[key]} is expected"
            for key in other
        )
        raise VitruviusError(
            f"{path} is of another run ({told or 'it states no accuracy'}): give another folder "
            "with --out, or remove the file"
        )
    load_into(module, path)
    module.eval()
    return float(metadata["test_accuracy"])


def _fit(
    module: MpcVit,
    lesson: Lesson,
    loss: Loss,
    epochs: int,
    apart: Sequence[nn.Parameter],
    unfinished: Resumable,
    progress: Progress | None,
) -> None:
    """A warm-up and a cosine to zero; draws from torch's global generator only."""
    images = len(lesson.data.train_labels)
    batches = math.ceil(images / lesson.batch)
    steps, warmup = epochs * batches, min(lesson.warmup_epochs, epochs) * batches
    optimizers = lesson.prepare(module, apart)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    weights = [part for group in groups for part in group["params"]]
    weights = [part for part in weights if not any(part is alpha for alpha in apart)]
    module.train()
    done = unfinished.restore(module, optimizers)
    for epoch in range(done + 1, epochs + 1):
        total = 0.0
        order = torch.split(torch.randperm(images), lesson.batch)
        for step, index in enumerate(order, (epoch - 1) * batches):
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = peak * rate_share(step, steps, warmup)
            value = loss(*lesson.sample(index, step / steps))
            total += float(value.detach()) * len(index)
            module.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            for optimizer in optimizers:
                optimizer.step()
        unfinished.keep(module, optimizers, epoch)
        if progress is not None:
            progress(epoch, epochs, total / images)
