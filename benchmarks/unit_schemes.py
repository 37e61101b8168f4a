"""The units of scheme `ivit` beside those of `edge`: errors on the same floats, cycles, cells.

Part of docs/units.md, which benchmarks/accuracy_units.py writes. Every unit gets the same float
inputs, quantized by its own scheme's rule, and is compared with float64 of the floats. Errors are
those of the integer goldens, which the hardware equals bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from torch import Tensor

from vitruvius.hwgen.units import gelu as gelu_unit
from vitruvius.hwgen.units import layernorm as layernorm_unit
from vitruvius.hwgen.units import requantize as requantize_unit
from vitruvius.hwgen.units import softmax as softmax_unit
from vitruvius.hwgen.units.gelu import Gelu
from vitruvius.hwgen.units.ivit import dyadic as dyadic_unit
from vitruvius.hwgen.units.ivit import gelu_table as gelu_table_unit
from vitruvius.hwgen.units.ivit import layernorm as i_layernorm_unit
from vitruvius.hwgen.units.ivit import shift_gelu as shift_gelu_unit
from vitruvius.hwgen.units.ivit import shift_gelu_rows as shift_gelu_rows_unit
from vitruvius.hwgen.units.ivit import shiftmax as shiftmax_unit
from vitruvius.hwgen.units.ivit.dyadic import Requantizer31
from vitruvius.hwgen.units.ivit.gelu_table import ShiftGeluTables
from vitruvius.hwgen.units.ivit.layernorm import ILayerNorm
from vitruvius.hwgen.units.ivit.shift_gelu import ShiftGelu
from vitruvius.hwgen.units.ivit.shift_gelu_rows import ShiftGeluRows
from vitruvius.hwgen.units.ivit.shiftmax import Shiftmax
from vitruvius.hwgen.units.layernorm import LayerNorm
from vitruvius.hwgen.units.requantize import Requantizer
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.models.integer.gelu import FRACTION, WIDTH, gelu
from vitruvius.models.integer.ivit.dyadic import dyadic31, requantize31
from vitruvius.models.integer.ivit.layernorm import affine
from vitruvius.models.integer.ivit.layernorm import layernorm as i_layernorm
from vitruvius.models.integer.ivit.shift_exp import reciprocal_step
from vitruvius.models.integer.ivit.shift_gelu import LARGEST_STEP, SLOPE, Mode, shift_gelu
from vitruvius.models.integer.ivit.shiftmax import shiftmax
from vitruvius.models.integer.layernorm import NORMAL_FRACTION, LayerNormCodes, layernorm
from vitruvius.models.integer.requantize import MULTIPLIER_BITS, SHIFT_BITS, dyadic, requantize
from vitruvius.models.integer.rounding import saturate

__all__ = ["Compared", "compared", "scheme_errors"]

LANES = 16
KEYS, FEATURES, HIDDEN = 197, 192, 768
LAYERS = 12
DIVIDERS = 4
SLOTS = 4
ROWS = 400
SEED = 20230530
HEAD_ROOM = 1.05
"""Of the residual stream in scheme `edge`."""
EPSILON = 1e-6


# Errors


def normal(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantized(x: Tensor, bits: int, room: float = 1.0) -> tuple[Tensor, float]:
    """Codes and their scale, which the largest magnitude gives, as calibration does."""
    largest = (1 << (bits - 1)) - 1
    scale = float(torch.tensor(float(x.abs().max()) * room / largest, dtype=torch.float32))
    return saturate(torch.round(x / scale).long(), bits), scale


def line(unit: str, over: str, codes: str, found: Tensor, exact: Tensor) -> str:
    apart = (found - exact).abs()
    rms = float(apart.square().mean().sqrt())
    return f"| {unit} | {over} | {codes} | {float(apart.max()):.2e} | {rms:.2e} |"


def softmax_errors(edge: Callable[[Tensor], Tensor]) -> list[str]:
    """``edge``: probabilities of the codes of float scores."""
    lines = []
    for spread in (1.0, 3.0):
        scores = normal(ROWS, KEYS) * spread
        exact = torch.softmax(scores, -1)
        over = f"{KEYS} scores, spread {spread:g}"
        codes, scale = quantized(scores, 8)
        a = reciprocal_step(scale, nearest=True)
        given = f"int8 of {scale:.3g} (a = {a}), 16 bits of 2^-15"
        lines += [
            line("Softmax", over, "int16 of 2^-5, weights of 8 bits", edge(scores), exact),
            line("Shiftmax", over, given, shiftmax(codes, a).double() / (1 << 15), exact),
        ]
    return lines


def gelu_errors() -> list[str]:
    lines = []
    for spread in (1.0, 3.0):
        x = normal(ROWS, HIDDEN) * spread
        exact = x / 2 * torch.erfc(-x / 2**0.5)
        over = f"{HIDDEN} values, spread {spread:g}"
        fine = saturate(torch.round(x * 2**FRACTION).long(), 16)
        coarse, scale = quantized(x, 8)
        best, out = quantized(exact, 8)
        inside = gelu(fine)
        factor = dyadic(2.0**-FRACTION / out)
        narrow = requantize(inside, factor.multiplier, factor.shift, 8)
        lines.append(
            line("Gelu", over, "16 bits of 2^-10, in and out", inside / 2**FRACTION, exact)
        )
        shifted = {}
        modes: tuple[tuple[Mode, str], ...] = (("safe", "ShiftGelu"), ("faithful", "ShiftGeluRows"))
        for mode, name in modes:
            step = reciprocal_step(SLOPE * scale, nearest=mode == "safe")
            a = min(step, LARGEST_STEP)
            shifted[mode] = shift_gelu(coarse, a, mode)
            given = f"int8 of {scale:.3g} (a = {a}), 16 bits of {scale / 128:.2g}"
            lines.append(line(name, over, given, shifted[mode] * (scale / 128), exact))
        ratio = dyadic31(scale / 128 / out)
        table = requantize31(shifted["safe"], ratio.multiplier, ratio.shift, 8)
        given = f"16 bits of 2^-10, int8 of {out:.3g}"
        lines += [
            line("Gelu and Requantizer", over, given, narrow * out, exact),
            line("ShiftGeluTables", over, f"int8 of {scale:.3g}, int8 of {out:.3g}", table * out,
                 exact),
            line("exact, rounded", over, f"int8 of {out:.3g} out", best * out, exact),
        ]  # fmt: skip
    return lines


def edge_norm(x: Tensor, scale: float, gamma: Tensor, beta: Tensor, out: float) -> Tensor:
    """Codes of 8 bits of scheme `edge`: the shift is the largest that gain and offset allow."""
    shift = 31
    while (
        float((gamma / out * 2.0 ** (shift - NORMAL_FRACTION)).abs().max()) > 32766
        or float((beta / out * 2.0**shift).abs().max()) > 2.0**30
    ):
        shift -= 1
    gain = torch.round(gamma / out * 2.0 ** (shift - NORMAL_FRACTION)).long()
    offset = torch.round(beta / out * 2.0**shift).long()
    epsilon = max(1, round(EPSILON * (x.shape[-1] / scale) ** 2))
    return layernorm(x, LayerNormCodes(gain, offset, shift, epsilon))


def norm_errors() -> list[str]:
    gamma, beta = 1 + 0.2 * normal(FEATURES, seed=SEED + 1), 0.2 * normal(FEATURES, seed=SEED + 2)
    plain = normal(ROWS, FEATURES) + 2 * normal(FEATURES, seed=SEED + 3)
    uneven = plain.clone()
    uneven[0] *= 100
    lines = []
    for over, x in (("rows alike", plain), ("one row 100 times as large", uneven)):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        exact = (x - mean) / (variance + EPSILON).sqrt() * gamma + beta
        best, out = quantized(exact, 8)
        room, room_scale = quantized(x, 16, HEAD_ROOM)
        codes, scale = quantized(x, 16)
        parameters = affine(gamma, beta)
        wide = i_layernorm(codes, parameters)
        pairs = [dyadic31(ratio) for ratio in (parameters.scale / out).tolist()]
        multiplier, shift = (
            torch.tensor([getattr(pair, part) for pair in pairs])
            for part in ("multiplier", "shift")
        )
        narrow = requantize31(wide, multiplier, shift, 8)
        over = f"{FEATURES} values, {over}"
        edge = edge_norm(room, room_scale, gamma, beta, out)
        lines += [
            line("LayerNorm", over, f"int16 of {room_scale:.3g}, int8 of {out:.3g}", edge * out,
                 exact),
            line("ILayerNorm", over, f"int16 of {scale:.3g}, 32 bits, a scale a channel",
                 wide * parameters.scale, exact),
            line("ILayerNorm and Requantizer31", over, f"int16 of {scale:.3g}, int8 of {out:.3g}",
                 narrow * out, exact),
            line("exact, rounded", over, f"int8 of {out:.3g} out", best * out, exact),
        ]  # fmt: skip
    return lines


def requantizer_errors() -> list[str]:
    """In units of the result's last place; no result saturates."""
    generator = torch.Generator().manual_seed(SEED)
    uniform = torch.rand(ROWS, generator=generator, dtype=torch.float64)
    ratios = 2.0 ** (-14 * uniform - 1)
    reach = (32767 / ratios).clamp(max=2.0**31 - 1).unsqueeze(-1)
    part = torch.rand(ROWS, HIDDEN, generator=generator, dtype=torch.float64) * 2 - 1
    codes = torch.round(part * reach * 0.999).long()
    exact = codes * ratios.unsqueeze(-1)
    over = f"{HIDDEN} accumulators, {ROWS} factors of 2^-15 to 2^-1"
    lines = []
    for name, given, factors, apply in (
        ("Requantizer", "16-bit multiplier", [dyadic(r) for r in ratios.tolist()], requantize),
        ("Requantizer31", "31-bit multiplier", [dyadic31(r) for r in ratios.tolist()],
         requantize31),
    ):  # fmt: skip
        multiplier, shift = (
            torch.tensor([getattr(factor, part) for factor in factors]).unsqueeze(-1)
            for part in ("multiplier", "shift")
        )
        found = apply(codes, multiplier, shift, 16)
        lines.append(line(name, over, f"int32 in, {given}, int16 out", found, exact))
    return lines


