"""Seconds per image of the exact integer model at real sizes, through BLAS and in plain int64.

    .venv/bin/python benchmarks/golden.py [--scheme edge|ivit] [--ivit-mode safe|faithful]
        [--threads 2] [--batch 8] [--reference] [MODEL ...]

Weights are random and two random images calibrate: the time does not depend on the codes. Prints
one line per model: the first run with its preparation, seconds per image of the second run of a
batch by the clock and of processors, how many products run in float32, and the peak memory of the
process so far. ``--reference`` adds one image in plain int64 and checks that it gives the same
integers.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from vitruvius.models.integer.matmul import accumulator_type, product_bound
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantization_options import quantization_options
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
LINEAR = ("Linear", "Linear31")


def integer_model(name: str, scheme: str = "edge", ivit_mode: str = "safe") -> IntegerModel:
    """The zoo's ``name`` with random weights as integers, without the costly remedies."""
    entry = ZOO[name]
    graph = trace(entry.build().eval(), entry.example_inputs(), name=name)
    images = torch.rand(2, *entry.input_shape[1:], generator=torch.Generator().manual_seed(0))
    options = quantization_options(
        scheme=scheme, ivit_mode=ivit_mode, equalise=False, bias_correction=False
    )
    return quantize(graph, images, options=options)


def timed(
    model: IntegerModel, images: torch.Tensor, *, reference: bool = False
) -> tuple[float, float]:
    """Seconds of one run by the clock, and of processors."""
    start, spent = time.perf_counter(), time.process_time()
    model.run(images, reference=reference)
    return time.perf_counter() - start, time.process_time() - spent


def in_float32(model: IntegerModel) -> str:
    """How many Linears are exact in float32, as ``"49 of 49"``."""
    linears = [operator for operator in model.operators if operator.kind in LINEAR]
    fast = 0
    for operator in linears:
        weight = model.tensors[operator.tensors["weight"]]
        largest = 1 << (model.operator(operator.inputs[0]).bits - 1)
        fast += accumulator_type(product_bound(weight.t(), largest)) is torch.float32
    return f"{fast} of {len(linears)}"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--scheme", choices=("edge", "ivit"), default="edge")
    parser.add_argument("--ivit-mode", choices=("safe", "faithful"), default="safe")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--reference", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("model, first run s, s per image, processor s per image, Linears in float32, peak GiB")
    for name in arguments.models:
        model = integer_model(name, arguments.scheme, arguments.ivit_mode)
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(arguments.batch, *model.image_shape, generator=generator)
        first, _ = timed(model, images)
        clock, spent = (seconds / arguments.batch for seconds in timed(model, images))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        print(
            f"{name}, {first:.2f}, {clock:.3f}, {spent:.3f}, {in_float32(model)}, {peak:.2f}",
            flush=True,
        )
        if arguments.reference:
            seconds, _ = timed(model, images[:1], reference=True)
            same = torch.equal(model.run(images[:1], reference=True), model.run(images[:1]))
            print(f"{name}, plain int64: {seconds:.1f} s per image, equal: {same}", flush=True)


if __name__ == "__main__":
    main()
