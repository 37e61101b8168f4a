"""The accelerator: one shared compute unit, its buffers, and a sequencer that executes a
Program.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .attention_buffer import AttentionBuffer
from .delay import delayed
from .drain_path import DrainPath, column_layout
from .instruction import INSTRUCTION_BITS, Destination, Opcode, Source
from .lane_memory import LaneAligner, LaneMemory
from .loader import Loader, Target
from .machine import Machine
from .norm_engine import NormEngine
from .operand_feed import OperandFeed
from .product_engine import ProductEngine
from .ram import Ram
from .registers import ADDRESS_BITS, DebugMemory
from .residual_stream import ResidualStream
from .sequencer import Sequencer
from .stream_engines import InitEngine, LoadEngine, StoreEngine
from .units.compute_array import ComputeArray
from .weight_source import WeightSource

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """Executes the Program in its program memory once per start. A Machine fixes sizes and
    cycles, never results.

    Members
    -------
    load : In stream, 64-bit beats that fill program, weight and column memories (see `Loader`)
    image : In stream, ``depth`` bytes of the token matrix a beat (see `LoadEngine`)
    logits : Out stream, one 16-bit code a beat (see `StoreEngine`)
    address, write, write_data, read_data : register port (see `registers`); read_data follows
    address by a cycle
    done : Out, high from the end of a program until the next start
    paused : Out, high while the program waits before the BREAK step
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._column = column_layout(machine.cols)
        self._loader = Loader(
            widths=(INSTRUCTION_BITS, 8 * machine.cols * machine.depth, self._column.size),
            depth=max(machine.buffers.instructions, machine.weight_words, machine.column_words),
        )
        super().__init__(
            {
                "load": self._loader.signature.members["beats"],
                "image": In(stream.Signature(unsigned(8 * machine.depth))),
                "logits": Out(
                    stream.Signature(data.StructLayout({"value": signed(16), "last": unsigned(1)}))
                ),
                "address": In(ADDRESS_BITS),
                "write": In(1),
                "write_data": In(32),
                "read_data": Out(32),
                "done": Out(1),
                "paused": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        cols, depth, lanes = machine.cols, machine.depth, machine.lanes

        m.submodules.loader = loader = self._loader
        m.submodules.sequencer = sequencer = Sequencer(machine)
        m.submodules.load_engine = load = LoadEngine(machine)
        m.submodules.init_engine = init = InitEngine(machine)
        m.submodules.product_engine = product = ProductEngine(machine)
        m.submodules.norm_engine = norm = NormEngine(machine)
        m.submodules.store_engine = store = StoreEngine(machine)
        m.submodules.feed = feed = OperandFeed(machine)
        m.submodules.array = array = ComputeArray(
            rows=machine.rows, cols=cols, depth=depth, packing=machine.packing
        )
        m.submodules.drain_path = drain = DrainPath(machine)
        m.submodules.residual = residual = ResidualStream(machine)
        m.submodules.attention = attention = AttentionBuffer(machine)
        m.submodules.weights = weights = WeightSource(
            width=8 * cols * depth, depth=machine.weight_words
        )
        wiring.connect(m, wiring.flipped(self.load), loader.beats)
        wiring.connect(m, wiring.flipped(self.image), load.image)
        wiring.connect(m, store.logits, wiring.flipped(self.logits))

        # Sequencer, engines, registers.
        i = sequencer.instruction
        engines: dict[Opcode, wiring.Component] = {
            Opcode.LOAD: load,
            Opcode.INIT: init,
            Opcode.PRODUCT: product,
            Opcode.NORM: norm,
            Opcode.STORE: store,
        }
        for opcode, engine in engines.items():
            m.d.comb += engine.start.eq(sequencer.start & (i.opcode == opcode))
        for reader in (load, init, product, norm, store, feed, drain, attention):
            m.d.comb += reader.instruction.eq(i)
        m.d.comb += [
            sequencer.engine_busy.eq(load.busy | init.busy | product.busy | norm.busy | store.busy),
            sequencer.softmax_busy.eq(attention.busy),
            sequencer.load.enable.eq(loader.enable[Target.PROGRAM]),
            sequencer.load.address.eq(loader.address),
            sequencer.load.data.eq(loader.word),
            sequencer.image_stalled.eq(load.stalled),
            sequencer.logits_stalled.eq(store.stalled),
            sequencer.weight_stalled.eq(product.stalled),
            sequencer.issue.eq(product.issue),
            sequencer.load_word.eq(product.load),
            sequencer.address.eq(self.address),
            sequencer.write.eq(self.write),
            sequencer.write_data.eq(self.write_data),
            self.read_data.eq(sequencer.read_data),
            self.done.eq(sequencer.done),
            self.paused.eq(sequencer.paused),
        ]

        # Memories of this level: tokens, keys, values, columns, results.
        straddle = lanes % cols != 0
        m.submodules.tokens = tokens = LaneMemory(
            rows=machine.token_rows, lanes=lanes, depth=depth, straddle=straddle
        )
        keys = [
            LaneMemory(rows=machine.key_rows, lanes=lanes, depth=depth, straddle=straddle)
            for _ in range(cols)
        ]
        values = [Ram(width=8 * cols, depth=machine.value_rows) for _ in range(depth)]
        m.submodules.columns = columns = Ram(width=self._column.size, depth=machine.column_words)
        m.submodules.results = results = Ram(width=16 * cols, depth=machine.result_words)

        # Operands: product engine -> addresses -> feed -> array.
        resting = sequencer.resting
        m.d.comb += [
            tokens.word.eq(Mux(resting, sequencer.debug_word, product.a_word)),
            attention.word.eq(Mux(resting, sequencer.debug_word, product.a_word)),
            feed.token_word.eq(tokens.data),
            feed.attention_word.eq(attention.data),
            weights.start.eq(product.start & (i.b_source == Source.WEIGHT)),
            weights.stop.eq(~product.busy),
            weights.base.eq(i.b_base),
            weights.count.eq(i.weight_words),
            weights.load.enable.eq(loader.enable[Target.WEIGHT]),
            weights.load.address.eq(loader.address),
            weights.load.data.eq(loader.word),
            weights.words.ready.eq(product.weight_ready),
            product.weight_valid.eq(weights.words.valid),
            feed.weight_word.as_value().eq(weights.words.payload),
        ]
        for name in ("issue", "first", "last", "partial", "word", "load", "load_slot"):
            m.d.comb += getattr(feed, name).eq(getattr(product, name))
        m.d.comb += [
            array.a.eq(feed.a),
            array.b.eq(feed.b),
            array.valid.eq(feed.valid),
            array.first.eq(feed.a_first),
            array.last.eq(feed.a_last),
        ]

        # Drain path.
        for name in (
            "load_first", "load_slot", "record", "active", "row_first", "row_last",
            "tile", "tile_row", "tile_lane", "tile_count",
        ):  # fmt: skip
            m.d.comb += getattr(drain, name).eq(getattr(product, name))
        m.d.comb += [
            drain.last.eq(product.issue & product.last),
            drain.drain_valid.eq(array.drain_valid),
            drain.drain_row.eq(array.drain_row),
            drain.drain.eq(array.drain),
            attention.token.eq(drain.scale_token),
            drain.scale_mantissa.eq(attention.mantissa),
            drain.scale_length.eq(attention.length),
        ]

        # Column buffer: the drain path, LayerNorm and the residual constants read it in turn.
        m.d.comb += [
            columns.write_enable.eq(loader.enable[Target.COLUMN]),
            columns.write_address.eq(loader.address),
            columns.write_data.eq(loader.word),
            columns.read_enable.eq((i.opcode != Opcode.PRODUCT) | drain.column_enable),
        ]
        with m.Switch(i.opcode):
            with m.Case(Opcode.PRODUCT):
                m.d.comb += columns.read_address.eq(drain.column_address)
            with m.Case(Opcode.NORM):
                m.d.comb += columns.read_address.eq(norm.column_address)
            with m.Default():
                m.d.comb += columns.read_address.eq(init.column_address)
        for reader in (drain, norm, init):
            m.d.comb += reader.column.as_value().eq(columns.read_data)

        # Residual stream: read-modify-write by RESIDUAL, written by INIT, read by NORM.
        wide = drain.wide
        adding = Signal()
        m.d.comb += [
            adding.eq(wide.valid & (i.destination == Destination.RESIDUAL)),
            residual.read_row.eq(
                Mux(i.opcode == Opcode.NORM, norm.residual_row, drain.residual_row)
            ),
            residual.token.eq(norm.token),
            norm.moments.eq(residual.moments),
            norm.chunk.eq(residual.chunk),
        ]
        with m.If(resting):
            m.d.comb += residual.read_row.eq(sequencer.debug_word)
        sums = Signal(data.ArrayLayout(signed(16), cols))
        for lane in range(cols):
            total = Signal(signed(17), name=f"total{lane}")
            m.d.comb += total.eq(residual.chunk[lane] + wide.chunk[lane])
            with m.If(total > 32767):
                m.d.sync += sums[lane].eq(32767)
            with m.Elif(total < -32768):
                m.d.sync += sums[lane].eq(-32768)
            with m.Else():
                m.d.sync += sums[lane].eq(total)
        write = residual.write
        m.d.comb += [write.valid.eq(delayed(m, adding, 1, name="adding")), write.chunk.eq(sums)]
        for name in ("row", "slot", "token", "count", "first", "last"):
            late = delayed(m, getattr(wide, name), 1, name=f"added_{name}")
            m.d.comb += getattr(write, name).eq(late)
        with m.If(init.write.valid):
            m.d.comb += [write.valid.eq(1), write.slot.eq(0)]
            for name in ("row", "token", "count", "first", "last", "chunk"):
                m.d.comb += getattr(write, name).eq(getattr(init.write, name))

        # Scores.
        m.d.comb += attention.write.valid.eq(wide.valid & (i.destination == Destination.SCORE))
        for name in ("slot", "token", "tile", "count", "first", "last", "chunk"):
            m.d.comb += getattr(attention.write, name).eq(getattr(wide, name))

        # Results.
        m.d.comb += [
            results.write_enable.eq(wide.valid & (i.destination == Destination.RESULT)),
            results.write_address.eq(wide.row),
            results.write_data.eq(wide.chunk.as_value()),
            results.read_address.eq(store.row),
            store.chunk.as_value().eq(results.read_data),
        ]

        # int8 chunks: token buffer (products, LayerNorm, image), keys, values.
        narrow = drain.narrow
        m.submodules.token_aligner = token_aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.token_rows
        )
        m.submodules.key_aligner = key_aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.key_rows
        )
        to_key, to_value = Signal(), Signal()
        m.d.comb += [
            to_key.eq(i.destination == Destination.KEY),
            to_value.eq(i.destination == Destination.VALUE),
            token_aligner.valid.eq(narrow.valid & ~to_key & ~to_value),
            key_aligner.valid.eq(narrow.valid & to_key),
        ]
        for name in ("row", "lane", "count", "chunk"):
            m.d.comb += [
                getattr(token_aligner, name).eq(getattr(narrow, name)),
                getattr(key_aligner, name).eq(getattr(narrow, name)),
            ]
        with m.If(norm.write.valid):
            m.d.comb += token_aligner.valid.eq(1)
            for name in ("row", "lane", "count", "chunk"):
                m.d.comb += getattr(token_aligner, name).eq(getattr(norm.write, name))
        for name in ("row", "enable", "next_row", "data"):
            m.d.comb += getattr(tokens.write, name).eq(getattr(token_aligner.write, name))
        subwords = machine.subwords
        with m.If(load.write.valid):
            subword_bits = subwords.bit_length() - 1
            m.d.comb += [
                tokens.write.row.eq(load.write.word >> subword_bits),
                tokens.write.next_row.eq(0),
                tokens.write.data.as_value().eq(load.write.data.replicate(subwords)),
            ]
            for subword in range(subwords):
                m.d.comb += tokens.write.enable.word_select(subword, depth).eq(
                    (load.write.word[:subword_bits] == subword).replicate(depth)
                )
        for bank, keep in enumerate(keys):
            m.submodules[f"keys{bank}"] = keep
            m.d.comb += [
                keep.word.eq(product.b_word),
                feed.key_words[bank].eq(keep.data),
                keep.write.row.eq(key_aligner.write.row),
                keep.write.next_row.eq(key_aligner.write.next_row),
                keep.write.data.eq(key_aligner.write.data),
                keep.write.enable.eq(Mux(narrow.bank == bank, key_aligner.write.enable, 0)),
            ]
        for bank, storage in enumerate(values):
            m.submodules[f"values{bank}"] = storage
            m.d.comb += [
                storage.read_address.eq(product.b_word),
                feed.value_words[bank].as_value().eq(storage.read_data),
                storage.write_enable.eq(narrow.valid & to_value & (narrow.bank == bank)),
                storage.write_address.eq(narrow.row),
                storage.write_data.eq(narrow.chunk.as_value()),
            ]

        # Debug window.
        windows = {
            DebugMemory.RESIDUAL: residual.chunk,
            DebugMemory.TOKEN: tokens.data,
            DebugMemory.ATTENTION: attention.data,
        }
        m.d.comb += sequencer.debug_data.eq(
            Array(
                windows[source].as_value().word_select(sequencer.debug_slice, 32)
                for source in DebugMemory
            )[sequencer.debug_select]
        )
        return m
