"""docs/mpc_run.md shows the traffic that the closed forms give now."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.mpc_run import CASES, PAGE, RUNS, Case
from vitruvius.sim.mpc.operators import mpc_traffic
from vitruvius.sim.mpc.parties.operators import SECURE
from vitruvius.sim.mpc.protocols import load_protocol


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}, {case.choices}")
def test_rounds_and_bytes_are_up_to_date(case: Case) -> None:
    table = PAGE.read_text(encoding="utf-8").partition(RUNS[0])[2].partition(RUNS[1])[0]
    begin = f"| {case.model} | {case.choices or 'as published'} |"
    (row,) = [line for line in table.splitlines() if line.startswith(begin)]
    found = mpc_traffic(case.graph(), load_protocol("crypten"), case.options).values()
    online = [item.online for item in found]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[5:9] == [
        f"{sum(item.rounds for item in online):,}",
        f"{sum(item.sent_and_received for item in online):,}",
        f"{sum(item.offline.bytes_received for item in found):,}",
        "every operator",
    ]
    assert cells[3] == f"{case.images} of {case.images}"


def test_kinds_that_are_said_to_be_refused_are() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("Kinds with a cost but no evaluation")[2]
    named = text.partition(". They are listed")[0].partition(":")[2].replace("\n", " ")
    kinds = {name.strip() for name in named.split(",")}
    assert len(kinds) > 5
    assert not kinds & SECURE.keys()
