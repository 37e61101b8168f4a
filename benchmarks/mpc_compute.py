"""Measures what two parties compute locally: products of int64 matrices, and the work around every
word that is opened, alone and in a run between two processes.

    .venv/bin/python benchmarks/mpc_compute.py

The figures go into sim/mpc/compute.py by hand, with the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from vitruvius.models.datasets import photographs
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.sim.mpc.run import run_model

SIZES = ((65, 256, 512), (65, 512, 256), (257, 192, 576), (197, 768, 3072))
WORDS = 1 << 18
REPEATS = 15


def best(work: Callable[[], object]) -> float:
    """The shortest of several runs, in seconds."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def words(*shape: int) -> torch.Tensor:
    return torch.randint(-(1 << 62), 1 << 62, shape)


def beaver(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """What one party does for a product element by element, each word of two opened: mask, add the
    other's share, multiply, truncate.
    """
    e, f = x - a + b, x - b + a
    z = c + e * b + a * f + e * f
    return (z + ((z >> 63) & 0xFFFF)) >> 16


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for m, k, n in SIZES:
        seconds = best(partial(torch.matmul, words(m, k), words(k, n)))
        print(f"{m} x {k} x {n}: {m * k * n / seconds / 1e9:.2f} G multiply-accumulates a second")
    four = [words(WORDS) for _ in range(4)]
    seconds = best(partial(beaver, *four))
    print(f"a product of {WORDS} words: {seconds / (2 * WORDS) * 1e9:.2f} ns by opened word")
    run()


def run() -> None:
    """MPCViT's CIFAR model between two processes on loopback, one thread each, four pictures."""
    torch.manual_seed(0)
    graph = trace(MpcVit(MpcVitConfig()).eval(), (torch.zeros(1, 3, 32, 32),), name="cifar")
    report = run_model(
        graph, photographs(4, (32, 32), seed=3), calibration=photographs(4, (32, 32))
    )
    for kind in ("Gelu", "Softmax", "Linear", "LayerNorm"):
        own = [item for item in report.operators if item.kind == kind]
        seconds = sum(item.wall_s for item in own)
        sent = sum(item.bytes_sent for item in own) / 8
        rounds = sum(item.rounds for item in own)
        print(
            f"{kind}: {seconds:.2f} s an image, {seconds / sent * 1e9:.0f} ns by word sent, "
            f"{seconds / rounds * 1e3:.2f} ms by round"
        )


if __name__ == "__main__":
    main()
