"""Machine files: the shipped ones, and every way to get one wrong."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.machine import load_machine, machine_names

GOOD = """
name = "mine"
rows = 2
cols = 3
depth = 4
clock_hz = 100e6
[buffers]
token = 4
normal = 1
image = 1
key = 1
value = 1
attention = 1
residual = 2
constant = 2
weight = 8
column = 4
norm_column = 1
tokens = 16
features = 64
results = 16
products = 64
norms = 8
fetches = 64
"""


def test_shipped_machines_have_the_promised_multipliers():
    assert machine_names() == ["base", "experts", "large", "medium", "small"]
    sizes = {name: load_machine(name).multipliers for name in machine_names()}
    assert sizes == {"small": 64, "medium": 256, "large": 1024, "base": 1024, "experts": 1024}


def test_a_file_gives_a_machine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    machine = load_machine(str(path))
    assert (machine.rows, machine.cols, machine.depth) == (2, 3, 4)
    assert machine.digest == load_machine(str(path)).digest
    path.write_text(GOOD.replace("rows = 2", "rows = 3"))
    assert machine.digest != load_machine(str(path)).digest


def test_packing_halves_the_dsps_where_they_are_wide_enough(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("rows = 2", "rows = 3"))
    apart = load_machine(str(path))
    path.write_text(GOOD.replace("rows = 2", "rows = 3\npacking = true"))
    packed = load_machine(str(path))
    assert (apart.packing, packed.packing) == (False, True)
    assert apart.digest != packed.digest
    assert packed.multipliers == apart.multipliers == 36
    # Two of three rows share; the third has multipliers of its own.
    assert [machine.dsps("ultrascale+") for machine in (apart, packed)] == [36, 24]
    assert [machine.dsps("ecp5") for machine in (apart, packed)] == [36, 36]


@pytest.mark.parametrize(
    ("cols", "depth", "lanes"), [(4, 4, 4), (5, 7, 7), (6, 4, 8), (17, 4, 32), (1, 9, 9)]
)
def test_a_buffer_row_holds_a_chunk_and_whole_words(tmp_path, cols, depth, lanes):
    path = tmp_path / "mine.toml"
    path.write_text(
        GOOD.replace("cols = 3", f"cols = {cols}").replace("depth = 4", f"depth = {depth}")
    )
    machine = load_machine(str(path))
    assert machine.lanes == lanes
    assert machine.lanes >= cols
    assert machine.lanes % depth == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows = 2", "rows = 0", "rows: input should be greater than 0, got 0"),
        ("cols = 3", "cols = 2.5", "cols: input should be a valid integer, got 2.5"),
        ("depth = 4", 'depth = "4"', "depth: input should be a valid integer, got '4'"),
        ("key = 1", "key = -1", "buffers.key: input should be greater than 0, got -1"),
        ("rows = 2", "row = 2", "rows: field required"),
        ("rows = 2", "row = 2", "row: extra inputs are not permitted, got 2"),
        ("depth = 4", "depth = 4\npacking = 1", "packing: input should be a valid boolean, got 1"),
        ("depth = 4", "depth = 4\nport_bits = 100", "port_bits: input should be 64, 128, 256"),
        ("depth = 4", "depth = 4\noutstanding = 0", "outstanding: input should be greater than 0"),
        ("clock_hz = 100e6", "clock_hz = 0.0", "clock_hz: input should be greater than 0"),
        ("rows = 2", 'rows = 2\norder = "skewed"', "order: input should be 'reordered' or 'naive'"),
        ("rows = 2", "rows = = 2", "not readable as TOML"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, old, new, message):
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(VitruviusError) as caught:
        load_machine(str(path))
    assert message in str(caught.value)
    assert "bad.toml" in str(caught.value)


def test_fields_that_do_not_go_together_are_one_sentence(tmp_path):
    """Catches a message that repeats the whole file."""
    path = tmp_path / "bad.toml"
    text = GOOD.replace("rows = 2", 'rows = 2\norder = "naive"')
    path.write_text(text.replace("key = 1", "key = 1\nexperts = 4"))
    with pytest.raises(VitruviusError) as caught:
        load_machine(str(path))
    assert str(caught.value).endswith(
        "bad.toml: order: expected reordered beside buffers.experts, whose queues give a row at a "
        "time, got naive and 4 experts"
    )


def test_unknown_machines(tmp_path):
    with pytest.raises(VitruviusError, match=r"unknown machine 'smal'.*did you mean 'small'"):
        load_machine("smal")
    with pytest.raises(VitruviusError, match="no such file"):
        load_machine(str(tmp_path / "none.toml"))


def test_another_scheme_keeps_what_the_buffers_hold():
    """Catches sizes that are taken over in bytes: a weight has two of them in scheme ivit."""
    large = load_machine("large")
    ivit = large.for_scheme("ivit")
    assert ivit.attention_rows == large.attention_rows
    assert ivit.column_words >= large.column_words
    assert ivit.norm_column_words >= large.norm_column_words
    assert ivit.digest != large.digest
    assert large.for_scheme("edge") is large


def test_a_scheme_without_a_router_refuses_experts(tmp_path):
    with pytest.raises(VitruviusError, match="for a model of scheme ivit, got 16"):
        load_machine("experts").for_scheme("ivit")
    path = tmp_path / "mine.toml"
    path.write_text('scheme = "ivit"\n' + GOOD + "experts = 3\n")
    with pytest.raises(VitruviusError, match="expected edge beside"):
        load_machine(str(path))
    path.write_text('scheme = "i-vit"\n' + GOOD)
    with pytest.raises(VitruviusError, match="'edge' or 'ivit', got 'i-vit'"):
        load_machine(str(path))
