"""What the demonstration found, gathered for the terminal's table and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import VitruviusError
from .quantities import count

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..sim.cosim import CosimReport
    from ..sim.estimate import Estimate

__all__ = ["DemoReport", "OperatorKind", "Sample", "cycle_range", "operator_kinds", "verdict"]


@dataclass(frozen=True)
class OperatorKind:
    """All operators of one kind: how many, their multiply-accumulates and parameters."""

    kind: str
    count: int
    macs: int
    params: int


@dataclass(frozen=True)
class Sample:
    """One test image and its logits on the three ways, class by class.

    pixels: rows from the top, 0 (paper) to 1 (ink). ``integer_codes`` and ``rtl_codes`` are the
    golden's and the hardware's output; a code times ``scale`` is the logit.
    """

    index: int
    label: int | None
    pixels: tuple[tuple[float, ...], ...]
    float_logits: tuple[float, ...]
    integer_codes: tuple[int, ...]
    rtl_codes: tuple[int, ...]
    scale: float

    def __post_init__(self) -> None:
        lengths = {len(self.float_logits), len(self.integer_codes), len(self.rtl_codes)}
        if len(lengths) != 1:
            raise VitruviusError(
                f"sample {self.index}: expected as many logits on every way, got "
                f"{len(self.float_logits)} float, {len(self.integer_codes)} integer, "
                f"{len(self.rtl_codes)} RTL"
            )

    @property
    def bit_exact(self) -> bool:
        return self.integer_codes == self.rtl_codes


@dataclass(frozen=True)
class DemoReport:
    """One model on one machine, from float to RTL.

    Accuracies are shares of ``test_images``; ``multipliers`` are those of the machine; ``samples``
    are some of the co-simulated images; ``versions`` are (name, version) pairs.
    """

    multipliers: int
    operators: tuple[OperatorKind, ...]
    test_images: int
    float_accuracy: float
    integer_accuracy: float
    cosim: CosimReport
    estimate: Estimate
    samples: tuple[Sample, ...]
    versions: tuple[tuple[str, str], ...]

    @property
    def agrees(self) -> bool:
        """The hardware gave the golden's bits in the predicted cycles."""
        return self.cosim.bit_exact_images == self.cosim.images and self.cosim.cycle_exact

    @property
    def verdict(self) -> str:
        """How many images are bit-exact, and whether the cycles are as predicted."""
        return verdict(self.cosim)


def verdict(cosim: CosimReport) -> str:
    """The sentence on top of every report of a co-simulation."""
    what = "cycles" if cosim.timed else "words and beats"
    how = "equal" if cosim.cycle_exact else "differ"
    return f"{cosim.bit_exact_images} of {cosim.images} images bit-exact, predicted {what} {how}"


def cycle_range(cycles: Sequence[int]) -> str:
    """Cycles per image: one number where all images agree, otherwise least to most; "-" where there
    is none.
    """
    if not cycles:
        return "-"
    least, most = min(cycles), max(cycles)
    return count(least) if least == most else f"{count(least)} to {count(most)}"


def operator_kinds(graph: Graph) -> tuple[OperatorKind, ...]:
    """The graph's operators by kind, most multiply-accumulates first, then by name."""
    kinds: dict[str, list[int]] = {}
    for item in graph.operators():
        row = kinds.setdefault(item.kind, [0, 0, 0])
        row[0] += 1
        row[1] += item.macs
        row[2] += item.params
    rows = [OperatorKind(kind, *numbers) for kind, numbers in kinds.items()]
    return tuple(sorted(rows, key=lambda row: (-row.macs, -row.params, row.kind)))
