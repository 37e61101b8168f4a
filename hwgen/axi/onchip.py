"""Memory on the chip behind the same port, for devices without DRAM."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..ram import Ram
from .bus import ReadSignature, WriteSignature, beat_bytes
from .memory_model import MemoryModel

__all__ = ["ON_CHIP_MODEL", "OnChipMemory"]

ON_CHIP_MODEL = MemoryModel(latency=2, gap=0, outstanding=2)
"""What the timelines are told of this memory."""


class OnChipMemory(wiring.Component):
    """An AXI4 slave on a RAM, and a 32-bit window through which a host fills and reads it.

    Takes INCR bursts of full-width beats with id 0, as this design makes, within its size. Reading
    and writing are independent; two bursts of each may be pending. To a master that is always ready
    it follows the rules of `MemoryModel` with `ON_CHIP_MODEL`; another may hold beats and answers.
    ``wready`` rises when the address of the burst is known.

    The window is for times at which the bus is idle: a window access in the cycle of a beat of the
    same direction wins, and the beat's data are wrong.

    Parameters
    ----------
    size : bytes, a multiple of a beat, at least two beats.
    port_bits : 64, 128, 256 or 512.

    Members
    -------
    read : In, `ReadSignature`; write : In, `WriteSignature` (this side is the slave)
    window_address (bytes), window_write, window_enable, window_read : In, as `ControlPort`'s
    window_data : Out, two cycles after window_read

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, *, size: int, port_bits: int) -> None:
        self.bytes = beat_bytes(port_bits)
        if size < 2 * self.bytes or size % self.bytes:
            raise ValueError(
                f"size: expected a multiple of {self.bytes} bytes, at least two, got {size!r}"
            )
        self.size, self.port_bits = size, port_bits
        super().__init__(
            {
                "read": In(ReadSignature(port_bits)),
                "write": In(WriteSignature(port_bits)),
                "window_address": In(32),
                "window_write": In(32),
                "window_enable": In(1),
                "window_read": In(1),
                "window_data": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.size // self.bytes
        m.submodules.ram = ram = Ram(width=self.port_bits, depth=depth, lanes=self.bytes)
        low = self.bytes.bit_length() - 1
        lane_bits = low - 2
        lane = Signal(lane_bits)
        window_word = self.window_address[low:]

        read = self.read
        reading, read_next, read_pending = _Queue(m, "read", depth), Signal(), Signal(2)
        answered = Signal()
        m.d.comb += [
            read.arready.eq(read_pending < ON_CHIP_MODEL.outstanding),
            read_next.eq(reading.valid & (~read.rvalid | read.rready)),
            answered.eq(read.rvalid & read.rready & read.rlast),
            read.rdata.eq(ram.read_data),
            ram.read_address.eq(Mux(self.window_read, window_word, reading.address)),
            ram.read_enable.eq(self.window_read | read_next),
        ]
        taken = read.arvalid & read.arready
        reading.elaborate(taken, read.araddr[low:], read.arlen, read_next)
        m.d.sync += read_pending.eq(read_pending + taken - answered)
        with m.If(read.rready):
            m.d.sync += read.rvalid.eq(0)
        with m.If(read_next):
            m.d.sync += [read.rvalid.eq(1), read.rlast.eq(reading.last)]

        m.d.sync += [
            lane.eq(self.window_address[2:low]),
            self.window_data.eq(ram.read_data.word_select(lane, 32)),
        ]

        write = self.write
        writing, written, write_pending = _Queue(m, "write", depth), Signal(), Signal(2)
        answers = Signal(2)
        m.d.comb += [
            write.awready.eq(write_pending < ON_CHIP_MODEL.outstanding),
            write.wready.eq(writing.valid),
            written.eq(write.wvalid & write.wready),
            ram.write_address.eq(Mux(self.window_enable, window_word, writing.address)),
            ram.write_data.eq(
                Mux(
                    self.window_enable,
                    self.window_write.replicate(self.port_bits // 32),
                    write.wdata,
                )
            ),
        ]
        with m.If(self.window_enable):
            m.d.comb += ram.write_enable.eq(Const(0xF, 4) << (4 * self.window_address[2:low]))
        with m.Elif(written):
            m.d.comb += ram.write_enable.eq(write.wstrb)
        taken = write.awvalid & write.awready
        writing.elaborate(taken, write.awaddr[low:], write.awlen, written)
        answer = Signal()
        m.d.comb += answer.eq((answers != 0) & (~write.bvalid | write.bready))
        m.d.sync += [
            write_pending.eq(write_pending + taken - (write.bvalid & write.bready)),
            answers.eq(answers + (written & writing.last) - answer),
        ]
        with m.If(write.bready):
            m.d.sync += write.bvalid.eq(0)
        with m.If(answer):
            m.d.sync += write.bvalid.eq(1)
        return m


class _Queue:
    """The burst under way, ``address`` of its next beat and whether that is the last, and the one
    behind it.
    """

    def __init__(self, m: Module, name: str, depth: int) -> None:
        self.m = m
        layout = data.StructLayout({"address": range(depth), "left": unsigned(8)})
        self.valid = Signal(name=f"{name}_valid")
        self.head = Signal(layout, name=f"{name}_head")
        self.waits = Signal(name=f"{name}_waits")
        self.waiting = Signal(layout, name=f"{name}_waiting")
        self.address = self.head.address
        self.last = self.head.left == 0

    def elaborate(self, put: Value, address: Value, left: Value, advance: Value) -> None:
        """A burst comes where ``put``; a beat goes where ``advance``."""
        m = self.m
        free = ~self.valid | (advance & self.last)
        with m.If(advance):
            m.d.sync += [
                self.head.address.eq(self.head.address + 1),
                self.head.left.eq(self.head.left - 1),
            ]
        with m.If(free):
            m.d.sync += [
                self.head.eq(self.waiting),
                self.valid.eq(self.waits),
                self.waits.eq(0),
            ]
        with m.If(put):
            with m.If(free & ~self.waits):
                m.d.sync += [
                    self.head.address.eq(address),
                    self.head.left.eq(left),
                    self.valid.eq(1),
                ]
            with m.Else():
                m.d.sync += [
                    self.waiting.address.eq(address),
                    self.waiting.left.eq(left),
                    self.waits.eq(1),
                ]
