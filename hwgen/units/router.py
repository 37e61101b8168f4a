"""Router of a mixture of experts: each token's best experts, their weights, and a queue of each."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.reciprocal import MANTISSA_BITS
from ...models.integer.softmax import SCORE_BITS, WEIGHT_BITS, exponential_table
from ..delay import delayed
from ..ram import Ram

__all__ = ["MOST_CHOSEN", "Router", "cycles"]

MOST_CHOSEN = 4
"""Most experts that one token can go to."""
_LENGTH_BITS = 5
_GATE_BITS = 16


def cycles(scales: Sequence[int], *, tiles: int, top: int) -> list[int]:
    """The cycle of ``routed`` of each row, given the cycle of each row's ``scale_valid``.

    ``scales`` are strictly increasing; ``top`` is at most the number of scores in a row.

    >>> cycles([0, 1], tiles=3, top=2)
    [16, 22]
    """
    routed = []
    free = 0
    for scale in scales:
        free = max(scale + Router.START, free) + tiles * top
        routed.append(free - 1 + Router.QUEUE + top - 1)
    return routed


class Router(wiring.Component):
    """Queues of (token, weight), one for each expert, from the gate's scores of each token.

    Stands beside a `Softmax` that gets the same chunks and gives each row's reciprocal sum. Scores
    are kept by row, so the chunks of a row may come in any order and those of different rows in any
    interleaving, up to one a cycle; nothing can stall. A row is ready when its scale comes. Ready
    rows wait in a queue with room for every row and are routed in the order of their scales, one at
    a time: its tiles in order, ``top`` cycles each, each cycle the best score that is left in the
    tile into a sorted list of the row's best; then the list's first ``top``, experts ascending, one
    a cycle, to the end of their queues, beside the next row's tiles. Equal scores count in order of
    experts.

    No row is lost whatever the cycles of chunks and scales, provided that a row's scale does not
    come before the last of its chunks (the same cycle is late enough), nor its next chunk before
    ``routed``, and that an expert gets a row only once between two ``clear``.

    The cycle contract, t being the cycle in which a row's scale is at the input: alone, ``routed``
    comes in cycle t + ``START`` + (``tiles`` * ``top`` - 1) + ``QUEUE`` + (``top`` - 1); behind
    another row, ``tiles`` * ``top`` cycles after that row's, if that is later. Where ``top``
    exceeds the scores in a row, all experts get it, and ``routed`` comes earlier by the difference.

    Golden: `models.integer.gate.route`.

    Parameters
    ----------
    lanes : int
        Scores per chunk, at least 1.
    experts : int
        Most scores per row, at least 1.
    tokens : int
        Number of row indices, at least 1; the room in each expert's queue.

    Members
    -------
    valid, row, tile, scores : In
        A chunk: the row's index and the chunk's in the row.
    tiles, last_count, top : In
        Chunks per row, valid lanes of the chunk with the highest index, and the experts that each
        token goes to, 1 to `MOST_CHOSEN`; constant from the first scale to the last ``routed``.
    scale_valid, scale_row, mantissa, length : In
        The reciprocal of a row's sum of weights.
    clear : In
        Empties the queues; not between a scale and its ``routed``.
    routed : Out
        The last entry of a row is being written: from the next cycle on it can be read and counts.
    lengths : Out
        Entries in the queue of each expert.
    read_expert, read_index : In; read_token, read_weight : Out
        An entry of a queue, oldest first, one cycle later. The weight has 15 fraction bits.

    Raises
    ------
    ValueError
        A parameter is less than 1.
    """

    START = 2
    """Cycles from a row's scale to its first step, which reads a tile: queue, row."""
    QUEUE = 8
    """Cycles from a row's last step to the cycle in which its first entry is written: tile (2),
    best of the tile, best of the row, chosen, exponential, product, weight."""

    def __init__(self, *, lanes: int, experts: int, tokens: int) -> None:
        for name, extent in (("lanes", lanes), ("experts", experts), ("tokens", tokens)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
        self.lanes, self.experts, self.tokens = lanes, experts, tokens
        self.max_tiles = -(-experts // lanes)
        self._best_layout = data.StructLayout({"key": self._KEY, "expert": range(experts)})
        super().__init__(
            {
                "valid": In(1),
                "row": In(range(tokens)),
                "tile": In(range(self.max_tiles)),
                "scores": In(data.ArrayLayout(signed(SCORE_BITS), lanes)),
                "tiles": In(range(self.max_tiles + 1)),
                "last_count": In(range(lanes + 1)),
                "top": In(range(MOST_CHOSEN + 1)),
                "scale_valid": In(1),
                "scale_row": In(range(tokens)),
                "mantissa": In(MANTISSA_BITS),
                "length": In(_LENGTH_BITS),
                "clear": In(1),
                "routed": Out(1),
                "lengths": Out(data.ArrayLayout(range(tokens + 1), experts)),
                "read_expert": In(range(experts)),
                "read_index": In(range(tokens)),
                "read_token": Out(range(tokens)),
                "read_weight": Out(_GATE_BITS),
            }
        )

    # A score with its sign bit inverted, and above it a bit that tells that there is one: compared
    # as unsigned, 0 for none is less than any score.
    _KEY = unsigned(SCORE_BITS + 1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step, tile = self._sequence(m)
        peak, step = self._search(m, step, tile)
        best, step = self._sort(m, peak, step)
        self._enqueue(m, best, step)
        return m

    def _address(self, part: Value, index: Value, parts: int) -> Value:
        """Word of a memory in which each part has ``tokens`` words of its own."""
        return Array(start * self.tokens for start in range(parts))[part] + index

    def _sequence(self, m: Module) -> tuple[Signal, Signal]:
        """Queue the ready rows; step through the tiles of one after another, ``top`` times each.

        Returns what the later stages know of a step, and its tile.
        """
        ready_layout = data.StructLayout(
            {"row": range(self.tokens), "mantissa": MANTISSA_BITS, "length": _LENGTH_BITS}
        )
        step_layout = data.StructLayout(
            {
                "valid": 1,
                "first": 1,
                "first_of_tile": 1,
                "last": 1,
                "expert": range(self.experts),
                "count": range(self.lanes + 1),
                "ready": ready_layout,
            }
        )
        m.submodules.ready = queue = Ram(width=ready_layout.size, depth=max(2, self.tokens))
        arriving, step = Signal(ready_layout), Signal(step_layout)
        newest, oldest = Signal(range(self.tokens)), Signal(range(self.tokens))
        waiting = Signal(range(self.tokens + 1))
        valid = Signal()
        m.d.comb += [
            arriving.row.eq(self.scale_row),
            arriving.mantissa.eq(self.mantissa),
            arriving.length.eq(self.length),
            queue.write_enable.eq(self.scale_valid),
            queue.write_address.eq(newest),
            queue.write_data.eq(arriving.as_value()),
            queue.read_enable.eq((waiting != 0) & (step.last | ~valid)),
            queue.read_address.eq(oldest),
        ]
        for pointer, moves in ((newest, self.scale_valid), (oldest, queue.read_enable)):
            with m.If(moves):
                m.d.sync += pointer.eq(Mux(pointer == self.tokens - 1, 0, pointer + 1))
        m.d.sync += [
            waiting.eq(waiting + self.scale_valid - queue.read_enable),
            valid.eq(queue.read_enable | (valid & ~step.last)),
        ]

        tile, turn = Signal(range(self.max_tiles)), Signal(range(MOST_CHOSEN))
        expert = Signal(range(self.experts))
        last_tile, last_turn = Signal(), Signal()
        m.d.comb += [
            last_tile.eq(tile == self.tiles - 1),
            last_turn.eq(turn == self.top - 1),
            step.valid.eq(valid),
            step.first.eq((tile == 0) & (turn == 0)),
            step.first_of_tile.eq(turn == 0),
            step.last.eq(valid & last_tile & last_turn),
            step.expert.eq(expert),
            step.count.eq(Mux(last_tile, self.last_count, self.lanes)),
            step.ready.eq(queue.read_data),
        ]
        with m.If(valid):
            m.d.sync += turn.eq(Mux(last_turn, 0, turn + 1))
            with m.If(last_turn):
                m.d.sync += [
                    tile.eq(Mux(last_tile, 0, tile + 1)),
                    expert.eq(Mux(last_tile, 0, expert + self.lanes)),
                ]
        return step, tile

    def _search(self, m: Module, step: Signal, tile: Signal) -> tuple[Signal, Signal]:
        """Keep the chunks; find the best score of the step's tile that no step has found yet."""
        m.submodules.scores = store = Ram(
            width=SCORE_BITS * self.lanes, depth=max(2, self.tokens * self.max_tiles)
        )
        m.d.comb += [
            store.write_enable.eq(self.valid),
            store.write_address.eq(self._address(self.tile, self.row, self.max_tiles)),
            store.write_data.eq(self.scores.as_value()),
            store.read_address.eq(self._address(tile, step.ready.row, self.max_tiles)),
        ]
        # The second cycle is for the register at the output of a block RAM.
        word, step = Signal(SCORE_BITS * self.lanes), delayed(m, step, 2, name="step_word")
        m.d.sync += word.eq(store.read_data)

        found, found_now = Signal(self.lanes), Signal(self.lanes)
        keys: list[Value] = []
        for lane in range(self.lanes):
            score = word.word_select(lane, SCORE_BITS)
            left = (step.count > lane) & (step.first_of_tile | ~found[lane])
            key = Signal(self._KEY, name=f"key_{lane}")
            m.d.comb += key.eq(Mux(left, Cat(score[:-1], ~score[-1], Const(1, 1)), 0))
            keys.append(key)
        key, lane_found = _greatest(m, keys, name="lanes")
        m.d.comb += found_now.eq(Cat(lane_found == lane for lane in range(self.lanes)))
        peak = Signal(self._best_layout)
        m.d.sync += [
            found.eq(Mux(step.first_of_tile, 0, found) | found_now),
            peak.key.eq(key),
            peak.expert.eq(step.expert + lane_found),
        ]
        return peak, delayed(m, step, 1, name="step_peak")

    def _sort(self, m: Module, peak: Signal, step: Signal) -> tuple[list[Signal], Signal]:
        """Insert what is found into the list of the row's best, behind equal scores."""
        best = [Signal(self._best_layout, name=f"best_{place}") for place in range(MOST_CHOSEN)]
        above: Value = Const(1, 1)
        before: Value = Const(0, self._best_layout.size)
        for place, entry in enumerate(best):
            stays, now = Signal(name=f"stays_{place}"), Signal.like(entry, name=f"now_{place}")
            m.d.comb += [
                now.eq(Mux(step.first, 0, entry)),
                stays.eq(now.key >= peak.key),
            ]
            with m.If(step.valid):
                m.d.sync += entry.eq(Mux(stays, now, Mux(above, peak, before)))
            above, before = stays, now.as_value()
        return best, delayed(m, step, 1, name="step_best")

    def _enqueue(self, m: Module, best: list[Signal], step: Signal) -> None:
        """Take over the row's best once it is complete; write them, experts ascending."""
        chosen_layout = data.StructLayout({"distance": WEIGHT_BITS, "expert": range(self.experts)})
        chosen = [Signal(chosen_layout, name=f"chosen_{place}") for place in range(MOST_CHOSEN)]
        left, taken = Signal(MOST_CHOSEN), Signal(MOST_CHOSEN)
        ready = Signal.like(step.ready)
        _, place_taken = _greatest(
            m, [Cat(~entry.expert, left[place]) for place, entry in enumerate(chosen)], name="next"
        )
        m.d.comb += taken.eq(Cat(place_taken == place for place in range(MOST_CHOSEN)))
        m.d.sync += left.eq(left & ~taken)
        table_data = exponential_table()
        with m.If(step.valid & step.last):
            m.d.sync += ready.eq(step.ready)
            for place, (entry, winner) in enumerate(zip(best, chosen, strict=True)):
                difference = Signal(SCORE_BITS, name=f"difference_{place}")
                m.d.comb += difference.eq(best[0].key - entry.key)
                m.d.sync += [
                    winner.expert.eq(entry.expert),
                    winner.distance.eq(
                        Mux(difference[WEIGHT_BITS:].any(), len(table_data) - 1, difference)
                    ),
                    left[place].eq((self.top > place) & entry.key[-1]),
                ]

        m.submodules.table = table = memory.Memory(
            shape=unsigned(WEIGHT_BITS), depth=len(table_data), init=table_data
        )
        port = table.read_port()
        here, ends = Signal(chosen_layout), Signal()
        m.d.comb += [
            here.eq(Array(chosen)[place_taken]),
            port.addr.eq(here.distance),
            ends.eq(left.any() & ~(left & ~taken).any()),
        ]
        mantissa = delayed(m, ready.mantissa, 1, name="mantissa_table")
        length = delayed(m, ready.length, 2, name="length_product")
        product, weight = Signal(WEIGHT_BITS + MANTISSA_BITS), Signal(_GATE_BITS)
        m.d.sync += [product.eq(port.data * mantissa), weight.eq(product >> length)]

        valid = delayed(m, left.any(), 3, name="valid")
        expert = delayed(m, here.expert, 3, name="expert")
        row = delayed(m, ready.row, 3, name="row")
        m.submodules.entries = entries = Ram(
            width=row.shape().width + _GATE_BITS, depth=max(2, self.experts * self.tokens)
        )
        m.d.comb += [
            entries.write_enable.eq(valid),
            entries.write_address.eq(self._address(expert, self.lengths[expert], self.experts)),
            entries.write_data.eq(Cat(weight, row)),
            self.routed.eq(delayed(m, ends, 3, name="ends")),
            entries.read_address.eq(self._address(self.read_expert, self.read_index, self.experts)),
            self.read_weight.eq(entries.read_data[:_GATE_BITS]),
            self.read_token.eq(entries.read_data[_GATE_BITS:]),
        ]
        with m.If(self.clear):
            m.d.sync += self.lengths.eq(0)
        with m.Elif(valid):
            m.d.sync += self.lengths[expert].eq(self.lengths[expert] + 1)


def _greatest(m: Module, keys: Sequence[Value], *, name: str) -> tuple[Value, Value]:
    """The greatest of at least one unsigned key of one width, and the index of the first of those.

    A balanced tree; its nodes are signals that begin with ``name``.
    """
    width = range(len(keys))

    def node(begin: int, end: int) -> tuple[Value, Value]:
        if end - begin == 1:
            return keys[begin], Const(begin, width)
        middle = (begin + end) // 2
        (left, left_index), (right, right_index) = node(begin, middle), node(middle, end)
        key = Signal(len(keys[begin]), name=f"{name}_{begin}_{end}_key")
        index, later = (
            Signal(width, name=f"{name}_{begin}_{end}_index"),
            Signal(name=f"{name}_{begin}_{end}_later"),
        )
        m.d.comb += [
            later.eq(right > left),
            key.eq(Mux(later, right, left)),
            index.eq(Mux(later, right_index, left_index)),
        ]
        return key, index

    return node(0, len(keys))
