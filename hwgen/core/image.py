"""Where a program, its parameters, images and results lie in external memory, and their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import VitruviusError
from ..axi import descriptor as words
from ..axi.descriptor import Descriptor, Header, Space, beats_per_word
from .core import Target, target_widths
from .counters import Counter, modular
from .program import Fetch, Program

__all__ = ["ParameterImage"]

_BORDER = 4096
_PLACES = (0x1000_0000, 0x8000_0000, 0xC000_0000)


class ParameterImage:
    """The parameter image of a Program: header, fetch program, what boot loads, weights.

    On a machine with memory on the chip they follow each other from 0 on, for ``images`` images.
    Everything is made of beats of the machine's port; a word of a memory takes whole beats, lowest
    bits first, and each part begins at a multiple of 4096 bytes. Images and results are apart from
    it.

    Attributes
    ----------
    header : Header
    boot_descriptors, descriptors : the fetch program before STOP, and that of an image
    parameters, images, results : byte addresses of the three
    image_pitch, result_pitch : bytes from image to image and from results to results
    result_beats : beats of an image's results
    """

    def __init__(self, program: Program, *, images: int = 1) -> None:
        self.program = program
        machine = program.machine
        self.beat_bytes = machine.port_bits // 8
        self._widths = target_widths(machine)
        self._word_beats = {
            target: beats_per_word(width, machine.port_bits)
            for target, width in self._widths.items()
        }
        position = _BORDER
        count = len(program.boot) + len(program.fetches) + 2
        descriptor_beats = beats_per_word(words.DESCRIPTOR_BITS, machine.port_bits)
        self._program_offset = position // self.beat_bytes
        position = _up(position + count * descriptor_beats * self.beat_bytes)
        self._offsets: dict[tuple[Target, int], int] = {}
        for fetch in (*program.boot, *program.fetches):
            if fetch.target is not Target.IMAGE:
                self._offsets[fetch.target, fetch.source] = position // self.beat_bytes
                position = _up(position + fetch.tasks * self._bytes(fetch))
        self.size = position
        self.boot_descriptors = [self._descriptor(fetch) for fetch in program.boot]
        self.descriptors = [self._descriptor(fetch) for fetch in program.fetches]
        self.header = Header(
            machine=int(machine.digest[:8], 16),
            program=int(program.digest[:8], 16),
            beats=count * descriptor_beats,
            offset=self._program_offset,
        )
        image = next(fetch for fetch in program.fetches if fetch.target is Target.IMAGE)
        self.image_pitch = _up(self._bytes(image))
        self._code_bytes = machine.arithmetic.result_bits // 8
        result_bytes = self._code_bytes * program.results
        self.result_beats = -(-result_bytes // self.beat_bytes)
        self.result_pitch = _up(result_bytes)
        # Where co-simulation puts them; a host is free to choose.
        self.parameters, self.images, self.results = _PLACES
        if machine.memory:
            self.parameters, self.images = 0, self.size
            self.results = self.images + images * self.image_pitch
            end = self.results + images * self.result_pitch
            if end > machine.memory * 1024:
                raise VitruviusError(
                    f"{program.model.name} on machine '{machine.name}': memory needs {end} bytes "
                    f"for parameters and {images} images, has {machine.memory * 1024}"
                )

    def _bytes(self, fetch: Fetch) -> int:
        return self._beats(fetch) * self.beat_bytes

    def _beats(self, fetch: Fetch) -> int:
        return fetch.words * self._word_beats[fetch.target]

    def place(self, fetch: Fetch, image: int, task: int = 0) -> tuple[int, int]:
        """(byte address, beats) of a fetch for image number ``image`` of a run of ``task``."""
        beats = self._beats(fetch)
        if fetch.target is Target.IMAGE:
            return self.images + image * self.image_pitch, beats
        offset = self._offsets[fetch.target, fetch.source]
        if fetch.tasks > 1:
            offset += task * beats
        return self.parameters + offset * self.beat_bytes, beats

    def _descriptor(self, fetch: Fetch) -> Descriptor:
        of_image = fetch.target is Target.IMAGE
        return Descriptor(
            words.Opcode.FETCH,
            target=int(fetch.target),
            space=Space.IMAGE if of_image else Space.PARAMETERS,
            wait=fetch.threshold is not None,
            offset=0 if of_image else self._offsets[fetch.target, fetch.source],
            beats=self._beats(fetch),
            destination=fetch.destination,
            threshold=modular(fetch.threshold or 0),
            expert=fetch.expert,
            routed_threshold=fetch.routed,
            by_task=fetch.tasks > 1,
            last_task=fetch.tasks - 1,
        )

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes that one image moves: weights, image, results."""
        fetches = self.program.fetches
        image = sum(self._bytes(fetch) for fetch in fetches if fetch.target is Target.IMAGE)
        return {
            "weights": sum(self._bytes(fetch) for fetch in fetches) - image,
            "image": image,
            "results": self.result_beats * self.beat_bytes,
        }

    def to_bytes(self) -> bytes:
        """The parameter image, to be put where PARAMETERS points."""
        program = self.program
        whole = np.zeros(self.size, dtype=np.uint8)

        def put(position: int, data: bytes) -> None:
            whole[position : position + len(data)] = np.frombuffer(data, dtype=np.uint8)

        put(0, self.header.to_bytes())
        loop = Descriptor(
            words.Opcode.LOOP,
            threshold=program.totals[Counter.ISSUED],
            routed_threshold=program.totals[Counter.ROUTED],
        )
        stop = Descriptor(words.Opcode.STOP)
        listing = [*self.boot_descriptors, stop, *self.descriptors, loop]
        put(
            self._program_offset * self.beat_bytes,
            self._packed((words.encode(item) for item in listing), words.DESCRIPTOR_BITS),
        )
        for fetch in (*program.boot, *program.fetches):
            if fetch.target is Target.IMAGE:
                continue
            position = self._offsets[fetch.target, fetch.source] * self.beat_bytes
            if fetch.target is Target.WEIGHT:
                rows = program.weights[fetch.source : fetch.source + fetch.tasks * fetch.words]
                put(position, self._padded(rows, Target.WEIGHT))
            else:
                part = program.words_of(fetch.target)[fetch.source : fetch.source + fetch.words]
                put(position, self._packed(part, self._widths[fetch.target]))
        return whole.tobytes()

    def image_bytes(self, image: Tensor) -> bytes:
        """One float image [C, H, W] as it must lie in memory."""
        program = self.program
        depth = program.machine.depth
        codes = program.model.image_codes(image.unsqueeze(0))[0]
        padded = torch.zeros(program.image_tokens, program.image_words * depth, dtype=torch.uint8)
        padded[:, : program.image_features] = (codes & 255).to(torch.uint8)
        return self._padded(padded.reshape(-1, depth), Target.IMAGE)

    def results_of(self, data: bytes) -> list[int]:
        """The codes of one image's results, row by row, from the bytes in memory."""
        program = self.program
        rows = np.frombuffer(data, dtype=f"<i{self._code_bytes}", count=program.results)
        rows = rows.reshape(program.result_tokens, -1)[:, : program.result_features]
        return rows.flatten().tolist()

    def _padded(self, rows: Tensor, target: Target) -> bytes:
        """Rows of bytes, each filled up to whole beats."""
        width = self._word_beats[target] * self.beat_bytes
        whole = np.zeros((len(rows), width), dtype=np.uint8)
        whole[:, : rows.shape[1]] = rows.numpy()
        return whole.tobytes()

    def _packed(self, values: Iterable[int] | Sequence[int], bits: int) -> bytes:
        width = beats_per_word(bits, self.beat_bytes * 8) * self.beat_bytes
        return b"".join(value.to_bytes(width, "little") for value in values)


def _up(position: int) -> int:
    return -(-position // _BORDER) * _BORDER
