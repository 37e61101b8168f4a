"""The product engine: runs the product program and says which row, tile and word meet in the
compute unit, cycle by cycle.

Reordered, token slot j begins its row j steps after slot 0 and goes around the tiles from where
slot 0 stands, so a step reads at most one word of the token side and one of the other side,
whatever the number of slots (Edge-MoE's skewed queries, arXiv 2305.18691, for every product here).
In the naive order all slots begin their rows in the same step, which takes as many words of the
token side at once as there are slots.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..ram import Ram
from .counters import COUNTER_BITS, Counter, reached
from .instruction import EXPERT_BITS, product_layout
from .machine import Machine
from .runner import Runner
from .schedule import QUEUE_READ

__all__ = [
    "CONTEXTS",
    "SWITCH",
    "ProductEngine",
    "slot_record",
]

CONTEXTS = 2
"""Products that can be between their first word and their last written row at the same time."""

SWITCH = 1
"""Cycles from the last word of a product to the first of the next that waits for nothing."""


def slot_record(machine: Machine) -> data.StructLayout:
    """What the drain path knows of the row in a slot: its token, its destination row and bank,
    whether neither operand nor bias counts, whether it is the last row of its product, and the
    weight of what it adds.
    """
    fields = {
        "token": unsigned(12),
        "row": unsigned(24),
        "bank": range(max(machine.cols, machine.depth)),
        "void": unsigned(1),
        "end": unsigned(1),
    }
    if machine.buffers.experts:
        fields["weight"] = unsigned(16)
    return data.StructLayout(fields)


_ROW = data.StructLayout(
    {
        "token": unsigned(12),
        "word": unsigned(24),
        "destination": unsigned(24),
        "bank": unsigned(8),
        "void": unsigned(12),
    }
)
"""Where a row lies: its token, the address of its first word, its destination row and bank, and how
many void rows there still are, itself included."""


class ProductEngine(wiring.Component):
    """Issues the words of one product after another. All outputs but the counters describe the word
    issued in this cycle.

    ``clear`` sets ``issued`` to 0; ``run`` runs the program for ``images`` images; ``finished``
    rises when the last word of the last image is issued. ``counts``: the counters, by `Counter`.
    ``drained`` (a pulse): a product is complete in its destination. ``hold``: start no result
    product (the last results are still being sent). ``break_at``: product of an image before which
    to wait for ``resume``, 0 never.

    Outputs: ``instruction`` of the issued word, ``contexts`` with both instructions in flight and
    ``context``, the number of the present one; address ``b_word``; ``word`` (index in the row, for
    the slot buffers); ``issue`` (a word is issued), ``first``/``last`` (of the row's words),
    ``partial`` (last word of a row or of a plane, lanes beyond last_lanes are void), ``upper`` (a
    word of upper bytes). For each of the words that the token
    side can give at once (``machine.loads``): ``load`` (it goes into slot ``load_slot``, or in the
    naive order into the slot of its own number), ``load_void``, its address ``a_word``, and with
    the first word of a row ``load_first`` and ``record``. ``opening``: the first word of a product.
    ``active``, ``row_first``, ``row_last``
    per slot; ``tile``, ``tile_row``, ``tile_lane``, ``tile_count``: destination offset of the tile.
    ``go``: a product begins; ``issued``: counter of products whose words are all issued.
    ``task``: whose gates are used. ``queue_expert``, ``queue_index`` -> ``queue_token``,
    ``queue_weight`` one cycle later: an entry of a queue; ``length_expert`` -> ``length`` at once.
    ``final_skipped``: a pulse, the last product of an image had no rows and all before it are
    complete.
    ``padding``, ``switching``, ``waiting`` (by `Counter`), ``waiting_context``, ``waiting_store``:
    why no word is issued in this cycle.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows = machine.rows
        self.record_layout = slot_record(machine)
        self.layout = product_layout(machine.scheme)
        super().__init__(
            {
                "clear": In(1),
                "run": In(1),
                "images": In(16),
                "finished": Out(1),
                "busy": Out(1),
                "counts": In(data.ArrayLayout(unsigned(COUNTER_BITS), len(Counter))),
                "drained": In(1),
                "hold": In(1),
                "break_at": In(16),
                "resume": In(1),
                "paused": Out(1),
                "product": Out(16),
                "go": Out(1),
                "issued": Out(COUNTER_BITS),
                "task": In(8),
                "queue_expert": Out(EXPERT_BITS),
                "queue_index": Out(12),
                "queue_token": In(12),
                "queue_weight": In(16),
                "length_expert": Out(EXPERT_BITS),
                "length": In(12),
                "final_skipped": Out(1),
                "load_program": In(
                    wiring.Signature(
                        {
                            "enable": Out(1),
                            "address": Out(range(machine.buffers.products)),
                            "data": Out(self.layout.size),
                        }
                    )
                ),
                "instruction": Out(self.layout),
                "contexts": Out(data.ArrayLayout(self.layout, CONTEXTS)),
                "context": Out(range(CONTEXTS)),
                "issue": Out(1),
                "first": Out(1),
                "last": Out(1),
                "partial": Out(1),
                "upper": Out(1),
                "word": Out(range(machine.slot_words)),
                "a_word": Out(data.ArrayLayout(24, machine.loads)),
                "b_word": Out(24),
                "load": Out(machine.loads),
                "load_first": Out(machine.loads),
                "opening": Out(1),
                "load_void": Out(machine.loads),
                "load_slot": Out(range(rows)),
                "record": Out(data.ArrayLayout(self.record_layout, machine.loads)),
                "active": Out(rows),
                "row_first": Out(rows),
                "row_last": Out(rows),
                "tile": Out(12),
                "tile_row": Out(24),
                "tile_lane": Out(range(machine.lanes)),
                "tile_count": Out(range(machine.cols + 1)),
                "padding": Out(1),
                "switching": Out(1),
                "waiting": Out(len(Counter)),
                "waiting_context": Out(1),
                "waiting_store": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        rows, cols, lanes, loads = machine.rows, machine.cols, machine.lanes, machine.loads
        skewed = loads == 1 and rows > 1
        routed = machine.buffers.experts > 0

        m.submodules.program = program = Ram(width=self.layout.size, depth=machine.buffers.products)
        m.submodules.runner = runner = Runner(self.layout, depth=machine.buffers.products)
        m.d.comb += [
            program.write_enable.eq(self.load_program.enable),
            program.write_address.eq(self.load_program.address),
            program.write_data.eq(self.load_program.data),
            program.read_address.eq(runner.address),
            runner.word.eq(program.read_data),
            runner.run.eq(self.run),
            runner.images.eq(self.images),
            self.finished.eq(runner.finished & ~self.busy),
        ]

        # What each counter stood at when the present image began.
        ahead = runner.instruction
        bases = data.View(self.counts.shape(), Signal(self.counts.shape().size, name="bases"))
        totals = {
            Counter.DRAINED: ahead.a_base,
            Counter.WEIGHED: ahead.b_base,
            Counter.NORMALISED: ahead.dst_base,
            Counter.FETCHED: ahead.column_base,
            Counter.ROUTED: ahead.row_threshold,
        }
        with m.If(self.run):
            for name in Counter:
                m.d.sync += bases[name].eq(self.counts[name])
        with m.Elif(runner.looping):
            for name, total in totals.items():
                m.d.sync += bases[name].eq(bases[name] + total)

        # Products begin in order, each in the context that the one before the last has left.
        contexts = [Signal(self.layout, name=f"context{index}") for index in range(CONTEXTS)]
        context = Signal(range(CONTEXTS))
        in_flight = Signal(range(CONTEXTS + 1))
        i = self.instruction
        start_ok, free, store_ok = Signal(), Signal(), Signal()
        met, stopped, resumed = Signal(), Signal(), Signal()
        ready, able = Signal(), Signal()
        tokens, skip = Signal(12), Signal()
        m.d.comb += [
            self.length_expert.eq(ahead.expert - 1),
            tokens.eq(Mux(routed & (ahead.expert != 0), self.length, ahead.tokens)),
            self.context.eq(context),
            i.eq(Array(contexts)[context]),
            start_ok.eq(
                (ahead.start_wait == Counter.NONE)
                | reached(
                    self.counts[ahead.start_wait], bases[ahead.start_wait] + ahead.start_threshold
                )
            ),
            free.eq(in_flight != CONTEXTS),
            store_ok.eq((ahead.results == 0) | ~self.hold),
            met.eq((self.break_at != 0) & (self.product == self.break_at) & ~resumed),
            ready.eq(runner.valid & ~self.busy),
            able.eq(ready & start_ok & free & store_ok & ~met & ~stopped),
            self.go.eq(able & (tokens != 0)),
            skip.eq(able & (tokens == 0)),
            self.paused.eq(stopped & (in_flight == 0)),
            runner.take.eq(able),
        ]
        m.d.comb += [self.contexts[index].eq(contexts[index]) for index in range(CONTEXTS)]
        m.d.sync += in_flight.eq(in_flight + self.go - self.drained)
        with m.If(ready & met):
            m.d.sync += stopped.eq(1)
        with m.If(self.resume & stopped):
            m.d.sync += [stopped.eq(0), resumed.eq(1)]
        with m.If(self.run | runner.looping):
            m.d.sync += self.product.eq(0)
        with m.Elif(able):
            m.d.sync += [self.product.eq(self.product + 1), resumed.eq(0)]
        with m.If(self.run):
            m.d.sync += resumed.eq(0)
        expected = Signal(COUNTER_BITS)  # rows that are drained when all that has begun is
        with m.If(self.clear):
            m.d.sync += [self.issued.eq(0), expected.eq(0)]
        with m.Elif(self.go):
            m.d.sync += expected.eq(expected + tokens)
        with m.If(skip):
            m.d.sync += self.issued.eq(self.issued + 1)
        closing, before = Signal(), Signal.like(in_flight)  # products before the one without rows
        m.d.comb += self.final_skipped.eq(closing & (before == 0))
        with m.If(self.drained & (before != 0)):
            m.d.sync += before.eq(before - 1)
        with m.If(skip & ahead.final):
            m.d.sync += [closing.eq(1), before.eq(in_flight - self.drained)]
        with m.Elif(self.final_skipped | self.clear):
            m.d.sync += closing.eq(0)

        # Rows that may begin in this step.
        rows_left = Signal(12)
        beginning = Signal(range(loads + 1))
        m.d.comb += beginning.eq(Mux(rows_left < loads, rows_left, loads))

        # Position in the step: below zero while the drain is busy with the step before, then the
        # word's index. Whatever follows, a step's sums are complete `rows` cycles after the last's.
        # A product with an expert begins as much earlier as it takes to read the queue.
        least = max(rows, QUEUE_READ if routed else 2)
        phase = Signal(range(-least - QUEUE_READ, machine.slot_words + 1))
        begin = Signal.like(phase)
        step_last = Signal()
        in_words = Signal()
        advance = Signal()
        loading = Signal()
        unopened = Signal()
        priming, of_queue = Signal(), Signal()
        m.d.comb += of_queue.eq(routed & (ahead.expert != 0))
        row_threshold, row_wanted = Signal(COUNTER_BITS), Signal(COUNTER_BITS)
        row_ok = Signal()
        m.d.comb += [
            row_wanted.eq(row_threshold + Mux(i.row_step, beginning - 1, 0)),
            row_ok.eq(
                ~loading
                | (phase != 0)
                | (i.row_wait == Counter.NONE)
                | reached(self.counts[i.row_wait], row_wanted)
            ),
            begin.eq(self._begin(i)),
            step_last.eq(phase == i.words - 1),
            in_words.eq(phase >= 0),
            advance.eq(self.busy & row_ok),
            self.issue.eq(advance & in_words),
            self.first.eq(phase == 0),
            self.last.eq(step_last),
            self.word.eq(phase),
        ]

        next_b = Signal()  # the other side's next word is another one
        m.d.comb += [self.partial.eq(self.last), next_b.eq(1)]
        if machine.scheme == "ivit":
            # Words of lower and upper bytes by turns; both meet the same word of the other side.
            with m.If(i.planes):
                m.d.comb += [
                    self.upper.eq(phase[0]),
                    self.partial.eq(phase >= i.words - 2),
                    next_b.eq(phase[0]),
                ]

        # Why no word is issued.
        row_waits, start_waits = Signal(), Signal()
        m.d.comb += [
            self.padding.eq(advance & ~in_words),
            row_waits.eq(self.busy & ~row_ok),
            self.waiting_context.eq(ready & ~free),
            self.waiting_store.eq(ready & free & ~store_ok),
            start_waits.eq(ready & free & store_ok & ~start_ok),
            self.switching.eq(
                ~runner.finished & ~self.busy & (able | ~runner.valid) & ~runner.idle
            ),
        ]
        for name in Counter:
            m.d.comb += self.waiting[name].eq(
                (row_waits & (i.row_wait == name)) | (start_waits & (ahead.start_wait == name))
            )

        # Slots: which of them take a new row in this step, and how many tiles each has left.
        turn = Signal(range(max(rows, 1 << 12)))  # step within the period
        left = [Signal(12, name=f"left{slot}") for slot in range(rows)]
        here = [Signal(name=f"here{slot}") for slot in range(rows)]
        m.d.comb += [
            loading.eq((turn < rows if skewed else turn == 0) & (rows_left != 0)),
            self.load_first.eq(Mux(self.first, self.load, 0)),
            self.opening.eq(unopened & self.load_first[0]),
            self.load_slot.eq(turn),
        ]
        for load in range(loads):
            m.d.comb += self.load[load].eq(loading & self.issue & (rows_left > load))
        for slot in range(rows):
            mine = turn == slot if loads == 1 else rows_left > slot
            m.d.comb += [
                here[slot].eq(loading & mine),
                self.active[slot].eq(here[slot] | (left[slot] != 0)),
                self.row_first[slot].eq(here[slot]),
                self.row_last[slot].eq(Mux(here[slot], i.tiles == 1, left[slot] == 1)),
            ]

        # Token addressing: the only place that turns "the next row" into addresses.
        row = Signal(_ROW)
        a_word = Signal(24)
        weight = Signal(16)
        rows_ahead = [row]
        for load in range(loads):
            here_row, next_row = rows_ahead[-1], Signal(_ROW, name=f"row{load + 1}")
            rows_ahead.append(next_row)
            record = self.record[load]
            around = here_row.bank + 1 == i.banks
            m.d.comb += [
                record.token.eq(here_row.token),
                record.row.eq(here_row.destination),
                record.bank.eq(here_row.bank),
                record.void.eq(here_row.void != 0),
                record.end.eq(rows_left == load + 1),
                self.load_void[load].eq(here_row.void != 0),
                self.a_word[load].eq(a_word if load == 0 else here_row.word + self.word),
                next_row.token.eq(here_row.token + 1),
                next_row.void.eq(Mux(here_row.void != 0, here_row.void - 1, 0)),
                next_row.word.eq(here_row.word + Mux(here_row.void != 0, 0, i.a_stride)),
                next_row.bank.eq(Mux(around, 0, here_row.bank + 1)),
                next_row.destination.eq(here_row.destination + Mux(around, i.dst_stride, 0)),
            ]
        if routed:
            m.d.comb += self.record[0].weight.eq(weight)
        following = Signal(_ROW)
        m.d.comb += following.eq(rows_ahead[-1])
        primed = Signal()
        if routed:
            queued = Signal(_ROW)  # addresses of the row that is next in the queue
            queued_weight = Signal(16)
            m.d.comb += [
                self.queue_expert.eq(i.expert - 1),
                primed.eq(priming & (phase + 1 == begin)),
            ]
            m.d.sync += [
                queued.token.eq(self.queue_token),
                queued.word.eq(i.a_base + self.queue_token * i.a_stride),
                queued.destination.eq(i.dst_base + self.queue_token * i.dst_stride),
                queued_weight.eq(self.queue_weight),
            ]
            with m.If(primed):
                m.d.comb += following.eq(row)
                m.d.sync += priming.eq(0)
            with m.If(i.gather):
                m.d.comb += following.word.eq(queued.word)
            with m.If(i.scatter):
                m.d.comb += [
                    following.token.eq(queued.token),
                    following.destination.eq(queued.destination),
                ]
            with m.If(primed | (advance & step_last & loading)):
                m.d.sync += [
                    self.queue_index.eq(self.queue_index + 1),
                    weight.eq(queued_weight),
                ]

        # The other operand's address and the destination offset of a tile.
        tile = Signal(12)
        b_tile, b_word = Signal(24), Signal(24)
        group_tile = Signal(12)
        group_row, tile_row = Signal(24), Signal(24)
        tile_lane = Signal(range(2 * lanes))
        lane_after = Signal(range(2 * lanes))
        m.d.comb += [
            self.b_word.eq(b_word),
            self.tile.eq(tile),
            self.tile_row.eq(tile_row),
            self.tile_lane.eq(tile_lane),
            self.tile_count.eq(Mux(group_tile == i.group_tiles - 1, i.last_count, cols)),
            lane_after.eq(tile_lane + cols),
        ]

        with m.If(advance):
            m.d.sync += phase.eq(phase + 1)
            with m.If(in_words):
                m.d.sync += a_word.eq(a_word + 1)
                with m.If(next_b):
                    m.d.sync += b_word.eq(b_word + i.b_word_stride)
            with m.If(step_last):
                m.d.sync += phase.eq(begin)
                # slots
                m.d.sync += turn.eq(turn + 1)
                around = turn >= i.tiles - 1
                if skewed:
                    around &= turn >= rows - 1
                with m.If(around):
                    m.d.sync += turn.eq(0)
                for slot in range(rows):
                    with m.If(here[slot]):
                        m.d.sync += left[slot].eq(i.tiles - 1)
                    with m.Elif(left[slot] != 0):
                        m.d.sync += left[slot].eq(left[slot] - 1)
                # next row
                m.d.sync += a_word.eq(row.word)
                with m.If(loading):
                    m.d.sync += [
                        rows_left.eq(rows_left - beginning),
                        row.eq(following),
                        a_word.eq(following.word),
                        row_threshold.eq(row_threshold + Mux(i.row_step, beginning, 0)),
                    ]
                # next tile
                with m.If(tile == i.tiles - 1):
                    m.d.sync += [
                        tile.eq(0),
                        b_tile.eq(i.b_base),
                        b_word.eq(i.b_base),
                        group_tile.eq(0),
                        group_row.eq(0),
                        tile_row.eq(0),
                        tile_lane.eq(0),
                    ]
                with m.Else():
                    m.d.sync += [
                        tile.eq(tile + 1),
                        b_tile.eq(b_tile + i.b_tile_stride),
                        b_word.eq(b_tile + i.b_tile_stride),
                    ]
                    with m.If(group_tile == i.group_tiles - 1):
                        m.d.sync += [
                            group_tile.eq(0),
                            group_row.eq(group_row + i.group_stride),
                            tile_row.eq(group_row + i.group_stride),
                            tile_lane.eq(0),
                        ]
                    with m.Else():
                        m.d.sync += [
                            group_tile.eq(group_tile + 1),
                            tile_lane.eq(Mux(lane_after >= lanes, lane_after - lanes, lane_after)),
                            tile_row.eq(tile_row + (lane_after >= lanes)),
                        ]
                # done: no row waits and no slot has a tile left after this step
                idle_after = Cat(
                    Mux(here[slot], i.tiles == 1, left[slot] <= 1) for slot in range(rows)
                ).all()
                with m.If(idle_after & (rows_left == Mux(loading, beginning, 0))):
                    m.d.sync += [self.busy.eq(0), self.issued.eq(self.issued + 1)]

        with m.If(self.opening):
            m.d.sync += unopened.eq(0)
        with m.If(primed):
            m.d.sync += [row.eq(following), a_word.eq(following.word)]

        begun = Signal(self.layout)
        m.d.comb += begun.eq(ahead)
        first_threshold = bases[ahead.row_wait] + ahead.row_threshold
        if routed:
            task_columns = Mux(ahead.by_task, self.task * ahead.tiles, 0)
            m.d.comb += begun.column_base.eq(ahead.column_base + task_columns)
            first_threshold = Mux(ahead.relative, expected - tokens + 1, first_threshold)
        with m.If(self.go):
            m.d.sync += [
                Array(contexts)[~context].eq(begun),
                context.eq(~context),
                self.busy.eq(1),
                phase.eq(self._begin(ahead) - Mux(of_queue, QUEUE_READ, 0)),
                unopened.eq(1),
                priming.eq(of_queue),
                self.queue_index.eq(0),
                turn.eq(0),
                rows_left.eq(tokens),
                row_threshold.eq(first_threshold),
                row.token.eq(ahead.token_base),
                row.word.eq(ahead.a_base),
                row.destination.eq(ahead.dst_base),
                row.bank.eq(0),
                row.void.eq(ahead.void),
                a_word.eq(ahead.a_base),
                tile.eq(0),
                b_tile.eq(ahead.b_base),
                b_word.eq(ahead.b_base),
                group_tile.eq(0),
                group_row.eq(0),
                tile_row.eq(0),
                tile_lane.eq(0),
            ]
        return m

    def _begin(self, instruction: data.View) -> Value:
        """The phase in which a step begins."""
        rows = self.machine.rows
        least: Value = Const(max(rows, 2))
        if self.machine.buffers.experts:
            least = Mux(instruction.expert != 0, max(rows, QUEUE_READ), least)
        return Mux(instruction.words < least, (instruction.words - least).as_signed(), 0)
