"""Writes docs/units.md: how exact our units are, their tables, and what they take.

    .venv/bin/python benchmarks/accuracy_units.py            # accuracy and synthesis, minutes
    .venv/bin/python benchmarks/accuracy_units.py --accuracy # accuracy alone, seconds

Errors are those of the integer goldens, which the hardware equals bit for bit, against float64.
GELU and the reciprocal are measured on every input, softmax on random rows from a printed seed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from amaranth.lib import wiring
from torch import Tensor

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.unit_schemes import LANES, compared, scheme_errors
from vitruvius.fpga_targets.device import Device, load_device
from vitruvius.fpga_targets.synthesis import synthesize
from vitruvius.hwgen.units.gelu import Gelu
from vitruvius.hwgen.units.online_softmax import OnlineSoftmax
from vitruvius.hwgen.units.reciprocal import Reciprocal
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.models.integer.gelu import (
    DELTA_FRACTION,
    DELTA_LIMIT,
    FRACTION,
    STEP_FRACTION,
    WIDTH,
    delta_table,
    gelu,
)
from vitruvius.models.integer.online_softmax import (
    EXP_FRACTION,
    TABLE_SIZE,
    online_exponential_table,
    online_softmax,
)
from vitruvius.models.integer.reciprocal import MANTISSA_BITS, reciprocal
from vitruvius.models.integer.softmax import (
    SCORE_BITS,
    SCORE_FRACTION,
    WEIGHT_BITS,
    exponential_table,
    softmax_weights,
)

PAGE = Path(__file__).parent.parent / "docs" / "units.md"
ACCURACY = (
    "<!-- accuracy by benchmarks/accuracy_units.py; nothing from here on is typed by hand -->",
    "<!-- end of accuracy -->",
)
COST = (
    "<!-- cost by benchmarks/accuracy_units.py; nothing from here on is typed by hand -->",
    "<!-- end of cost -->",
)
SCHEMES = (
    "<!-- schemes by benchmarks/accuracy_units.py; nothing from here on is typed by hand -->",
    "<!-- end of schemes -->",
)
SCHEMES_COST = (
    "<!-- cost of schemes by benchmarks/accuracy_units.py; nothing from here on is typed by hand "
    "-->",
    "<!-- end of cost of schemes -->",
)
DEVICE = "zcu102"
SEED = 20230530
ROWS = 400
LENGTHS = (17, 129, 197)
SPREADS = (1.0, 3.0)
SLOTS = 4


# GELU


def exact_gelu(x: Tensor) -> Tensor:
    """x/2 * erfc(-x / sqrt(2)), float64."""
    return x / 2 * torch.erfc(-x / math.sqrt(2))


def tabled_gelu(x: Tensor, table: Tensor, step_fraction: int, *, nearest: bool = False) -> Tensor:
    """``relu(x) - delta(|x|)`` in float64: ``table`` holds delta at steps of 2**-step_fraction,
    interpolated linearly or, if ``nearest``, not at all; zero from its last entry on.
    """
    position = x.abs() * 2**step_fraction
    limit = len(table) - 1
    index = (position.round() if nearest else position.floor()).long().clamp(max=limit - 1)
    part = torch.zeros_like(position) if nearest else position - index
    delta = table[index] + part * (table[index + 1] - table[index])
    return x.clamp(min=0) - torch.where(position < limit, delta, 0.0)


def rounded_table(entries: int, step_fraction: int, bits: int) -> Tensor:
    """delta at the steps, rounded to ``bits`` fraction bits."""
    a = torch.arange(entries, dtype=torch.float64) / 2**step_fraction
    delta = a - exact_gelu(a)
    return (delta * 2**bits).round() / 2**bits


def errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Largest and root mean square difference."""
    difference = (found - exact).abs()
    return float(difference.max()), float(difference.square().mean().sqrt())


