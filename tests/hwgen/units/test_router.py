import pytest
import torch
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from vitruvius.hwgen.units import softmax
from vitruvius.hwgen.units.router import MOST_CHOSEN, Router, cycles
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.models.integer.gate import route
from vitruvius.models.integer.reciprocal import reciprocal
from vitruvius.models.integer.softmax import exponential_table, softmax_weights

TABLE_END = exponential_table().index(0)
READS = ("read_expert", "read_index")
CHUNK = ("valid", "tile", "row", "scores")
OUTPUTS = ("routed", "lengths", "read_token", "read_weight")


class Gate(wiring.Component):
    """The router beside the softmax that gives it the scales, as in an accelerator."""

    def __init__(self, *, slots, lanes, experts, tokens):
        self.router = Router(lanes=lanes, experts=experts, tokens=tokens)
        max_tiles = self.router.max_tiles
        self.softmax = Softmax(slots=slots, lanes=lanes, max_tiles=max_tiles, max_row=tokens)
        ports = {**self.softmax.signature.members, **self.router.signature.members}
        scale = ("scale_valid", "scale_row", "mantissa", "length")
        unused = ("weights_valid", "weights_row", "weights_tile", "weights", "busy", *scale)
        self.inner = {
            **{name: port for name, port in ports.items() if name not in unused},
            "scale_valid": Out(1),
        }
        super().__init__(self.inner)

    def elaborate(self, platform):
        m = Module()
        m.submodules.router, m.submodules.softmax = self.router, self.softmax
        for unit in (self.softmax, self.router):
            for name, member in unit.signature.members.items():
                if name in self.inner and name != "scale_valid":
                    port, here = getattr(unit, name), getattr(self, name)
                    source, target = (port, here) if member.flow == Out else (here, port)
                    m.d.comb += target.eq(source)
        m.d.comb += self.scale_valid.eq(self.softmax.scale_valid)
        for name in ("scale_valid", "scale_row", "mantissa", "length"):
            m.d.comb += getattr(self.router, name).eq(getattr(self.softmax, name))
        return m


