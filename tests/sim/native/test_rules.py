"""Every check of the harness fires on a design that breaks its rule, and on no other."""

from __future__ import annotations

import pytest

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.sim.native.engine import NativeError
from vitruvius.sim.native.script import Script

SOURCE, TARGET, BURSTS, BEATS, BEAT_BYTES = 0x1_0000, 0x2_0000, 4, 16, 16
RUN_OPTIONS = 0x054
CONTENTS = bytes(index * 7 & 255 for index in range(BURSTS * BEATS * BEAT_BYTES))

PLAIN = {"model": MemoryModel(latency=3)}
NARROW = {"model": MemoryModel(latency=20, gap=3, outstanding=1)}
SHAKEN = {"model": MemoryModel(latency=3), "jitter": 5}

BROKEN = [
    # number in copier.v, the rule it breaks, a run in which it does
    (1, "ar-stable", NARROW),
    (2, "ar-dropped", NARROW),
    (3, "ar-id", PLAIN),
    (4, "ar-burst", PLAIN),
    (5, "ar-size", PLAIN),
    (6, "ar-aligned", PLAIN),
    (7, "aw-stable", NARROW),
    (8, "aw-dropped", NARROW),
    (9, "aw-id", PLAIN),
    (10, "aw-burst", PLAIN),
    (11, "aw-size", PLAIN),
    (12, "aw-aligned", PLAIN),
    (13, "w-stable", NARROW),
    (14, "w-dropped", NARROW),
    (15, "w-early", PLAIN),
    (16, "w-last", PLAIN),
    (17, "w-last", PLAIN),
    (18, "r-ready", PLAIN),
    (19, "b-ready", PLAIN),
    (20, "reset-valid", PLAIN),
    (21, "control-b-dropped", SHAKEN),
    (22, "control-b-unasked", PLAIN),
    (23, "control-b-stable", SHAKEN),
    (24, "control-r-dropped", SHAKEN),
    (25, "control-r-unasked", PLAIN),
    (26, "control-r-stable", SHAKEN),
    (29, "ar-stable", NARROW),
    (30, "w-stable", NARROW),
]


def copy(script=None, source=SOURCE, target=TARGET):
    script = script or Script()
    for register, value in ((0x010, source), (0x018, target), (0x028, BURSTS), (0x02C, BEATS)):
        script.write(register, value)
    return script.write(0x000, 1).wait_done(50_000).reset()


@pytest.mark.parametrize(("number", "rule", "how"), BROKEN)
def test_a_broken_rule_is_named(copier, number, rule, how):
    script = copy(Script().write(RUN_OPTIONS, number))
    with pytest.raises(NativeError) as caught:
        copier().run(script, memory=[(SOURCE, CONTENTS)], **how)
    assert (caught.value.kind, caught.value.rule) == ("protocol", rule)
    assert str(caught.value).startswith(f"native run: cycle {caught.value.cycle}: {rule}: ")


@pytest.mark.parametrize("how", [PLAIN, NARROW, SHAKEN])
def test_the_design_that_breaks_none_passes(copier, how):
    script = copy(Script().write(RUN_OPTIONS, 0)).dump(TARGET, len(CONTENTS), "copied")
    outcome = copier().run(script, memory=[(SOURCE, CONTENTS)], **how)
    assert outcome.data["copied"] == CONTENTS


@pytest.mark.parametrize(
    ("source", "target", "rule"),
    [(SOURCE + 0xF10, TARGET, "ar-4kb"), (SOURCE, TARGET + 0xF10, "aw-4kb")],
)
def test_a_burst_across_4_kb_is_refused(copier, source, target, rule):
    with pytest.raises(NativeError, match=f"{rule}: the burst at 0x.0f10 of 16 beats crosses"):
        copier().run(copy(source=source, target=target), memory=[(source, CONTENTS)])


def test_a_burst_up_to_the_line_passes(copier):
    """The last burst ends with the last byte before the line: one more would cross it."""
    source = SOURCE + 0x1000 - len(CONTENTS)
    script = copy(source=source).dump(TARGET, len(CONTENTS), "copied")
    outcome = copier().run(script, memory=[(source, CONTENTS)])
    assert outcome.data["copied"] == CONTENTS


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (27, "the read of register 0x004 had no answer in 10000 cycles"),
        (28, "the write of register 0x054 was answered with response 2"),
    ],
)
def test_a_register_port_that_refuses(copier, number, text):
    with pytest.raises(NativeError, match=text) as caught:
        copier().run(Script().write(RUN_OPTIONS, number).read(0x004, "status"))
    assert (caught.value.kind, caught.value.rule) == ("control", "")
