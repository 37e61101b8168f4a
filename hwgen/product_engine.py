"""The reordered schedule of a product: which row, tile and word meet in the compute unit, cycle
by cycle.

Token slot j begins its row j steps after slot 0 and goes around the tiles from where the stream
stands, so a step reads at most one word of the token side and one of the other side, whatever the
number of slots (Edge-MoE's skewed queries, arXiv 2305.18691, for every product here).
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .instruction import LAYOUT, Source
from .machine import Machine

__all__ = ["ProductEngine", "Schedule", "schedule", "slot_record"]


@dataclass(frozen=True)
class Schedule:
    """The reordered schedule in numbers.

    step_cycles: cycles per step (one tile for all slots); period: steps from one row of a slot to
    its next;
    steps: steps in all; issue_cycles: cycles from the first to the last issued word's step, both
    included.
    """

    step_cycles: int
    period: int
    steps: int

    @property
    def issue_cycles(self) -> int:
        return self.steps * self.step_cycles

    def finish_step(self, row: int, rows: int, tiles: int) -> int:
        """The step (from 0) in which row number ``row`` meets its last tile."""
        return (row // rows) * self.period + row % rows + tiles - 1


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
    """What the drain path knows of the row in a slot: its token, its destination row and bank."""
    return data.StructLayout(
        {
            "token": unsigned(12),
            "row": unsigned(24),
            "bank": range(max(machine.cols, machine.depth)),
        }
    )


class ProductEngine(wiring.Component):
    """Issues the words of one product. All outputs describe the word issued in this cycle.

    ``start`` begins the product of ``instruction`` (held stable until ``busy`` falls).
    ``weight_valid`` stalls the issue of a word of weights; ``weight_ready`` takes it.

    Outputs: addresses ``a_word``, ``b_word``; ``word`` (index in the row, for the slot buffers);
    ``issue`` (a word is issued), ``first``/``last`` (of the row's words), ``partial`` (last word,
    lanes beyond last_lanes are void); ``load`` with ``load_slot`` (this word comes from the token
    side into that slot) and ``record`` (with the first word of a row); ``active``, ``row_first``,
    ``row_last`` per slot; ``tile``, ``tile_row``, ``tile_lane``,
    ``tile_count``: destination offset of the tile. ``stalled``: waiting for a weight.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows = machine.rows
        self.record_layout = slot_record(machine)
        super().__init__(
            {
                "start": In(1),
                "busy": Out(1),
                "instruction": In(LAYOUT),
                "weight_valid": In(1),
                "weight_ready": Out(1),
                "stalled": Out(1),
                "issue": Out(1),
                "first": Out(1),
                "last": Out(1),
                "partial": Out(1),
                "word": Out(range(machine.slot_words)),
                "a_word": Out(24),
                "b_word": Out(24),
                "load": Out(1),
                "load_first": Out(1),
                "load_slot": Out(range(rows)),
                "record": Out(self.record_layout),
                "active": Out(rows),
                "row_first": Out(rows),
                "row_last": Out(rows),
                "tile": Out(12),
                "tile_row": Out(24),
                "tile_lane": Out(range(machine.lanes)),
                "tile_count": Out(range(machine.cols + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, lanes = self.machine.rows, self.machine.cols, self.machine.lanes
        i = self.instruction

        # Position in the step: word index, then the rest of the step while the drain is busy.
        phase = Signal(range(max(self.machine.slot_words, rows, 2) + 1))
        step_last = Signal()
        step_cycles = Signal.like(phase)
        in_words = Signal()
        advance = Signal()
        from_weights = Signal()
        m.d.comb += [
            step_cycles.eq(Mux(i.words > max(rows, 2), i.words, max(rows, 2))),
            step_last.eq(phase == step_cycles - 1),
            in_words.eq(phase < i.words),
            from_weights.eq(i.b_source == Source.WEIGHT),
            advance.eq(self.busy & (self.weight_valid | ~from_weights | ~in_words)),
            self.stalled.eq(self.busy & ~advance),
            self.weight_ready.eq(self.busy & from_weights & in_words),
            self.issue.eq(advance & in_words),
            self.first.eq(phase == 0),
            self.last.eq(phase == i.words - 1),
            self.partial.eq(self.last),
            self.word.eq(phase),
        ]

        # Slots: which one takes a new row in this step, and how many tiles each has left.
        turn = Signal(range(max(rows, 1 << 12)))  # step within the period
        rows_left = Signal(12)
        loading = Signal()
        left = [Signal(12, name=f"left{slot}") for slot in range(rows)]
        here = [Signal(name=f"here{slot}") for slot in range(rows)]
        m.d.comb += [
            loading.eq((turn < rows) & (rows_left != 0)),
            self.load.eq(loading & self.issue),
            self.load_first.eq(self.load & self.first),
            self.load_slot.eq(turn),
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
        m.d.comb += [
            self.record.token.eq(token),
            self.record.row.eq(dst_row),
            self.record.bank.eq(bank),
            self.a_word.eq(a_word),
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
                        a_row.eq(a_row + i.a_stride),
                        a_word.eq(a_row + i.a_stride),
                        bank.eq(bank + 1),
                    ]
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
                    m.d.sync += self.busy.eq(0)

        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                phase.eq(0),
                turn.eq(0),
                rows_left.eq(i.tokens),
                token.eq(i.token_base),
                a_row.eq(i.a_base),
                a_word.eq(i.a_base),
                dst_row.eq(i.dst_base),
                bank.eq(0),
                tile.eq(0),
                b_tile.eq(i.b_base),
                b_word.eq(i.b_base),
                group_tile.eq(0),
                group_row.eq(0),
                tile_row.eq(0),
                tile_lane.eq(0),
            ]
        return m