def gelu_lines() -> list[str]:
    codes = torch.arange(-(1 << (WIDTH - 1)), 1 << (WIDTH - 1))
    x = codes.double() / 2**FRACTION
    exact = exact_gelu(x)
    result = gelu(codes).double() / 2**FRACTION
    own = torch.tensor(delta_table(), dtype=torch.float64) / 2**DELTA_FRACTION
    near = x.abs() < DELTA_LIMIT / 2**STEP_FRACTION
    rounded = (exact * 2**FRACTION).round() / 2**FRACTION
    fine = torch.arange(-(8 << 14), (8 << 14) + 1, dtype=torch.float64) / 2**14

    def line(name: str, over: str, found: tuple[float, float], table: str) -> str:
        return f"| {name} | {over} | {found[0]:.2e} | {found[1]:.2e} | {table} |"

    entries = f"{len(own)} x {DELTA_FRACTION} = {len(own) * DELTA_FRACTION:,}"
    lines = [
        "### GELU",
        "",
        "| what | over | max error | RMS error | table: entries x bits |",
        "| --- | --- | ---: | ---: | ---: |",
        line("ours", f"all {len(codes):,} codes", errors(result, exact), entries),
        line(
            "ours",
            f"the {int(near.sum()):,} codes below 5.5",
            errors(result[near], exact[near]),
            entries,
        ),
        line(
            "exact, rounded to the output's 10 fraction bits",
            f"all {len(codes):,} codes",
            errors(rounded, exact),
            "-",
        ),
        line(
            "our table before the output is rounded",
            "step 2^-14 in [-8, 8]",
            errors(tabled_gelu(fine, own, STEP_FRACTION), exact_gelu(fine)),
            entries,
        ),
    ]
    for name, count, step, bits, nearest in (
        ("Edge-MoE's table, as published", 177, 5, 22, False),
        ("twice the step", 81, 4, 16, False),
        ("twice the step, short entries", 81, 4, 12, False),
        ("four times the step", 41, 3, 16, False),
        ("half the step", 321, 6, 16, False),
        ("the nearest entry, no interpolation", 177, 5, 22, True),
    ):
        found = tabled_gelu(fine, rounded_table(count, step, bits), step, nearest=nearest)
        lines.append(
            line(
                name,
                "step 2^-14 in [-8, 8]",
                errors(found, exact_gelu(fine)),
                f"{count} x {bits} = {count * bits:,}",
            )
        )
    return lines


# Softmax


def random_rows(length: int, spread: float) -> Tensor:
    """[ROWS, length] scores in nats, normal with standard deviation ``spread``."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(ROWS, length, generator=generator, dtype=torch.float64) * spread


def coded(scores: Tensor) -> Tensor:
    """Score codes: rounded to 5 fraction bits and 16 bits."""
    limit = 1 << (SCORE_BITS - 1)
    return (scores * 2**SCORE_FRACTION).round().clamp(-limit, limit - 1).long()


def probabilities(codes: Tensor) -> Tensor:
    """What our softmax gives: weight times the reciprocal of the row's sum."""
    weights, total = softmax_weights(codes)
    mantissa, length = reciprocal(total)
    scale = mantissa.double() / 2.0 ** (length + MANTISSA_BITS - 1)
    return weights.double() * scale.unsqueeze(-1)


def online_probabilities(codes: Tensor) -> Tensor:
    """What Edge-MoE's order of work gives with our online unit: exponential over the sum."""
    table = torch.tensor([*online_exponential_table(), 0], dtype=torch.float64)
    rows = []
    for row in codes.tolist():
        maximum, total = online_softmax(row)
        distance = torch.tensor([min(maximum - score, TABLE_SIZE) for score in row])
        rows.append(table[distance] / total)
    return torch.stack(rows)


def softmax_lines() -> list[str]:
    lines = [
        "### Softmax",
        "",
        f"Per entry: {ROWS} rows of normally distributed scores, seed {SEED}. Of the unit: against "
        "float64 of the same",
        "score codes. In all: against float64 of the scores before they became codes of 5 fraction "
        "bits. Lost: probability",
        "of scores whose exponential is zero in the table, most of a row.",
        "",
        "| unit | row | spread | max error, unit | RMS | max error, in all | RMS | row sum, "
        "farthest from 1 | lost |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    units: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
        ("softmax", probabilities),
        ("online", online_probabilities),
    )
    for name, unit in units:
        for length in LENGTHS:
            for spread in SPREADS:
                scores = random_rows(length, spread)
                codes = coded(scores)
                found = unit(codes)
                exact = torch.softmax(codes.double() / 2**SCORE_FRACTION, -1)
                own = errors(found, exact)
                lost = torch.where(found == 0, exact, 0.0).sum(-1).max()
                every = errors(found, torch.softmax(scores, -1))
                apart = float((found.sum(-1) - 1).abs().max())
                lines.append(
                    f"| {name} | {length} | {spread:g} | {own[0]:.2e} | {own[1]:.2e} "
                    f"| {every[0]:.2e} | {every[1]:.2e} | {apart:.2e} | {float(lost):.2e} |"
                )
    return lines


def order_lines() -> list[str]:
    """The online sum by the order in which the scores arrive."""
    scores = coded(random_rows(max(LENGTHS), SPREADS[-1]))
    ascending = scores.sort(-1).values
    lines = [
        "### Order of the scores",
        "",
        f"Rows of {max(LENGTHS)} scores, spread {SPREADS[-1]:g}: the sum of exponentials against "
        "float64, relative.",
        "",
        "| order | online, max | online, RMS | ours |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, rows in (
        ("as drawn", scores),
        ("ascending: each score is a new maximum", ascending),
        ("descending: the first is the maximum", ascending.flip(-1)),
    ):
        real = rows.double() / 2**SCORE_FRACTION
        exact = (real - real.amax(-1, keepdim=True)).exp().sum(-1)
        online = torch.tensor([online_softmax(row)[1] for row in rows.tolist()]).double()
        relative = errors(online / 2**EXP_FRACTION / exact, torch.ones_like(exact))
        same = bool((softmax_weights(rows)[1] == softmax_weights(scores)[1]).all())
        lines.append(
            f"| {name} | {relative[0]:.2e} | {relative[1]:.2e} "
            f"| {'the same sum' if same else 'another sum'} |"
        )
    return lines


