"""The fetch engine on a memory in Python: every word, every cycle, every refusal."""

from itertools import pairwise
from operator import itemgetter

import pytest

from vitruvius.hwgen.axi.descriptor import (
    DESCRIPTOR_BITS,
    TASKS,
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
    {"port_bits": 64, "widths": {3: 280, 5: 96, 6: 64}, "outstanding": 3, "experts": 5},
    {"port_bits": 128, "widths": {3: 280, 5: 1000, 6: 128}, "outstanding": 8},
    {"port_bits": 256, "widths": {1: 80, 3: 280, 5: 256}, "outstanding": 1, "experts": 1},
    {"port_bits": 512, "widths": {3: 280, 5: 1024, 6: 8}, "outstanding": 16, "experts": 255},
]
ROUTED = {"port_bits": 128, "widths": {5: 256, 6: 128}, "outstanding": 8, "experts": 4}
DEPTH = 4096


def engine(config):
    depths = dict.fromkeys((0, *config["widths"]), DEPTH)
    return FetchEngine(**config, depths=depths, machine_digest=MACHINE)


class Scenario:
    """A random parameter image, images, programs and a memory; and what must come of them.

    ``skipped``: (image, index in body) of fetches whose queue is empty when they look at it.
    """

    def __init__(self, rng, config, *, rules=None, body=None, tokens=None, skipped=None):
        self.config = config
        self.bytes = config["port_bits"] // 8
        self.widths = {0: DESCRIPTOR_BITS, **config["widths"]}
        self.rules = rules or MemoryModel(
            rng.choice([1, 2, 7, 40, 100]), rng.choice([0, 0, 0, 1, 3]), rng.choice([1, 2, 5, 16])
        )
        self.parameters = rng.randrange(1 << 40) * 4096
        self.images = (1 << 60) + rng.randrange(1 << 20) * self.bytes
        self.pitch = rng.randrange(700) * self.bytes
        self.space_beats = 3000
        self.boot = [self._fetch(rng, PARAMETER_SPACE) for _ in range(rng.randrange(4))]
        self.products, self.tokens = rng.randint(1, 9), tokens or rng.randint(1, 40)
        self.skipped = set() if skipped is None else skipped
        self.body = body
        if body is None:
            self.body = [self._fetch(rng) for _ in range(rng.randint(1, 8))]
            self.body.append(self._fetch(rng, beats=rng.randint(256, 900)))
            self._add_waits(rng)
            if config.get("experts"):
                self._add_conditions(rng)
        stop = Descriptor(Opcode.STOP)
        loop = Descriptor(Opcode.LOOP, threshold=self.products, routed_threshold=self.tokens)
        self.program = [encode(item) for item in (*self.boot, stop, *self.body, loop)]
        word = -(-DESCRIPTOR_BITS // config["port_bits"]) * self.bytes
        code = b"".join(item.to_bytes(word, "little") for item in self.program)
        self.code_offset = 64 // self.bytes + rng.randrange(300)
        self.code_beats = len(code) // self.bytes
        self.header = Header(MACHINE, PROGRAM, self.code_beats, self.code_offset)
        self.memory = {
            self.parameters: bytearray(rng.randbytes((self.space_beats + 4000) * self.bytes)),
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

    def _add_conditions(self, rng):
        """Experts in any order with any threshold; none, some or all of an image are skipped."""
        likely = rng.choice([0, 0.5, 0.5, 1])
        for index, item in enumerate(self.body):
            by_task = item.beats < 200 and rng.random() < 0.4
            more = {"by_task": by_task, "last_task": by_task * (TASKS - 1)}
            if rng.random() < 0.7:
                more["expert"] = rng.randint(1, self.config["experts"])
                more["routed_threshold"] = rng.randint(-3, self.tokens) % (1 << 24)
                for image in range(4):
                    if rng.random() < likely:
                        self.skipped.add((image, index))
            self.body[index] = Descriptor(**{**vars(item), **more})

    def issues(self, rng, count, steps=(0, 1, 10, 150)):
        return climb(rng, count * self.products, steps)

    def conditions(self, rng, run, *, boots, routed=None):
        """The run with a task and routing, and with queues that tell the truth only when they must:
        from the cycle in which a fetch's waits are over until it leaves.
        """
        if not self.config.get("experts"):
            return run
        total = run["count"] * self.tokens
        routed = (
            climb(rng, total, rng.choice([(0, 1), (0, 10), (30,)])) if routed is None else routed
        )
        run = {"task": rng.choice([0, 1, 2, 3, TASKS - 1]), **run, "routed": routed}
        timeline = self.timeline()
        self.begin(timeline, boots)
        self.predict(timeline, run)
        value, changes = 0, []
        for cycle, bit, level in sorted(self.windows, key=itemgetter(0)):
            value = value & ~(1 << bit) | level << bit
            changes.append([cycle, value])
        return {**run, "queue_used": changes}

    def address(self, item, image, task=0):
        base = self.parameters
        if item.space is IMAGE_SPACE:
            base = self.images + image * self.pitch
        return base + (item.offset + item.by_task * task * item.beats) * self.bytes

    def words(self, item, image, task=0):
        """[(enable, address, word)] that a FETCH must write, taken from the memory's bytes."""
        width = self.widths[item.target]
        size = -(-width // self.config["port_bits"]) * self.bytes
        start = self.address(item, image, task)
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

    def run_words(self, count, task=0):
        return [word for image in range(count) for index, item in enumerate(self.body)
                if (image, index) not in self.skipped
                for word in self.words(item, image, task)]  # fmt: skip

    def boot_words(self):
        code = Descriptor(Opcode.FETCH, target=0, offset=self.code_offset, beats=self.code_beats)
        return [word for item in (code, *self.boot) for word in self.words(item, 0)]

    def timeline(self):
        return FetchTimeline(
            self.rules,
            port_bits=self.config["port_bits"],
            outstanding=self.config["outstanding"],
        )

    def begin(self, timeline, boots):
        """The start of a run; the cycle in which ``booted`` rises if it boots."""
        if not boots:
            return timeline.begin(0)
        return timeline.boot(0, self.parameters, self.code_offset, self.code_beats, self.boot)

    def predict(self, timeline, run):
        """(cycles in which W grows, cycle in which busy is low) of the images of a run.

        Leaves in ``windows`` (cycle, bit, level) of what ``queue_used`` must show.
        """
        counted, ended = [], None
        task, self.windows = run.get("task", 0), []
        left = dict.fromkeys(range(self.config.get("experts", 0)), 0)
        for image in range(run["count"]):
            for index, item in enumerate(self.body):
                ready = -1
                needed = image * self.products + signed(item.threshold)
                if item.wait and needed > 0:
                    ready = run["issues"][needed - 1]
                needed = image * self.tokens + signed(item.routed_threshold)
                if item.expert and needed > 0:
                    ready = max(ready, run["routed"][needed - 1])
                address = self.address(item, image, task)
                skipped = (image, index) in self.skipped
                counted.append(
                    timeline.fetch(
                        ready, address, item.beats, skipped=skipped, by_task=item.by_task
                    )
                )
                if item.expert:
                    bit = item.expert - 1
                    self.windows.append((left[bit], bit, int(skipped)))
                    self.windows.append((max(left[bit], ready), bit, int(not skipped)))
                    left[bit] = timeline._popped + 1
            ended = timeline.loop()
        return counted, ended


def signed(threshold):
    return threshold - (1 << 24 if threshold >> 23 else 0)


def climb(rng, number, steps):
    """Cycles in which a counter grows by one."""
    cycle, cycles = 3, []
    for _ in range(number):
        cycle += rng.choice(steps)
        cycles.append(cycle)
    return cycles


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
        runs = [
            scenario.conditions(rng, run, boots=not index or run.get("reload"))
            for index, run in enumerate(runs)
        ]
        jobs.append(scenario.job(runs))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        for index, (run, seen) in enumerate(zip(job["runs"], result["runs"], strict=True)):
            boots = index == 0 or run.get("reload")
            assert seen["error"] is None
            expected = scenario.run_words(run["count"], run.get("task", 0))
            if boots:
                expected = scenario.boot_words() + expected
            assert scenario.masked(seen["writes"]) == expected
            assert seen["program_digest"] == PROGRAM
            check_cycles(scenario, run, seen, boots)


def check_cycles(scenario, run, seen, boots):
    timeline = scenario.timeline()
    booted = scenario.begin(timeline, boots)
    if boots:
        assert seen["booted"] == booted
    counted, ended = scenario.predict(timeline, run)
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
        where = (scenario.code_offset + 2 * len(scenario.boot)) * 16
        scenario.memory[scenario.parameters][where : where + 32] = word.to_bytes(32, "little")
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
            loaded = len(scenario.program)
            assert written[loaded:] == boots[loaded:]
    assert good.masked(after["runs"][0]["writes"]) == good.boot_words() + good.run_words(1)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=["experts", "no_experts"])
def test_an_error_response_stops_and_names_the_burst(bench, rng, config):
    """Also what is skipped is not counted any more; both kinds of counting freeze."""
    scenarios, jobs = [], []
    for number in range(5):
        scenario = Scenario(rng, config)
        scenario.skipped = {place for place in scenario.skipped if place[0] == 1}
        scenarios.append(scenario)
        bad = number if number < 2 else rng.randrange(2, 8)
        run = {"count": 3, "issues": scenario.issues(rng, 3)}
        run = scenario.conditions(rng, run, boots=True)
        jobs.append(scenario.job([run], bad_bursts=[bad]))
    results = bench(engine(config), "bench_fetch", "scenarios", jobs)
    for scenario, job, result in zip(scenarios, jobs, results, strict=True):
        (seen,) = result["runs"]
        _, address, _ = result["bursts"][job["bad_bursts"][0]]
        assert seen["error"][1:] == [1, address]
        written = scenario.masked(seen["writes"])
        expected = scenario.boot_words() + scenario.run_words(3, job["runs"][0].get("task", 0))
        assert written == expected[: len(written)]
        assert len(written) < len(expected)
        # What is counted is written: the words of that many fetches, and no more than those begun.
        words = len(scenario.boot_words()) if seen["counted"] else 0
        counts = [
            0 if (image, index) in scenario.skipped else len(scenario.words(item, 0))
            for image in range(3)
            for index, item in enumerate(scenario.body)
        ]
        counted = len(seen["counted"])
        assert words + sum(counts[:counted]) <= len(written)
        assert all(cycle <= seen["error"][0] for cycle in seen["counted"])


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
        ({"experts": 256}, "experts: expected 0 to 255, got 256"),
    ):
        with pytest.raises(ValueError, match=text):
            FetchEngine(**{**good, **change})


def test_descriptors_survive_encoding(rng):
    for _ in range(50):
        item = Descriptor(
            Opcode(rng.randrange(3)), rng.randrange(16), Space(rng.randrange(2)),
            rng.random() < 0.5, rng.randrange(1 << 32), rng.randrange(1 << 24),
            rng.randrange(1 << 24), rng.randrange(1 << 24),
            rng.random() < 0.5, rng.randrange(1 << 8), rng.randrange(1 << 24),
        )  # fmt: skip
        assert decode(encode(item)) == item
    with pytest.raises(ValueError, match="beats: expected 24 bits, got 16777216"):
        encode(Descriptor(Opcode.FETCH, beats=1 << 24))


def test_the_encoding_is_the_contracts():
    """Fields from bit 0: opcode 3, target 4, space 1, wait 1, offset 32, beats, destination,
    threshold 24 each, by_task 1, expert 8, routed_threshold 24, last_task 4.
    """
    item = Descriptor(Opcode.FETCH, Target.WEIGHT, Space.IMAGE, True, 2, 3, 4, 5, True, 6, 7, 8)
    first = 1 | 5 << 3 | 1 << 7 | 1 << 8 | 2 << 9 | 3 << 41 | 4 << 65 | 5 << 89
    assert encode(item) == first | 1 << 113 | 6 << 114 | 7 << 122 | 8 << 146


# Fetches that depend on experts' queues and on the task.


def transfer(index, expert=0, beats=60, **more):
    """A FETCH of ``beats`` that lie behind those of the transfers before it."""
    routed = 3 if expert else 0
    return Descriptor(
        Opcode.FETCH, Target.WEIGHT, offset=900 + index * beats, beats=beats,
        destination=200 * index, expert=expert, routed_threshold=routed, **more,
    )  # fmt: skip


def one_image(bench, rng, body, skipped=(), *, routed=4, task=0, latency=100):
    """One image of a given body on a memory at full rate: (scenario, cycles in which W grows
    counted from the first, addresses of the image's bursts, record of the run).

    Skipped ones are indices in ``body``; all tokens are routed in the cycle ``routed`` after boot.
    """
    rules = MemoryModel(latency, 0, 16)
    scenario = Scenario(
        rng, ROUTED, rules=rules, body=body, tokens=3, skipped={(0, index) for index in skipped}
    )
    booted = scenario.begin(scenario.timeline(), boots=True)
    run = {"count": 1, "issues": [0] * scenario.products, "task": task}
    run = scenario.conditions(rng, run, boots=True, routed=[booted + routed] * 3)
    (result,) = bench(engine(ROUTED), "bench_fetch", "scenarios", [scenario.job([run])])
    (seen,) = result["runs"]
    assert scenario.masked(seen["writes"]) == scenario.boot_words() + scenario.run_words(1, task)
    check_cycles(scenario, run, seen, boots=True)
    bursts = [address for cycle, address, _ in result["bursts"] if cycle > booted]
    return scenario, [cycle - booted for cycle in seen["counted"]], bursts, seen


def test_a_skipped_transfer_between_two_real_ones(bench, rng):
    """It is counted with the one before it, in order, and the port does not idle for it: beats of
    the third follow those of the first. A skipped one that drains the reader would add the latency.
    """
    body = [transfer(0), transfer(1, expert=2), transfer(2)]
    scenario, counted, bursts, _ = one_image(bench, rng, body, skipped=[1])
    assert counted[1] == counted[0]
    assert counted[2] == counted[0] + 60
    addresses = {scenario.address(body[index], 0) for index in (0, 2)}
    assert addresses <= set(bursts)
    assert scenario.address(body[1], 0) not in bursts


def test_skipped_transfers_leave_while_the_reader_is_busy(bench, rng):
    """Six of them behind a transfer of several bursts with one in flight are gone when it is over;
    if they waited for the reader, the last transfer would come two cycles later for each.
    """
    long = [transfer(0, beats=900), *(transfer(index, expert=1, beats=60) for index in range(6))]
    last = transfer(9)
    _, with_skipped, *_ = one_image(bench, rng, [*long, last], skipped=range(1, 7))
    _, without, *_ = one_image(bench, rng, [long[0], last])
    assert with_skipped[-1] - with_skipped[0] == without[1] - without[0]


def test_when_all_are_skipped_memory_is_not_asked(bench, rng):
    body = [transfer(index, expert=1 + index % 4) for index in range(6)]
    _, counted, bursts, _ = one_image(bench, rng, body, skipped=range(6))
    assert bursts == []
    # Two cycles behind the one it leaves in; the second was at hand, the others take two each.
    assert counted == [6, 7, 9, 11, 13, 15]


def test_none_skipped_takes_the_cycles_of_fetches_without_experts(bench, rng):
    """From the first one on, which waits for routing."""
    body = [transfer(index, expert=1 + index % 4) for index in range(6)]
    plain = [transfer(index) for index in range(6)]
    _, counted, *_ = one_image(bench, rng, body)
    _, expected, *_ = one_image(bench, rng, plain)
    for cycles in (counted, expected):
        assert [after - before for before, after in pairwise(cycles)] == [60] * 5


def test_routing_that_comes_late_holds_real_and_skipped_ones(bench, rng):
    """Nothing of an expert is asked for, skipped or counted before; the wait is in the counter."""
    body = [transfer(0), transfer(1, expert=4), transfer(2, expert=1)]
    _, counted, _, seen = one_image(bench, rng, body, skipped=[1], routed=2000)
    assert counted[0] < 300
    # Counted two cycles behind the one that shows the last token.
    assert counted[1] == 2000 + 2
    # The next one at the head, the AR register, latency, beats; then counted.
    assert counted[2] == 2000 + 1 + 2 + 100 + 60 - 1 + 2
    assert 2000 - 10 <= seen["product_waits"] <= 2000


@pytest.mark.parametrize("task", range(4))
def test_the_task_chooses_among_matrices_one_behind_the_other(bench, rng, task):
    """Sampled at start: the bench shows another task from the next cycle on."""
    chosen = {"by_task": True, "last_task": 3}
    body = [transfer(0), transfer(1, **chosen), transfer(5, expert=3, **chosen)]
    scenario, _, bursts, _ = one_image(bench, rng, body, task=task)
    for place in (900, 960 + 60 * task, 1200 + 60 * task):
        assert scenario.parameters + 16 * place in bursts


def test_soft_reset_while_it_waits_for_routing(bench, rng):
    """What was routed, skipped and counted before is forgotten."""
    body = [transfer(0, expert=1), transfer(1), transfer(2, expert=2), transfer(3, expert=3)]
    body[2:] = [Descriptor(**{**vars(item), "routed_threshold": 5}) for item in body[2:]]
    scenario = Scenario(
        rng, ROUTED, rules=MemoryModel(20, 0, 16), body=body, tokens=6, skipped={(0, 0), (1, 3)}
    )
    issues = [0] * (2 * scenario.products)
    first = {
        "count": 2, "issues": issues, "task": 0, "routed": [900] * 4, "queue_used": [[0, 0]],
        "soft_reset": 1500,
    }  # fmt: skip
    again = scenario.conditions(rng, {"count": 2, "issues": issues}, boots=True)
    (result,) = bench(engine(ROUTED), "bench_fetch", "scenarios", [scenario.job([first, again])])
    reset, seen = result["runs"]
    assert len(reset["counted"]) == 2
    assert 590 <= reset["product_waits"] <= 1500
    expected = scenario.boot_words() + scenario.run_words(2, again["task"])
    assert scenario.masked(seen["writes"]) == expected
    check_cycles(scenario, again, seen, boots=True)


def test_an_expert_that_the_engine_does_not_have_is_refused(bench, rng):
    scenario = Scenario(rng, ROUTED, body=[transfer(0), transfer(1, expert=5)])
    run = {"count": 1, "issues": [0] * 9, "task": 0, "routed": [0] * 9, "queue_used": [[0, 15]]}
    (result,) = bench(engine(ROUTED), "bench_fetch", "scenarios", [scenario.job([run])])
    assert result["runs"][0]["error"][1:] == [3, scenario.parameters]


@pytest.mark.parametrize("task", [2, 16, 255])
def test_a_task_that_the_program_does_not_have_is_refused(bench, rng, task):
    """Catches a task that is cut to the bits that count, and one that reads what is no gate."""
    body = [transfer(0), transfer(1, by_task=True, last_task=1)]
    scenario = Scenario(rng, ROUTED, body=body)
    run = {"count": 1, "issues": [0] * 9, "task": task, "routed": [0] * 9, "queue_used": [[0, 15]]}
    (result,) = bench(engine(ROUTED), "bench_fetch", "scenarios", [scenario.job([run])])
    assert result["runs"][0]["error"][1:] == [6, scenario.parameters]


def test_an_engine_without_experts_has_none_of_their_ports():
    members = engine(CONFIGS[1]).signature.members
    assert not {"routed", "queue_used", "task"} & set(members)
