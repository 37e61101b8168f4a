"""Writes the measured table of docs/autoneural.md: signal to noise of two encoders on codes.

    .venv/bin/python benchmarks/autoneural.py

Both see the same crops of photographs; a trained model stands beside them. Takes about a minute.
"""

from __future__ import annotations

from pathlib import Path

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.code_widths import CodeWidths
from vitruvius.models.datasets import photographs
from vitruvius.models.resolve import resolve_model
from vitruvius.models.sqnr import SqnrReport, rms_percent, sqnr_report
from vitruvius.models.trace import trace

PAGE = Path(__file__).parent.parent / "docs" / "autoneural.md"
MARKS = (
    "<!-- ratios, by benchmarks/autoneural.py; nothing from here on is typed by hand -->",
    "<!-- end of the ratios -->",
)
MODELS = ("autoneural_encoder_tiny", "internvit_tiny", "vit_mnistm")
WIDTHS = ("w8a16", "w4a16", "w4a16g32", "w8a8")
IMAGES, CALIBRATION = 4, 8
SIZE = (224, 224)

__all__ = ["MARKS", "MODELS", "PAGE", "WIDTHS", "lines", "main", "ratios"]


def ratios(name: str, images: int = IMAGES) -> SqnrReport:
    """The ratios of one model."""
    workload = resolve_model(name)
    graph = trace(workload.module, workload.example_inputs, name=name)
    widths = [CodeWidths.parsed(text) for text in WIDTHS]
    if workload.dataset is not None:
        data = workload.dataset
        given, measured = data.calibration_images[:CALIBRATION], data.test_images[:images]
    else:
        given, measured = photographs(CALIBRATION, SIZE), photographs(images, SIZE, seed=1)
    return sqnr_report(graph, given, measured, widths)


def lines(reports: list[SqnrReport]) -> list[str]:
    """A row for each model and width."""
    found = [
        "| model | widths | output | RMS error | least tensor | median tensor | largest outlier |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    for report in reports:
        worst = max(report.rows, key=lambda row: row.outlier)
        for place, output in enumerate(report.outputs):
            noisy = sorted(
                (item.sqnr_db, row.name)
                for row in report.rows
                if (item := row.by_width[place]).sqnr_db is not None
            )
            assert output.sqnr_db is not None
            found.append(
                f"| `{report.model}` | {output.widths} | {output.sqnr_db:.1f} dB "
                f"| {rms_percent(output.sqnr_db):.2f} % | {noisy[0][0]:.1f} dB, `{noisy[0][1]}` "
                f"| {noisy[len(noisy) // 2][0]:.1f} dB | {worst.outlier:.1f}, `{worst.name}` |"
            )
    images, given = reports[0].images, reports[0].calibration_images
    return [
        *found,
        "",
        f"{images} photographs of {SIZE[0]} pixels, scales from {given} others; `vit_mnistm`, "
        "which is trained: as many of its own images.",
    ]


def main() -> None:
    """Writes the page."""
    page = PAGE.read_text(encoding="utf-8")
    reports = [ratios(name) for name in MODELS]
    PAGE.write_text(replaced(page, *MARKS, lines(reports)), encoding="utf-8")


if __name__ == "__main__":
    main()