class Run:
    """Inputs of every cycle, and what a gate of ``unit``'s sizes shall show in every cycle."""

    def __init__(self, rng, *, lanes, experts, tokens, slots=1):
        self.rng, self.lanes, self.experts, self.tokens = rng, lanes, experts, tokens
        self.slots = slots
        ports = (*CHUNK, "slot", "count", "first", "last", "tiles", "last_count", "top", "clear")
        self.inputs = {name: [] for name in ports}
        self.routed = []
        self.scales = []
        self.written = {}  # cycle -> (expert, token, weight)
        self.reads = {}  # cycle -> (expert, index)

    @property
    def now(self):
        return len(self.inputs["valid"])

    def put(self, **values):
        """A cycle; lanes that are not valid, and chunks that are none, carry the largest score."""
        previous = {name: column[-1] if column else 1 for name, column in self.inputs.items()}
        idle = {
            "valid": 0,
            "tile": self.rng.randrange(-(-self.experts // self.lanes)),
            "row": self.rng.randrange(self.tokens),
            "scores": sum(0x7FFF << (16 * lane) for lane in range(self.lanes)),
            "slot": self.rng.randrange(self.slots),
            "count": self.lanes,
            "first": 1,
            "last": 1,
            "clear": 0,
        }
        for name, column in self.inputs.items():
            column.append({**previous, **idle, **values}[name])

    def settings(self, scores, top):
        tiles, rest = divmod(len(scores[0]) - 1, self.lanes)
        return {"tiles": tiles + 1, "last_count": rest + 1, "top": top}

    def chunk(self, token, row, tile):
        scores = row[tile * self.lanes : (tile + 1) * self.lanes]
        padded = [*scores, *[32767] * (self.lanes - len(scores))]
        word = sum((score & 0xFFFF) << (16 * lane) for lane, score in enumerate(padded))
        return {"valid": 1, "row": token, "tile": tile, "scores": word, "count": len(scores)}

    def arrive(self, scores, top, *, busyness):
        """Rows in rotated order on interleaved slots, begun as soon as the softmax allows."""
        settings = self.settings(scores, top)
        tiles = settings["tiles"]
        tokens = self.rng.sample(range(self.tokens), len(scores))
        waiting, current = list(range(len(scores))), {}
        history = {slot: [] for slot in range(self.slots)}
        arrivals, order = [], []
        begin = self.now
        self.put(**settings, clear=self.rng.randrange(2))
        cleared = self.inputs["clear"][-1]
        while waiting or current:
            slot = self.rng.randrange(self.slots)
            chunk = {}
            if self.rng.random() < busyness:
                rows = history[slot]
                if slot not in current and waiting and self._free(rows, arrivals, tiles):
                    start = self.rng.randrange(tiles)
                    current[slot] = (waiting.pop(0), [(start + n) % tiles for n in range(tiles)])
                    rows.append(None)
                if slot in current:
                    row, left = current[slot]
                    first, tile = len(left) == tiles, left.pop(0)
                    chunk = self.chunk(tokens[row], scores[row], tile)
                    chunk |= {"slot": slot, "first": first, "last": not left}
                    chunk["clear"] = not cleared
                    cleared = 1
                    if not left:
                        del current[slot]
                        rows[-1] = len(arrivals)
                        arrivals.append(self.now)
                        order.append(row)
            self.put(**chunk)
        scales = softmax.cycles([cycle - begin for cycle in arrivals], tiles)
        scales = [begin + cycle for cycle in scales]
        self.expect([tokens[row] for row in order], [scores[row] for row in order], top, scales)

    def _free(self, rows, arrivals, tiles):
        """Whether the row before the last of this slot has left its half of the softmax."""
        if len(rows) < 2:
            return True
        completions = softmax.cycles(arrivals, tiles)
        return self.now > completions[rows[-2]] - Softmax.SCALE

    def expect(self, tokens, scores, top, scales):
        """Note what follows from the scales of a product's rows, and read all of it back."""
        used = len(scores[0])
        given = min(top, used)
        routing = route(torch.tensor(scores), given)
        tiles = self.settings(scores, top)["tiles"]
        routed = [c - (top - given) for c in cycles(scales, tiles=tiles, top=top)]
        queues = [[] for _ in range(self.experts)]
        for job, cycle in enumerate(routed):
            experts, weights = routing.experts[job].tolist(), routing.weights[job].tolist()
            for n in range(given):
                entry = (tokens[job], weights[n])
                self.written[cycle - (given - 1) + n] = (experts[n], *entry)
                queues[experts[n]].append(entry)
            # The earliest cycle in which the last entry can be read.
            self.reads[cycle + 1] = (experts[-1], len(queues[experts[-1]]) - 1)
        self.scales += scales
        self.routed += routed
        while self.now < routed[-1] + 2:
            self.put()
        for expert, queue in enumerate(queues):
            for index in range(len(queue)):
                self.reads[self.now] = (expert, index)
                self.put()
        self.put()

    def check(self, play, unit):
        reads = [self.reads.get(cycle, (0, 0)) for cycle in range(self.now)]
        inputs = {name: [int(v) for v in column] for name, column in self.inputs.items()}
        inputs |= {name: [read[n] for read in reads] for n, name in enumerate(READS)}
        inputs |= getattr(self, "scale_inputs", {})
        names = unit.signature.members
        outputs = [*OUTPUTS, *(["scale_valid"] if names["scale_valid"].flow == Out else [])]
        record = play(
            unit,
            {name: column for name, column in inputs.items() if name in names},
            dict.fromkeys(outputs, 0),
            extra=2,
        )
        pulses = {
            name: [cycle for cycle, value in enumerate(record[name]) if value]
            for name in outputs
            if name in ("routed", "scale_valid")
        }
        assert pulses.get("scale_valid", self.scales) == self.scales
        assert pulses["routed"] == self.routed

        bits = self.tokens.bit_length()
        queues = [[] for _ in range(self.experts)]
        answers, seen = {}, {}
        for cycle in range(self.now):
            lengths = [record["lengths"][cycle] >> (bits * e) & ((1 << bits) - 1)
                       for e in range(self.experts)]  # fmt: skip
            assert lengths == [len(queue) for queue in queues], f"cycle {cycle}"
            if cycle in self.reads:
                expert, index = self.reads[cycle]
                answers[cycle] = (expert, index, *queues[expert][index])
                seen[cycle] = (
                    expert, index, record["read_token"][cycle + 1], record["read_weight"][cycle + 1]
                )  # fmt: skip
            if self.inputs["clear"][cycle]:
                queues = [[] for _ in range(self.experts)]
            elif cycle in self.written:
                expert, *entry = self.written[cycle]
                queues[expert].append(tuple(entry))
        assert seen == answers
        return queues


def example_row(rng, length, index):
    """Corners first: equal, saturated, ties across tiles, the table's end; then random ones."""
    corners = [
        [5] * length,
        [-32768] * length,
        [32767] * length,
        [32767 if lane == length // 2 else -32768 for lane in range(length)],
        [-32768 if lane == 0 else 32767 for lane in range(length)],
        [7 if lane % 2 else 9 for lane in range(length)],
        [lane // 2 for lane in range(length)],
        [-lane // 3 for lane in range(length)],
        [TABLE_END if lane % 2 else 0 for lane in range(length)],
        [TABLE_END - 1 if lane == length - 1 else 0 for lane in range(length)],
        [255 * lane for lane in range(length)],
        [-256 * lane for lane in range(length)],
        [-lane for lane in range(length)],
    ]
    if index < len(corners):
        return corners[index]
    middle, spread = rng.randint(-20000, 20000), rng.choice([1, 3, 100, 300, 12000])
    return [middle + rng.randint(-spread, spread) for _ in range(length)]


def example_rows(rng, tokens, length):
    rows = [example_row(rng, length, index) for index in range(max(tokens, 20))]
    return rng.sample(rows, tokens)


SHAPES = {
    "one-tile": {"slots": 4, "lanes": 16, "experts": 16, "tokens": 40},
    "part-tile": {"slots": 4, "lanes": 4, "experts": 10, "tokens": 24},
    "whole-tiles": {"slots": 3, "lanes": 5, "experts": 15, "tokens": 30},
    "one-lane": {"slots": 2, "lanes": 1, "experts": 5, "tokens": 9},
    "wide": {"slots": 8, "lanes": 8, "experts": 3, "tokens": 33},
    "least": {"slots": 1, "lanes": 1, "experts": 1, "tokens": 1},
}


@pytest.mark.parametrize("busyness", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_golden_in_the_stated_cycles(play, rng, shape, busyness):
    """Several gates one after the other, of as many experts as there are or fewer, every k.

    Fails for a tie that goes to the higher expert or the later tile, a lane that is not valid, a
    weight of another row's scale, a queue out of order or not emptied, an entry or a cycle late.
    """
    unit = Gate(**shape)
    run = Run(rng, **shape)
    gates = [(shape["experts"], top) for top in range(1, min(MOST_CHOSEN, shape["experts"]) + 1)]
    gates.append((rng.randint(1, shape["experts"]), 1))
    for used, top in rng.sample(gates, len(gates)):
        rows = example_rows(rng, shape["tokens"], used)
        run.arrive(rows, top, busyness=busyness)
    run.check(play, unit)


def test_an_expert_that_gets_all_and_one_that_gets_none(play, rng):
    """Fails for a queue shorter than the number of tokens, or one that runs into the next."""
    shape = {"slots": 4, "lanes": 4, "experts": 10, "tokens": 24}
    for favourite in (0, 9):
        run = Run(rng, **shape)
        rows = [[rng.randint(-300, 300) for _ in range(10)] for _ in range(24)]
        for row in rows:
            row[favourite], row[4] = 301, -32768
        run.arrive(rows, 2, busyness=1.0)
        lengths = [len(queue) for queue in run.check(play, Gate(**shape))]
        assert (lengths[favourite], lengths[4], sum(lengths)) == (24, 0, 48)


def test_more_places_than_experts_gives_all_experts(play, rng):
    """Fails for an entry of an expert that there is not."""
    shape = {"slots": 2, "lanes": 4, "experts": 10, "tokens": 12}
    run = Run(rng, **shape)
    for used, top in ((1, 4), (3, 4), (2, 3), (1, 2)):
        run.arrive(example_rows(rng, 12, used), top, busyness=1.0)
    run.check(play, Gate(**shape))


@pytest.mark.parametrize("top", range(1, MOST_CHOSEN + 1))
@pytest.mark.parametrize("used", [10, 4])
def test_every_row_may_be_ready_at_once(play, rng, used, top):
    """A scale every cycle, in any order of rows, the first with its row's last chunk.

    Rows come up to 12 times as fast as they are routed. Fails for a queue that loses one, and for
    scores, winners or weights of a row that are overtaken by the next. Twice, so that the queue's
    ends go around in different places.
    """
    lanes, experts, tokens = 4, 10, 24
    unit = Router(lanes=lanes, experts=experts, tokens=tokens)
    run = Run(rng, lanes=lanes, experts=experts, tokens=tokens)
    scale = {name: {} for name in ("scale_valid", "scale_row", "mantissa", "length")}
    for rows in (tokens - 5, tokens):
        scores = example_rows(rng, rows, used)
        settings = run.settings(scores, top)
        order = rng.sample(range(tokens), rows)
        run.put(**settings, clear=1)
        chunks = [(row, tile) for row in range(1, rows) for tile in range(settings["tiles"])]
        rng.shuffle(chunks)
        chunks += [(0, tile) for tile in range(settings["tiles"])]
        for row, tile in chunks:
            run.put(**run.chunk(order[row], scores[row], tile))
        scales = [run.now - 1 + row for row in range(rows)]
        mantissas, lengths = reciprocal(softmax_weights(torch.tensor(scores))[1])
        for row, cycle in enumerate(scales):
            values = (1, order[row], int(mantissas[row]), int(lengths[row]))
            for name, value in zip(scale, values, strict=True):
                scale[name][cycle] = value
        run.expect(order, scores, top, scales)
    run.scale_inputs = {
        name: [values.get(cycle, 0) for cycle in range(run.now)] for name, values in scale.items()
    }
    run.check(play, unit)


def test_a_row_alone_takes_what_is_stated():
    assert cycles([100], tiles=3, top=2) == [100 + Router.START + 5 + Router.QUEUE + 1]


@pytest.mark.parametrize("name", ["lanes", "experts", "tokens"])
def test_bad_extents_are_named(name):
    extents = {"lanes": 2, "experts": 2, "tokens": 2, name: 0}
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        Router(**extents)
