"""The cycles of `fetch.FetchEngine` on a memory with the rules of `MemoryModel`, burst by burst.

A maximum of a few sums for each burst, so that the simulator can ask fetch by fetch while it finds
out when the rest of the machine lets each one go. Cycles are numbered as the caller likes.
"""

from __future__ import annotations

from collections import deque

from .bus import beat_bytes, border_beats, check_outstanding
from .descriptor import HEADER_BYTES, Descriptor, Opcode, Space
from .fetch import COMPLETION
from .memory_model import MemoryModel

__all__ = ["FetchTimeline"]

_NEVER = -(1 << 62)


class FetchTimeline:
    """When each descriptor completes, in program order.

    ``begin`` or ``boot`` first, then ``fetch`` and ``loop`` for the descriptors of the images.

    Parameters
    ----------
    memory : the rules of the memory.
    port_bits, outstanding : as the engine's.

    Attributes
    ----------
    read_beats, product_waits, memory_waits : the engine's counters, of what has been asked so far.
    """

    def __init__(self, memory: MemoryModel, *, port_bits: int, outstanding: int) -> None:
        self.memory = memory
        self.limit = check_outstanding(outstanding)
        self.bytes = beat_bytes(port_bits)
        self.border = border_beats(port_bits)
        # Cycles of the last beats of bursts, oldest first: as many as one of the limits reaches.
        window = max(self.limit, memory.outstanding)
        self._lasts = deque([_NEVER] * window, maxlen=window)
        self._accepted = _NEVER  # the latest AR
        self._issued = _NEVER  # the latest burst put into the AR register
        self._fresh = _NEVER  # the program memory shows the next descriptor
        self._popped = _NEVER  # the head is free
        self.read_beats = self.product_waits = self.memory_waits = 0

    def begin(self, start: int) -> None:
        """``start`` in cycle ``start`` with everything loaded: the first image begins."""
        self._clear()
        self._jump(start)

    def boot(
        self,
        start: int,
        parameters: int,
        program_offset: int,
        program_beats: int,
        fetches: list[Descriptor],
    ) -> int:
        """``start`` in cycle ``start`` boots: the header, the program, the fetches before STOP.

        ``parameters``: the byte address; ``program_offset``, ``program_beats``: as in the header.
        Returns the first cycle in which ``booted`` is high; the first image follows.
        """
        self._clear()
        last = self._request(start + 1, parameters, HEADER_BYTES // self.bytes)
        program = parameters + program_offset * self.bytes
        last = self._request(last + COMPLETION, program, program_beats)
        self._jump(last + 1)
        for descriptor in fetches:
            if descriptor.opcode is not Opcode.FETCH or descriptor.space is not Space.PARAMETERS:
                raise ValueError(f"boot: expected fetches of parameters, got {descriptor}")
            if descriptor.expert or descriptor.by_task:
                raise ValueError(f"boot: expected fetches without conditions, got {descriptor}")
            self.fetch(_NEVER, parameters + descriptor.offset * self.bytes, descriptor.beats)
        head = self._head()
        self._popped = max(head, self._lasts[-1] + COMPLETION)
        return self._popped + 1

    def fetch(
        self,
        ready_cycle: int,
        address: int,
        beats: int,
        *,
        skipped: bool = False,
        by_task: bool = False,
    ) -> int:
        """A FETCH of ``beats`` from byte ``address``; returns the first cycle that counts it.

        ``ready_cycle``: the first cycle in which ``products`` and, if it has an expert, ``routed``
        both show the thresholds reached; any cycle of the past for a descriptor that does not wait.
        ``skipped``: its expert's queue is empty then; address and beats are of no account.
        ``by_task``: its offset depends on the task, whose displacement ``address`` includes.
        """
        head = self._head()
        self.product_waits += max(0, ready_cycle - head)
        if skipped:
            self._popped = max(head, ready_cycle)
            return max(self._popped, self._lasts[-1]) + COMPLETION
        self._popped = max(head + by_task, ready_cycle, self._issued + 1)
        return self._request(self._popped, address, beats) + COMPLETION

    def loop(self) -> int:
        """A LOOP; returns the first cycle with ``busy`` low if it ends the run."""
        head = self._head()
        self._jump(head)
        return max(head + 1, self._lasts[-1] + COMPLETION) + 1

    def _clear(self) -> None:
        self.read_beats = self.product_waits = self.memory_waits = 0

    def _jump(self, cycle: int) -> None:
        """In ``cycle`` the program address changes: its word is read in the next one."""
        self._fresh = cycle + 2
        self._popped = _NEVER

    def _head(self) -> int:
        """The first cycle with the next descriptor at the head."""
        load = max(self._fresh, self._popped)
        self._fresh = load + 2
        return load + 1

    def _request(self, taken: int, address: int, beats: int) -> int:
        """The reader takes a request in cycle ``taken``; returns the cycle of its last beat."""
        if beats < 1 or address % self.bytes:
            raise ValueError(
                f"fetch: expected beats at a multiple of {self.bytes}, got {beats} at {address}"
            )
        lasts, border = self._lasts, self.border
        own, others = -self.limit, -self.memory.outstanding
        latency, step = self.memory.latency, self.memory.gap + 1
        issued, accepted, last = taken, self._accepted, lasts[-1]
        waits = 0
        left = beats
        length = min(left, border - address // self.bytes % border)
        while left:
            # Put into the AR register: the one before is accepted, and fewer than `own` in flight.
            issued = max(issued + 1, accepted, lasts[own] + 1)
            accepted = max(issued + 1, lasts[others] + 1)
            first = max(accepted + latency, last + step)
            before, last = last, first + (length - 1) * step
            waits += last - max(issued, before)
            lasts.append(last)
            left -= length
            length = min(left, border)
        self._issued, self._accepted = issued, accepted
        self.read_beats += beats
        self.memory_waits += waits - beats
        return last
