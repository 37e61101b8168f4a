"""What an NPU does for one product, and which NPUs are shipped, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, percent, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..sim.npu.report import GemmReport
    from ..sim.npu.target import NpuTarget

__all__ = ["gemm_table", "targets_table"]


def gemm_table(report: GemmReport) -> Group:
    """Cycles and their parts, folds, utilisation, traffic and energy of one product."""
    detail = report.detail
    table = plain(["", "value", ""], numbers=["value"])
    latency = detail.cycles / report.clock_hz
    table.add_row("cycles", count(detail.cycles), f"{quantity(latency, 's')}")
    table.add_row("  products", count(detail.product_cycles), "the array streams")
    for cause, cycles in detail.stalls.items():
        table.add_row(f"  {cause}", count(cycles), "")
    table.add_row("ideal", count(report.ideal_cycles), "every cell useful in every cycle")
    table.add_row("SCALE-Sim", count(report.scalesim_cycles), "every fold alone, no memory")
    table.add_section()
    table.add_row("tile", detail.tiling, "M x N x K, loops from outermost, in the cells")
    table.add_row("tiles", count(detail.tiles), "")
    table.add_row("folds", count(detail.folds), "")
    mapping, used = percent(detail.mapping_utilisation), percent(detail.utilisation)
    table.add_row("mapping utilisation", mapping, "useful cells while the array streams")
    table.add_row("utilisation", used, "useful products in all cycles")
    table.add_row("bottleneck", escape(detail.bottleneck), "")
    table.add_section()
    for operand, size in detail.dram_bytes.items():
        table.add_row(f"DRAM: {operand}", quantity(size, "B"), "")
    for buffer, (read, written) in detail.sram_bytes.items():
        text = f"{quantity(read, 'B')} read, {quantity(written, 'B')} written"
        table.add_row(f"SRAM: {buffer}", quantity(read + written, "B"), text)
    table.add_section()
    table.add_row("energy", quantity(sum(detail.energy_j.values()), "J"), "")
    for action, joules in sorted(detail.energy_j.items(), key=lambda item: -item[1]):
        table.add_row(f"  {action}", quantity(joules, "J"), "")
    how = "" if report.overlap else ", no overlap: as SCALE-Sim, memory never waits"
    return titled(
        f"[{report.M} x {report.K}] x [{report.K} x {report.N}] on {report.target}, "
        f"{report.rows} x {report.cols} cells at {quantity(report.clock_hz, 'Hz')}{how}",
        table,
    )


def targets_table(targets: Sequence[NpuTarget]) -> Group:
    """The NPUs that are shipped."""
    numbers = ["clock", "peak", "operands", "sums", "activations", "DRAM", "lanes"]
    table = plain(["target", "array", "in cells", *numbers], numbers=numbers)
    for target in targets:
        buffers = target.buffers
        operands = buffers.scratchpad_kib or (buffers.input_kib or 0) + (buffers.weight_kib or 0)
        table.add_row(
            escape(target.target),
            f"{target.array.rows} x {target.array.cols}",
            target.array.dataflow,
            quantity(target.clock_hz, "Hz"),
            quantity(2 * target.cells * target.clock_hz, "op/s"),
            f"{count(operands)} KiB",
            f"{count(buffers.output_kib)} KiB",
            f"{count(buffers.activation_kib)} KiB",
            quantity(target.dram.bytes_per_s, "B/s"),
            count(target.vector.lanes),
        )
    return titled(
        "NPUs", table, "A file like those in sim/npu/targets describes another: npu:mine.toml"
    )
