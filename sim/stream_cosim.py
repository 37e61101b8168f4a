"""Co-simulation of the streaming accelerator: the generated Verilog against the integer golden and
against the cycle simulator, with memory and clock in C++.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from torch import Tensor

from ..errors import VitruviusError
from ..hwgen.axi.memory_model import MemoryModel
from ..hwgen.axi.onchip import ON_CHIP_MODEL
from ..hwgen.axi.register_map import register, register_map
from ..hwgen.core.accelerator import COUNTERS, Accelerator
from ..hwgen.core.core import DebugMemory
from ..hwgen.core.image import ParameterImage
from ..hwgen.core.machine import Machine
from ..hwgen.core.program import Boundary, Program
from ..hwgen.verilog import to_verilog
from ..models.integer_model import IntegerOperator
from .native.build import NativeBuild, build_native
from .native.engine import NativeProgress, NativeRun
from .native.script import Script
from .streaming import simulate

__all__ = ["StreamCosim", "TensorMismatch", "build", "cosimulate_stream", "verilog_of"]

TOP = "vitruvius"
_DONE, _PAUSED, _ERROR = 1 << 1, 1 << 2, 0xF << 4


@dataclass(frozen=True)
class TensorMismatch:
    """The first difference in a tensor of an image: element [token, feature], expected from the
    golden, got from the RTL; how many elements differ.
    """

    image: int
    tensor: str
    token: int
    feature: int
    expected: int
    got: int
    differing: int


@dataclass(frozen=True)
class StreamCosim:
    """What a co-simulation found.

    bit_exact_images: images of which all logits, and all tensors compared, equal the golden.
    tensors_compared: tensors beside the logits. counters: name -> (predicted, measured) of the
    whole run; empty where memory answered at random. logits: codes per image from the RTL.
    cycles: of the run in which the counters were taken.
    """

    images: int
    bit_exact_images: int
    tensors_compared: int
    mismatches: tuple[TensorMismatch, ...]
    counters: dict[str, tuple[int, int]]
    logits: list[list[int]]
    cycles: int
    cycles_per_s: float
    build_s: float
    wall_s: float

    @property
    def cycle_exact(self) -> bool:
        """Whether every counter equals its prediction."""
        return all(predicted == measured for predicted, measured in self.counters.values())


def verilog_of(machine: Machine) -> str:
    """Verilog of the accelerator of ``machine``; it depends on nothing else."""
    return to_verilog(Accelerator(machine), TOP)


def build(machine: Machine, *, trace: bool = False) -> NativeBuild:
    """The compiled accelerator of ``machine``, made once."""
    return build_native(verilog_of(machine), TOP, trace=trace)


def cosimulate_stream(
    program: Program,
    images: Tensor,
    *,
    memory: MemoryModel,
    jitter: int | None = None,
    tensors: bool = False,
    compiled: NativeBuild | None = None,
    progress: Callable[[NativeProgress], None] | None = None,
    stop: Event | None = None,
) -> StreamCosim:
    """Runs float ``images`` [n, C, H, W] through the Verilog of ``program``, all in one run.

    memory: its timing, which the simulator predicts; memory on the chip has its own. jitter: a seed
    for random waits on every channel on top of it; then only values are compared. tensors: run the
    first image once more and stop it wherever a tensor stands complete in a buffer, to compare that
    too.

    Raises VitruviusError if a tool is missing, the build fails or a bus rule is broken.
    """
    if len(images) == 0:
        raise VitruviusError("co-simulation: expected at least one image, got none")
    began = time.perf_counter()
    compiled = compiled or build(program.machine)
    build_s = time.perf_counter() - began
    layout = ParameterImage(program, images=len(images))
    contents: list[tuple[int, bytes]] = [(layout.parameters, layout.to_bytes())]
    contents += [
        (layout.images + index * layout.image_pitch, layout.image_bytes(image))
        for index, image in enumerate(images)
    ]
    on_chip = bool(program.machine.memory)
    memory = ON_CHIP_MODEL if on_chip else memory
    predicted = simulate(program, images=len(images), memory=memory)
    limit = 20 * predicted.cycles + 1_000_000
    script = Script()
    if on_chip:
        for address, data in contents:
            script.load_on_chip(address, data)
        contents = []
    registers = {entry.name: entry.address for entry in register_map(COUNTERS)}
    for name, value in (
        ("PARAMETERS", layout.parameters),
        ("IMAGES", layout.images),
        ("RESULTS", layout.results),
        ("COUNT", len(images)),
        ("IMAGE_PITCH", layout.image_pitch),
        ("RESULT_PITCH", layout.result_pitch),
    ):
        script.write(register(name), value)
    script.write(register("CONTROL"), 1).wait_done(limit)
    for name in COUNTERS:
        script.read(registers[name], name)
    size = layout.result_pitch * len(images)
    (script.dump_on_chip if on_chip else script.dump)(layout.results, size, "results")
    boundaries = _boundaries(program) if tensors else []
    if boundaries:
        _pauses(script, program.machine, boundaries, limit)
    run = NativeRun(compiled)
    outcome = run.run(
        script, memory=contents, model=memory, jitter=jitter, progress=progress, stop=stop
    )
    if outcome.values["status"] & (_DONE | _ERROR) != _DONE:
        raise VitruviusError(
            f"co-simulation: the accelerator stopped with status {outcome.values['status']:#x}"
        )
    golden: dict[str, Tensor] = {}

    def look(operator: IntegerOperator, codes: Tensor) -> None:
        golden[operator.name] = codes

    expected = program.model.run(images, observe=look)
    logits = [
        layout.results_of(outcome.data["results"][index * layout.result_pitch :])
        for index in range(len(images))
    ]
    found: list[TensorMismatch] = []
    exact = 0
    for index, codes in enumerate(logits):
        wrong = _difference(index, "logits", expected[index : index + 1], torch.tensor([codes]))
        found += wrong
        exact += not wrong
    for number, boundary in enumerate(boundaries):
        got = _tensor(program.machine, boundary, outcome.data[f"tensor{number}"])
        found += _difference(0, boundary.operator, golden[boundary.operator][0], got)
    return StreamCosim(
        images=len(images),
        bit_exact_images=exact,
        tensors_compared=len(boundaries),
        mismatches=tuple(found),
        counters={}
        if jitter is not None
        else {name: (predicted.counters[name], outcome.values[name]) for name in COUNTERS},
        logits=logits,
        cycles=outcome.values["CYCLES"],
        cycles_per_s=outcome.cycles_per_s,
        build_s=build_s,
        wall_s=time.perf_counter() - began,
    )


def _boundaries(program: Program) -> list[Boundary]:
    """Tensors that can be read while the accelerator waits before a product."""
    return [item for item in program.boundaries if 0 < item.product < len(program.steps)]


def _pauses(script: Script, machine: Machine, boundaries: Sequence[Boundary], limit: int) -> None:
    """One more image, stopped before each product before which a tensor is complete."""
    stops = sorted({boundary.product for boundary in boundaries})
    script.write(register("COUNT"), 1).write(register("BREAK"), stops[0])
    script.write(register("CONTROL"), 1)
    for stop, after in zip(stops, [*stops[1:], 0], strict=True):
        script.wait_done(limit, name=f"stop{stop}")
        for number, boundary in enumerate(boundaries):
            if boundary.product == stop:
                script.read_debug(
                    boundary.memory,
                    boundary.base,
                    boundary.tokens * boundary.pitch,
                    -(-_word_bits(machine, boundary) // 32),
                    f"tensor{number}",
                )
        script.write(register("BREAK"), after).write(register("CONTROL"), 2)
    script.wait_done(limit, name="stopped")


def _word_bits(machine: Machine, boundary: Boundary) -> int:
    if boundary.memory is DebugMemory.RESIDUAL:
        return 16 * machine.cols
    return 8 * machine.depth


def _tensor(machine: Machine, boundary: Boundary, data: bytes) -> Tensor:
    """The codes [tokens, features] of a tensor, from the words of its memory."""
    wide = boundary.memory is DebugMemory.RESIDUAL
    bits = _word_bits(machine, boundary)
    words = np.frombuffer(data, dtype=np.uint8).reshape(-1, 4 * -(-bits // 32))
    lanes = words[:, : bits // 8].copy().view("<i2" if wide else "i1").astype(np.int64)
    rows = lanes.reshape(boundary.tokens, boundary.pitch, -1)
    groups = boundary.features // boundary.group
    parts = [
        rows[:, group * boundary.group_pitch : (group + 1) * boundary.group_pitch].reshape(
            boundary.tokens, -1
        )[:, : boundary.group]
        for group in range(groups)
    ]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _difference(image: int, name: str, expected: Tensor, got: Tensor) -> list[TensorMismatch]:
    expected = expected[: len(got)].to(torch.int64)
    places = (got != expected).nonzero() if got.shape == expected.shape else None
    if places is None:
        return [TensorMismatch(image, name, 0, 0, expected.numel(), got.numel(), got.numel())]
    if len(places) == 0:
        return []
    token, feature = (int(part) for part in places[0])
    return [
        TensorMismatch(
            image,
            name,
            token,
            feature,
            int(expected[token, feature]),
            int(got[token, feature]),
            len(places),
        )
    ]
