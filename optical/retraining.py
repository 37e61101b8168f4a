"""Noise-aware retraining: a trained model learns to live with the devices of a 4f system.

Every operator on optics computes forwards with levels, light, noise and converter, its light set
for each batch; backwards its gradient is that of the exact operator (straight-through rounding,
Y. Bengio et al., 2013, arXiv 1308.3432; noise injection during training). Electrons are drawn from
a normal distribution of the right variance, ten times as fast as Poisson's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import VitruviusError
from ..models.datasets import Dataset
from ..models.graph import Graph, evaluate
from ..models.optimizers import one_thread, rate_share
from ..models.resume import Resumable
from ..models.train import digits_shown, mnistm_shown
from ..models.weights import save_weights
from .camera import Camera
from .execution import DeviceOptics, Optics, execute_once
from .lit import LitBench
from .mapping import OpticalWork, Placed
from .options import DeviceOptions

__all__ = [
    "NormalCamera",
    "Retraining",
    "TrainingOptics",
    "check_retraining",
    "retrain",
    "shared_tensors",
]

_BATCH = 64
_LABEL_SMOOTHING = 0.1
_FOLDED = ".folded"
"""Behind the name of a parameter that the trace holds in another shape, or changed."""

_SHOWN = {"digits": digits_shown, "mnistm": mnistm_shown}

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Retraining:
    """Where the weights are, the mean loss of the last epoch, and wall time of this run."""

    path: Path
    epochs: int
    seed: int
    loss: float
    wall_s: float


@dataclass(frozen=True)
class NormalCamera(Camera):
    """A ``Camera`` whose electrons are normal, with the variance n + dark + read noise squared."""

    def measure(
        self, intensity: Tensor, full_scale: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """As ``Camera.measure``."""
        seen = intensity.detach() / full_scale
        if self.photons is not None:
            well = self.photons * self.quantum_efficiency
            dark = (self.dark_e + self.read_noise_e**2) / well**2
            noise = torch.randn(
                seen.shape, generator=generator, dtype=seen.dtype, device=seen.device
            )
            seen = noise.mul_((seen / well).add_(dark).sqrt_()).add_(seen)
        if self.adc_bits is not None:
            top = 2**self.adc_bits - 1
            seen = (seen * top).round_().clamp_(0, top).div_(top)
        return intensity + (seen * full_scale - intensity).detach()


class TrainingOptics:
    """Devices forwards, the exact operator backwards."""

    def __init__(self, options: DeviceOptions) -> None:
        self._devices = _QuickDevices(options)

    def __call__(self, placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Tensor:
        exact = evaluate(placed.operator, operands, graph)
        with torch.no_grad():
            seen = self._devices(placed, [operand.detach() for operand in operands], graph)
        return exact + (seen - exact).detach()


class _QuickDevices(DeviceOptics):
    """Devices with a ``NormalCamera``; noise from torch's global generator."""

    def bench(self, work: OpticalWork) -> LitBench:
        lit = super().bench(work)
        camera = NormalCamera(**asdict(lit.bench.camera))
        return replace(lit, bench=replace(lit.bench, camera=camera), untransformed=True)


def retrain(
    module: nn.Module,
    graph: Graph,
    placed: Sequence[Placed],
    data: Dataset,
    options: DeviceOptions,
    out: Path,
    *,
    epochs: int = 10,
    seed: int = 0,
    rate: float = 3e-4,
    progress: Progress | None = None,
) -> Retraining:
    """Fine-tunes ``module``, of which ``graph`` was traced, on the training images of ``data`` with
    the devices of ``options``, and writes its weights to ``out`` (safetensors).

    AdamW, its rate falling from ``rate`` to zero along a cosine; images are warped and mixed as
    the zoo's training does. ``progress`` is called after every epoch with (epoch from 1, epochs,
    mean loss). An interrupted run goes on from its last epoch. The weights of the last epoch are
    kept; test images play no part.

    Raises ``VitruviusError`` for a scheme that does not compute convolutions, a value out of
    range, a data set that nothing is known of, and a module whose weights the graph does not share.
    """
    check_retraining(options, epochs, seed, rate)
    if data.name not in _SHOWN:
        raise VitruviusError(f"retraining knows {', '.join(_SHOWN)}, got the data set {data.name}")
    if out.is_dir():
        raise VitruviusError(f"expected a file to write the weights to, got the folder {out}")
    shared = shared_tensors(module, graph, placed)
    start = time.perf_counter()
    setting = {
        "model": graph.name,
        "devices": options.model_dump_json(),
        "on_optics": "+".join(sorted({item.operator.kind for item in placed if item.work})),
        "epochs": str(epochs),
        "seed": str(seed),
        "rate": f"{rate:g}",
    }
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unfinished = Resumable(out.with_name(f"{out.name}.unfinished"), setting)
        loss = _fit(
            module, graph, placed, data, options, shared, unfinished, epochs, rate, progress
        )
    save_weights(module.state_dict(), out, {**setting, "dataset": data.name})
    unfinished.discard()
    return Retraining(out, epochs, seed, loss, time.perf_counter() - start)


