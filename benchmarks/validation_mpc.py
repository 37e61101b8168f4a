"""Secure inference beside what others counted and published: a section of docs/validation.md.

    .venv/bin/python benchmarks/validation_mpc.py

Takes a minute or two.
"""

from __future__ import annotations

from vitruvius.benchmarks.mpc_models import NO_WEIGHTS, data, graph_of, percent, table
from vitruvius.benchmarks.validation_mpc_latency import latencies
from vitruvius.benchmarks.validation_systolic import PAGE, replaced
from vitruvius.models.graph import Graph
from vitruvius.sim.mpc import replacements
from vitruvius.sim.mpc.operators import mpc_traffic, setup_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.traffic import Traffic

HEADING = "## Secure inference"
BY_ELEMENT = MpcOptions(division="element")

__all__ = ["HEADING", "counts", "main", "section"]


def _plain(size: str, attention: str, activation: str, layers: int) -> Graph:
    """The model that was counted: no weights in its norms; replacements by the pass."""
    graph = graph_of(size, layers, NO_WEIGHTS)
    return replacements.replaced(
        graph,
        softmax=None if attention == "softmax" else attention,
        gelu=None if activation == "gelu" else activation,
    )


def _counted(graph: Graph, protocol: str, options: MpcOptions | None = None) -> Traffic:
    """Rounds and bytes without the opening of the result, which was not counted."""
    found = mpc_traffic(graph, load_protocol(protocol), options)
    own = (item.online for name, item in found.items() if name not in graph.outputs)
    return sum(own, Traffic())


def _crypten() -> list[str]:
    counted, protocol = data("crypten"), load_protocol("crypten")
    rows = []
    for function, shapes, rounds, size in counted["rows"]:
        found = protocol.traffic(function, tuple(map(tuple, shapes))).online
        if function in ("convolution", "linear"):
            shapes = shapes[:2]
        rows.append(
            (
                f"`{function}`",
                ", ".join("x".join(map(str, shape)) for shape in shapes),
                f"{found.rounds}",
                f"{rounds}",
                f"{found.sent_and_received:,}",
                f"{size:,}",
                percent(found.sent_and_received, size),
            )
        )
    models = []
    for attention, measured in counted["models"].items():
        total = _counted(_plain("CIFAR", attention, "gelu", 7), "crypten")
        models.append(
            (
                f"CIFAR ViT, {attention}, GELU",
                "7 layers",
                f"{total.rounds}",
                f"{measured['rounds']}",
                f"{total.sent_and_received:,}",
                f"{measured['bytes']:,}",
                percent(total.sent_and_received, measured["bytes"]),
            )
        )
    return [
        "### Counts of CrypTen",
        "",
        f"Bytes that one party sent and received. {counted['source']}.",
        "",
        *table(
            ("function", "shape", "rounds", "counted", "bytes", "counted", "error"),
            [*rows, *models],
            2,
        ),
    ]


def _spu() -> list[str]:
    rows = []
    for size, layers, attention, activation, by_element, by_row, actions in data("semi2k")[
        "models"
    ]:
        graph = _plain(size, attention, activation, layers)
        for division, measured in (("element", by_element), ("row", by_row)):
            options = MpcOptions.model_validate({"division": division})
            total = _counted(graph, "semi2k", options)
            rows.append(
                (
                    f"SEMI2K: {size}, {layers} layer{'s' if layers > 1 else ''}, {attention}, "
                    f"{activation}, division by {division}",
                    f"{total.rounds}",
                    f"{actions}",
                    f"{total.bytes_sent:,}",
                    f"{measured:,}",
                    percent(total.bytes_sent, measured),
                )
            )
    for function, shapes, fewest, most, size, _ in data("aby3")["rows"]:
        found = load_protocol("aby3").traffic(function, tuple(map(tuple, shapes)), BY_ELEMENT)
        rows.append(
            (
                f"ABY3: `{function}` of {' and '.join('x'.join(map(str, s)) for s in shapes)}",
                f"{found.online.rounds}",
                f"{fewest} to {most}",
                f"{found.online.bytes_sent:,}",
                f"{size:,.0f}",
                percent(found.online.bytes_sent, size),
            )
        )
    protocol = load_protocol("cheetah")
    for attention, activation, sent, _ in data("cheetah")["blocks_mb"]:
        graph = _plain("CIFAR", attention, activation, 1)
        total = _counted(graph, "cheetah") + setup_traffic(graph, protocol)
        rows.append(
            (
                f"CHEETAH: CIFAR, 1 layer, {attention}, {activation} (a fit to these four)",
                "-",
                "-",
                f"{total.bytes_sent:,}",
                f"{1e6 * sent:,.0f}",
                percent(total.bytes_sent, 1e6 * sent),
            )
        )
    return [
        "### Counts of SPU",
        "",
        "Bytes that one party sent, and its sends; SPU 0.9.5, 64-bit ring, 18 fraction bits. "
        "SEMI2K is exact once it is known that SPU takes the products of several heads one after "
        "another and that XLA makes one constant of 1/√d and 1/N. ABY3's rows were written down "
        "to three digits, its sends differ by party.",
        "",
        *table(("what", "rounds", "sends counted", "bytes", "counted", "error"), rows),
    ]


def counts() -> list[str]:
    """The part about counts."""
    return [*_crypten(), "", *_spu()]


def section() -> list[str]:
    """The section, computed anew."""
    return [
        HEADING,
        "",
        "Closed forms by `sim/mpc` beside the counters of two libraries; the same forms as latency "
        "beside published seconds. That a running evaluation moves exactly these bytes is on "
        "[its own page](mpc_run.md).",
        "",
        *counts(),
        "",
        *latencies(),
    ]


def main() -> None:
    """Writes the section."""
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), section()), encoding="utf-8")
    print(PAGE.name)


if __name__ == "__main__":
    main()
