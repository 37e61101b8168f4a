"""What every choice of secure inference is worth: the table of docs/mpc.md, and its chart.

.venv/bin/python benchmarks/mpc_options.py
"""

from __future__ import annotations

from vitruvius.benchmarks import marked_page
from vitruvius.benchmarks.mpc_models import NO_WEIGHTS, graph_of, table
from vitruvius.benchmarks.validation_systolic import PAGE as VALIDATION
from vitruvius.reports.mpc_chart import mpc_chart
from vitruvius.sim.mpc.report import estimate_mpc
from vitruvius.sim.mpc.target import load_mpc, mpc_settings

__all__ = ["BEGIN", "END", "PAGE", "main", "options_lines"]

PAGE = VALIDATION.parent / "mpc.md"
CHART = PAGE.parent / "mpc.svg"
BEGIN = "<!-- options, by benchmarks/mpc_options.py; nothing from here on is typed by hand -->"
END = "<!-- end of the options -->"
NETS = ("lan", "wan")
CHOICES = (
    "",
    "maximum=tree",
    "maximum=pairs",
    "division=element",
    "weights=once",
    "rsqrt=goldschmidt",
    "heads=apart",
    "gelu=sigmoid",
    "gelu=pieces",
    "softmax=relu",
    "softmax=2quad",
    "softmax=scale",
    "gelu=quad",
    "maximum=tree,gelu=pieces,weights=once,rsqrt=goldschmidt",
    "softmax=scale,gelu=quad,weights=once,rsqrt=goldschmidt",
)


def options_lines() -> list[str]:
    """What each choice changes on the CIFAR ViT under CrypTen's protocol."""
    graph = graph_of("CIFAR", None, NO_WEIGHTS)
    rows = []
    for choice in CHOICES:
        settings = mpc_settings([choice] if choice else [])
        found = [estimate_mpc(graph, load_mpc(f"mpc:crypten-{net}", settings)) for net in NETS]
        rows.append(
            (
                f"`{choice}`" if choice else "as CrypTen does it",
                f"{found[0].online.rounds:,}",
                f"{found[0].online.bytes_sent / 1e6:,.1f}",
                f"{found[0].offline.bytes_received / 1e6:,.1f}",
                *(f"{item.latency_s:.2f}" for item in found),
            )
        )
    return table(("choice", "rounds", "MB sent", "MB dealt", "LAN, s", "WAN, s"), rows)


def chart() -> None:
    """Draws what the kinds of operators take, under three protocols."""
    graph = graph_of("CIFAR", None, NO_WEIGHTS)
    names = ("crypten-wan", "semi2k-wan", "aby3-wan")
    mpc_chart([estimate_mpc(graph, f"mpc:{name}") for name in names], CHART)


def main() -> None:
    """Writes the table and draws the chart."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(marked_page.replaced(page, BEGIN, END, options_lines()), encoding="utf-8")
    chart()
    print(PAGE.name, CHART.name)


if __name__ == "__main__":
    main()
