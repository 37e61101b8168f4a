"""An accelerator without a memory port: its on-chip memory is filled and read by the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.sim.native.build import build_native
from vitruvius.sim.native.engine import NativeRun
from vitruvius.sim.native.script import Script

VERILOG = (Path(__file__).parent / "window.v").read_text()


@pytest.mark.parametrize("jitter", [None, 3])
def test_bytes_go_in_and_come_out_by_the_window(jitter):
    build = build_native(VERILOG, jobs=1)
    assert build.port_bits == 0
    contents = bytes(range(100, 123))  # five words and three bytes
    script = Script().load_on_chip(0x10, contents).load_on_chip(0x18, b"\1\2\3\4")
    script.dump_on_chip(0x10, 24, "all").dump_on_chip(0x14, 5, "part")
    data = NativeRun(build).run(script, jitter=jitter).data
    expected = contents[:8] + b"\1\2\3\4" + contents[12:] + b"\0"
    assert data == {"all": expected, "part": expected[4:9]}
