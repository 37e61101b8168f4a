"""The fetch engine on a memory in Python: every word, every cycle, every refusal."""

import pytest

from vitruvius.hwgen.axi.descriptor import (
    Descriptor,
    Header,
    Opcode,
    Space,
    Target,
    decode,
    encode,
)
from vitruvius.hwgen.axi.fetch import FetchEngine
from vitruvius.hwgen.axi.fetch_timeline import FetchTimeline
from vitruvius.hwgen.axi.memory_model import MemoryModel

MACHINE, PROGRAM = 0x1234ABCD, 0xFEED5678
IMAGE_SPACE, PARAMETER_SPACE = Space.IMAGE, Space.PARAMETERS
CONFIGS = [
    {"port_bits": 64, "widths": {3: 280, 5: 96, 6: 64}, "outstanding": 3},
    {"port_bits": 128, "widths": {3: 280, 5: 1000, 6: 128}, "outstanding": 8},
    {"port_bits": 256, "widths": {1: 80, 3: 280, 5: 256}, "outstanding": 1},
    {"port_bits": 512, "widths": {3: 280, 5: 1024, 6: 8}, "outstanding": 16},
]
DEPTH = 4096


def engine(config):
    depths = dict.fromkeys((0, *config["widths"]), DEPTH)
    return FetchEngine(**config, depths=depths, machine_digest=MACHINE)


