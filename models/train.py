"""Seeded training of the zoo's small models on images that need no download."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import VitruviusError
from .datasets import digits
from .weights import save_weights
from .zoo.vit_digits import vit_digits

__all__ = ["Training", "accuracy", "train_digits"]

_BATCH = 64
_CLASSES = 10
_PEAK_RATE = 1e-3
_WARMUP_EPOCHS = 5
_WEIGHT_DECAY = 0.05
_LABEL_SMOOTHING = 0.1
_MIXUP = 0.2
# bounds of the random affine maps, chosen on folds of the training images
_ROTATION = math.radians(15)
_SCALING = 0.15
_SHEAR = 0.2
_SHIFT_PIXELS = 1.0


@dataclass(frozen=True)
class Training:
    """What one training run gave: accuracy on the test images (0 to 1), its setting, and wall time
    in seconds.
    """

    path: Path
    accuracy: float
    epochs: int
    seed: int
    wall_s: float


def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of ``images`` [n, C, H, W] whose largest logit is at ``labels`` [n], 0 to 1."""
    with torch.no_grad():
        logits: Tensor = module(images)
    return float((logits.argmax(-1) == labels).double().mean())


def train_digits(
    out: Path,
    *,
    epochs: int = 150,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Training:
    """Trains ``vit_digits`` and writes its weights to ``out`` (safetensors).

    The last epoch's weights are kept: the test images are looked at once, after training, for the
    figure in the file's metadata. Augmentation: small random affine maps and mixup. ``progress`` is
    called after every epoch with (epoch from 1, epochs, mean training loss).

    Raises ``VitruviusError`` when ``epochs`` or ``seed`` is out of range or ``out`` cannot be
    written.
    """
    if epochs < 1:
        raise VitruviusError(f"epochs must be at least 1, got {epochs}")
    if not 0 <= seed < 2**63:
        raise VitruviusError(f"seed must be between 0 and 2^63 - 1, got {seed}")
    if out.is_dir():
        raise VitruviusError(f"expected a file to write the weights to, got the folder {out}")
    start = time.perf_counter()
    data = digits()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = vit_digits()
        _fit(module, data.train_images, data.train_labels, epochs, progress)
    module.eval()
    score = accuracy(module, data.test_images, data.test_labels)
    metadata = {
        "model": "vit_digits",
        "dataset": data.name,
        "epochs": str(epochs),
        "seed": str(seed),
        "test_images": str(len(data.test_labels)),
        "test_accuracy": f"{score:.4f}",
    }
    save_weights(module.state_dict(), out, metadata)
    return Training(out, score, epochs, seed, time.perf_counter() - start)


def _fit(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """AdamW with linear warm-up and a cosine to zero; draws from torch's global generator only."""
    batches = math.ceil(len(labels) / _BATCH)
    steps, warmup = epochs * batches, min(_WARMUP_EPOCHS, epochs) * batches
    optimizer = torch.optim.AdamW(module.parameters(), lr=_PEAK_RATE, weight_decay=_WEIGHT_DECAY)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    module.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for index in torch.split(torch.randperm(len(labels)), _BATCH):
            mixed, targets = _mixed(_warped(images[index]), labels[index])
            loss = functional.cross_entropy(
                module(mixed), targets, label_smoothing=_LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(index)
        if progress is not None:
            progress(epoch, epochs, total / len(labels))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: batches this small gain nothing from two, and sums keep one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _warped(images: Tensor) -> Tensor:
    """Each image [n, C, H, W] turned, scaled, sheared and shifted a little, zeros coming in at the
    borders.
    """
    count, _, _, width = images.shape

    def spread(bound: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * bound

    angle, scale, shear = spread(_ROTATION), 1 + spread(_SCALING), spread(_SHEAR)
    shift = 2 * _SHIFT_PIXELS / width
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = torch.stack([cosine, shear - sine, spread(shift), sine, cosine, spread(shift)], dim=1)
    grid = functional.affine_grid(
        rows.reshape(count, 2, 3), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def _mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018): each image blended with another; targets float32 [n, classes]."""
    share = torch.distributions.Beta(_MIXUP, _MIXUP).sample((len(labels), 1))
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(labels))
    targets = functional.one_hot(labels, _CLASSES).to(images.dtype)
    blend = share[:, :, None, None]
    return blend * images + (1 - blend) * images[other], share * targets + (1 - share) * targets[
        other
    ]
