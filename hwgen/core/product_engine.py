"""The product engine: runs the product program and says which row, tile and word meet in the
compute unit, cycle by cycle.

Token slot j begins its row j steps after slot 0 and goes around the tiles from where slot 0 stands,
so a step reads at most one word of the token side and one of the other side, whatever the number of
slots (Edge-MoE's skewed queries, arXiv 2305.18691, for every product here).
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..ram import Ram
from .counters import COUNTER_BITS, Counter, reached
from .instruction import PRODUCT_LAYOUT, Destination, Product
from .machine import Machine
from .runner import Runner

__all__ = ["CONTEXTS", "SWITCH", "ProductEngine", "Schedule", "schedule", "slot_record"]

CONTEXTS = 2
"""Products that can be between their first word and their last written row at the same time."""

SWITCH = 1
"""Cycles from the last word of a product to the first of the next that waits for nothing."""


@dataclass(frozen=True)
class Schedule:
    """The reordered schedule in numbers.

    step_cycles: cycles per step (one tile for all slots); period: steps from one row of a slot to
    its next; steps: steps in all.
    """

    step_cycles: int
    period: int
    steps: int

    @property
    def issue_cycles(self) -> int:
        """Cycles from the first issued word to the end of the last step, both included."""
        return self.steps * self.step_cycles


def schedule(*, tokens: int, tiles: int, words: int, rows: int) -> Schedule:
    """Steps of a product of ``tokens`` rows with ``tiles`` column tiles on ``rows`` slots.

    For tiles >= rows: ``ceil(N / rows) * tiles + (N - 1) % rows`` steps, the formula of DESIGN
    section 5. A step lasts ``words`` cycles, or ``rows`` if the drain needs longer. With fewer
    tiles than slots a slot waits until all others have begun.

    >>> schedule(tokens=129, tiles=129, words=24, rows=4).steps
    4257
    """
    period = max(tiles, rows)
    batches = -(-tokens // rows)
    steps = (batches - 1) * period + (tokens - 1) % rows + tiles
    return Schedule(step_cycles=max(words, rows, 2), period=period, steps=steps)


def slot_record(machine: Machine) -> data.StructLayout:
    """What the drain path knows of the row in a slot: its token, its destination row and bank,
    whether neither operand nor bias counts, and whether it is the last row of its product.
    """
    return data.StructLayout(
        {
            "token": unsigned(12),
            "row": unsigned(24),
            "bank": range(max(machine.cols, machine.depth)),
            "void": unsigned(1),
            "end": unsigned(1),
        }
    )


class ProductEngine(wiring.Component):
    """Issues the words of one product after another. All outputs but the counters describe the word
    issued in this cycle.

    ``clear`` sets ``issued`` to 0; ``run`` runs the program for ``images`` images; ``finished``
    rises when the last word of the last image is issued. ``counts``: the counters, by `Counter`.
    ``drained`` (a pulse): a product is complete in its destination. ``hold``: start no result
    product (the last results are still being sent). ``break_at``: product of an image before which
    to wait for ``resume``, 0 never.

    Outputs: ``instruction`` of the issued word, ``contexts`` with both instructions in flight and
    ``context``, the number of the present one; addresses ``a_word``, ``b_word``; ``word`` (index in
    the row, for the slot buffers); ``issue`` (a word is issued), ``first``/``last`` (of the row's
    words), ``partial`` (last word, lanes beyond last_lanes are void); ``load`` with ``load_slot``
    (this word comes from the token side into that slot), ``load_void`` and ``record`` (with the
    first word of a row); ``active``, ``row_first``, ``row_last`` per slot; ``tile``, ``tile_row``,
    ``tile_lane``, ``tile_count``: destination offset of the tile.
    ``go``: a product begins; ``issued``: counter of products whose words are all issued.
    ``padding``, ``switching``, ``waiting`` (by `Counter`), ``waiting_context``, ``waiting_store``:
    why no word is issued in this cycle.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows = machine.rows
        self.record_layout = slot_record(machine)
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
                "load_program": In(
                    wiring.Signature(
                        {
                            "enable": Out(1),
                            "address": Out(range(machine.buffers.products)),
                            "data": Out(PRODUCT_LAYOUT.size),
                        }
                    )
                ),
                "instruction": Out(PRODUCT_LAYOUT),
                "contexts": Out(data.ArrayLayout(PRODUCT_LAYOUT, CONTEXTS)),
                "context": Out(range(CONTEXTS)),
                "issue": Out(1),
                "first": Out(1),
                "last": Out(1),
                "partial": Out(1),
                "word": Out(range(machine.slot_words)),
                "a_word": Out(24),
                "b_word": Out(24),
                "load": Out(1),
                "load_first": Out(1),
                "load_void": Out(1),
                "load_slot": Out(range(rows)),
                "record": Out(self.record_layout),
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
        rows, cols, lanes = machine.rows, machine.cols, machine.lanes

        m.submodules.program = program = Ram(
            width=PRODUCT_LAYOUT.size, depth=machine.buffers.products
        )
        m.submodules.runner = runner = Runner(Product, depth=machine.buffers.products)
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
        }
        with m.If(self.run):
            for name in Counter:
                m.d.sync += bases[name].eq(self.counts[name])
        with m.Elif(runner.looping):
            for name, total in totals.items():
                m.d.sync += bases[name].eq(bases[name] + total)

        # Products begin in order, each in the context that the one before the last has left.
        contexts = [Signal(PRODUCT_LAYOUT, name=f"context{index}") for index in range(CONTEXTS)]
        context = Signal(range(CONTEXTS))
        in_flight = Signal(range(CONTEXTS + 1))
        i = self.instruction
        start_ok, free, store_ok = Signal(), Signal(), Signal()
        met, stopped, resumed = Signal(), Signal(), Signal()
        ready = Signal()
        m.d.comb += [
            self.context.eq(context),
            i.eq(Array(contexts)[context]),
            start_ok.eq(
                (ahead.start_wait == Counter.NONE)
                | reached(
                    self.counts[ahead.start_wait], bases[ahead.start_wait] + ahead.start_threshold
                )
            ),
            free.eq(in_flight != CONTEXTS),
            store_ok.eq((ahead.destination != Destination.RESULT) | ~self.hold),
            met.eq((self.break_at != 0) & (self.product == self.break_at) & ~resumed),
            ready.eq(runner.valid & ~self.busy),
            self.go.eq(ready & start_ok & free & store_ok & ~met & ~stopped),
            self.paused.eq(stopped & (in_flight == 0)),
            runner.take.eq(self.go),
        ]
        m.d.comb += [self.contexts[index].eq(contexts[index]) for index in range(CONTEXTS)]
        m.d.sync += in_flight.eq(in_flight + self.go - self.drained)
        with m.If(ready & met):
            m.d.sync += stopped.eq(1)
        with m.If(self.resume & stopped):
            m.d.sync += [stopped.eq(0), resumed.eq(1)]
        with m.If(self.run | runner.looping):
            m.d.sync += self.product.eq(0)
        with m.Elif(self.go):
            m.d.sync += [self.product.eq(self.product + 1), resumed.eq(0)]
        with m.If(self.run):
            m.d.sync += resumed.eq(0)
        with m.If(self.clear):
            m.d.sync += self.issued.eq(0)

        # Position in the step: word index, then the rest of the step while the drain is busy.
        phase = Signal(range(max(machine.slot_words, rows, 2) + 1))
        step_last = Signal()
        step_cycles = Signal.like(phase)
        in_words = Signal()
        advance = Signal()
        loading = Signal()
        row_threshold = Signal(COUNTER_BITS)
        row_ok = Signal()
        m.d.comb += [
            row_ok.eq(
                ~loading
                | (phase != 0)
                | (i.row_wait == Counter.NONE)
                | reached(self.counts[i.row_wait], row_threshold)
            ),
            step_cycles.eq(Mux(i.words > max(rows, 2), i.words, max(rows, 2))),
            step_last.eq(phase == step_cycles - 1),
            in_words.eq(phase < i.words),
            advance.eq(self.busy & row_ok),
            self.issue.eq(advance & in_words),
            self.first.eq(phase == 0),
            self.last.eq(phase == i.words - 1),
            self.partial.eq(self.last),
            self.word.eq(phase),
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
                ~runner.finished & ~self.busy & (self.go | ~runner.valid) & ~runner.idle
            ),
        ]
        for name in Counter:
            m.d.comb += self.waiting[name].eq(
                (row_waits & (i.row_wait == name)) | (start_waits & (ahead.start_wait == name))
            )

        # Slots: which one takes a new row in this step, and how many tiles each has left.
        turn = Signal(range(max(rows, 1 << 12)))  # step within the period
        rows_left, void_left = Signal(12), Signal(12)
        left = [Signal(12, name=f"left{slot}") for slot in range(rows)]
        here = [Signal(name=f"here{slot}") for slot in range(rows)]
        m.d.comb += [
            loading.eq((turn < rows) & (rows_left != 0)),
            self.load.eq(loading & self.issue),
            self.load_first.eq(self.load & self.first),
            self.load_slot.eq(turn),
            self.load_void.eq(void_left != 0),
        ]
        for slot in range(rows):
            m.d.comb += [
                here[slot].eq(loading & (turn == slot)),
                self.active[slot].eq(here[slot] | (left[slot] != 0)),
                self.row_first[slot].eq(here[slot]),
                self.row_last[slot].eq(Mux(here[slot], i.tiles == 1, left[slot] == 1)),
            ]

        # Token addressing: the only place that turns "the next row" into addresses.
        token = Signal(12)
        a_row, a_word = Signal(24), Signal(24)
        dst_row, bank = Signal(24), Signal(8)
        a_next = Signal(24)
        m.d.comb += [
            self.record.token.eq(token),
            self.record.row.eq(dst_row),
            self.record.bank.eq(bank),
            self.record.void.eq(void_left != 0),
            self.record.end.eq(rows_left == 1),
            self.a_word.eq(a_word),
            a_next.eq(Mux(void_left != 0, a_row, a_row + i.a_stride)),
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
                m.d.sync += [a_word.eq(a_word + 1), b_word.eq(b_word + i.b_word_stride)]
            with m.If(step_last):
                m.d.sync += phase.eq(0)
                # slots
                m.d.sync += turn.eq(turn + 1)
                with m.If((turn >= i.tiles - 1) & (turn >= rows - 1)):
                    m.d.sync += turn.eq(0)
                for slot in range(rows):
                    with m.If(here[slot]):
                        m.d.sync += left[slot].eq(i.tiles - 1)
                    with m.Elif(left[slot] != 0):
                        m.d.sync += left[slot].eq(left[slot] - 1)
                # next row
                m.d.sync += a_word.eq(a_row)
                with m.If(loading):
                    m.d.sync += [
                        rows_left.eq(rows_left - 1),
                        token.eq(token + 1),
                        a_row.eq(a_next),
                        a_word.eq(a_next),
                        bank.eq(bank + 1),
                        row_threshold.eq(row_threshold + i.row_step),
                    ]
                    with m.If(void_left != 0):
                        m.d.sync += void_left.eq(void_left - 1)
                    with m.If(bank + 1 == i.banks):
                        m.d.sync += [bank.eq(0), dst_row.eq(dst_row + i.dst_stride)]
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
                with m.If(idle_after & (rows_left <= Mux(loading, 1, 0))):
                    m.d.sync += [self.busy.eq(0), self.issued.eq(self.issued + 1)]

        with m.If(self.go):
            m.d.sync += [
                Array(contexts)[~context].eq(ahead),
                context.eq(~context),
                self.busy.eq(1),
                phase.eq(0),
                turn.eq(0),
                rows_left.eq(ahead.tokens),
                void_left.eq(ahead.void),
                row_threshold.eq(bases[ahead.row_wait] + ahead.row_threshold),
                token.eq(ahead.token_base),
                a_row.eq(ahead.a_base),
                a_word.eq(ahead.a_base),
                dst_row.eq(ahead.dst_base),
                bank.eq(0),
                tile.eq(0),
                b_tile.eq(ahead.b_base),
                b_word.eq(ahead.b_base),
                group_tile.eq(0),
                group_row.eq(0),
                tile_row.eq(0),
                tile_lane.eq(0),
            ]
        return m
