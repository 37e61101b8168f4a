"""AutoNeural's published figures beside ours: a section of docs/validation.md.

    .venv/bin/python benchmarks/validation_autoneural.py

Models are traced by their shapes, no weights are made; takes about a minute.
"""

from __future__ import annotations

from vitruvius.benchmarks.validation_systolic import PAGE, replaced
from vitruvius.models.resolve import entry_workload, resized, zoo_entry
from vitruvius.models.trace import trace_shapes
from vitruvius.models.zoo.language_config import LanguageConfig
from vitruvius.models.zoo.network_file import NETWORKS
from vitruvius.sim.npu.language import LanguagePoint, language_report
from vitruvius.sim.npu.report import NpuEstimate, estimate_npu
from vitruvius.sim.npu.target import load_npu, with_precision

HEADING = "## AutoNeural"
TARGET = "sa8295p"
PATCH = 14
# AutoNeural (arXiv 2512.02924; README of its repository): encoder latency in ms on the SA8295P.
ENCODERS_MS = {256: (163.3, 28.0), 512: (1415.0, 101.7), 768: (None, 278.1)}
TOKENS_PER_S = 44.0
TIME_TO_FIRST_S = 0.1
IMAGE_TOKENS = 256  # a token for each place of the encoder's 16 x 16
CONTEXTS = (1, 1024, 4096)
# AutoNeural's 60 % less memory traffic of attention, from the abstract's account.
LESS_TRAFFIC = 0.6

__all__ = ["HEADING", "encoders", "main", "section"]


