"""4f optics beside what others published: a section of docs/validation.md, with its chart.

    .venv/bin/python benchmarks/validation_optical.py

Takes seconds; everything is a closed form.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from vitruvius.benchmarks.mpc_models import table
from vitruvius.benchmarks.validation_systolic import PAGE, replaced
from vitruvius.optical.cost import optical_cost, slots
from vitruvius.optical.mapping import OpticalWork
from vitruvius.optical.published import fatnet_time_per_image, published
from vitruvius.optical.speedup import (
    READINGS,
    ShareNetwork,
    frames_per_image,
    gpu_times,
    image_s,
    needed_hz,
)
from vitruvius.optical.target import OpticalSystem, load_optical
from vitruvius.reports.quantities import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADING = "## 4f optics"
CHART = PAGE.parent / "optical_speedup.svg"
FAST = load_optical("optical:4f-2mhz").system
KNOWN = published()
NETWORKS = (ShareNetwork(), ShareNetwork(tokens=145))
RATE_HZ = 2e6

__all__ = ["CHART", "HEADING", "chart", "main", "section"]


def _work(
    fan_in: int, fan_out: int, size: int, kernel: int, signed_kernel: bool = False
) -> OpticalWork:
    """A layer of non-negative images, without stride, read in full."""
    sides, taps = (size, size), (kernel, kernel)
    return OpticalWork(
        1, fan_in, fan_out, 1, sides, taps, "full", (1, 1), False, False, signed_kernel
    )


def _square(rows: int, cols: int) -> OpticalSystem:
    return OpticalSystem.model_validate(FAST.model_dump() | {"rows": rows, "cols": cols})


def _timings() -> list[str]:
    fatnet = load_optical("optical:4f-fatnet").system
    rows = []
    for row in KNOWN.fatnet:
        ours = fatnet_time_per_image(row.convolutions, row.batch, fatnet)
        rows.append(
            (
                f"FatNet's table: {row.network}, batch {row.batch}",
                f"{row.convolutions:,}",
                f"{ours:.3e}",
                f"{row.optics_s:.3e}",
                "yes" if f"{ours:.3e}" == f"{row.optics_s:.3e}" else "NO",
            )
        )
    for item in KNOWN.li_gupta:
        layers = [_work(*layer) for layer in KNOWN.layers[item.network]]
        ours = sum(optical_cost(layer, FAST, "none").time_s for layer in layers)
        rows.append(
            (
                f"Li & Gupta: {item.network}, no tiling",
                f"{KNOWN.convolutions(item.network):,}",
                f"{ours:.3g}",
                f"{item.none_s:.3g}",
                "yes" if f"{ours:.3g}" == f"{item.none_s:.3g}" else "NO",
            )
        )
    vgg = [_work(*layer) for layer in KNOWN.layers["VGG-16"]]
    many = 10**6
    bracket = [
        sum(optical_cost(layer, _square(2160, cols), "channel", many).time_s for layer in vgg)
        / many
        for cols in (2160, 3840)
    ]
    rows.append(
        (
            "Li & Gupta: VGG-16, channel tiling, 2160 x 2160 and 2160 x 3840",
            "",
            f"{bracket[0]:.2g} and {bracket[1]:.2g}",
            f"{KNOWN.li_gupta[0].channel_s:.2g}",
            "between" if bracket[1] < KNOWN.li_gupta[0].channel_s < bracket[0] else "NO",
        )
    )
    tiles = [
        f"{slots(_work(1, 1, size, kernel), _square(side, side)):,} ({size} px, kernel {kernel}, "
        f"{side} x {side})"
        for side, size, kernel in ((2160, 32, 3), (2160, 32, 7), (3840, 32, 3))
    ]
    counts = [KNOWN.convolutions(name) for name in ("ResNet-18", "FatNet")]
    return [
        "### Published timings",
        "",
        "FatNet's timing model is convolutions times 2.000 µs over the batch: two passes of two "
        "frames each at 2 MHz (`optical:4f-fatnet`). Li & Gupta's is a frame of 0.5 µs for each "
        "pair of channels. Neither has electronics, loading of weights, or read-out. Their "
        "rounding with channel tiling is not told; the two planes bracket it.",
        "",
        *table(("what", "convolutions", "ours, s", "published, s", "equal in all digits"), rows, 1),
        "",
        f"Tiles by the published block rule: {', '.join(tiles)}. The published batch of 3136 is "
        "the second.",
        "",
        f"Pairs of channels by the layers: ResNet-18 {counts[0]:,}, FatNet {counts[1]:,}. FatNet "
        f"is published as 148,637, which leaves its last layer out, 155 channels to 1: "
        f"148,637 + 155 = {148_637 + 155:,}. The ratio is {counts[0] / 148_637:.1f} both ways.",
    ]


def _figures() -> list[str]:
    bench = load_optical("optical:4f-dmd").system
    products = slots(_work(1, 1, 28, 3), bench) * 28 * 28 * 9
    frame = optical_cost(replace(_work(1, 1, 2160, 1), readout="valid"), FAST)
    link = load_optical("optical:4f-readout").system.read_bits_per_s
    rows = [
        *(
            (
                f"bench of Hu et al., {bench.static_w:g} W, at {rate:g} Hz",
                f"{bench.static_w / (rate * products):.2g} J a product",
                "3 x 3 kernels on 28-pixel tiles of 1920 x 1080",
            )
            for rate in (100, 2000, 15000)
        ),
        (
            "light that is detected",
            f"{FAST.light_j:.2g} J a frame, {FAST.light_j * RATE_HZ * 1e3:.0f} mW at 2 MHz",
            "1e4 photons of 532 nm in each of 2160 x 2160 pixels",
        ),
        (
            "the laser's light for it",
            f"{FAST.light_j / FAST.throughput * RATE_HZ:.2g} W at 2 MHz",
            f"mask {FAST.mask_transmission:g}, two panels' orders {FAST.fill_factor**4:.2g}, "
            f"camera {FAST.quantum_efficiency:g}",
        ),
        (
            "converters",
            f"ADC {frame.adc_j * 1e6:.1f} µJ, DAC {FAST.pixels * FAST.dac_j * 1e6:.1f} µJ a panel",
            "1.5 pJ and 3.6 pJ a sample of 8 bits",
        ),
        (
            "ADC at 2 MHz",
            f"{frame.adc_j * RATE_HZ:.0f} W",
            f"light that is detected: 1/{frame.adc_j / FAST.light_j:.0f} of it",
        ),
        (
            "read-out at 2 MHz",
            f"{FAST.pixels * RATE_HZ / 1e12:.1f} TB/s",
            "8 bits; no published timing counts it",
        ),
        (
            "frames that a real link carries",
            f"{link / (FAST.pixels * 8):.0f} a second",
            f"{link / 1e9:.0f} Gbit/s, CoaXPress 2.0 with four cables",
        ),
    ]
    return ["### Light, converters and read-out", "", *table(("what", "figure", "of"), rows, 3)]


def _claim(network: ShareNetwork) -> list[str]:
    times = gpu_times(network, KNOWN)
    claimed = KNOWN.claim["convshare_speedup"]
    rows = []
    for reading in READINGS.values():
        ours = image_s(network, FAST, RATE_HZ, reading, KNOWN.gpu)
        rates = [
            needed_hz(network, FAST, reading, KNOWN.gpu, item.seconds / claimed) for item in times
        ]
        rows.append(
            (
                reading.name,
                f"{frames_per_image(network, FAST, reading):.2f}",
                f"{ours * 1e6:.2f}",
                f"{times[0].seconds / ours:.2g} to {times[-1].seconds / ours:.2g}",
                f"{claimed * ours * 1e6:.1f}",
                f"{rates[-1] / 1e6:.1f} to {rates[0] / 1e6:.1f} MHz"
                if isfinite(rates[0])
                else "none",
            )
        )
    return [
        f"{network.tokens} tokens, {network.macs / 1e6:.1f} million products, "
        f"{network.batch(FAST):,} images a plane:",
        "",
        *table(
            (
                "counted",
                "frames an image",
                "µs an image at 2 MHz",
                "times the GPUs",
                "GPU µs at which it is 3.04",
                "frame rate at which it is 3.04",
            ),
            rows,
            1,
        ),
        "",
    ]


def _convshare() -> list[str]:
    network, other = NETWORKS
    times = gpu_times(network, KNOWN)
    gpus = [
        (one.name, f"{one.seconds * 1e6:.2f}", f"{two.seconds * 1e6:.2f}")
        for one, two in zip(times, gpu_times(other, KNOWN), strict=True)
    ]
    took = {
        name: image_s(network, FAST, RATE_HZ, reading, KNOWN.gpu)
        for name, reading in READINGS.items()
    }
    low, high = times[0].seconds, times[-1].seconds
    signed, masks = took["signed"], took["masks"] - took["scores"]
    claimed = KNOWN.claim["convshare_speedup"]
    rates = [2 * network.macs / (claimed * took[name]) / 1e12 for name in ("bare", "fatnet")]
    many = image_s(other, FAST, RATE_HZ, READINGS["fatnet"], KNOWN.gpu)
    rates.append(2 * other.macs / (claimed * many) / 1e12)
    measured = sorted(KNOWN.gpu_flop_s(row) / 1e12 for row in KNOWN.fatnet)
    return [
        '### ConvShareViT\'s "up to 3.04 times a GPU"',
        "",
        "Published without frame rate, resolution, batch or GPU "
        "(Ibadulla et al., arXiv 2504.11517). Counted here on 2160 x 2160 pixels at full planes: "
        "valid read-out, tokens of 8 x 8, depth 8, an MLP twice as wide, one head; 65 tokens, and "
        "145 as in the group's earlier code. "
        "Time on GPUs is that of the same products, at a stated roofline "
        f"({KNOWN.gpu.flop_s / 1e12:g} TFLOP/s, {KNOWN.gpu.bytes_s / 1e9:g} GB/s) and at the rates "
        "that FatNet's GPU had in FatNet's own table (1.350e-4, 1.167e-4, 4.565e-4 and 7.942e-4 s "
        "an image):",
        "",
        *table(("GPU", "µs an image, 65 tokens", "145 tokens"), gpus, 1),
        "",
        "What is counted grows from row to row, until all is counted that a bench does:",
        "",
        *_claim(NETWORKS[0]),
        *_claim(NETWORKS[1]),
        f"![Speed-up against frame rate]({CHART.name})",
        "",
        "What decides:",
        "",
        "- **3.04 is in reach of the model, not of a bench.** Two passes of one frame at 2 MHz "
        f"give it against a GPU that does {rates[0]:.1f} TFLOP/s on this network; FatNet's table "
        f"has {measured[0]:.1f} to {measured[-1]:.1f}. FatNet's own 2.000 µs a convolution give it "
        f"against {rates[1]:.1f} TFLOP/s, or {rates[2]:.1f} with 145 tokens: below all of the "
        "table.",
        "- 3,584 frames a plane load take the MLP's hidden token for one plane. Its second map "
        "reads two: 4,096 frames.",
        "- Tokens behind LayerNorm have signs: four passes, "
        f"{signed / took['hidden']:.1f} times the time. The ratio is then {low / signed:.2f} to "
        f"{high / signed:.2f}.",
        "- Scores cannot share a plane with other images: "
        f"{took['scores'] / signed:.1f} times again, with masks that cost nothing. Computing them, "
        f"two transforms of a plane in each block, takes a GPU at its peak {masks * 1e6:.0f} µs an "
        f"image, {masks / low:.0f} times the whole network there.",
        f"- At the link of a real camera one image takes {quantity(took['frames'], 's')}, or "
        f"{quantity(took['results'], 's')} if the camera sends nothing but results: "
        f"{took['frames'] / low:,.0f} and {took['results'] / low:.0f} times as long as the GPU's "
        "roofline. No frame rate helps.",
        f"- Light: at 1 W and 1e4 photons a pixel a frame takes {quantity(FAST.light_s, 's')}, so "
        f"that {1 / FAST.light_s / 1e6:.1f} MHz are the most, unless fewer photons will do.",
        "- None of these has softmax, norms, GELU, weighted values, or conversions; "
        "[estimates](optical_estimate.md) of models do.",
    ]


def section() -> list[str]:
    """The section, computed anew."""
    return [
        HEADING,
        "",
        "The model of `optical/cost.py` beside published timings and figures that follow from "
        "published ones. Sources are in `optical/published.toml` and `optical/systems`.",
        "",
        *_timings(),
        "",
        *_figures(),
        "",
        *_convshare(),
    ]


def chart(path: Path = CHART) -> None:
    """Draws the speed-up of one image against frame rate: what is counted, and the brackets."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9, "svg.fonttype": "path"}):
        figure = Figure(figsize=(8.4, 5.2), layout="constrained")
        axes = figure.subplots()
        _draw(axes)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw(axes: Axes) -> None:
    network, gpu = NETWORKS[0], KNOWN.gpu
    times = gpu_times(network, KNOWN)
    low, high = times[0].seconds, times[-1].seconds
    rates = [10 ** (3 + step / 4) for step in range(21)]
    lines = (
        ("bare", "#1f6f8b", "panels, 2 passes, no scores"),
        ("signed", "#b5432e", "panels, tokens split by sign: 4 passes"),
        ("scores", "#e0a03b", "panels, 4 passes and scores, masks given"),
    )
    for name, colour, label in lines:
        ours = [image_s(network, FAST, rate, READINGS[name], gpu) for rate in rates]
        axes.fill_between(
            rates, [low / s for s in ours], [high / s for s in ours], color=colour, alpha=0.25, lw=0
        )
        axes.plot(rates, [(low * high) ** 0.5 / s for s in ours], color=colour, label=label)
    light = frames_per_image(network, FAST, READINGS["signed"]) * FAST.light_s
    results = image_s(network, FAST, 1e12, READINGS["results"], gpu)
    whole = image_s(network, FAST, 1e12, READINGS["frames"], gpu)
    for seconds, style, label in (
        (light, "--", "light, 4 passes: 1 W, 1e4 photons a pixel"),
        (results, "-.", "read-out, 4 passes: results only, 50 Gbit/s"),
        (whole, ":", "read-out, 4 passes: whole frames, 50 Gbit/s"),
    ):
        axes.axhline((low * high) ** 0.5 / seconds, color="#4a4f57", ls=style, lw=1.2, label=label)
    axes.axhline(KNOWN.claim["convshare_speedup"], color="black", lw=0.8)
    axes.annotate("3.04, published", (1.2e3, 3.04), xytext=(0, 3), textcoords="offset points")
    for rate, text in ((2e4, "mirrors\n20 kHz"), (2e6, "assumed\n2 MHz")):
        axes.axvline(rate, color="#9aa3ad", lw=0.8)
        axes.annotate(text, (rate * 1.08, 2.2e-4), color="#4a4f57", va="bottom")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(rates[0], rates[-1]),
        ylim=(1e-4, 1e3),
        xlabel="frames a second",
        ylabel="times as fast as a GPU",
    )
    axes.set_title(
        "One image of a ConvShareViT at full planes; bands: GPUs from roofline to FatNet's table",
        fontsize=9,
        loc="left",
    )
    axes.legend(loc="upper left", fontsize=8, facecolor="white", edgecolor="none", framealpha=1)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Writes the section and the chart."""
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), section()), encoding="utf-8")
    chart()
    print(PAGE.name, CHART.name)


if __name__ == "__main__":
    main()
