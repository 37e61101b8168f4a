"""Measures how well quantized models keep their float ones: the tables of docs/quantization.md.

    .venv/bin/python benchmarks/quantization.py [--write docs/quantization.md]

Trained models: accuracy on their test images, float and integer, with the default calibration.
DeiT at its real sizes has random weights, which say nothing about accuracy; images are crops of the
two photographs that scikit-learn ships, 32 to calibrate on and 8 others to compare on. Each of its
rows is measured in a process of its own, so that the peak memory is that row's. Prints the tables,
or writes them between the page's two marks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.agreement import agreement
from vitruvius.models.datasets import photographs
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.train import accuracy
from vitruvius.models.zoo import ZOO

__all__ = ["BEGIN", "END", "main"]

TRAINED = ("vit_digits", "vit_mnistm", "vit_mnistm_moe")
DEIT = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
SETTINGS = {
    "W8A8": QuantizationOptions(),
    "W8A8, no remedies": QuantizationOptions(equalise=False, bias_correction=False),
    "W8A8, minmax": QuantizationOptions(calibration="minmax"),
    "W6A8": QuantizationOptions(weight_bits=6),
    "W4A8": QuantizationOptions(weight_bits=4),
    "W4A8, no remedies": QuantizationOptions(weight_bits=4, equalise=False, bias_correction=False),
    "W8A6": QuantizationOptions(activation_bits=6),
    "W4A4": QuantizationOptions(weight_bits=4, activation_bits=4),
}
FOR_DEIT = ("W8A8", "W8A8, no remedies", "W8A8, minmax", "W4A8", "W4A8, no remedies")
CALIBRATION = 32
HELD_OUT = 8
BEGIN = "<!-- measured by benchmarks/quantization.py; nothing from here on is typed by hand -->"
END = "<!-- end of what was measured -->"


def trained() -> Iterator[str]:
    """The table of the trained models, line by line."""
    yield (
        "| model | setting | float | integer | points | same top-1 | logits' SQNR | worst tensor |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in TRAINED:
        workload = resolve_model(name)
        data = workload.dataset
        graph = trace(workload.module, workload.example_inputs, name=name)
        in_float = accuracy(workload.module, data.test_images, data.test_labels)
        for setting, options in SETTINGS.items():
            model = quantize(graph, data.calibration_images, options=options)
            in_integers = model.accuracy(data.test_images, data.test_labels)
            found = agreement(model, graph, data.test_images)
            worst = min(model.quality, key=lambda item: item.sqnr_db)
            yield (
                f"| `{name}` | {setting} | {in_float:.2%} | {in_integers:.2%} "
                f"| {100 * (in_integers - in_float):+.2f} | {found.top1:.2%} "
                f"| {found.sqnr_db:.1f} dB | `{worst.name}`, {worst.sqnr_db:.1f} dB |"
            )


def deit() -> Iterator[str]:
    """The table of DeiT with random weights, line by line."""
    yield (
        "| model | setting | logits' SQNR | same top-1 | worst tensor | processor time "
        "| peak memory | parameters |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in DEIT:
        for setting in FOR_DEIT:
            command = [sys.executable, __file__, "--one", name, setting]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            yield run.stdout.splitlines()[-1]


def one(name: str, setting: str) -> str:
    """The row of one DeiT and one setting."""
    entry = ZOO[name]
    torch.manual_seed(0)
    graph = trace(entry.build().eval(), entry.example_inputs(), name=name)
    height, width = entry.input_shape[-2:]
    images = photographs(CALIBRATION + HELD_OUT, (height, width))
    parameters = sum(tensor.nbytes for tensor in graph.tensors.values()) / (1 << 30)
    start = time.process_time()
    model = quantize(graph, images[:-HELD_OUT], options=SETTINGS[setting])
    seconds = time.process_time() - start
    peak = peak_bytes() / (1 << 30)
    found = agreement(model, graph, images[-HELD_OUT:])
    worst = min(model.quality, key=lambda item: item.sqnr_db)
    return (
        f"| `{name}` | {setting} | {found.sqnr_db:.1f} dB "
        f"| {round(found.top1 * found.images)} of {found.images} "
        f"| `{worst.name}`, {worst.sqnr_db:.1f} dB | {seconds:.0f} s | {peak:.2f} GiB "
        f"| {parameters:.2f} GiB |"
    )


def peak_bytes() -> int:
    """The largest resident size of this process so far. ``ru_maxrss`` would be that of the process
    that started it, where that is larger.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measured() -> Iterator[str]:
    """Both tables with what they say, line by line."""
    yield "### Trained models"
    yield ""
    yield from wrapped(
        "Test images that neither training nor calibration saw: 360 digits for `vit_digits`, 1000 "
        "coloured digits for the others; one image is 0.28 or 0.1 points. WxAy: weights of x bits, "
        "activations of y; without another word the defaults. No remedies: neither equalisation "
        "nor bias correction, but below 8 bits rounding compensated as ever. Points: integer less "
        "float."
    )
    yield ""
    yield from trained()
    yield ""
    yield "### DeiT at its real sizes"
    yield ""
    yield from wrapped(
        "Random weights: these rows say nothing about accuracy, only how much noise quantization "
        f"adds and what it costs to get there. Calibrated on {CALIBRATION} crops of photographs, "
        f"compared on {HELD_OUT} others. Processor time of quantizing, on one thread; peak "
        "memory of the whole process, PyTorch included; parameters in float32."
    )
    yield ""
    yield from deit()


def wrapped(text: str) -> list[str]:
    """A paragraph in lines of the page's width."""
    return textwrap.wrap(text, 120, break_on_hyphens=False)


def main() -> None:
    """Measures, and prints or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SETTING"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that processor time hardly depends on other work
    if arguments.one:
        print(one(*arguments.one))
        return
    page = arguments.write
    if page is not None:
        replaced(page.read_text(encoding="utf-8"), BEGIN, END, [])
    lines = []
    for line in measured():
        print(line, flush=True)
        lines.append(line)
    if page is not None:
        temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
        whole = replaced(page.read_text(encoding="utf-8"), BEGIN, END, lines)
        temporary.write_text(whole, encoding="utf-8")
        temporary.replace(page)


if __name__ == "__main__":
    main()
