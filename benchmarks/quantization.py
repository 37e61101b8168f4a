"""How well DeiT at its real sizes is kept by integers: SQNR of the logits, time and memory.

    .venv/bin/python benchmarks/quantization.py [--threads 2] [--images 32] [MODEL ...]

Weights are random, so this says nothing about accuracy. Images are crops of the two photographs
that scikit-learn ships, 32 to calibrate on and 8 others to compare on. Prints one line for each
model and setting: seconds to quantize, SQNR of the logits and same top-1 on the images not
calibrated on, the worst tensor, and the peak memory of the process beside the model's parameters.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from vitruvius.models.agreement import agreement
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
SETTINGS = {
    "W8A8": QuantizationOptions(),
    "W8A8 without remedies": QuantizationOptions(equalise=False, bias_correction=False),
    "W8A8 minmax": QuantizationOptions(calibration="minmax"),
    "W4A8": QuantizationOptions(weight_bits=4),
}
HELD_OUT = 8


def crops(count: int, size: int, seed: int) -> Tensor:
    """``count`` random crops [n, 3, size, size] of the photographs, scaled to -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    photographs = [torch.from_numpy(item.copy()) for item in load_sample_images().images]
    found = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        top, left = (
            int(torch.randint(side - size + 1, (), generator=generator))
            for side in photograph.shape[:2]
        )
        found.append(photograph[top : top + size, left : left + size].permute(2, 0, 1))
    return torch.stack(found).float() / 127.5 - 1


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("model, setting, seconds, logits SQNR dB, same top-1, worst tensor dB, GiB peak/model")
    for name in arguments.models:
        entry = ZOO[name]
        torch.manual_seed(0)
        graph = trace(entry.build().eval(), entry.example_inputs(), name=name)
        size = entry.input_shape[-1]
        images = crops(arguments.images + HELD_OUT, size, seed=0)
        parameters = sum(tensor.nbytes for tensor in graph.tensors.values()) / (1 << 30)
        for setting in arguments.settings:
            start = time.perf_counter()
            model = quantize(graph, images[:-HELD_OUT], options=SETTINGS[setting])
            seconds = time.perf_counter() - start
            found = agreement(model, graph, images[-HELD_OUT:])
            worst = min(model.quality, key=lambda item: item.sqnr_db)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
            print(
                f"{name}, {setting}, {seconds:.1f}, {found.sqnr_db:.1f}, {found.top1:.0%}, "
                f"{worst.name} {worst.sqnr_db:.1f}, {peak:.2f}/{parameters:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
