"""The report as one HTML page: no outside resources, the same bytes for the same input."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment, StrictUndefined

from ..sim.estimate import OperatorCost
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
    """Consecutive operators of one part of the model, with the sums of their cycles."""

    name: str
    operators: int
    cycles: int
    product_cycles: int


def demo_page(report: DemoReport) -> str:
    """The page of ``report``, as HTML text."""
    template = resources.files(__package__).joinpath("templates/report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, percent=percent, quantity=_unbroken)
    cosim = report.cosim
    operators = report.estimate.operators
    groups = _groups(operators)
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
        longest_group=max((group.cycles for group in groups), default=1),
        longest_counter=max((max(pair) for pair in cosim.counters.values()), default=1) or 1,
        causes=_causes(operators),
        samples=[(sample, _logits(sample)) for sample in report.samples],
    )
    return page.lstrip() + "\n"


def _unbroken(value: float, unit: str) -> str:
    """A quantity that is not broken between number and unit."""
    return quantity(value, unit).replace(" ", "\N{NO-BREAK SPACE}")


def _groups(operators: tuple[OperatorCost, ...]) -> list[_Group]:
    """Operators gathered by the first two parts of their names: "blocks.0", "head"."""
    groups = []
    for name, members in groupby(operators, key=lambda item: _part(item.name)):
        rows = tuple(members)
        cycles = sum(row.cycles for row in rows)
        groups.append(_Group(name, len(rows), cycles, sum(row.product_cycles for row in rows)))
    return groups


def _part(name: str) -> str:
    words = name.split(".")
    return ".".join(words[:2]) if len(words) > 1 and words[1].isdigit() else words[0]


def _causes(operators: tuple[OperatorCost, ...]) -> list[tuple[str, int, float]]:
    """(counter, cycles, share of all): where the cycles of one image went, most first."""
    cycles = {"PRODUCT_CYCLES": sum(item.product_cycles for item in operators)}
    for item in operators:
        for name, lost in item.lost.items():
            cycles[name] = cycles.get(name, 0) + lost
    total = sum(item.cycles for item in operators) or 1
    cycles["start, last drain and store"] = total - sum(cycles.values())
    rows = sorted(cycles.items(), key=lambda item: (-item[1], item[0]))
    return [(name, amount, amount / total) for name, amount in rows if amount]


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
