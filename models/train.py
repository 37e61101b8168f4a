"""Seeded training of the zoo's small models on images that need no download.

``train_convshare`` has the recipes of ConvShareViT.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import VitruviusError
from .augment import Warp, blended, mixed, warped
from .datasets import Dataset, digits, mnistm, mnistm_parts
from .optimizers import adamw, muon, one_thread, rate_share
from .resume import Resumable
from .weights import save_weights
from .zoo import ZOO
from .zoo.convshare import ConvShareVit
from .zoo.layers import MixtureOfExperts
from .zoo.vit import VisionTransformer

__all__ = [
    "Progress",
    "Recipe",
    "Training",
    "accuracy",
    "balance_loss",
    "digits_shown",
    "mnistm_shown",
    "train",
    "train_digits",
    "train_mnistm",
]

_CLASSES = 10
_LABEL_SMOOTHING = 0.1
_BALANCE = 0.01
# share of the training after which backgrounds have full contrast
_FULL_CONTRAST = 0.2
_EVALUATED = 250

Progress = Callable[[int, int, float], None]
Sample = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Trained: TypeAlias = "ConvShareVit | VisionTransformer"


@dataclass(frozen=True)
class Training:
    """What one training run gave: accuracy on the test images (0 to 1), its setting, and wall time
    in seconds (of this run, where it went on from an interrupted one).
    """

    model: str
    path: Path
    accuracy: float
    epochs: int
    seed: int
    wall_s: float


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: ``make`` builds it with random weights; ``sample`` gives the images
    [n, C, H, W] and targets (classes [n] or shares [n, classes]) of the training images at an index
    [n], when a share (0 to 1) of the training is done; ``prepare`` sets initial values and gives
    the optimizers, at their peak rates.
    """

    model: str
    data: Dataset
    make: Callable[[], Trained]
    sample: Sample
    batch: int
    warmup_epochs: int
    prepare: Callable[[Trained], Sequence[torch.optim.Optimizer]]