def encoders() -> dict[int, tuple[NpuEstimate, NpuEstimate]]:
    """InternViT-300M and the convolutional encoder, by the published image size."""
    found = {}
    for size in ENCODERS_MS:
        pair = []
        for name, own in (
            ("internvit_300m", size // PATCH * PATCH),
            ("autoneural_encoder", size),
        ):
            entry = zoo_entry(name)
            assert entry is not None
            workload = entry_workload(resized(entry, own), shapes=True)
            graph = trace_shapes(workload.module, workload.example_inputs, name=workload.name)
            pair.append(estimate_npu(graph, with_precision(load_npu(TARGET), "w8a16")))
        found[size] = (pair[0], pair[1])
    return found


def decode() -> list[LanguagePoint]:
    """LFM2-1.2B, a token behind each of the contexts."""
    config = NETWORKS["lfm2_1.2b"].config
    assert isinstance(config, LanguageConfig)
    target = with_precision(load_npu(TARGET), "w4a16")
    return list(language_report("lfm2_1.2b", config, target, CONTEXTS, ["decode"]).points)


def prefill() -> LanguagePoint:
    """LFM2-1.2B over the tokens of one image."""
    config = NETWORKS["lfm2_1.2b"].config
    assert isinstance(config, LanguageConfig)
    target = with_precision(load_npu(TARGET), "w4a16")
    return language_report("lfm2_1.2b", config, target, [IMAGE_TOKENS], ["prefill"]).points[0]


def large_latency(found: dict[int, tuple[NpuEstimate, NpuEstimate]]) -> float:
    """Seconds of the convolutional encoder at 512 pixels."""
    return found[512][1].latency_s


def _deviation(predicted: float, published: float) -> str:
    return f"{predicted / published - 1:+.0%}"


def section() -> list[str]:
    """The section's lines."""
    found, points = encoders(), decode()
    target = load_npu(TARGET)
    rate = target.dram.bytes_per_s * target.dram.efficiency
    return [
        HEADING,
        "",
        "    .venv/bin/python benchmarks/validation_autoneural.py",
        "",
        f"Formulas on `npu:{TARGET}`, a stand-in for Qualcomm's SA8295P whose array, buffers and "
        "latencies are guesses,",
        "against what AutoNeural (arXiv 2512.02924 and its repository) measured on the part. "
        "Nothing is fitted to a latency or",
        "a rate below; the memory limit alone was chosen between two outcomes, as told there. What "
        "the figures rest on is beneath them.",
        "",
        "### Vision encoders, W8A16",
        "",
        *_encoder_lines(found),
        "",
        "### Memory",
        "",
        *_memory_lines(found, points),
        "",
        "### Decoding, W4A16",
        "",
        *_decode_lines(points, rate),
        "",
        "### Assumed",
        "",
        *_assumed(),
    ]


def _encoder_lines(found: dict[int, tuple[NpuEstimate, NpuEstimate]]) -> list[str]:
    lines = [
        "| image | ViT: predicted | published | convolutional: predicted | published | deviation "
        "| ratio: predicted | published | deviation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, (vit, conv) in found.items():
        theirs_vit, theirs_conv = ENCODERS_MS[size]
        ours_vit, ours_conv = vit.latency_s * 1e3, conv.latency_s * 1e3
        ratio = ours_vit / ours_conv
        fits = vit.memory_use is None or vit.memory_use.fits
        if theirs_vit is None:
            published, theirs, off = "out of memory", "-", "-"
        else:
            published = f"{theirs_vit:g} ms ({_deviation(ours_vit, theirs_vit)})"
            theirs = f"{theirs_vit / theirs_conv:.1f}"
            off = _deviation(ratio, theirs_vit / theirs_conv)
        shown = f"{ours_vit:.1f} ms" + ("" if fits else ", does not fit")
        lines.append(
            f"| {size} x {size} | {shown} | {published} | {ours_conv:.1f} ms "
            f"| {theirs_conv:g} ms | {_deviation(ours_conv, theirs_conv)} | {ratio:.1f} | {theirs} "
            f"| {off} |"
        )
    small, large = found[256], found[512]
    grow = [large[place].latency_s / small[place].latency_s for place in (0, 1)]
    theirs_grow = [1415.0 / 163.3, 101.7 / 28.0]
    first, theirs_first = large_latency(found) + prefill().latency_s, TIME_TO_FIRST_S
    return [
        *lines,
        "",
        f"Time to the first token with one image of 512 pixels: {first * 1e3:.0f} ms predicted "
        f"(encoder, then prefill of {IMAGE_TOKENS} tokens, which is assumed), about "
        f"{theirs_first * 1e3:.0f} ms published ({_deviation(first, theirs_first)}).",
        f"From 256 to 512 pixels the ViT takes {grow[0]:.1f} times as long (published "
        f"{theirs_grow[0]:.1f}), the convolutional encoder {grow[1]:.1f} times (published "
        f"{theirs_grow[1]:.1f}).",
        "The ratio between the two is missed: the part takes many times longer for the ViT than "
        "its advertised rate allows,",
        "and less than twice as long as predicted for convolutions. What its runtime does with "
        "attention and 16-bit matrices is not known and not modelled.",
    ]


def _memory_lines(
    found: dict[int, tuple[NpuEstimate, NpuEstimate]], points: list[LanguagePoint]
) -> list[str]:
    lines = [
        "| model | weights | activations and what is kept | peak | limit (assumed) | fits "
        "| published |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    rows = []
    for size, (vit, conv) in found.items():
        for name, item in (("InternViT-300M", vit), ("convolutional", conv)):
            ran = "out of memory" if ENCODERS_MS[size][0] is None and item is vit else "runs"
            rows.append((f"{name}, {size} x {size}", item, ran))
    rows.append((f"LFM2-1.2B, decode at {points[-1].context:,}", points[-1].estimate, "runs"))
    runs, out = [], []
    for name, item, ran in rows:
        use = item.memory_use
        assert use is not None and use.limit_bytes is not None
        (runs if ran == "runs" else out).append(use.peak_bytes)
        rest = use.peak_bytes - use.weight_bytes
        sizes = [use.weight_bytes, rest, use.peak_bytes, use.limit_bytes]
        cells = " | ".join(f"{one / 2**20:,.0f} MiB" for one in sizes)
        lines.append(f"| {name} | {cells} | {'yes' if use.fits else 'no'} | {ran} |")
    return [
        *lines,
        "",
        f"Any limit from {max(runs) / 2**20:,.0f} to {min(out) / 2**20:,.0f} MiB gives these "
        "outcomes; the part's is not published, and the assumed one lies between them, so that",
        "the last column confirms nothing beyond the order of the sizes. Scores and softmax "
        "outputs of all heads lie in memory (assumed).",
    ]


def _decode_lines(points: list[LanguagePoint], rate: float) -> list[str]:
    config = NETWORKS["lfm2_1.2b"].config
    assert isinstance(config, LanguageConfig)
    weights = config.parameters / 2
    kept = 2 * config.kv_values_per_token
    all_layers = kept / len(config.attention) * config.depth
    last = points[-1]
    lines = [
        "| figure | ours | published | deviation | what is assumed |",
        "| --- | ---: | ---: | ---: | --- |",
        f"| weights read for a token | {points[0].weight_bytes / 1e9:.3f} GB | {weights / 1e9:.3f} "
        f"GB (1.17 B x 4 bits) | {_deviation(points[0].weight_bytes, weights)} | a scale for an "
        "output, not counted in the traffic |",
        f"| rate of the weights | {rate / 1e9:.1f} GB/s | {TOKENS_PER_S * weights / 1e9:.1f} GB/s "
        f"({TOKENS_PER_S:g} tokens/s x {weights / 1e9:.3f} GB) "
        f"| {_deviation(rate, TOKENS_PER_S * weights)} | `dram.efficiency` of the target, on the "
        "vendor's 66.9 GB/s |",
    ]
    for point in points:
        lines.append(
            f"| tokens/s at context {point.context:,} | {point.tokens_per_s:.1f} | "
            f"{TOKENS_PER_S:g} (context not told) | {_deviation(point.tokens_per_s, TOKENS_PER_S)} "
            "| the rate above; host and sampling take nothing |"
        )
    less = 1 - kept / all_layers
    return [
        *lines,
        f"| at the published rate, context {last.context:,} | "
        f"{1 / (last.dram_bytes / (TOKENS_PER_S * weights)):.1f} tokens/s | {TOKENS_PER_S:g} | "
        f"{_deviation(weights / last.dram_bytes, 1)} | bytes alone, at "
        f"{TOKENS_PER_S * weights / 1e9:.1f} GB/s |",
        f"| keys and values a token | {last.cache_bytes // last.context:,} B | {kept:,} B | "
        f"{_deviation(last.cache_bytes / last.context, kept)} | 16 bits; published: layers, heads "
        "and widths |",
        f"| keys and values at {last.context:,} | {last.cache_bytes / 2**20:g} MiB | "
        f"{kept * last.context / 2**20:g} MiB | "
        f"{_deviation(last.cache_bytes, kept * last.context)} | the same |",
        f"| states of the convolutions | {last.state_bytes:,} B | {2 * config.state_values:,} B | "
        f"{_deviation(last.state_bytes, 2 * config.state_values)} | 16 bits, two vectors a layer |",
        f"| less than attention in all layers | {less:.1%} | about {LESS_TRAFFIC:.0%} (memory "
        f"traffic) | {100 * (less - LESS_TRAFFIC):+.1f} points | {config.depth} layers of the same "
        "heads |",
        "",
        "Figures of the published column for keys, values and states follow from LFM2's public "
        "configuration; they check the traced graph, not a measurement.",
    ]


def _assumed() -> list[str]:
    target = load_npu(TARGET)
    guesses = [
        f"- `{path}`: {text.removeprefix('assumed: ')}"
        for path, text in sorted(target.sources.items())
        if text.startswith("assumed: ")
    ]
    return [
        "- the convolutional encoder has the stages of `mobilenetv5_300m_enc` in timm; AutoNeural "
        "publishes none of its own",
        f"- InternViT takes the largest multiple of its patches of {PATCH} pixels: 252, 504 and "
        "756; it is estimated with the widths of AutoNeural's encoder",
        "- operators run one after another; heads of an attention follow each other",
        *guesses,
    ]


def main() -> None:
    """Writes the section."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, section()), encoding="utf-8")


if __name__ == "__main__":
    main()
