"""Writes the tables of docs/ivit.md: the data flow of a block, what each rule costs, whole models.

    .venv/bin/python benchmarks/ivit.py [--dataflow] [--losses] [--models] [--write docs/ivit.md]

Without one of the three, all. The data flow is that of a lowered model and takes seconds. Losses
are those of the published rules in float64 (`benchmarks/ivit_published.py`), whole DeiT-Tiny with
random weights, each rule replaced in turn. Models: accuracy on test images of those that are
trained here, and DeiT with random weights, each row in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitruvius.benchmarks.golden import integer_model
from vitruvius.benchmarks.ivit_published import REPLACED, PublishedDeit, Rule
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.quantization import peak_bytes
from vitruvius.models.agreement import agreement
from vitruvius.models.datasets import photographs
from vitruvius.models.graph import Operator, execute
from vitruvius.models.ivit_dataflow import dataflow
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.train import accuracy
from vitruvius.models.zoo import ZOO

__all__ = ["PAGE", "PARTS", "SETTINGS", "flow_table", "marks"]

PAGE = Path(__file__).parent.parent / "docs" / "ivit.md"
TINY = "deit_tiny_patch16_224"
DEIT = (TINY, "deit_small_patch16_224", "deit_base_patch16_224")
TRAINED = ("vit_digits", "vit_mnistm")
SETTINGS = {
    "edge": QuantizationOptions(),
    "ivit, safe": QuantizationOptions(scheme="ivit"),
    "ivit, faithful": QuantizationOptions(scheme="ivit", ivit_mode="faithful"),
    "ivit, safe, fitted octaves": QuantizationOptions(scheme="ivit", ivit_octaves="fitted"),
}
CALIBRATION, HELD_OUT, BATCH = 32, 8, 8
BLOCK = "blocks.0."
FITTED = 4
"""Octaves that the scores of DeiT-Tiny with random weights reach."""


def flow_table() -> Iterator[str]:
    """One block of DeiT-Tiny, tensor by tensor."""
    model = integer_model(TINY, "ivit")
    names = [operator.name for operator in model.operators]
    first = names.index(BLOCK + "norm1")
    behind = names.index("blocks.1.norm1")
    yield "| # | tensor | type | bits it needs | scale | made by | shape |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in dataflow(model, names[first - 1], names[first:behind]):
        operator = ", ".join(
            name.removeprefix(BLOCK).removeprefix("attn.") for name in row.operator.split(", ")
        )
        shape = " x ".join(map(str, row.shape))
        yield (
            f"| {row.number} | `{operator}` {row.name} | int{row.register} | {row.bits} "
            f"| {row.scale} | {row.producer} | {shape} |"
        )


def losses() -> Iterator[str]:
    """What each of the published rules costs DeiT-Tiny with random weights."""
    torch.manual_seed(0)
    module = ZOO[TINY].build().eval()
    graph = trace(module, ZOO[TINY].example_inputs(), name=TINY)
    images = photographs(CALIBRATION + HELD_OUT, (224, 224))
    test = images[-HELD_OUT:]
    attention = BLOCK + "attn.apply"
    options = QuantizationOptions(
        scheme="ivit", ivit_mode="faithful", equalise=False, bias_correction=False
    )
    model = quantize(graph, images[:-HELD_OUT], options=options)
    seen: dict[str, Tensor] = {}

    def look(operator: Operator, value: Tensor) -> None:
        if operator.name == attention:
            seen[attention] = value.detach().transpose(1, 2).flatten(2).double()

    logits = execute(graph, test, observe=look).double()
    codes: dict[str, Tensor] = {}
    model.run(test, lambda operator, found: codes.update({operator.name: found}))
    golden = model.logits(test)
    yield "| | attention of block 0 | logits |"
    yield "| --- | --- | --- |"

    def row(name: str, inside: Tensor, out: Tensor) -> str:
        return f"| {name} | {_db(inside, seen[attention])} | {_db(out, logits)} |"

    yield row("golden", codes[attention] * model.operator(attention).scale, golden)
    tried: list[tuple[str, Mapping[str, object]]] = [("published rules in float64", {})]
    for rule, text in REPLACED.items():
        only: frozenset[Rule] = frozenset([rule])
        tried.append((text, {"replaced": only}))
    both: frozenset[Rule] = frozenset(["reciprocal", "gelu"])
    tried.append(("exact reciprocals and an exact GELU", {"replaced": both}))
    tried.append((f"{FITTED} octaves", {"octaves": FITTED}))
    for name, fields in tried:
        published = PublishedDeit(module.state_dict(), model, **fields)  # type: ignore[arg-type]
        out = published.run(test)
        yield row(name, published.values[attention], out)


def _db(found: Tensor, exact: Tensor) -> str:
    noise = float((found - exact).square().sum())
    return f"{10 * math.log10(float(exact.square().sum()) / noise):.1f} dB"


def trained() -> Iterator[str]:
    """Accuracy of the models that are trained here."""
    yield "| model | scheme | float | integer | same top-1 | logits' SQNR | worst tensor |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in TRAINED:
        workload = resolve_model(name)
        data = workload.dataset
        graph = trace(workload.module, workload.example_inputs, name=name)
        in_float = accuracy(workload.module, data.test_images, data.test_labels)
        for setting, options in SETTINGS.items():
            model = quantize(graph, data.calibration_images, options=options)
            found = agreement(model, graph, data.test_images)
            worst = min(model.quality, key=lambda item: item.sqnr_db)
            yield (
                f"| `{name}` | {setting} | {in_float:.2%} "
                f"| {model.accuracy(data.test_images, data.test_labels):.2%} "
                f"| {found.top1:.2%} | {found.sqnr_db:.1f} dB "
                f"| `{worst.name}`, {worst.sqnr_db:.1f} dB |"
            )


def deit() -> Iterator[str]:
    """DeiT at its real sizes."""
    yield (
        "| model | scheme | logits' SQNR | same top-1 | quantized in | peak memory "
        "| golden, per image |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in DEIT:
        for setting in SETTINGS:
            command = [sys.executable, __file__, "--one", name, setting]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            yield run.stdout.splitlines()[-1]


def one(name: str, setting: str) -> str:
    """The row of one DeiT and one setting, in processor time."""
    entry = ZOO[name]
    torch.manual_seed(0)
    graph = trace(entry.build().eval(), entry.example_inputs(), name=name)
    images = photographs(CALIBRATION + HELD_OUT, entry.input_shape[-2:])
    start = time.process_time()
    model = quantize(graph, images[:-HELD_OUT], options=SETTINGS[setting])
    seconds = time.process_time() - start
    peak = peak_bytes() / (1 << 30)
    found = agreement(model, graph, images[-HELD_OUT:])
    batch = images[-BATCH:]
    spent = []
    for _ in range(3):
        start = time.process_time()
        model.run(batch)
        spent.append(time.process_time() - start)
    return (
        f"| `{name}` | {setting} | {found.sqnr_db:.1f} dB "
        f"| {round(found.top1 * found.images)} of {found.images} | {seconds:.0f} s "
        f"| {peak:.2f} GiB | {min(spent) / BATCH:.3f} s |"
    )


def models() -> Iterator[str]:
    """Trained models and DeiT, one table behind the other."""
    yield from trained()
    yield ""
    yield from deit()


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "dataflow": flow_table,
    "losses": losses,
    "models": models,
}


def marks(part: str) -> tuple[str, str]:
    """What stands before and behind a part on the page."""
    return (
        f"<!-- {part}: made by benchmarks/ivit.py; nothing from here on is typed by hand -->",
        f"<!-- end of {part} -->",
    )


def main() -> None:
    """Measures, and prints or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE")
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SETTING"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that processor time hardly depends on other work
    if arguments.one:
        print(one(*arguments.one))
        return
    chosen = [part for part in PARTS if getattr(arguments, part)] or list(PARTS)
    for part in chosen:
        lines = []
        for line in PARTS[part]():
            print(line, flush=True)
            lines.append(line)
        page = arguments.write
        if page is not None:
            temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
            whole = replaced(page.read_text(encoding="utf-8"), *marks(part), lines)
            temporary.write_text(whole, encoding="utf-8")
            temporary.replace(page)


if __name__ == "__main__":
    main()
