"""The copier, a small design with the accelerator's ports, compiled once per port width."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from vitruvius.sim.native.build import build_native
from vitruvius.sim.native.engine import NativeRun

COPIER = (Path(__file__).parent / "copier.v").read_text()


def copier_verilog(port_bits):
    text = COPIER.replace("@MSB@", str(port_bits - 1))
    return text.replace("@STROBE_MSB@", str(port_bits // 8 - 1))


@pytest.fixture(scope="session")
def copier():
    """``copier(port_bits)``: a `NativeRun` on the copier."""

    @functools.cache
    def get(port_bits=128):
        return NativeRun(build_native(copier_verilog(port_bits), jobs=1))

    return get
