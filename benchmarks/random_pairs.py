"""Random (model, machine) pairs: the Verilog against the golden and against the cycle simulator.

    .venv/bin/python benchmarks/random_pairs.py 17        # pair 17 alone
    .venv/bin/python benchmarks/random_pairs.py 0 98      # pairs 0 to 97

A number says which pair it is, in the tests too; from 52 on the models have mixtures of experts,
most of them with gates of several tasks, of which one is run; from 72 on they are dense again, and
of scheme ivit.
Each pair runs twice: on a memory with a random latency, gap and number of pending bursts, where
every counter must be as predicted and every tensor that rests in a buffer equal; and with random
waits on every channel, where the results must be.
Prints one line for each pair; ends with 1 if one of them is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import Buffers, Machine
from vitruvius.hwgen.core.program import Program
from vitruvius.hwgen.core.scheme import Scheme
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.tasks import trace_tasks
from vitruvius.models.zoo.config import Experts, VisionTransformerConfig
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import cosimulate

__all__ = ["DENSE", "IVIT", "MODELS_PER_MACHINE", "Pair", "faults", "pair", "random_machine"]

MODELS_PER_MACHINE = 4
DENSE = 52
"""Pairs without experts."""
IVIT = 72
"""The first pair of scheme ivit."""
_TOKENS, _FEATURES, _RESULTS = 40, 320, 40
_EXPERTS = 9


@dataclass(frozen=True)
class Pair:
    """A program of a random model on a random machine, images for it, a random memory, and the task
    that is run.
    """

    program: Program
    images: Tensor
    memory: MemoryModel
    task: int = 0


def random_machine(number: int) -> Machine:
    """Sizes that divide nothing; a weight buffer that may hold all matrices, or hardly one."""
    routed = DENSE <= number * MODELS_PER_MACHINE < IVIT
    draw = random.Random(f"machine {number}")
    rows, cols, depth = draw.randint(1, 6), draw.randint(1, 7), draw.randint(1, 7)
    other = random.Random(f"variant {number}")
    return Machine(
        name=f"random{number}",
        rows=rows,
        cols=cols,
        depth=depth,
        port_bits=draw.choice([64, 128, 256, 512]),
        outstanding=draw.randint(1, 6),
        order="reordered" if routed else other.choice(["reordered", "reordered", "naive"]),
        packing=other.random() < 0.3,
        clock_hz=1e8,
        buffers=Buffers(
            token=48,
            normal=8,
            image=16,
            key=16,
            value=16,
            attention=16,
            residual=16,
            constant=16,
            weight=draw.choice([16, 24, 40, 100, 200]),
            column=128 if routed else 24,
            norm_column=16,
            tokens=_TOKENS,
            features=_FEATURES,
            results=4096 if routed else _RESULTS,
            products=512 if routed else 256,
            norms=16,
            fetches=512 if routed else 256,
            experts=_EXPERTS if routed else 0,
        ),
    )


def _with_experts(
    draw: random.Random, config: VisionTransformerConfig, tasks: int
) -> VisionTransformerConfig:
    """Experts in place of some MLPs; every other model gives its tokens in place of classes."""
    count = draw.randint(2, _EXPERTS)
    experts = Experts(
        count=count,
        top_k=draw.randint(1, min(4, count)),
        hidden_ratio=draw.choice([0.5, 1.0, 2.0] if config.dim > 1 else [1.0]),
        every=draw.choice([1, min(2, config.depth)]),
        tasks=tasks,
    )
    update: dict[str, object] = {"experts": experts}
    if draw.random() < 0.5:
        update |= {"classes": 0, "final_norm": False}
    return VisionTransformerConfig.model_validate(config.model_dump() | update)


def _config(draw: random.Random) -> VisionTransformerConfig:
    heads = draw.randint(1, 4)
    head_dim = draw.randint(1, 14)
    patch = draw.choice([1, 2, 3, 4])
    across, down = draw.choice([(1, 1), (1, 2), (2, 3), (3, 3), (5, 4), (6, 6)])
    return VisionTransformerConfig(
        image_size=(down * patch, across * patch),
        patch_size=patch,
        channels=draw.randint(1, 3),
        classes=draw.randint(1, _RESULTS),
        dim=heads * head_dim,
        depth=draw.randint(1, 3),
        heads=heads,
        mlp_ratio=max(draw.choice([0.5, 1.0, 2.3, 4.0]), 1 / (heads * head_dim)),
    )


def pair(number: int) -> Pair:
    """Pair ``number``: machine ``number // MODELS_PER_MACHINE`` with a model of its own."""
    machine = random_machine(number // MODELS_PER_MACHINE)
    draw = random.Random(f"model {number}")
    config = _config(draw)
    other = random.Random(f"tasks {number}")
    tasks = other.randint(1, 3) if machine.buffers.experts else 1
    if machine.buffers.experts:
        config = _with_experts(draw, config, tasks)
    torch.manual_seed(number)
    module = VisionTransformer(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3 + draw.random())
    shape = (config.channels, *config.image_size)
    graph = trace_tasks(module, (torch.zeros(1, *shape),), name=f"random{number}")
    images = torch.randn(6, *shape)
    scheme: Scheme = "ivit" if number >= IVIT else "edge"
    options = QuantizationOptions(scheme=scheme)
    if scheme == "ivit" and number % 2:
        options = QuantizationOptions(scheme=scheme, ivit_octaves="fitted")
    model = quantize(graph, images, options=options)
    memory = MemoryModel(
        latency=draw.choice([1, 2, 7, 40, 150]),
        gap=draw.choice([0, 0, 1, 3]),
        outstanding=draw.randint(1, 5),
    )
    program = compile_model(model, machine)
    return Pair(program, images[: draw.randint(1, 4)], memory, other.randrange(tasks))


def faults(number: int) -> list[str]:
    """What is wrong with pair ``number``, as text; nothing if all is as it should be."""
    made = pair(number)
    replay = f"replay: .venv/bin/python benchmarks/random_pairs.py {number}"
    found = []
    exact = cosimulate(made.program, made.images, memory=made.memory, task=made.task, tensors="all")
    found += [f"{item}; {replay}" for item in exact.mismatches]
    found += [
        f"{name}: predicted {predicted}, measured {measured}, {made.memory}; {replay}"
        for name, (predicted, measured) in exact.counters.items()
        if predicted != measured
    ]
    waiting = cosimulate(
        made.program,
        made.images,
        memory=made.memory,
        task=made.task,
        jitter=number,
        tensors="none",
    )
    found += [f"with random waits: {item}; {replay}" for item in waiting.mismatches]
    return found


def main() -> int:
    """Runs the pairs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int, nargs="?")
    arguments = parser.parse_args()
    wrong = 0
    for number in range(arguments.first, arguments.end or arguments.first + 1):
        began = time.perf_counter()
        machine = random_machine(number // MODELS_PER_MACHINE)
        found = faults(number)
        wrong += bool(found)
        size = f"{machine.rows}x{machine.cols}x{machine.depth}, {machine.port_bits} bits"
        size += f", {machine.order}" + ", packed" * machine.packing
        seconds = time.perf_counter() - began
        print(f"{number}: {size}, {seconds:.0f} s:", "; ".join(found) or "equal", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
