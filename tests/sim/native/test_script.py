"""The text of a script, and what it refuses."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.native.script import Script


def test_steps_in_order():
    script = Script().reset(2).write(0x28, 3).expect(0x4, 2, 0xF).read(0x100, "cycles")
    script.wait_done(500, poll=8, name="first").wait_interrupt(9).sleep(1)
    script.read_debug(1, 16, 2, 3, "words").load(0x1000, b"ab").dump(0x2000, 4, "out")
    script.load_on_chip(8, b"c").dump_on_chip(12, 3, "chip")
    script.fail_reads(1).fail_writes(2).silence(3).no_faults()
    assert script.text.splitlines() == [
        "reset 2",
        "write 0x28 0x3",
        "expect 0x4 0x2 0xf",
        "read 0x100 cycles",
        "wait_done 0x4 500 8 first",
        "wait_interrupt 9",
        "sleep 1",
        "read_debug 0x50 0x400 0x1000010 2 3 words",
        "load 0x1000 load-0.bin",
        "dump 0x2000 4 out",
        "load_window 0x58 0x5c 0x8 load-1.bin",
        "dump_window 0x58 0x5c 0xc 3 chip",
        "fail_reads 0x1",
        "fail_writes 0x2",
        "silence 0x3",
        "no_faults",
    ]
    assert script.blobs == {"load-0.bin": b"ab", "load-1.bin": b"c"}
    assert script.names == {"cycles", "first", "words", "out", "chip"}


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (lambda s: s.write(0x2, 0), "multiple of 4 below 0x10000, got 0x2"),
        (lambda s: s.read(0x10000, "x"), "got 0x10000"),
        (lambda s: s.write(0, 1 << 32), "expected a value of 32 bits, got 0x100000000"),
        (lambda s: s.write(0, -1), "expected a value of 32 bits, got -0x1"),
        (lambda s: s.sleep(0), "sleep: cycles: expected at least 1, got 0"),
        (lambda s: s.wait_done(10, poll=0), "wait_done: poll: expected at least 1, got 0"),
        (lambda s: s.dump(1 << 64, 1, "x"), "expected a memory address of 64 bits"),
        (lambda s: s.dump(0, 0, "x"), "dump: length: expected at least 1, got 0"),
        (lambda s: s.read_debug(8, 0, 1, 1, "x"), "expected memory 0..7 .*, got memory 8"),
        (
            lambda s: s.read_debug(0, 0xFFFFFF, 2, 1, "x"),
            "words below 2\\^24, .*16777215..16777216",
        ),
        (lambda s: s.read_debug(0, 0, 1, 257, "x"), "expected 1 to 256 slices, got 257"),
        (lambda s: s.load_on_chip(2, b""), "32 bits, a multiple of 4, got 0x2"),
        (lambda s: s.dump_on_chip(1 << 32, 1, "x"), "a multiple of 4, got 0x100000000"),
        (lambda s: s.read(0, "two words"), "letters, digits and _, got 'two words'"),
        (lambda s: s.read(0, "x").dump(0, 1, "x"), "expected a new name, got 'x' again"),
    ],
)
def test_what_is_refused(step, text):
    with pytest.raises(VitruviusError, match=text):
        step(Script())
