"""What a host does with an accelerator: load it, run images, read tensors and counters.

The procedures are written once, against the `Bus` protocol, and run on every engine: under cocotb
their awaits wait for the simulator, under pyverilator nothing ever waits and `complete` runs them
to the end.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import VitruviusError
from ..hwgen.loader import Target
from ..hwgen.manifest import Manifest, read_image
from ..hwgen.program import Boundary
from ..hwgen.registers import DebugMemory, register

__all__ = ["Bus", "ImageRun", "complete", "load_program", "read_tensor", "run_image"]

Result = TypeVar("Result")
_SLICE_BITS = 32
_DONE, _PAUSED = 0b010, 0b100
"""Bits of the STATUS register."""


class Bus(Protocol):
    """The pins of an accelerator, as a host moves them."""

    async def load(self, target: Target, image: bytes) -> None:
        """Sends the beats of one memory image, 64 bits little-endian each."""

    async def write(self, address: int, value: int) -> None:
        """Writes a register."""

    async def read(self, address: int) -> int:
        """Reads a register."""

    async def send_image(self, beats: list[int]) -> None:
        """Sends the image stream, without gaps."""

    async def settle(self) -> None:
        """Waits until the accelerator is done or paused; logits on the way are kept for
        `take_logits`.
        """

    def done(self) -> bool:
        """Whether the program has ended."""

    def take_logits(self) -> list[int]:
        """The logits received since the last call."""

    @property
    def cycles(self) -> int:
        """Clock cycles simulated so far."""


@dataclass(frozen=True)
class ImageRun:
    """One image through the RTL.

    logits: codes; cycles: the CYCLES counter; steps: STEP_CYCLES; stalled: cycles lost to the
    image stream, the logit receiver and the weight stream; product_cycles, token_words,
    other_words: counters of that name; tensors:
    operator name -> codes [tokens][features] of the boundaries that were read.
    """

    logits: list[int]
    cycles: int
    steps: list[int]
    image_stalled: int
    logits_stalled: int
    weight_stalled: int
    product_cycles: int
    token_words: int
    other_words: int
    tensors: dict[str, list[list[int]]]


async def load_program(bus: Bus, folder: Path, manifest: Manifest) -> None:
    """Fills program, weight and column memories from a generated folder.

    Raises VitruviusError if an image does not match the manifest, or the accelerator is another
    machine's.
    """
    expected = int(manifest.machine_digest[:8], 16)
    found = await bus.read(register("MACHINE"))
    if found != expected:
        raise VitruviusError(
            f"accelerator: expected machine '{manifest.machine}' ({expected:08x}), "
            f"found {found:08x}"
        )
    for target in Target:
        await bus.load(target, read_image(folder, manifest, target))


async def read_tensor(bus: Bus, manifest: Manifest, tensor: Boundary) -> list[list[int]]:
    """Codes [tokens][features] of a tensor, read through the debug window while paused."""
    residual = tensor.memory is DebugMemory.RESIDUAL
    element_bits = 16 if residual else 8
    lanes = manifest.cols if residual else manifest.depth
    slices = -(-lanes * element_bits // _SLICE_BITS)
    rows = []
    for token in range(tensor.tokens):
        row: list[int] = []
        for group in range(tensor.features // tensor.group):
            values: list[int] = []
            first = tensor.base + token * tensor.pitch + group * tensor.group_pitch
            for word in range(-(-tensor.group // lanes)):
                await bus.write(register("DEBUG_ADDRESS"), tensor.memory << 24 | (first + word))
                await bus.read(register("STATUS"))  # the memory takes a cycle more than a register
                packed = 0
                for part in range(slices):
                    data = await bus.read(register("DEBUG_DATA") + part)
                    packed |= data << (_SLICE_BITS * part)
                values.extend(_unpack(packed, lanes, element_bits))
            row.extend(values[: tensor.group])
        rows.append(row)
    return rows


def _unpack(word: int, lanes: int, bits: int) -> list[int]:
    values = [(word >> (bits * lane)) & ((1 << bits) - 1) for lane in range(lanes)]
    top = 1 << (bits - 1)
    return [value - (1 << bits) if value & top else value for value in values]


async def run_image(
    bus: Bus, manifest: Manifest, beats: list[int], wanted: Sequence[Boundary] = ()
) -> ImageRun:
    """Runs one image, pausing to read the ``wanted`` tensors."""
    tensors: dict[str, list[list[int]]] = {}
    waiting = sorted(wanted, key=lambda tensor: tensor.step)
    await bus.write(register("BREAK"), waiting[0].step if waiting else 0)
    await bus.write(register("CONTROL"), 1)
    await bus.send_image(beats)
    await bus.settle()
    while not bus.done():
        step = waiting[0].step
        await _expect_status(bus, _PAUSED | step << 16)
        while waiting and waiting[0].step == step:
            tensor = waiting.pop(0)
            tensors[tensor.operator] = await read_tensor(bus, manifest, tensor)
        await bus.write(register("BREAK"), waiting[0].step if waiting else 0)
        await bus.write(register("CONTROL"), 2)
        await bus.settle()
    await _expect_status(bus, _DONE | (len(manifest.steps) - 1) << 16)
    counters = {
        name.lower(): await bus.read(register(name))
        for name in (
            "IMAGE_STALLED", "LOGITS_STALLED", "WEIGHT_STALLED", "PRODUCT_CYCLES",
            "TOKEN_WORDS", "OTHER_WORDS",
        )
    }  # fmt: skip
    steps = [
        await bus.read(register("STEP_CYCLES") + index) for index in range(len(manifest.steps))
    ]
    return ImageRun(
        logits=bus.take_logits(),
        cycles=await bus.read(register("CYCLES")),
        steps=steps,
        tensors=tensors,
        **counters,
    )


async def _expect_status(bus: Bus, expected: int) -> None:
    found = await bus.read(register("STATUS"))
    if found != expected:
        raise VitruviusError(
            f"accelerator: expected status {expected:#010x} (done or paused, and the step), "
            f"found {found:#010x}"
        )


def complete(procedure: Coroutine[Any, Any, Result]) -> Result:
    """Runs a procedure on a bus whose methods never wait, and returns its result."""
    try:
        procedure.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    procedure.close()
    raise RuntimeError("the procedure waited on a bus that cannot wait")
