"""What ``verilator --lint-only -Wall`` may say about the generated Verilog, each with its reason.

The Verilog is written by Yosys from Amaranth. Most rules of a lint are about how people write
Verilog; Yosys' writer breaks some of them on every page, always in the same few shapes. A waiver
names the rule and the shape, as the beginning of Verilator's message, so that the same rule still
speaks where the shape is another one: an assignment, a port or an index of the wrong width is
reported, an operand that Verilog extends is not.

`waiver_file` gives them in Verilator's own form; `generate` writes it beside the Verilog.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

__all__ = ["WAIVERS", "Waiver", "waiver_file"]


@dataclass(frozen=True)
class Waiver:
    """Messages of one ``rule`` that are let through, by their ``shapes``, and why.

    A shape is what Verilator compares the message with; ``*`` stands for anything. One shape is
    enough.
    """

    rule: str
    shapes: tuple[str, ...]
    reason: str


# Operators whose operands Verilog itself brings to one width.
_EXTENDING = (
    *("ADD", "SUB", "SHIFTL"),
    *("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "LTS", "LTES", "GTS", "GTES"),
)

WAIVERS: tuple[Waiver, ...] = (
    Waiver(
        "DECLFILENAME",
        ("Filename * does not match MODULE name*",),
        "All modules are in one file.",
    ),
    Waiver(
        "SYMRSVDWORD",
        ("Symbol matches C++ common word: 'interrupt'",),
        "The port is called what it is in every data sheet and is legal Verilog. Only in the C++ "
        "model is it called __SYM__interrupt.",
    ),
    Waiver(
        "PROCASSINIT",
        ("Procedural assignment to declaration with initial value*",),
        "A register's value after configuration, 'reg x = 0', which FPGA synthesis takes over; "
        "rst gives the same value.",
    ),
    Waiver(
        "CASEINCOMPLETE",
        ("Case values incompletely covered*",),
        "The writer assigns the value of 'no case' before the case statement. Where it forgets, "
        "LATCH is reported, which is not waived. Only cases that cover all values are marked "
        "full_case.",
    ),
    Waiver(
        "CASEOVERLAP",
        ("Case conditions overlap*",),
        "An if-else chain: casez takes the first that fits, and none is marked parallel_case.",
    ),
    Waiver(
        "UNUSEDSIGNAL",
        ("Signal is not used: *", "Bits of signal are not used: *"),
        "Further names of a signal or of its parts, which are for reading waves: fields, elements, "
        "ports of a block. Carry bits that are cut off on purpose. A signal that is used and not "
        "driven is UNDRIVEN, which is not waived.",
    ),
    Waiver(
        "WIDTHTRUNC",
        ("Logical operator LOGNOT expects 1 bit on the LHS*",),
        "'! x' of a vector is how the writer says x == 0, and means this in Verilog.",
    ),
    Waiver(
        "WIDTHTRUNC",
        ("Operator ASSIGNW expects * bits on the Assign RHS, but Assign RHS's SHIFTR generates *",),
        "'y = x >> n' with a narrow y: y is the part of x from bit n on, as in an array that is "
        "indexed.",
    ),
    Waiver(
        "WIDTHEXPAND",
        tuple(f"Operator {name} expects * bits on the *HS, but *" for name in _EXTENDING),
        "Operands of unequal width under an operator. Verilog extends the narrow one, by its sign "
        "if both are signed, else by zeros, which is what Yosys' cell does; both are signed or "
        "neither is. The result has its own wire of the full width, and where the source cuts "
        "bits off the text has a part select.",
    ),
)


def waiver_file(verilog: str) -> str:
    """Text of the configuration that Verilator reads before the file named ``verilog``.

    Other files of the user's project are linted as the user says: each line names this one.
    """
    lines = [
        "`verilator_config",
        f"// Silent: verilator --lint-only -Wall {verilog.removesuffix('.v')}.vlt {verilog}",
        "// Each line lets one shape of message through, in this file only.",
    ]
    for waiver in WAIVERS:
        lines += [
            "",
            *textwrap.wrap(waiver.reason, 96, initial_indent="// ", subsequent_indent="// "),
        ]
        lines += [
            f'lint_off -rule {waiver.rule} -file "*{verilog}" -match "{shape}"'
            for shape in waiver.shapes
        ]
    return "\n".join(lines) + "\n"
