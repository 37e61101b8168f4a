"""The result store on a memory in Python: every byte, every cycle, errors and resets."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.axi.store import ResultStore, StoreTimeline
from vitruvius.hwgen.ram import Ram

ROWS = 64
CONFIGS = [
    {"port_bits": 64, "cols": 16, "outstanding": 1},
    {"port_bits": 128, "cols": 12, "outstanding": 4},
    {"port_bits": 512, "cols": 8, "outstanding": 16},
    {"port_bits": 256, "cols": 7, "outstanding": 2},
    {"port_bits": 64, "cols": 3, "outstanding": 2, "code_bits": 32},
    {"port_bits": 128, "cols": 8, "outstanding": 4, "code_bits": 32},
]


def name_of(config):
    return f"{config['port_bits']}-{config.get('code_bits', 16)}"


class Bench(wiring.Component):
    """The store with its result memory."""

    def __init__(self, config):
        self.store = ResultStore(**config, rows=ROWS)
        inner = {
            name: member
            for name, member in self.store.signature.members.items()
            if name not in ("row_address", "row_enable", "row_data", "taken")
        }
        self.names = list(inner)
        super().__init__(
            {
                **inner,
                "taken_before": Out(1),
                "fill_enable": In(1),
                "fill_address": In(range(ROWS)),
                "fill_data": In(self.store.cols * self.store.code_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = self.store
        m.submodules.ram = ram = Ram(width=store.cols * store.code_bits, depth=ROWS)
        for name in self.names:
            port, wire = getattr(self, name), getattr(store, name)
            if name == "memory":
                wiring.connect(m, wire, wiring.flipped(port))
            elif store.signature.members[name].flow == In:
                m.d.comb += wire.eq(port)
            else:
                m.d.comb += port.eq(wire)
        m.d.sync += self.taken_before.eq(store.taken)
        m.d.comb += [
            ram.read_address.eq(store.row_address),
            ram.read_enable.eq(store.row_enable),
            store.row_data.eq(ram.read_data),
            ram.write_enable.eq(self.fill_enable),
            ram.write_address.eq(self.fill_address),
            ram.write_data.eq(self.fill_data),
        ]
        return m


class Scenario:
    """Random codes of some images, and the bytes that memory must hold afterwards."""

    def __init__(self, rng, config, *, images=3, count=None, rules=None):
        self.config = config
        self.bytes = config["port_bits"] // 8
        self.cols = config["cols"]
        self.code_bits = config.get("code_bits", 16)
        self.code_bytes = self.code_bits // 8
        self.rules = rules or MemoryModel(
            rng.choice([1, 2, 9, 60]), rng.choice([0, 0, 1, 4]), rng.choice([1, 3, 16])
        )
        most = min(ROWS // 2 * self.cols, 600)
        self.count = rng.randint(1, most) if count is None else count
        size = -(-self.count * self.code_bytes // self.bytes) * self.bytes
        self.pitch = size + rng.choice([0, 1, 60]) * self.bytes
        self.base = rng.randrange(1 << 50) * self.bytes
        before = rng.randbytes(images * self.pitch + self.bytes)
        self.before, self.after = before, bytearray(before)
        self.images = []
        for index in range(images):
            codes = [rng.randrange(1 << self.code_bits) for _ in range(self.count)]
            spare = [0xAAAA] * (-self.count % self.cols)
            padded = codes + spare
            rows = [
                sum(
                    code << self.code_bits * lane
                    for lane, code in enumerate(padded[at : at + self.cols])
                )
                for at in range(0, len(padded), self.cols)
            ]
            self.images.append(
                {
                    "rows": [hex(row) for row in rows],
                    "row": rng.randrange(ROWS - max(1, len(rows)) + 1),
                    "tail": rng.choice([1, 1, 5]),
                }
            )
            data = b"".join(code.to_bytes(self.code_bytes, "little") for code in codes)
            at = index * self.pitch
            self.after[at : at + len(data)] = data

    def job(self, **more):
        return {
            "rules": [self.rules.latency, self.rules.gap, self.rules.outstanding],
            "regions": [[str(self.base), self.before.hex()]],
            "results_address": self.base,
            "pitch": self.pitch,
            "count": self.count,
            "images": self.images,
            **more,
        }

    def predict(self):
        timeline = StoreTimeline(
            self.rules,
            port_bits=self.config["port_bits"],
            cols=self.cols,
            outstanding=self.config["outstanding"],
            code_bits=self.code_bits,
        )
        found = []
        for index in range(len(self.images)):
            # Far behind the one before, as the bench starts an image after the last is over.
            start = 1_000_000 * index
            done = timeline.store(start, self.base + index * self.pitch, self.count)
            found.append((done - start, timeline.taken - start))
        return found


def check(scenario, result):
    assert bytes.fromhex(result["regions"][0]) == scenario.after
    for seen, (done, taken) in zip(result["images"], scenario.predict(), strict=True):
        assert seen["error"] is None
        assert seen["done"] == [done]
        if scenario.count:
            assert seen["taken"] == [taken]
    images = len(scenario.images)
    size = scenario.code_bytes * scenario.count
    assert result["strobed"] == size * images
    assert result["written_beats"] == -(-size // scenario.bytes) * images


def check_many(bench, rng, config, number):
    scenarios = [Scenario(rng, config, count=count) for count in (0, 1, config["cols"])]
    scenarios += [Scenario(rng, config) for _ in range(number)]
    results = bench(Bench(config), "bench_store", "scenarios", [item.job() for item in scenarios])
    for scenario, result in zip(scenarios, results, strict=True):
        check(scenario, result)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_code_in_the_stated_cycles(bench, rng, config):
    check_many(bench, rng, config, 4)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_code_in_the_stated_cycles_of_many_images(bench, rng, config):
    check_many(bench, rng, config, 60)


def test_an_error_response_stops_and_names_the_burst(bench, rng):
    """Nothing is written afterwards, the next start is ignored; a soft reset mends it."""
    config = CONFIGS[1]
    scenarios, jobs = [], []
    for bad in (0, 1):
        scenario = Scenario(rng, config, count=380)
        scenario.base -= scenario.base % 4096 - 4096 + 320
        scenario.images[1]["first"] = True
        scenarios.append(scenario)
        jobs.append(scenario.job(bad_bursts=[bad]))
    good = Scenario(rng, config)
    *results, after = bench(Bench(config), "bench_store", "scenarios", [*jobs, good.job()])
    for bad, result in enumerate(results):
        assert result["images"][0]["error"] == [2, result["bursts"][bad][1]]
        assert len(result["bursts"]) == 2
        assert [seen["done"] for seen in result["images"]] == [[], [], []]
    check(good, after)


def test_soft_reset_completes_what_is_begun(bench, rng):
    """Bursts end as AXI wants, nothing more is written, and the next run is correct."""
    config = CONFIGS[1]
    jobs, goods, cycles = [], [], (1, 2, 3, 8, 25, 60)
    for cycle in cycles:
        cut = Scenario(rng, config, images=1, count=380, rules=MemoryModel(9, 1, 2))
        cut.images[0]["soft_reset"] = cycle
        if cycle > 20:
            cut.images[0]["hung"] = [cycle - 4, cycle + 6]
        goods.append(Scenario(rng, config))
        jobs += [cut.job(), goods[-1].job()]
    results = bench(Bench(config), "bench_store", "scenarios", jobs)
    for cycle, cut, good, after in zip(cycles, results[::2], goods, results[1::2], strict=True):
        assert cut["images"][0]["done"] == []
        # One beat may wait in the data register when the reset comes.
        assert cut["strobed"] <= 16 * max(0, cycle - 2)
        check(good, after)


def test_bad_parameters_are_named():
    good = {"port_bits": 64, "cols": 4, "rows": 8}
    for change, text in (
        ({"port_bits": 32}, r"port_bits: expected one of .*, got 32"),
        ({"cols": 0}, "cols: expected at least 1, got 0"),
        ({"rows": 1}, "rows: expected at least 2, got 1"),
        ({"outstanding": 0}, "outstanding: expected 1 to 16 bursts, got 0"),
        ({"code_bits": 8}, "code_bits: expected 16 or 32, got 8"),
    ):
        with pytest.raises(ValueError, match=text):
            ResultStore(**{**good, **change})