def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of ``images`` [n, C, H, W] whose largest logit is at ``labels`` [n], 0 to 1."""
    with torch.no_grad():
        logits = torch.cat([module(part) for part in torch.split(images, _EVALUATED)])
    return float((logits.argmax(-1) == labels).double().mean())


def balance_loss(logits: Tensor, k: int) -> Tensor:
    """How unevenly gate ``logits`` [..., E] use their experts: 1 when even, up to E / k when not.

    E times the sum over experts of the share of choices times the mean weight (Fedus et al. 2022,
    arXiv 2101.03961, equations 4 to 6, with the k choices of a token counted alike as in
    GShard, Lepikhin et al. 2021); only the mean weight has a gradient.
    """
    weights = functional.softmax(logits, dim=-1).flatten(0, -2)
    count = weights.shape[-1]
    chosen = functional.one_hot(weights.topk(k, dim=-1).indices, count).to(weights.dtype)
    return count * (chosen.mean((0, 1)) * weights.mean(0)).sum()


def train_digits(
    out: Path, *, epochs: int = 150, seed: int = 0, progress: Progress | None = None
) -> Training:
    """Trains ``vit_digits`` and writes its weights to ``out`` (safetensors).

    The last epoch's weights are kept: the test images are looked at once, after training, for the
    figure in the file's metadata. Augmentation: small random affine maps and mixup, with bounds
    chosen on folds of the training images. ``progress`` is called after every epoch with (epoch
    from 1, epochs, mean training loss). An interrupted run goes on from its last epoch.

    Raises ``VitruviusError`` when ``epochs`` or ``seed`` is out of range or ``out`` cannot be
    written.
    """
    data, sample = digits_shown()
    recipe = Recipe("vit_digits", data, _vit("vit_digits"), sample, 64, 5, adamw)
    return train(recipe, out, epochs=epochs, seed=seed, progress=progress)


def train_mnistm(
    out: Path,
    *,
    experts: bool = False,
    epochs: int = 36,
    seed: int = 0,
    progress: Progress | None = None,
) -> Training:
    """Trains ``vit_mnistm``, or with ``experts`` ``vit_mnistm_moe``, and writes its weights to
    ``out`` (safetensors).

    As ``train_digits``; the digits are warped and get new backgrounds from the training halves of
    the photographs every time they are shown, dark at first and at full contrast after 20 % of the
    training. The hidden matrices are trained with Muon, which needed a third of AdamW's epochs.
    Gates are kept even by ``balance_loss``.
    """
    model = "vit_mnistm_moe" if experts else "vit_mnistm"
    data, sample = mnistm_shown()
    recipe = Recipe(model, data, _vit(model), sample, 32, 1, muon)
    return train(recipe, out, epochs=epochs, seed=seed, progress=progress)


def digits_shown() -> tuple[Dataset, Sample]:
    """The digits, and how training shows them: warped a little and mixed."""
    data = digits()
    warp = Warp()

    def sample(index: Tensor, _: float) -> tuple[Tensor, Tensor]:
        return mixed(warped(data.train_images[index], warp), data.train_labels[index], _CLASSES)

    return data, sample


def mnistm_shown() -> tuple[Dataset, Sample]:
    """The coloured digits, and how training shows them: warped and bent, on new backgrounds that
    are dark at first.
    """
    parts, _ = mnistm_parts()
    warp = Warp(shift_pixels=2.0, bend_pixels=0.7)

    def sample(index: Tensor, done: float) -> tuple[Tensor, Tensor]:
        contrast = min(1.0, done / _FULL_CONTRAST)
        return blended(parts, index, warp, contrast), parts.labels[index]

    return mnistm(), sample


def _vit(model: str) -> Callable[[], VisionTransformer]:
    return lambda: VisionTransformer(ZOO[model].config)


def train(
    recipe: Recipe, out: Path, *, epochs: int, seed: int, progress: Progress | None = None
) -> Training:
    """Trains what ``recipe`` makes and writes its weights to ``out``; see ``train_digits``."""
    if epochs < 1:
        raise VitruviusError(f"epochs must be at least 1, got {epochs}")
    if not 0 <= seed < 2**63:
        raise VitruviusError(f"seed must be between 0 and 2^63 - 1, got {seed}")
    if out.is_dir():
        raise VitruviusError(f"expected a file to write the weights to, got the folder {out}")
    start = time.perf_counter()
    data = recipe.data
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = recipe.make()
        setting = {"model": recipe.model, "epochs": str(epochs), "seed": str(seed)}
        unfinished = Resumable(out.with_name(f"{out.name}.unfinished"), setting)
        _fit(module, recipe, epochs, unfinished, progress)
        module.eval()
        score = accuracy(module, data.test_images, data.test_labels)
    metadata = {
        **setting,
        "dataset": data.name,
        "test_images": str(len(data.test_labels)),
        "test_accuracy": f"{score:.4f}",
    }
    save_weights(module.state_dict(), out, metadata)
    unfinished.discard()
    return Training(recipe.model, out, score, epochs, seed, time.perf_counter() - start)


def _fit(
    module: Trained,
    recipe: Recipe,
    epochs: int,
    unfinished: Resumable,
    progress: Progress | None,
) -> None:
    """Linear warm-up and a cosine to zero; draws from torch's global generator only."""
    images = len(recipe.data.train_labels)
    batches = math.ceil(images / recipe.batch)
    steps, warmup = epochs * batches, min(recipe.warmup_epochs, epochs) * batches
    optimizers = recipe.prepare(module)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    module.train()
    with _gate_logits(module) as gates:
        done = unfinished.restore(module, optimizers)
        for epoch in range(done + 1, epochs + 1):
            total = 0.0
            order = torch.split(torch.randperm(images), recipe.batch)
            for step, index in enumerate(order, (epoch - 1) * batches):
                for optimizer, peak in zip(optimizers, peaks, strict=True):
                    optimizer.param_groups[0]["lr"] = peak * rate_share(step, steps, warmup)
                shown, targets = recipe.sample(index, step / steps)
                loss = functional.cross_entropy(
                    module(shown), targets, label_smoothing=_LABEL_SMOOTHING
                )
                total += float(loss.detach()) * len(index)
                for logits, k in gates:
                    loss = loss + _BALANCE * balance_loss(logits, k)
                gates.clear()
                module.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                for optimizer in optimizers:
                    optimizer.step()
            unfinished.keep(module, optimizers, epoch)
            if progress is not None:
                progress(epoch, epochs, total / images)


@contextmanager
def _gate_logits(module: nn.Module) -> Iterator[list[tuple[Tensor, int]]]:
    """A list to which every gate of ``module`` adds its logits [B, N, E] and k on each call."""
    seen: list[tuple[Tensor, int]] = []
    hooks = []
    for part in module.modules():
        if isinstance(part, MixtureOfExperts):

            def keep(_: nn.Module, __: object, logits: Tensor, k: int = part.top_k) -> None:
                seen.append((logits, k))

            hooks.append(part.gate.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