def check_retraining(options: DeviceOptions, epochs: int, seed: int, rate: float) -> None:
    """Raises ``VitruviusError`` for a scheme that does not compute convolutions, and a value out
    of range.
    """
    if options.scheme in ("intensity", "absolute"):
        raise VitruviusError(
            f"retraining expects a scheme that computes convolutions (split, offset, reference), "
            f"got {options.scheme}, which is another layer"
        )
    if epochs < 1:
        raise VitruviusError(f"epochs must be at least 1, got {epochs}")
    if not 0 <= seed < 2**63:
        raise VitruviusError(f"seed must be between 0 and 2^63 - 1, got {seed}")
    if not 0 < rate < 1:
        raise VitruviusError(f"the rate must be above 0 and below 1, got {rate:g}")


def shared_tensors(
    module: nn.Module, graph: Graph, placed: Sequence[Placed]
) -> dict[str, nn.Parameter]:
    """The parameters of ``module`` that ``graph`` holds under the same name, if in another shape.

    Raises ``VitruviusError`` when an operator on optics has a weight that is not among them.
    """
    parameters = dict(module.named_parameters())
    found = {}
    for key, tensor in graph.tensors.items():
        parameter = parameters.get(key.removesuffix(_FOLDED))
        if parameter is not None and parameter.numel() == tensor.numel():
            values = parameter.detach().reshape(-1)
            if torch.equal(values, tensor.detach().reshape(-1)):
                found[key] = parameter
    for item in placed:
        weights = [key for role, key in item.operator.tensors.items() if role == "weight"]
        if item.work is not None and not found.keys() >= set(weights):
            raise VitruviusError(
                f"{graph.name}: the weight of {item.operator.name} is computed from the module's "
                "parameters, so it cannot be retrained; expected it to be one of them"
            )
    return found


def _fit(
    module: nn.Module,
    graph: Graph,
    placed: Sequence[Placed],
    data: Dataset,
    options: DeviceOptions,
    shared: Mapping[str, nn.Parameter],
    unfinished: Resumable,
    epochs: int,
    rate: float,
    progress: Progress | None,
) -> float:
    """The mean loss of the last epoch; draws from torch's global generator only."""
    _, sample = _SHOWN[data.name]()
    held = Graph(
        graph.name, graph.operators(), graph.tensors, regions=graph.regions, batched=graph.batched
    )
    shapes = {key: graph.tensors[key].shape for key in shared}
    optics: Optics = TrainingOptics(options)
    optimizer = torch.optim.AdamW(list(shared.values()), lr=rate, weight_decay=0.0)
    images = len(data.train_labels)
    steps = epochs * ceil(images / _BATCH)
    total = 0.0
    done = unfinished.restore(module, [optimizer])
    for epoch in range(done + 1, epochs + 1):
        total = 0.0
        order = torch.split(torch.randperm(images), _BATCH)
        for step, index in enumerate(order, (epoch - 1) * len(order)):
            optimizer.param_groups[0]["lr"] = rate * rate_share(step, steps, 0)
            held.tensors.update({key: shared[key].view(shapes[key]) for key in shared})
            shown, targets = sample(index, 1.0)
            logits = execute_once(held, shown, placed, optics).flatten(1)
            loss = functional.cross_entropy(logits, targets, label_smoothing=_LABEL_SMOOTHING)
            total += float(loss.detach()) * len(index)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(list(shared.values()), 1.0)
            optimizer.step()
        unfinished.keep(module, [optimizer], epoch)
        if progress is not None:
            progress(epoch, epochs, total / images)
    return total / images
