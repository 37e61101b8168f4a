"""docs/ivit.md holds what its generator makes: the data flow as it is now, the rest complete."""

from __future__ import annotations

from vitruvius.benchmarks.ivit import DEIT, PAGE, PARTS, SETTINGS, TRAINED, flow_table, marks
from vitruvius.benchmarks.ivit_published import REPLACED

# The column "integer type" of the data flow of I-ViT's block, as published, tensors 0 to 21.
TYPES = [16, 32, 8, 32, 8, 32, 8, 16, 32, 8, 32, 16, 16, 32, 8, 32, 8, 16, 8, 32, 16, 16]


def part(name: str) -> list[str]:
    begin, end = marks(name)
    page = PAGE.read_text(encoding="utf-8")
    return page.partition(begin)[2].partition(end)[0].strip("\n").split("\n")


def test_the_data_flow_is_that_of_the_model_today() -> None:
    """Catches an operator, a width or a bound that changed without the page."""
    lines = list(flow_table())
    assert part("dataflow") == lines
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[0] for row in cells] == [str(number) for number in range(len(TYPES))]
    assert [row[2] for row in cells] == [f"int{width}" for width in TYPES]


def test_every_model_and_setting_has_a_row() -> None:
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:3])
        for line in part("models")
        if line.startswith("| `")
    ]
    assert rows == [(f"`{name}`", setting) for name in (*TRAINED, *DEIT) for setting in SETTINGS]


def test_every_rule_that_can_be_replaced_has_a_row() -> None:
    names = [line.split("|")[1].strip() for line in part("losses")]
    assert [name for name in names if name in REPLACED.values()] == list(REPLACED.values())
    assert set(PARTS) == {"dataflow", "losses", "models"}
