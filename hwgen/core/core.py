"""The core of the accelerator: one shared compute unit, its buffers, and the engines around it."""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..lane_memory import LaneAligner, LaneMemory, write_copies
from ..ram import Ram
from ..units.compute_array import ComputeArray
from ..units.tree import summed
from .attention_buffer import AttentionBuffer
from .counters import COUNTER_BITS, Counter
from .drain_path import DrainPath, column_layout
from .instruction import NORM_LAYOUT, Destination, Source, product_layout
from .machine import TABLE_WORD, Machine
from .norm_engine import NormEngine, norm_column_layout
from .operand_feed import OperandFeed
from .product_engine import ProductEngine
from .queues import connect_router
from .residual_stream import ResidualStream
from .shift_attention_buffer import ShiftAttentionBuffer
from .stream_sum import scaling, stream_sums

__all__ = [
    "EVENTS",
    "Core",
    "DebugMemory",
    "Target",
    "event_layout",
    "target_depths",
    "target_widths",
]


class Target(IntEnum):
    """The memories that are filled from outside."""

    FETCH_PROGRAM = 0
    PRODUCT_PROGRAM = 1
    NORM_PROGRAM = 2
    COLUMN = 3
    CONSTANT = 4
    WEIGHT = 5
    IMAGE = 6
    NORM_COLUMN = 7
    TABLE = 8


class DebugMemory(IntEnum):
    """Memories that can be read while the accelerator is idle or paused.

    QUEUE: of a machine with experts, the queues of the last gate. A word is an entry
    (`queues.queue_word`): token, weight, and the length of its queue, 16 bits each.
    """

    RESIDUAL = 0
    TOKEN = 1
    ATTENTION = 2
    NORMAL = 3
    QUEUE = 4


EVENTS = (
    "PRODUCT_CYCLES",
    "PADDING_CYCLES",
    "SWITCH_CYCLES",
    "WAIT_DRAINED",
    "WAIT_WEIGHED",
    "WAIT_NORMALISED",
    "WAIT_FETCHED",
    "WAIT_CONTEXT",
    "WAIT_STORE",
    "TOKEN_WORDS",
    "QUERY_WORDS",
    "WEIGHT_WORDS",
    "KEY_WORDS",
    "VALUE_WORDS",
    "DRAINED_CHUNKS",
    "SOFTMAX_CHUNKS",
    "NORM_CHUNKS",
)
"""What is counted. TOKEN_WORDS are those of the side of the rows, in products of scores also
QUERY_WORDS; the others those of the other operand, by where it lies."""


def event_layout(machine: Machine) -> data.StructLayout:
    """How much of each of `EVENTS` a cycle can bring."""
    several = ("TOKEN_WORDS", "QUERY_WORDS")
    return data.StructLayout(
        {name: range(machine.loads + 1) if name in several else unsigned(1) for name in EVENTS}
    )


def target_widths(machine: Machine) -> dict[Target, int]:
    """Bits of a word of each memory that the core has and that is filled from outside."""
    tables = {Target.TABLE: 8 * TABLE_WORD} if machine.scheme == "ivit" else {}
    return {
        Target.PRODUCT_PROGRAM: product_layout(machine.scheme).size,
        Target.NORM_PROGRAM: NORM_LAYOUT.size,
        Target.COLUMN: column_layout(machine).size,
        Target.CONSTANT: 16 * machine.cols,
        Target.WEIGHT: 8 * machine.cols * machine.depth,
        Target.IMAGE: 8 * machine.depth,
        Target.NORM_COLUMN: norm_column_layout(machine).size,
        **tables,
    }


def target_depths(machine: Machine) -> dict[Target, int]:
    """Words of each of them."""
    tables = {Target.TABLE: machine.table_words} if machine.scheme == "ivit" else {}
    return {
        Target.PRODUCT_PROGRAM: machine.buffers.products,
        Target.NORM_PROGRAM: machine.buffers.norms,
        Target.COLUMN: machine.column_words,
        Target.CONSTANT: machine.constant_rows,
        Target.WEIGHT: machine.weight_words,
        Target.IMAGE: machine.image_words,
        Target.NORM_COLUMN: machine.norm_column_words,
        **tables,
    }


