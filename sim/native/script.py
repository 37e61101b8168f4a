"""What the host does in a native run, step by step, as the text that the harness follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import VitruviusError
from ...hwgen.axi.register_map import ADDRESS_BITS, DEBUG_DATA_AT, register

__all__ = ["Script"]

_REGISTER_SPACE = 1 << ADDRESS_BITS


@dataclass
class Script:
    """Steps of the host, in order; every method adds one and returns the script.

    A step with a ``name`` leaves a value or bytes in the outcome under that name, which must be
    new. Register addresses are byte addresses, as `hwgen.axi.register_map` has them.

    >>> print(Script().write(0x000, 1).wait_done(10_000).read(0x100, "cycles").text)
    write 0x0 0x1
    wait_done 0x4 10000 64 status
    read 0x100 cycles

    Raises VitruviusError where an argument is out of range or a name is not new.
    """

    lines: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    blobs: dict[str, bytes | Path] = field(default_factory=dict)
    blob_prefix: str = "load"
    """blobs: file name -> contents, of the ``load`` steps. The hyphen in a file's name keeps it
    apart from the files of ``names``.
    """

    @property
    def text(self) -> str:
        """The steps, one a line."""
        return "\n".join(self.lines)

    def reset(self, cycles: int = 4) -> Script:
        """Holds ``rst`` high; the memory forgets its bursts but keeps its contents."""
        return self._add("reset", _positive("reset: cycles", cycles))

    def write(self, address: int, value: int) -> Script:
        """Writes a register and waits for the answer."""
        return self._add("write", _register(address), _word(value))

    def read(self, address: int, name: str) -> Script:
        """Reads a register; the outcome has the value."""
        return self._add("read", _register(address), self._new(name))

    def expect(self, address: int, value: int, mask: int = 0xFFFF_FFFF) -> Script:
        """Reads a register; the run fails unless it equals ``value`` in the bits of ``mask``."""
        return self._add("expect", _register(address), _word(value), _word(mask))

    def wait_done(self, max_cycles: int, *, poll: int = 64, name: str = "status") -> Script:
        """Reads STATUS every ``poll`` cycles until it says done, paused or an error (codes 1 to 4).

        The outcome has the last STATUS; the run fails after ``max_cycles``.
        """
        cycles = _positive("wait_done: max_cycles", max_cycles)
        every = _positive("wait_done: poll", poll)
        return self._add("wait_done", hex(register("STATUS")), cycles, every, self._new(name))

    def wait_interrupt(self, max_cycles: int) -> Script:
        """Waits until ``interrupt`` is high; the run fails after ``max_cycles``."""
        return self._add("wait_interrupt", _positive("wait_interrupt: max_cycles", max_cycles))

    def sleep(self, cycles: int) -> Script:
        """Runs the clock."""
        return self._add("sleep", _positive("sleep: cycles", cycles))

    def read_debug(self, memory: int, word: int, count: int, slices: int, name: str) -> Script:
        """Reads ``count`` words from ``word`` of an internal memory, ``slices`` x 32 bits each.

        The outcome has ``4 * slices * count`` bytes, the lowest slice of a word first.
        """
        if not 0 <= memory < 8 or not 0 <= word <= word + count <= 1 << 24:
            raise VitruviusError(
                f"read_debug: expected memory 0..7 and words below 2^24, got memory {memory},"
                f" words {word}..{word + count - 1}"
            )
        if not 1 <= slices <= 256:
            raise VitruviusError(f"read_debug: expected 1 to 256 slices, got {slices}")
        first = memory << 24 | word
        registers = (hex(register("DEBUG_ADDRESS")), hex(DEBUG_DATA_AT))
        return self._add("read_debug", *registers, hex(first), count, slices, self._new(name))

    def load(self, address: int, data: bytes | Path) -> Script:
        """Writes bytes, or a file's bytes, into the memory, as a host's own store would."""
        return self._add("load", _address(address), self._blob(data))

    def dump(self, address: int, length: int, name: str) -> Script:
        """Copies bytes out of the memory; the outcome has them."""
        size = _positive("dump: length", length)
        return self._add("dump", _address(address), size, self._new(name))

    def load_on_chip(self, address: int, data: bytes | Path) -> Script:
        """Writes bytes into the accelerator's on-chip memory, through its window.

        The address is a multiple of 4; a last word that is not full is filled up with zeros.
        """
        return self._add("load_window", *_window(address), self._blob(data))

    def dump_on_chip(self, address: int, length: int, name: str) -> Script:
        """Reads bytes of the on-chip memory, through its window; the outcome has them."""
        size = _positive("dump_on_chip: length", length)
        return self._add("dump_window", *_window(address), size, self._new(name))

    def fail_reads(self, address: int) -> Script:
        """From here on, the beat that covers ``address`` is answered with a read error."""
        return self._add("fail_reads", _address(address))

    def fail_writes(self, address: int) -> Script:
        """From here on, a burst that covers ``address`` is answered with a write error."""
        return self._add("fail_writes", _address(address))

    def silence(self, address: int) -> Script:
        """From here on, bursts at ``address`` or above are accepted and never answered."""
        return self._add("silence", _address(address))

    def no_faults(self) -> Script:
        """Ends `fail_reads`, `fail_writes` and `silence`; silenced bursts are answered now."""
        return self._add("no_faults")

    def _add(self, *words: str | int) -> Script:
        self.lines.append(" ".join(str(word) for word in words))
        return self

    def _blob(self, data: bytes | Path) -> str:
        file = f"{self.blob_prefix}-{len(self.blobs)}.bin"
        self.blobs[file] = data
        return file

    def _new(self, name: str) -> str:
        if not name.isidentifier():
            raise VitruviusError(f"script: expected a name of letters, digits and _, got '{name}'")
        if name in self.names:
            raise VitruviusError(f"script: expected a new name, got '{name}' again")
        self.names.add(name)
        return name


def _positive(what: str, value: int) -> int:
    if value < 1:
        raise VitruviusError(f"{what}: expected at least 1, got {value}")
    return value


def _register(address: int) -> str:
    if not 0 <= address < _REGISTER_SPACE or address % 4:
        raise VitruviusError(
            f"script: expected a register's byte address, a multiple of 4 below 0x10000,"
            f" got {address:#x}"
        )
    return hex(address)


def _window(address: int) -> tuple[str, str, str]:
    """The registers of the window, and where to begin."""
    if not 0 <= address < 1 << 32 or address % 4:
        raise VitruviusError(
            f"script: expected an on-chip address of 32 bits, a multiple of 4, got {address:#x}"
        )
    return hex(register("MEMORY_ADDRESS")), hex(register("MEMORY_DATA")), hex(address)


def _word(value: int) -> str:
    if not 0 <= value < 1 << 32:
        raise VitruviusError(f"script: expected a value of 32 bits, got {value:#x}")
    return hex(value)


def _address(address: int) -> str:
    if not 0 <= address < 1 << 64:
        raise VitruviusError(f"script: expected a memory address of 64 bits, got {address:#x}")
    return hex(address)