def scheme_errors(edge_softmax: Callable[[Tensor], Tensor]) -> list[str]:
    """``edge_softmax``: probabilities that scheme `edge` gives for float scores."""
    return [
        f"{ROWS} rows of normally distributed values a line, seed {SEED}. Errors in the values' own"
        " unit; those of the requantizers",
        "in the result's last place.",
        "",
        "| unit | row | codes in, out | max error | RMS |",
        "| --- | --- | --- | ---: | ---: |",
        *softmax_errors(edge_softmax),
        *gelu_errors(),
        *norm_errors(),
        *requantizer_errors(),
    ]


# Cycles and cells


class Lanes(wiring.Component):
    """``count`` copies of a pipeline side by side; each port is an array of theirs."""

    def __init__(self, unit: Callable[[], wiring.Component], count: int = LANES) -> None:
        self.units = [unit() for _ in range(count)]
        super().__init__(
            {
                name: (In if member.flow == In else Out)(data.ArrayLayout(member.shape, count))
                for name, member in self.units[0].signature.members.items()
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for index, unit in enumerate(self.units):
            m.submodules[f"unit{index}"] = unit
            for name, member in unit.signature.members.items():
                inner, outer = getattr(unit, name), getattr(self, name)[index]
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


class GeluToCodes(wiring.Component):
    """`Gelu` and the requantization to 8 bits behind it, as the accelerator has them."""

    LATENCY = Gelu.LATENCY + Requantizer.LATENCY

    def __init__(self) -> None:
        super().__init__(
            {
                "x": In(signed(WIDTH)),
                "multiplier": In(MULTIPLIER_BITS),
                "shift": In(SHIFT_BITS),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gelu = inside = Gelu()
        m.submodules.requantizer = outside = Requantizer(accumulator_bits=16, out_bits=8)
        m.d.comb += [
            inside.x.eq(self.x),
            outside.accumulator.eq(inside.result),
            outside.multiplier.eq(self.multiplier),
            outside.shift.eq(self.shift),
            self.result.eq(outside.result),
        ]
        return m


@dataclass(frozen=True)
class Compared:
    """A unit on the page. alone: cycles from a row's first chunk to its last result; apart: between
    the last results of rows that follow each other; once: what is spent before the first.
    """

    name: str
    row: str
    make: Callable[[], wiring.Component]
    alone: int
    apart: int
    once: int = 0

    def columns(self) -> str:
        once = f" (and {self.once:,} a layer)" if self.once else ""
        return f"| {self.name} | {self.row} | {self.alone:,} | {self.apart:,}{once} |"


def compared() -> list[Compared]:
    """All of them with `LANES` lanes."""
    keys, hidden = -(-KEYS // LANES), HIDDEN // LANES
    extents = {"slots": SLOTS, "lanes": LANES, "max_tiles": keys, "max_row": KEYS}
    arrivals = [keys - 1 + keys * row for row in range(9)]
    arrivals_hidden = [hidden - 1 + hidden * row for row in range(9)]
    softmax = softmax_unit.cycles(arrivals, keys)
    shift = shiftmax_unit.cycles(arrivals, keys)
    rows = shift_gelu_rows_unit.cycles(arrivals_hidden, hidden, DIVIDERS)
    norm = [
        unit.cycles(width=FEATURES, lanes=LANES, rows=count)
        for unit in (layernorm_unit, i_layernorm_unit)
        for count in (1, 2)
    ]
    long, wide, scores = f"{HIDDEN} values", f"{FEATURES} values", f"{KEYS} scores"
    to_codes = GeluToCodes.LATENCY + hidden - 1
    return [
        Compared("Softmax", scores, lambda: Softmax(**extents), softmax[0],
                 softmax[-1] - softmax[-2]),
        Compared("Shiftmax", scores, lambda: Shiftmax(**extents), shift[0], shift[-1] - shift[-2]),
        Compared("Gelu", long, lambda: Lanes(Gelu), gelu_unit.cycles(hidden), hidden),
        Compared("ShiftGelu", long, lambda: ShiftGelu(lanes=LANES),
                 shift_gelu_unit.cycles(hidden), hidden, ShiftGelu.filling()),
        Compared(f"ShiftGeluRows, {DIVIDERS} dividers", long,
                 lambda: ShiftGeluRows(lanes=LANES, max_tiles=hidden, dividers=DIVIDERS),
                 rows[0], rows[-1] - rows[-2]),
        Compared("Gelu and Requantizer", long, lambda: Lanes(GeluToCodes), to_codes, hidden),
        Compared(f"ShiftGeluTables, {LAYERS} layers", long,
                 lambda: ShiftGeluTables(lanes=LANES, tables=LAYERS),
                 gelu_table_unit.cycles(hidden), hidden),
        Compared("LayerNorm", wide, lambda: LayerNorm(lanes=LANES, max_width=FEATURES), norm[0],
                 norm[1] - norm[0]),
        Compared("ILayerNorm", wide, lambda: ILayerNorm(lanes=LANES, max_width=FEATURES), norm[2],
                 norm[3] - norm[2]),
        Compared("Requantizer", wide, lambda: Lanes(lambda: Requantizer(out_bits=16)),
                 requantize_unit.cycles(FEATURES // LANES), FEATURES // LANES),
        Compared("Requantizer31", wide, lambda: Lanes(lambda: Requantizer31(out_bits=16)),
                 dyadic_unit.cycles(FEATURES // LANES), FEATURES // LANES),
    ]  # fmt: skip
