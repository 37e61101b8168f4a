"""The report as one HTML page: no outside resources, the same bytes for the same input."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment, StrictUndefined

from ..sim.cosim import StepComparison
from .demo import DemoReport, Sample, cycle_range
from .quantities import count, percent, quantity

__all__ = ["demo_page"]


@dataclass(frozen=True)
class _Logit:
    """One class of one sample; ``bar`` is the integer logit, scaled so that the largest is 100."""

    label: int
    in_float: str
    integer: str
    rtl: str
    equal: bool
    best: bool
    bar: float


@dataclass(frozen=True)
class _Group:
    """Consecutive steps of one part of the model, with their sums."""

    name: str
    steps: tuple[StepComparison, ...]
    predicted: int
    measured: int


def demo_page(report: DemoReport) -> str:
    """The page of ``report``, as HTML text."""
    template = resources.files(__package__).joinpath("templates/report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, percent=percent, quantity=_unbroken)
    cosim = report.cosim
    groups = _groups(cosim.steps)
    page = environment.from_string(template).render(
        report=report,
        estimate=report.estimate,
        cosim=cosim,
        predicted=cycle_range(cosim.predicted_cycles),
        measured=cycle_range(cosim.rtl_cycles),
        total_macs=sum(row.macs for row in report.operators),
        total_params=sum(row.params for row in report.operators),
        total_operators=sum(row.count for row in report.operators),
        groups=groups,
        longest_step=max((max(s.predicted, s.measured) for s in cosim.steps), default=1),
        longest_group=max((max(g.predicted, g.measured) for g in groups), default=1),
        kinds=_kinds(cosim.steps),
        samples=[(sample, _logits(sample)) for sample in report.samples],
    )
    return page.lstrip() + "\n"


def _unbroken(value: float, unit: str) -> str:
    """A quantity that is not broken between number and unit."""
    return quantity(value, unit).replace(" ", "\N{NO-BREAK SPACE}")


def _groups(steps: tuple[StepComparison, ...]) -> list[_Group]:
    """Steps gathered by the first two parts of their names: "blocks.0", "head"."""
    groups = []
    for name, members in groupby(steps, key=lambda step: _part(step.name)):
        rows = tuple(members)
        groups.append(
            _Group(
                name, rows, sum(row.predicted for row in rows), sum(row.measured for row in rows)
            )
        )
    return groups


def _part(name: str) -> str:
    words = name.split(".")
    return ".".join(words[:2]) if len(words) > 1 and words[1].isdigit() else words[0]


def _kinds(steps: tuple[StepComparison, ...]) -> list[tuple[str, int, float]]:
    """(kind, RTL cycles, share of all) of the steps, most cycles first."""
    cycles: dict[str, int] = {}
    for step in steps:
        cycles[step.kind] = cycles.get(step.kind, 0) + step.measured
    total = sum(cycles.values()) or 1
    rows = sorted(cycles.items(), key=lambda item: (-item[1], item[0]))
    return [(kind, amount, amount / total) for kind, amount in rows]


def _logits(sample: Sample) -> list[_Logit]:
    largest = max((abs(code) for code in sample.integer_codes), default=0) or 1
    best = max(range(len(sample.rtl_codes)), key=lambda label: sample.rtl_codes[label])
    return [
        _Logit(
            label=label,
            in_float=f"{sample.float_logits[label]:.4f}",
            integer=f"{sample.integer_codes[label] * sample.scale:.4f}",
            rtl=f"{sample.rtl_codes[label] * sample.scale:.4f}",
            equal=sample.integer_codes[label] == sample.rtl_codes[label],
            best=label == best,
            bar=round(100 * sample.integer_codes[label] / largest, 1),
        )
        for label in range(len(sample.rtl_codes))
    ]
