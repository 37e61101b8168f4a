"""Verilator's lint with every rule on: silent but for the waivers, and not because of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.hwgen.generate import TOP, generate
from vitruvius.hwgen.lint import WAIVERS, waiver_file
from vitruvius.hwgen.units.packed_product import PRODUCT_MODULE
from vitruvius.sim.verilator import toolchain_environment

_MESSAGE = re.compile(rf"^%(?:Warning|Error)(?:-(\w+))?: (?:\S*{TOP}\.v:(\d+):\d+: )?(.*)", re.M)


@dataclass(frozen=True)
class Message:
    rule: str
    line: int
    text: str


def lint(folder, *files):
    """Exit status and messages of every rule on ``files``."""
    completed = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "--error-limit", "0", "--top-module", TOP, *files],
        cwd=folder,
        env=toolchain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = _MESSAGE.findall(completed.stderr)
    return completed.returncode, [Message(rule, int(line or 0), text) for rule, line, text in found]


def test_silent_with_the_waivers(design):
    """Fails for a kind of warning that is not in the list, such as a port of the wrong width."""
    status, messages = lint(design, f"{TOP}.vlt", f"{TOP}.v")
    assert not messages
    assert status == 0


def test_a_generated_folder_is_linted_as_its_waivers_say(tmp_path):
    """The files and the command that a user has."""
    generate(pair(0).program, tmp_path / "out")
    words = next(
        line.partition("Silent: ")[2].split()
        for line in (tmp_path / "out" / f"{TOP}.vlt").read_text().splitlines()
        if "Silent: " in line
    )
    assert words[:3] == ["verilator", "--lint-only", "-Wall"]
    assert lint(tmp_path / "out", *words[3:]) == (0, [])


def test_what_is_waived_is_what_the_reasons_say(design):
    """Fails where a rule's waiver lets more through than its reason: each line is looked at."""
    _, messages = lint(design, f"{TOP}.v")
    source = ["", *(design / f"{TOP}.v").read_text().splitlines()]
    written = next(
        (n for n, line in enumerate(source) if line.startswith(f"module {PRODUCT_MODULE}")),
        len(source),
    )
    assert len(messages) > 1000
    wrong = [
        (message, source[message.line])
        for message in messages
        if 0 < message.line < written
        and not as_said(message, source[message.line], source[message.line - 1])
    ]
    assert not wrong
    by_hand = {
        (message.rule, source[message.line].strip())
        for message in messages
        if message.line >= written
    }
    assert by_hand <= _BY_HAND


# The packed product's module is not Yosys' text; this is all that is said about it.
_BY_HAND = {
    ("UNUSEDSIGNAL", "input [47:0] cascade,"),
    ("WIDTHEXPAND", "left <= $signed({high, 18'b0}) + low;"),
    ("WIDTHEXPAND", "wire signed [35:0] partial_sum = product + $signed("),
}


def as_said(message, line, before):
    """Whether the ``line`` of a message has the shape that the reason of its waiver describes."""
    name = r"(?:\\\S+ |\w+)(?: ?\[[\d:]+\])?"
    match message.rule:
        case "DECLFILENAME":
            return line.startswith("module")
        case "SYMRSVDWORD":
            return line == "  output interrupt;"
        case "PROCASSINIT":
            return re.fullmatch(r"  reg .* = \d+'[hd]\w+;", line)
        case "CASEINCOMPLETE":  # full_case would tell synthesis that the other values never come
            return "casez (" in line and "full_case" not in before
        case "CASEOVERLAP":  # the same constant twice would have no question mark
            return re.search(r"'b[01]*\?", line)
        case "UNUSEDSIGNAL":  # a whole port that nobody reads would be an input
            return line.split()[0] in ("wire", "reg") or message.text.startswith("Bits")
        case "WIDTHTRUNC":
            return re.fullmatch(rf"  assign {name} *= (?:! {name}|{name} *>> {name}) *;", line)
        case "WIDTHEXPAND":  # of an unsigned and a signed operand Verilog takes both as unsigned
            return line.count("$signed(") in (0, 2)
    return False


