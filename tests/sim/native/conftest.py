"""The copier, a small design with the accelerator's ports, compiled once per port width."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from vitruvius.sim.native.build import build_native
from vitruvius.sim.native.engine import NativeRun

COPIER = (Path(__file__).parent / "copier.v").read_text()


@pytest.fixture(scope="session")
def copier_verilog():
    """``copier_verilog(port_bits)``: the copier's text with a memory port of that width."""

    def get(port_bits):
        text = COPIER.replace("@MSB@", str(port_bits - 1))
        return text.replace("@STROBE_MSB@", str(port_bits // 8 - 1))

    return get


@pytest.fixture(scope="session")
def copier(copier_verilog):
    """``copier(port_bits, trace)``: a `NativeRun` on the copier."""

    @functools.cache
    def get(port_bits=128, trace=False):
        return NativeRun(build_native(copier_verilog(port_bits), trace=trace, jobs=1))

    return get
