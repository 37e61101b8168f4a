"""Writes the measured part of docs/mpc_run.md: models between two parties on this machine.

    .venv/bin/python benchmarks/mpc_run.py

Takes about three minutes on two cores. Times are those of this machine while nothing else runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitruvius.benchmarks.marked_page import replaced as between_marks
from vitruvius.models.datasets import digits, photographs
from vitruvius.models.graph import Graph
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.replacements import replaced
from vitruvius.sim.mpc.run import RunReport, run_model

PAGE = Path(__file__).parent.parent / "docs" / "mpc_run.md"
RUNS = (
    "<!-- runs, by benchmarks/mpc_run.py; nothing from here on is typed by hand -->",
    "<!-- end of the runs -->",
)
PRODUCTS = (
    "<!-- products, by benchmarks/mpc_run.py; nothing from here on is typed by hand -->",
    "<!-- end of the products -->",
)
SIZES = ((65, 256, 512), (65, 512, 256), (257, 192, 576), (197, 768, 3072))
REPEATS = 15


@dataclass(frozen=True)
class Case:
    """One row: a graph, images, and choices."""

    model: str
    choices: str
    graph: Callable[[], Graph]
    images: int = 20

    @property
    def options(self) -> MpcOptions:
        known = dict(item.split("=") for item in self.choices.split(", ") if item)
        names = MpcOptions.model_fields
        return MpcOptions.model_validate({k: v for k, v in known.items() if k in names})

    @property
    def cifar(self) -> bool:
        return self.model.startswith("mpcvit")


def digits_graph() -> Graph:
    workload = resolve_model("vit_digits")
    return trace(workload.module, workload.example_inputs, name="vit_digits")


def cheap_digits_graph() -> Graph:
    return replaced(digits_graph(), softmax="relu", gelu="relu")


def cifar_graph(affine: bool) -> Graph:
    torch.manual_seed(0)
    module = MpcVit(MpcVitConfig(norm_affine=affine)).eval()
    return trace(module, (torch.rand(1, 3, 32, 32),), name="mpcvit_cifar10")


CASES = (
    Case("`vit_digits`", "", digits_graph),
    Case("`vit_digits`", "maximum=tree, weights=once", digits_graph),
    Case("`vit_digits`", "maximum=tree, gelu=pieces", digits_graph),
    Case("`vit_digits`", "rsqrt=goldschmidt, heads=apart", digits_graph, 2),
    Case("`vit_digits` with ReLU for GELU and ReLU-softmax", "", cheap_digits_graph, 2),
    Case("mpcvit_cifar10, norms without scale", "", lambda: cifar_graph(False), 1),
    Case("mpcvit_cifar10", "maximum=tree, weights=once", lambda: cifar_graph(True), 1),
)


def images_of(case: Case) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, those of the model's owner, and labels."""
    if case.cifar:
        crops = photographs(case.images + 8, (32, 32))
        return crops[: case.images], crops[case.images :], None
    data = digits()
    shown = slice(0, case.images)
    return data.test_images[shown], data.calibration_images[:32], data.test_labels[shown]


def measured(case: Case) -> RunReport:
    images, owned, labels = images_of(case)
    return run_model(case.graph(), images, calibration=owned, options=case.options, labels=labels)


HEAD = [
    "| model | choices | images | as PyTorch | largest error | rounds | sent + received "
    "| offline | as predicted | online | waiting for the dealer |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
]


def row(case: Case, report: RunReport) -> str:
    cells = [
        case.model,
        case.choices or "as published",
        str(report.images),
        f"{report.agree} of {report.images}",
        f"{report.largest_error:.2g}",
        f"{report.rounds:,}",
        f"{report.bytes_sent + report.bytes_received:,}",
        f"{report.offline_bytes:,}",
        "every operator" if report.equal else "NO",
        f"{report.online_s:.2f} s",
        f"{report.offline_s:.2f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def product_lines() -> list[str]:
    """Products of matrices modulo 2^64 against float64 BLAS, one thread."""
    lines = [
        "| product | int64, modulo 2^64 | float64 BLAS | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    torch.set_num_threads(1)
    for m, k, n in SIZES:
        x, y = (torch.randint(-(2**63), 2**63 - 1, size) for size in ((m, k), (k, n)))
        ring, blas = best(x, y), best(x.double(), y.double())
        lines.append(
            f"| {m} x {k} x {n} | {1e3 * ring:.2f} ms | {1e3 * blas:.2f} ms | {ring / blas:.1f} |"
        )
    return lines


def best(x: Tensor, y: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.matmul(x, y)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    products = product_lines()
    print("\n".join(products))
    lines = list(HEAD)
    for case in CASES:
        lines.append(row(case, measured(case)))
        print(lines[-1], flush=True)
    page = PAGE.read_text(encoding="utf-8")
    page = between_marks(page, *PRODUCTS, products)
    PAGE.write_text(between_marks(page, *RUNS, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