def reciprocal_lines() -> list[str]:
    lines = [
        "### Reciprocal",
        "",
        "| values | max relative error | RMS |",
        "| --- | ---: | ---: |",
    ]
    for name, first, last in (
        ("all of 1 to 2^16 - 1: no bit is cut off", 1, (1 << 16) - 1),
        ("all of 1 to 2^20 - 1", 1, (1 << 20) - 1),
        (f"all sums of {max(LENGTHS)} weights, 255 to 255 x {max(LENGTHS)}", 255,
         255 * max(LENGTHS)),
    ):  # fmt: skip
        value = torch.arange(first, last + 1)
        mantissa, length = reciprocal(value)
        found = mantissa.double() / 2.0 ** (length + MANTISSA_BITS - 1) * value
        largest, mean = errors(found, torch.ones_like(found))
        lines.append(f"| {name} | {largest:.2e} | {mean:.2e} |")
    return lines


def table_lines() -> list[str]:
    """Entries and bits of every table as the hardware holds it."""
    online = EXP_FRACTION + 1
    exponential = len(exponential_table())
    return [
        "### Tables in the hardware",
        "",
        "| unit | copies | entries x bits | bits |",
        "| --- | --- | --- | ---: |",
        f"| GELU: delta and its slope, one word | one | {DELTA_LIMIT} x (13 + 10) "
        f"| {DELTA_LIMIT * 23:,} |",
        f"| softmax: exponential | one a lane | {exponential} x {WEIGHT_BITS} "
        f"| {exponential * WEIGHT_BITS:,} |",
        f"| online: exponential | one | {TABLE_SIZE} x {online} | {TABLE_SIZE * online:,} |",
        "| reciprocal | none: a quotient bit a stage | - | 0 |",
    ]


def accuracy() -> list[str]:
    """All that is computed in seconds."""
    parts = (gelu_lines, softmax_lines, order_lines, reciprocal_lines, table_lines)
    return [line for part in parts for line in (*part(), "")][:-1]


def schemes() -> list[str]:
    """Both schemes' errors on the same floats."""
    return scheme_errors(lambda scores: probabilities(coded(scores)))


# Cost


def units() -> list[tuple[str, wiring.Component]]:
    """What is synthesised, with its name on the page."""
    longest = max(LENGTHS)
    found: list[tuple[str, wiring.Component]] = [("GELU, one value a cycle", Gelu())]
    for lanes in (4, 16):
        softmax = Softmax(slots=SLOTS, lanes=lanes, max_tiles=-(-longest // lanes), max_row=longest)
        found.append(
            (f"softmax, {SLOTS} rows at a time, {lanes} scores a cycle, with its reciprocal",
             softmax)
        )  # fmt: skip
    return [
        *found,
        (f"reciprocal of {softmax.total_bits} bits, one a cycle",
         Reciprocal(width=softmax.total_bits)),
        ("online softmax, one row, a score in 3 cycles, without reciprocal",
         OnlineSoftmax(max_length=longest)),
    ]  # fmt: skip


def cost() -> list[str]:
    device = load_device(DEVICE)
    lines = [
        f"Yosys' cells for `{device.name}` ({device.part}) before placement, rows of up to "
        f"{max(LENGTHS)} scores.",
        "",
        "| unit | LUT | FF | DSP | BRAM (36 Kbit) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, unit in units():
        lines.append(f"| {name} {_cells(unit, device)}")
        print(lines[-1], flush=True)
    return lines


def schemes_cost() -> list[str]:
    device = load_device(DEVICE)
    lines = [
        f"All with {LANES} lanes; cells of `{device.name}` as above.",
        "",
        "| unit | row | cycles, alone | a row, back to back | LUT | FF | DSP | BRAM (36 Kbit) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for item in compared():
        lines.append(f"{item.columns()[:-2]} {_cells(item.make(), device)}")
        print(lines[-1], flush=True)
    return lines


def _cells(unit: wiring.Component, device: Device) -> str:
    with tempfile.TemporaryDirectory() as folder:
        used = synthesize(to_verilog(unit, "unit"), "unit", device, workdir=Path(folder))
    return f"| {used.lut:,} | {used.ff:,} | {used.dsp} | {used.bram:g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy", action="store_true", help="leave the cost as it is")
    only_accuracy = parser.parse_args().accuracy
    page = replaced(PAGE.read_text(encoding="utf-8"), *ACCURACY, accuracy())
    page = replaced(page, *SCHEMES, schemes())
    if not only_accuracy:
        page = replaced(page, *COST, cost())
        page = replaced(page, *SCHEMES_COST, schemes_cost())
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