class Core(wiring.Component):
    """Runs the programs in its memories. A Machine fixes sizes and cycles, never results.

    Members
    -------
    clear : In, a pulse before a run: all counters begin at 0
    run, images : In; a pulse that starts a run of so many images
    write : In, a word for one of the memories of `Target` (``enable`` has one bit each)
    fetched : In, transfers from memory that are complete (counter)
    issued : Out, products issued (counter); routed : Out, tokens routed (counter)
    queue_used : Out, which experts have tokens; task : In, whose gates are used
    results_ready : Out, a pulse: an image's results stand in the result memory
    hold : In, results are still being sent: they may not be overwritten
    results : Out, how many there are
    result_row, result_enable, result_chunk : the result memory, one cycle from row to chunk
    finished : Out, the last product of the run is issued
    paused, break_at, resume, product : as of the `ProductEngine`
    debug_memory, debug_word, debug_data : one word of a memory, valid while nothing runs
    go : Out, a product begins; events : Out, what is counted (`event_layout`)
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.widths = target_widths(machine)
        self.debug_bits = 8 * max(machine.depth, 2 * machine.cols)
        if machine.buffers.experts:
            self.debug_bits = max(self.debug_bits, 48)
        super().__init__(
            {
                "run": In(1),
                "clear": In(1),
                "images": In(16),
                "write": In(
                    wiring.Signature(
                        {
                            "enable": Out(len(Target)),
                            "address": Out(24),
                            "data": Out(max(self.widths.values())),
                        }
                    )
                ),
                "task": In(8),
                "fetched": In(COUNTER_BITS),
                "issued": Out(COUNTER_BITS),
                "routed": Out(COUNTER_BITS),
                "queue_used": Out(max(1, machine.buffers.experts)),
                "results_ready": Out(1),
                "hold": In(1),
                "results": Out(24),
                "result_row": In(range(machine.result_words)),
                "result_enable": In(1, init=1),
                "result_chunk": Out(machine.arithmetic.result_bits * machine.cols),
                "finished": Out(1),
                "paused": Out(1),
                "break_at": In(16),
                "resume": In(1),
                "product": Out(16),
                "debug_memory": In(DebugMemory),
                "debug_word": In(24),
                "debug_data": Out(self.debug_bits),
                "go": Out(1),
                "events": Out(event_layout(machine)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        rows, cols, depth, lanes = machine.rows, machine.cols, machine.depth, machine.lanes
        loads = machine.loads
        result_bits = machine.arithmetic.result_bits
        ivit = machine.scheme == "ivit"

        m.submodules.product_engine = product = ProductEngine(machine)
        m.submodules.norm_engine = norm = NormEngine(machine)
        m.submodules.feed = feed = OperandFeed(machine)
        m.submodules.array = array = ComputeArray(
            rows=rows, cols=cols, depth=depth, packing=machine.packing, planes=ivit
        )
        m.submodules.drain_path = drain = DrainPath(machine)
        m.submodules.residual = residual = ResidualStream(machine)
        attention = ShiftAttentionBuffer(machine) if ivit else AttentionBuffer(machine)
        m.submodules.attention = attention

        # Counters: what the engines wait for.
        drained = Signal(COUNTER_BITS)
        weighed = Signal(COUNTER_BITS)
        normalised = Signal(COUNTER_BITS)
        m.d.sync += [
            drained.eq(drained + drain.row_complete),
            weighed.eq(weighed + attention.row_complete),
            normalised.eq(normalised + norm.row_complete),
        ]
        with m.If(self.clear):
            m.d.sync += [drained.eq(0), weighed.eq(0), normalised.eq(0)]
        m.d.comb += [
            product.clear.eq(self.clear),
            product.counts[Counter.DRAINED].eq(drained),
            product.counts[Counter.WEIGHED].eq(weighed),
            product.counts[Counter.NORMALISED].eq(normalised),
            product.counts[Counter.FETCHED].eq(self.fetched),
            product.counts[Counter.ISSUED].eq(product.issued),
            product.counts[Counter.ROUTED].eq(self.routed),
            product.task.eq(self.task),
            product.run.eq(self.run),
            product.images.eq(self.images),
            product.drained.eq(drain.product_complete),
            product.hold.eq(self.hold),
            product.break_at.eq(self.break_at),
            product.resume.eq(self.resume),
            norm.run.eq(self.run),
            norm.images.eq(self.images),
            norm.drained.eq(drained),
            norm.issued.eq(product.issued),
            self.issued.eq(product.issued),
            self.results_ready.eq(drain.final | product.final_skipped),
            self.finished.eq(product.finished),
            self.paused.eq(product.paused & norm.quiet),
            self.product.eq(product.product),
            self.go.eq(product.go),
        ]
        resting = Signal()
        m.d.comb += resting.eq((product.paused | product.finished) & norm.quiet)

        # What is filled from outside.
        m.submodules.columns = columns = Ram(
            width=self.widths[Target.COLUMN], depth=machine.column_words
        )
        m.submodules.constants = constants = Ram(width=16 * cols, depth=machine.constant_rows)
        m.submodules.weights = weights = Ram(
            width=self.widths[Target.WEIGHT], depth=machine.weight_words
        )
        image = [Ram(width=8 * depth, depth=machine.image_words) for _ in range(loads)]
        for load, copy in enumerate(image):
            m.submodules[f"image{load}"] = copy
        memories: tuple[tuple[Target, Ram], ...] = (
            (Target.COLUMN, columns),
            (Target.CONSTANT, constants),
            (Target.WEIGHT, weights),
            *((Target.IMAGE, copy) for copy in image),
        )
        for target, memory in memories:
            m.d.comb += [
                memory.write_enable.eq(self.write.enable[target]),
                memory.write_address.eq(self.write.address),
                memory.write_data.eq(self.write.data),
            ]
        for target, port in (
            (Target.PRODUCT_PROGRAM, product.load_program),
            (Target.NORM_PROGRAM, norm.load_program),
            (Target.NORM_COLUMN, norm.load_columns),
            *([(Target.TABLE, drain.load_tables)] if ivit else []),
        ):
            m.d.comb += [
                port.enable.eq(self.write.enable[target]),
                port.address.eq(self.write.address),
                port.data.eq(self.write.data),
            ]

        # Memories between the engines, each with one writer.
        straddle = lanes % cols != 0

        def buffers(rows: int, copies: int) -> list[LaneMemory]:
            return [
                LaneMemory(rows=rows, lanes=lanes, depth=depth, straddle=straddle)
                for _ in range(copies)
            ]

        tokens = buffers(machine.token_rows, loads)
        normal = buffers(machine.normal_rows, loads)
        keys = buffers(machine.key_rows, cols)
        values = [Ram(width=8 * cols, depth=machine.value_rows) for _ in range(depth)]
        m.submodules.results = results = Ram(width=result_bits * cols, depth=machine.result_words)

        # Operands: product engine -> addresses -> feed -> array.
        debug_word = self.debug_word
        m.d.comb += [
            weights.read_address.eq(product.b_word),
            feed.instruction.eq(product.instruction),
            feed.attention_words.eq(attention.data),
            feed.weight_words.as_value().eq(weights.read_data),
        ]
        for load in range(loads):
            word = Mux(resting, debug_word, product.a_word[load])
            m.d.comb += [
                tokens[load].word.eq(word),
                normal[load].word.eq(word),
                attention.word[load].eq(word),
                image[load].read_address.eq(product.a_word[load]),
                feed.token_words[load].eq(tokens[load].data),
                feed.normal_words[load].eq(normal[load].data),
                feed.image_words[load].as_value().eq(image[load].read_data),
            ]
        for name in (
            "issue", "first", "last", "partial", "word", "load", "load_slot", "load_void",
        ):  # fmt: skip
            m.d.comb += getattr(feed, name).eq(getattr(product, name))
        m.d.comb += [
            array.a.eq(feed.a),
            array.b.eq(feed.b),
            array.valid.eq(feed.valid),
            array.first.eq(feed.a_first),
            array.last.eq(feed.a_last),
        ]
        if ivit:
            m.d.comb += array.upper.eq(delayed(m, product.upper, 1, name="upper"))

        # Drain path.
        for name in (
            "load_first", "load_slot", "record", "active", "row_first", "row_last",
            "tile", "tile_row", "tile_lane", "tile_count", "context", "contexts",
        ):  # fmt: skip
            m.d.comb += getattr(drain, name).eq(getattr(product, name))
        m.d.comb += [
            drain.last.eq(product.issue & product.last),
            drain.drain_valid.eq(array.drain_valid),
            drain.drain_row.eq(array.drain_row),
            drain.drain.eq(array.drain),
            columns.read_enable.eq(drain.column_enable),
            columns.read_address.eq(drain.column_address),
            drain.column.as_value().eq(columns.read_data),
        ]

        # Residual stream: read-modify-write by RESIDUAL and EMBED, read by the norm engine. All of
        # it happens as much later as scaling takes.
        wide = drain.wide

        def late(signal: Signal, name: str, more: int = 0) -> Signal:
            return delayed(m, signal, scaling(machine) + more, name=name)

        residual_row = drain.residual_row if ivit else late(drain.residual_row, "residual_row")
        m.d.comb += [
            constants.read_address.eq(residual_row),
            residual.add_row.eq(residual_row),
            residual.read_row.eq(Mux(resting, debug_word, norm.residual_row)),
            residual.token.eq(norm.token),
            norm.moments.eq(residual.moments),
            norm.chunk.eq(residual.chunk),
        ]
        constant = data.View(residual.addend.shape(), constants.read_data)
        sums = stream_sums(m, machine, wide, residual.addend, constant)
        adding = Signal()
        stream = (wide.destination == Destination.EMBED) | (
            wide.destination == Destination.RESIDUAL
        )
        m.d.comb += adding.eq(wide.valid & stream)
        write = residual.write
        m.d.comb += [write.valid.eq(late(adding, "adding", 1)), write.chunk.eq(sums)]
        for name in ("row", "slot", "token", "count", "accumulate", "first", "last"):
            m.d.comb += getattr(write, name).eq(late(getattr(wide, name), f"added_{name}", 1))

        # Scores, of attention and of gates. The product that is begun says how its rows lie.
        to_router = wide.destination == Destination.GATE
        gate = product.instruction.destination == Destination.GATE
        scores = gate | (product.instruction.destination == Destination.SCORE)
        if ivit:
            m.d.comb += [
                attention.step.eq(product.instruction.exp_step),
                attention.octaves.eq(product.instruction.octaves),
            ]
        else:
            m.d.comb += [
                attention.gate.eq(gate),
                attention.token.eq(drain.scale_token),
                drain.scale_mantissa.eq(attention.mantissa),
                drain.scale_length.eq(attention.length),
            ]
        m.d.comb += [
            attention.write.valid.eq(
                wide.valid & (to_router | (wide.destination == Destination.SCORE))
            ),
            attention.start.eq(product.opening & scores),
            attention.tiles.eq(product.instruction.tiles),
            attention.last_count.eq(product.instruction.last_count),
            attention.pitch.eq(product.instruction.dst_stride),
        ]
        for name in ("slot", "token", "tile", "count", "first", "last"):
            m.d.comb += getattr(attention.write, name).eq(getattr(wide, name))
        m.d.comb += [attention.write.chunk[lane].eq(wide.chunk[lane]) for lane in range(cols)]

        if machine.buffers.experts:
            queue_entry = connect_router(
                m, self, product, attention, wide, wide.valid & to_router, resting
            )

        # Results: codes, or rows of the stream. The product that makes them says how many.
        of_stream = Signal()
        m.d.comb += of_stream.eq(write.valid & late(wide.results, "result", 1))
        with m.If(product.opening & (product.instruction.results != 0)):
            m.d.sync += self.results.eq(product.instruction.results)
        m.d.comb += [
            results.write_enable.eq(
                of_stream | (wide.valid & (wide.destination == Destination.RESULT))
            ),
            results.write_address.eq(Mux(of_stream, write.row, wide.row)),
            results.write_data.eq(
                Cat(
                    Mux(of_stream, write.chunk[lane], wide.chunk[lane])[:result_bits]
                    for lane in range(cols)
                )
            ),
            results.read_address.eq(self.result_row),
            results.read_enable.eq(self.result_enable),
            self.result_chunk.eq(results.read_data),
        ]

        # int8 chunks: token buffer, keys, values, normalised rows.
        narrow = drain.narrow
        m.submodules.token_aligner = token_aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.token_rows
        )
        m.submodules.key_aligner = key_aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.key_rows
        )
        m.submodules.normal_aligner = normal_aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.normal_rows
        )
        to_key, to_value = Signal(), Signal()
        m.d.comb += [
            to_key.eq(narrow.destination == Destination.KEY),
            to_value.eq(narrow.destination == Destination.VALUE),
            token_aligner.valid.eq(narrow.valid & ~to_key & ~to_value),
            key_aligner.valid.eq(narrow.valid & to_key),
            normal_aligner.valid.eq(norm.write.valid),
        ]
        for name in ("row", "lane", "count", "chunk"):
            m.d.comb += [
                getattr(token_aligner, name).eq(getattr(narrow, name)),
                getattr(key_aligner, name).eq(getattr(narrow, name)),
                getattr(normal_aligner, name).eq(getattr(norm.write, name)),
            ]
        write_copies(m, token_aligner.write, tokens, name="tokens")
        write_copies(m, normal_aligner.write, normal, name="normal")
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

        # What is counted.
        issued = product.instruction
        token_words = summed(
            [product.load[load] & ~product.load_void[load] for load in range(loads)]
        )
        events = {
            "PRODUCT_CYCLES": product.issue,
            "PADDING_CYCLES": product.padding,
            "SWITCH_CYCLES": product.switching,
            "WAIT_DRAINED": product.waiting[Counter.DRAINED],
            "WAIT_WEIGHED": product.waiting[Counter.WEIGHED],
            "WAIT_NORMALISED": product.waiting[Counter.NORMALISED],
            "WAIT_FETCHED": product.waiting[Counter.FETCHED],
            "WAIT_CONTEXT": product.waiting_context,
            "WAIT_STORE": product.waiting_store,
            "TOKEN_WORDS": token_words,
            "QUERY_WORDS": Mux(issued.b_source == Source.KEY, token_words, 0),
            "WEIGHT_WORDS": product.issue & (issued.b_source == Source.WEIGHT),
            "KEY_WORDS": product.issue & (issued.b_source == Source.KEY),
            "VALUE_WORDS": product.issue & (issued.b_source == Source.VALUE),
            "DRAINED_CHUNKS": drain.chunk_valid,
            "SOFTMAX_CHUNKS": attention.chunk_valid,
            "NORM_CHUNKS": norm.active,
        }
        m.d.comb += [self.events[name].eq(events[name]) for name in EVENTS]

        # Debug window.
        windows = {
            DebugMemory.RESIDUAL: residual.chunk,
            DebugMemory.TOKEN: tokens[0].data,
            DebugMemory.ATTENTION: attention.data[0],
            DebugMemory.NORMAL: normal[0].data,
        }
        shown = [windows[source].as_value() for source in windows]
        if machine.buffers.experts:
            shown.append(queue_entry)
        m.d.comb += self.debug_data.eq(Array(shown)[self.debug_memory])
        return m