class Scenario:
    """A random parameter image, images, programs and a memory; and what must come of them."""

    def __init__(self, rng, config, *, rules=None, bursts=6):
        self.config = config
        self.bytes = config["port_bits"] // 8
        self.widths = {0: 128, **config["widths"]}
        self.rules = rules or MemoryModel(
            rng.choice([1, 2, 7, 40, 100]), rng.choice([0, 0, 0, 1, 3]), rng.choice([1, 2, 5, 16])
        )
        self.parameters = rng.randrange(1 << 40) * 4096
        self.images = (1 << 60) + rng.randrange(1 << 20) * self.bytes
        self.pitch = rng.randrange(700) * self.bytes
        self.space_beats = 3000
        self.boot = [self._fetch(rng, PARAMETER_SPACE) for _ in range(rng.randrange(4))]
        self.body = [self._fetch(rng) for _ in range(rng.randint(1, 8))]
        if bursts > 4:
            self.body.append(self._fetch(rng, beats=rng.randint(256, 900)))
        self.products = rng.randint(1, 9)
        self._add_waits(rng)
        stop, loop = Descriptor(Opcode.STOP), Descriptor(Opcode.LOOP, threshold=self.products)
        self.program = [encode(item) for item in (*self.boot, stop, *self.body, loop)]
        word = -(-128 // config["port_bits"]) * self.bytes
        code = b"".join(item.to_bytes(word, "little") for item in self.program)
        self.code_offset = 64 // self.bytes + rng.randrange(300)
        self.code_beats = len(code) // self.bytes
        self.header = Header(MACHINE, PROGRAM, self.code_beats, self.code_offset)
        self.memory = {
            self.parameters: bytearray(rng.randbytes((self.space_beats + 1300) * self.bytes)),
            self.images: bytearray(rng.randbytes((self.space_beats + 4000) * self.bytes)),
        }
        image = self.memory[self.parameters]
        image[:64] = self.header.to_bytes()
        start = self.code_offset * self.bytes
        image[start : start + len(code)] = code

    def _fetch(self, rng, space=None, beats=None):
        target = rng.choice(sorted(self.config["widths"]))
        per_word = -(-self.config["widths"][target] // self.config["port_bits"])
        words = max(1, (beats or rng.choice([1, 2, 5, 30, 150])) // per_word)
        return Descriptor(
            Opcode.FETCH,
            target=target,
            space=rng.choice([PARAMETER_SPACE, IMAGE_SPACE]) if space is None else space,
            offset=rng.randrange(self.space_beats),
            beats=words * per_word,
            destination=rng.randrange(DEPTH - words),
        )

    def _add_waits(self, rng):
        """Thresholds that rise; some lie behind, as those of an earlier image do."""
        threshold = -4
        for index, item in enumerate(self.body):
            if rng.random() < 0.6:
                threshold = min(self.products, threshold + rng.randint(0, 5))
                self.body[index] = Descriptor(
                    **{**vars(item), "wait": True, "threshold": threshold % (1 << 24)}
                )

    def issues(self, rng, count, steps=(0, 1, 10, 150)):
        cycle, cycles = 3, []
        for _ in range(count * self.products):
            cycle += rng.choice(steps)
            cycles.append(cycle)
        return cycles

    def address(self, item, image):
        base = self.parameters
        if item.space is IMAGE_SPACE:
            base = self.images + image * self.pitch
        return base + item.offset * self.bytes

    def words(self, item, image):
        """[(enable, address, word)] that a FETCH must write, taken from the memory's bytes."""
        width = self.widths[item.target]
        size = -(-width // self.config["port_bits"]) * self.bytes
        start = self.address(item, image)
        (base,) = [base for base in self.memory if base <= start < base + (1 << 30)]
        found = []
        for index in range(item.beats * self.bytes // size):
            offset = start - base + index * size
            word = int.from_bytes(self.memory[base][offset : offset + size], "little")
            found.append((1 << item.target, item.destination + index, word & ((1 << width) - 1)))
        return found

    def job(self, runs, **more):
        return {
            "rules": [self.rules.latency, self.rules.gap, self.rules.outstanding],
            "regions": [[str(base), data.hex()] for base, data in self.memory.items()],
            "parameters": self.parameters,
            "images": self.images,
            "image_pitch": self.pitch,
            "runs": [{"limit": 400_000, "tail": 5, **run} for run in runs],
            **more,
        }

    def masked(self, writes):
        """Recorded writes without their cycles and without the bits behind a word's width."""
        return [
            (enable, address, int(word, 16) & ((1 << self.widths[enable.bit_length() - 1]) - 1))
            for _, enable, address, word in writes
        ]

    def run_words(self, count):
        return [word for image in range(count) for item in self.body
                for word in self.words(item, image)]  # fmt: skip

    def boot_words(self):
        code = Descriptor(Opcode.FETCH, target=0, offset=self.code_offset, beats=self.code_beats)
        return [word for item in (code, *self.boot) for word in self.words(item, 0)]

    def timeline(self):
        return FetchTimeline(
            self.rules,
            port_bits=self.config["port_bits"],
            outstanding=self.config["outstanding"],
        )

    def predict(self, timeline, count, issues):
        """(cycles in which W grows, cycle in which busy is low) of the images of a run."""
        counted, ended = [], None
        for image in range(count):
            for item in self.body:
                ready = -1
                threshold = item.threshold - (1 << 24 if item.threshold >> 23 else 0)
                needed = image * self.products + threshold
                if item.wait and needed > 0:
                    ready = issues[needed - 1]
                counted.append(timeline.fetch(ready, self.address(item, image), item.beats))
            ended = timeline.loop()
        return counted, ended


def check_exact(bench, rng, config, number):
    """Boot and two images, then runs that begin behind STOP or load everything again."""
    # The first one reaches the engine's own limit of bursts in flight.
    scenarios = [Scenario(rng, config, rules=MemoryModel(150, 0, 16))]
    scenarios += [Scenario(rng, config) for _ in range(number - 1)]
    jobs = []
    for scenario in scenarios:
        runs = []
        for count in (2, 1, rng.randint(2, 4)):
            runs.append({"count": count, "issues": scenario.issues(rng, count)})
        # Products slower than memory: here all waits of all images count.
        runs[1] = {"count": 2, "issues": scenario.issues(rng, 2, steps=(200, 700))}
        runs[0]["issues"] = [rng.choice([0, 2000]) + cycle for cycle in runs[0]["issues"]]
        runs[0]["issues"].sort()
        runs[-1]["reload"] = int(rng.random() < 0.3)
        jobs.append(scenario.job(runs))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        for index, (run, seen) in enumerate(zip(job["runs"], result["runs"], strict=True)):
            boots = index == 0 or run.get("reload")
            assert seen["error"] is None
            expected = scenario.run_words(run["count"])
            if boots:
                expected = scenario.boot_words() + expected
            assert scenario.masked(seen["writes"]) == expected
            assert seen["program_digest"] == PROGRAM
            check_cycles(scenario, run, seen, boots)


def check_cycles(scenario, run, seen, boots):
    timeline = scenario.timeline()
    if boots:
        booted = timeline.boot(
            0, scenario.parameters, scenario.code_offset, scenario.code_beats, scenario.boot
        )
        assert seen["booted"] == booted
    else:
        timeline.begin(0)
    counted, ended = scenario.predict(timeline, run["count"], run["issues"])
    assert seen["counted"] == counted
    assert seen["ended"] == ended
    for counter in ("read_beats", "product_waits", "memory_waits"):
        assert seen[counter] == getattr(timeline, counter), counter


@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda config: str(config["port_bits"]))
def test_every_word_in_the_stated_cycle(bench, rng, config):
    check_exact(bench, rng, config, 2)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config["port_bits"]))
def test_every_word_in_the_stated_cycle_of_many_programs(bench, rng, config):
    check_exact(bench, rng, config, 40)


def test_the_port_does_not_idle_between_fetches(rng):
    """At full rate and with room for the latency, beats follow each other to the last one."""
    timeline = FetchTimeline(MemoryModel(100, 0, 16), port_bits=128, outstanding=4)
    timeline.begin(0)
    address, beats, ends = 0, 0, []
    for _ in range(50):
        length = rng.randint(60, 900)
        ends.append(timeline.fetch(-1, address * 16, length))
        address, beats = address + length, beats + length
    # Start, head, AR register and latency; then a beat in every cycle.
    assert ends[-1] == 2 + 1 + 2 + 100 + beats + 1
    assert timeline.memory_waits == 101 - 1


def spoiled(scenario, **header):
    """The scenario with other header fields."""
    image = scenario.memory[scenario.parameters]
    image[:64] = Header(**{**vars(scenario.header), **header}).to_bytes()
    return scenario


def test_foreign_parameters_are_refused(bench, rng):
    """Magic, machine, length of the program; then a program with a word that is none."""
    config = CONFIGS[1]
    scenarios = [
        spoiled(Scenario(rng, config), magic=int.from_bytes(b"VITS", "little")),
        spoiled(Scenario(rng, config), machine=MACHINE ^ 1 << 31),
        spoiled(Scenario(rng, config), beats=0),
        spoiled(Scenario(rng, config), beats=1 << 24),
    ]
    fetch = Descriptor(Opcode.FETCH, Target.WEIGHT, beats=8)
    words = [
        encode(fetch) | 7,
        encode(Descriptor(**{**vars(fetch), "target": 9})),
        encode(Descriptor(**{**vars(fetch), "beats": 0})),
    ]
    for word in words:
        scenario = Scenario(rng, config)
        where = (scenario.code_offset + len(scenario.boot)) * 16
        scenario.memory[scenario.parameters][where : where + 16] = word.to_bytes(16, "little")
        scenarios.append(scenario)
    jobs = [scenario.job([{"count": 1, "issues": []}]) for scenario in scenarios]
    good = Scenario(rng, config)
    jobs.append(good.job([{"count": 1, "issues": good.issues(rng, 1)}]))
    *refused, after = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for index, (scenario, result) in enumerate(zip(scenarios, refused, strict=True)):
        (seen,) = result["runs"]
        assert seen["error"][1:] == [3, scenario.parameters], index
        assert seen["booted"] is None
        assert seen["counted"] == []
        boots = [] if index < 4 else scenario.boot_words()
        del boots[len(seen["writes"]) :]
        written = scenario.masked(seen["writes"])
        if index < 4:
            assert written == []
        else:
            # The refused word itself was loaded as part of the program.
            assert written[scenario.code_beats :] == boots[scenario.code_beats :]
    assert good.masked(after["runs"][0]["writes"]) == good.boot_words() + good.run_words(1)


def test_an_error_response_stops_and_names_the_burst(bench, rng):
    config = CONFIGS[1]
    scenarios, jobs = [], []
    for number in range(5):
        scenario = Scenario(rng, config)
        scenarios.append(scenario)
        bad = number if number < 2 else rng.randrange(2, 12)
        run = {"count": 3, "issues": scenario.issues(rng, 3)}
        jobs.append(scenario.job([run], bad_bursts=[bad]))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        (seen,) = result["runs"]
        _, address, _ = result["bursts"][job["bad_bursts"][0]]
        assert seen["error"][1:] == [1, address]
        written = scenario.masked(seen["writes"])
        expected = scenario.boot_words() + scenario.run_words(3)
        assert written == expected[: len(written)]
        assert len(written) < len(expected)
        # What is counted is written: the words of that many fetches, and no more than those begun.
        words = len(scenario.boot_words()) if seen["counted"] else 0
        flat = [item for _ in range(3) for item in scenario.body]
        counts = [len(scenario.words(item, 0)) for item in flat]
        assert words + sum(counts[: len(seen["counted"])]) <= len(written)


def test_soft_reset_in_any_state_then_a_correct_run(bench, rng):
    config = CONFIGS[1]
    scenarios, jobs = [], []
    for number in range(6):
        scenario = Scenario(rng, config, rules=MemoryModel(rng.choice([3, 60]), 0, 4))
        scenarios.append(scenario)
        cycle = rng.choice([1, 5, 30, 80, 200, 700])
        first = {"count": 50, "issues": list(range(0, 5000, 10)), "soft_reset": cycle}
        if number % 2:
            first["hung"] = [max(0, cycle - 20), cycle + 30]
        again = {"count": 2, "issues": scenario.issues(rng, 2)}
        jobs.append(scenario.job([first, again]))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        reset, seen = result["runs"]
        late = [write for write in reset["writes"] if write[0] > job["runs"][0]["soft_reset"]]
        assert late == []
        assert scenario.masked(seen["writes"]) == scenario.boot_words() + scenario.run_words(2)
        check_cycles(scenario, job["runs"][1], seen, boots=True)


def test_a_start_right_behind_soft_reset_waits_for_the_drain(bench, rng):
    config = CONFIGS[1]
    scenarios, jobs = [], []
    for delay in (0, 1, 3):
        scenario = Scenario(rng, config, rules=MemoryModel(60, 0, 4))
        scenarios.append(scenario)
        cycle = rng.choice([4, 80, 300])
        run = {
            "count": 2,
            "issues": [0] * (2 * scenario.products),
            "starts": [0, cycle + delay],
            "soft_reset": cycle,
        }
        jobs.append(scenario.job([run]))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        (seen,) = result["runs"]
        writes = [write for write in seen["writes"] if write[0] > job["runs"][0]["soft_reset"]]
        assert scenario.masked(writes) == scenario.boot_words() + scenario.run_words(2)


def test_bad_parameters_are_named():
    good = {"port_bits": 64, "widths": {5: 64}, "depths": {0: 16, 5: 16}, "machine_digest": 1}
    for change, text in (
        ({"port_bits": 96}, r"port_bits: expected one of \(64, 128, 256, 512\), got 96"),
        ({"depths": {5: 16}}, r"depths: expected targets \[0, 5\], got \[5\]"),
        ({"widths": {5: 0}}, "widths: expected at least 1 bit each"),
        ({"widths": {15: 8}, "depths": {0: 4, 15: 4}}, "widths: expected targets 0 to 14"),
        ({"machine_digest": 1 << 32}, "machine_digest: expected 32 bits, got 4294967296"),
        ({"outstanding": 17}, "outstanding: expected 1 to 16 bursts, got 17"),
    ):
        with pytest.raises(ValueError, match=text):
            FetchEngine(**{**good, **change})


def test_descriptors_survive_encoding(rng):
    for _ in range(50):
        item = Descriptor(
            Opcode(rng.randrange(3)), rng.randrange(16), Space(rng.randrange(2)),
            rng.random() < 0.5, rng.randrange(1 << 32), rng.randrange(1 << 24),
            rng.randrange(1 << 24), rng.randrange(1 << 24),
        )  # fmt: skip
        assert decode(encode(item)) == item
    with pytest.raises(ValueError, match="beats: expected 24 bits, got 16777216"):
        encode(Descriptor(Opcode.FETCH, beats=1 << 24))


def test_the_encoding_is_the_contracts():
    """Fields from bit 0: opcode 3, target 4, space 1, wait 1, offset 32, beats, destination, ..."""
    word = encode(Descriptor(Opcode.FETCH, Target.WEIGHT, Space.IMAGE, True, 2, 3, 4, 5))
    assert word == 1 | 5 << 3 | 1 << 7 | 1 << 8 | 2 << 9 | 3 << 41 | 4 << 65 | 5 << 89