def test_no_case_claims_what_it_cannot_keep(design):
    """A case marked parallel_case loses its order in synthesis, and full_case its 'no case'."""
    text = (design / f"{TOP}.v").read_text()
    assert "parallel_case" not in text
    marked = re.findall(
        r"\(\* full_case = 32'd1 \*\)\n +casez \([^\n]*\)\n((?:(?! +endcase).*\n)*?) +endcase", text
    )
    assert marked
    for body in marked:
        values = re.findall(r"^ +(?:\d+'[bh][\da-f?, 'bh]+|default):$", body, re.M)
        assert " default:" in body or _covers_all(values), body


def _covers_all(labels):
    """Whether constant labels of one width, such as ``2'h3:``, name every value."""
    found = [match for label in labels for match in re.findall(r"(\d+)'([bh])([\da-f?]+)", label)]
    width = int(found[0][0])
    values = set()
    for _, base, digits in found:
        if base == "h":
            values.add(int(digits, 16))
        else:
            pattern = re.compile(digits.replace("?", "."))
            values |= {n for n in range(1 << width) if pattern.fullmatch(f"{n:0{width}b}")}
    return len(values) == 1 << width


def messages_of(text, folder):
    (folder / f"{TOP}.v").write_text(text)
    (folder / f"{TOP}.vlt").write_text(waiver_file(f"{TOP}.v"))
    status, messages = lint(folder, f"{TOP}.vlt", f"{TOP}.v")
    assert (status == 0) == (not messages)
    return {message.rule for message in messages}


def test_the_unit_for_the_faults_below_is_silent(unit, tmp_path):
    assert messages_of(unit, tmp_path) == set()


# What is done to the text, as pattern and replacement, and the rule that must say so. Two drivers
# of one wire are not among them: Verilator is silent there, Yosys is not (test_readers).
FAULTS = {
    "a wire that nothing drives": (r"^  assign \\\$25  = .*\n", "", "UNDRIVEN"),
    "a register with two clocks": (
        r"^  always @\(posedge clk\)\n    squares <= .*\n",
        r"\g<0>  always @(negedge clk)\n    squares <= 37'h0;\n",
        "MULTIDRIVEN",
    ),
    "a latch": (r"^    (\\\$\d+)  = fsm_state;\n", "", "LATCH"),
    "a loop without a register": (r"^(  assign )(\\\$25 )( = )", r"\1\2\3\2 ^ ", "UNOPTFLAT"),
    "a port too narrow": (r"\.count\(\\\$3 \[2:0\]\)", r".count(\\$3 [1:0])", "WIDTHEXPAND"),
    "a port too wide": (r"\.count\(\\\$3 \[2:0\]\)", r".count(\\$3 [3:0])", "WIDTHTRUNC"),
    "an assignment too wide": (r"current <= (.*);", r"current <= {\1, 1'h0};", "WIDTHTRUNC"),
    "an assignment too narrow": (r"current <= .*;", "current <= 7'h5;", "WIDTHEXPAND"),
    "a misspelt name": (r"\.result\(result\)", ".result(reslt)", "IMPLICIT"),
    "a port left out": (
        r"^(  \\vitruvius\.moments  moments \(\n)    \.clk.*\n",
        r"\1",
        "PINMISSING",
    ),
    "a select beyond the end": (r"\\\$22 \[21:0\]", r"\\$22 [99:78]", "SELRANGE"),
    "a blocking assignment at a clock": (r"current <= ", "current = ", "BLKSEQ"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported(unit, tmp_path, fault):
    """The waivers leave what they must: each of these would be a real mistake."""
    pattern, replacement, rule = FAULTS[fault]
    text, count = re.subn(pattern, replacement, unit, count=1, flags=re.M)
    assert count == 1
    assert rule in messages_of(text, tmp_path)


def test_every_line_of_the_waivers_is_for_one_file():
    """Another file of the user's project keeps all its warnings."""
    lines = [line for line in waiver_file("a.v").splitlines() if line.startswith("lint_off")]
    assert len(lines) == sum(len(waiver.shapes) for waiver in WAIVERS)
    assert all(' -file "*a.v" -match "' in line for line in lines)
