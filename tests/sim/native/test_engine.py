"""What a run gives back: values, bytes, progress, errors; and that it ends when it is told to."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.sim.native.engine import NativeError, NativeRun
from vitruvius.sim.native.script import Script

SOURCE, TARGET = 0x7FFF_F000, 0x9000_0000
STATUS, STROBE, ENABLE, INTERRUPT, LAST_OF_BUFFER = 0x004, 0x034, 0x03C, 0x038, 0x110
FOREVER = Script().sleep(10**12)


def copy(bursts, beats, script=None):
    script = script or Script()
    for register, value in ((0x010, SOURCE), (0x018, TARGET), (0x028, bursts), (0x02C, beats)):
        script.write(register, value)
    return script.write(0x000, 1)


@pytest.mark.parametrize("port_bits", [64, 128, 256, 512])
def test_what_is_copied_arrives_with_any_waits(copier, port_bits):
    """Sixteen runs of random sizes and waits; the source lies across pages of the memory."""
    for seed in range(16):
        print(f"seed {seed}")
        rng = random.Random(seed)
        beats = rng.choice([1, 3, 8])  # x 512 bits divides 4 KB, or stays below it
        bursts = rng.randint(1, 7 if beats == 3 else 40)
        contents = rng.randbytes(bursts * beats * port_bits // 8)
        outcome = copier(port_bits).run(
            copy(bursts, beats).wait_done(100_000).dump(TARGET, len(contents), "copied"),
            memory=[(SOURCE, contents)],
            model=MemoryModel(latency=rng.randint(1, 40), outstanding=rng.choice([1, 2, 16])),
            jitter=seed,
        )
        assert outcome.data["copied"] == contents
        traffic = outcome.traffic
        assert (traffic.read_bursts, traffic.write_bursts) == (bursts, bursts)
        assert (traffic.read_beats, traffic.write_beats) == (bursts * beats, bursts * beats)
        assert traffic.unwritten_bytes == 0


def test_the_same_seed_gives_the_same_cycles(copier):
    script = copy(8, 16).wait_done(100_000)
    cycles = [copier().run(script, jitter=seed).cycles for seed in (1, 1, 2)]
    assert cycles[0] == cycles[1] != cycles[2]


def test_on_chip_memory_holds_zeros_or_anything_of_the_seed(copier):
    """A design that reads what it never wrote must not be right by chance."""
    script = Script().read(LAST_OF_BUFFER, "word")
    words = [copier().run(script, jitter=seed).values["word"] for seed in (None, 1, 1, 2)]
    assert words[0] == 0
    assert words[1] == words[2] != words[3]
    assert 0 not in words[1:]


def test_strobes_choose_the_bytes(copier):
    contents, before = bytes(range(1, 65)), bytes([0xFF] * 64)
    script = copy(1, 4, Script().write(STROBE, 0b1000_0101)).wait_done(1000)
    script.dump(TARGET, 64, "copied")
    outcome = copier().run(script, memory=[(SOURCE, contents), (TARGET, before)])
    expected = [new if at % 8 in (0, 2, 7) else 0xFF for at, new in enumerate(contents)]
    assert list(outcome.data["copied"]) == expected


def test_written_data_are_in_memory_with_the_response_not_before(copier):
    contents = bytes([7] * 16)
    script = copy(1, 1).sleep(5000).dump(TARGET, 16, "before").wait_done(50_000)
    script.dump(TARGET, 16, "after")
    model = MemoryModel(latency=3000)
    outcome = copier().run(script, memory=[(SOURCE, contents)], model=model)
    assert outcome.data == {"before": bytes([0xA5] * 16), "after": contents}
    assert outcome.at_cycle["before"] > 5000
    assert outcome.at_cycle["after"] > 6000


def test_bytes_that_nobody_wrote_are_counted(copier):
    script = copy(2, 16).wait_done(1000).dump(TARGET, 512, "copied")
    outcome = copier().run(script, memory=[(SOURCE, bytes(500)), (SOURCE + 505, bytes(7))])
    assert outcome.traffic.unwritten_bytes == 5
    assert outcome.traffic.first_unwritten == SOURCE + 500
    assert outcome.data["copied"] == bytes(500) + bytes([0xA5] * 5) + bytes(7)


def test_memory_is_loaded_from_bytes_and_files_at_any_time(copier, tmp_path):
    file = tmp_path / "a file with spaces"
    file.write_bytes(bytes(range(256)) * 600)  # more than the harness copies at once
    script = Script().load(0x5000, b"later").dump(0x4FFE, 9, "mixed")
    script.dump(0x1_0003, 153_600, "large").load(0x5001, b"A").dump(0x5000, 5, "again")
    outcome = copier().run(script, memory=[(0x4FF0, b"x" * 32), (0x1_0003, file)])
    assert outcome.data["mixed"] == b"xxlaterxx"
    assert outcome.data["large"] == file.read_bytes()
    assert outcome.data["again"] == b"lAter"


def test_a_file_that_is_loaded_is_never_written(copier, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    script = Script().load(0x5000, file)
    for name in ("load0", "load_0", "start0", "script", "outcome", "progress"):
        script.dump(0x6000, 8, name)
    outcome = copier().run(script, memory=[(0x5000, file)])
    assert file.read_bytes() == b"precious"
    assert set(outcome.data.values()) == {bytes([0xA5] * 8)}


def test_debug_words_come_slice_by_slice(copier):
    """The copier's debug word w, slice s is w * 0x9E3779B1 + s."""
    outcome = copier().run(Script().read_debug(2, 5, 3, 4, "words"))
    words = outcome.data["words"]
    found = [int.from_bytes(words[at : at + 4], "little") for at in range(0, len(words), 4)]
    expected = [
        ((2 << 24 | word) * 0x9E3779B1 + part) % (1 << 32)
        for word in range(5, 8)
        for part in range(4)
    ]
    assert found == expected


def test_an_interrupt_is_waited_for_and_cleared(copier):
    script = copy(1, 1, Script().write(ENABLE, 1)).wait_interrupt(1000).read(INTERRUPT, "pending")
    script.write(INTERRUPT, 1).read(INTERRUPT, "cleared").wait_interrupt(50)
    with pytest.raises(NativeError, match="expected an interrupt within 50 cycles") as caught:
        copier().run(script)
    assert caught.value.kind == "timeout"
    script.lines.pop()
    assert copier().run(script).values == {"pending": 1, "cleared": 0}


def test_an_expectation_looks_at_the_bits_of_its_mask(copier):
    copier().run(Script().write(INTERRUPT, 0).expect(STATUS, 0xFF00, 0xFF))
    with pytest.raises(NativeError, match=r"register 0x004: expected 0x00000001 .*got 0x00000000"):
        copier().run(Script().expect(STATUS, 1))


def test_a_read_error_names_the_beat_only(copier):
    script = copy(2, 4, Script().fail_reads(SOURCE + 5 * 16 + 3)).wait_done(1000)
    script.dump(TARGET, 128, "copied")
    contents = bytes(range(128))
    outcome = copier().run(script, memory=[(SOURCE, contents)])
    assert outcome.values["status"] >> 4 & 15 == 1
    assert outcome.at_cycle["status"] < 200
    after = copy(2, 4).wait_done(1000).dump(TARGET, 128, "copied")
    assert copier().run(after, memory=[(SOURCE, contents)]).data["copied"] == contents


def test_a_write_error_leaves_the_burst_unwritten(copier):
    script = copy(3, 2, Script().fail_writes(TARGET + 32 + 31)).sleep(300).read(STATUS, "state")
    script.dump(TARGET, 96, "copied")
    outcome = copier().run(script, memory=[(SOURCE, bytes(96))])
    assert outcome.values["state"] & 0xFF == 0x22  # done, write error
    assert outcome.data["copied"] == bytes(32) + bytes([0xA5] * 32) + bytes(32)


@pytest.mark.parametrize("silent", [SOURCE + 0x200, TARGET + 0x200])
def test_silence_lasts_until_it_is_ended(copier, silent):
    script = copy(4, 16, Script().silence(silent)).sleep(3000).read(STATUS, "stuck")
    script.no_faults().wait_done(1000).dump(TARGET, 1024, "copied")
    outcome = copier().run(script, memory=[(SOURCE, bytes(1024))])
    assert outcome.values["stuck"] & 0xFF == 1
    assert outcome.values["status"] & 0xFF == 2
    assert outcome.data["copied"] == bytes(1024)


def test_a_wait_runs_out(copier):
    script = copy(4, 16, Script().silence(SOURCE)).wait_done(2000)
    with pytest.raises(NativeError, match=r"within 2000 cycles, STATUS is 0x00000001") as caught:
        copier().run(script)
    assert caught.value.kind == "timeout"
    assert 2000 <= caught.value.cycle < 2200


def test_reset_forgets_bursts_and_keeps_contents(copier):
    script = copy(4, 16, Script().silence(SOURCE)).sleep(100).reset().no_faults()
    copy(1, 16, script).wait_done(1000).dump(TARGET, 256, "copied")
    outcome = copier().run(script, memory=[(SOURCE, bytes(range(256)))])
    assert outcome.data["copied"] == bytes(range(256))
    assert outcome.traffic.write_bursts == 1


def test_progress_tells_cycles_and_product(copier):
    """STATUS of the copier counts the bursts that it began to write: three, and stuck there."""
    states = []
    script = copy(3, 1, Script().silence(TARGET)).wait_done(10**9)
    stop = threading.Event()

    def look(state):
        states.append(state)
        if len({state.cycles for state in states}) >= 3:
            stop.set()

    with pytest.raises(NativeError, match="stopped") as caught:
        copier().run(script, progress=look, stop=stop)
    assert caught.value.kind == "stopped"
    assert [state.cycles for state in states] == sorted(state.cycles for state in states)
    assert states[-1].product == 3
    assert states[-1].cycles_per_s > 10_000


def processes(executable):
    """Ids of the running processes of a program."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "exe").readlink() == executable:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def own_copy(run, folder):
    """The same build as a program of its own name, so that its processes can be told apart."""
    (folder / "simulation").write_bytes(run.build.executable.read_bytes())
    (folder / "simulation").chmod(0o755)
    return NativeRun(dataclasses.replace(run.build, directory=folder))


def test_an_exception_in_python_ends_the_simulation(copier, tmp_path):
    run = own_copy(copier(), tmp_path)

    def fail(state):
        assert processes(run.build.executable)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(FOREVER, progress=fail)
    assert processes(run.build.executable) == []


def test_a_simulation_does_not_outlive_python(copier, tmp_path):
    run = own_copy(copier(), tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from vitruvius.sim.native.build import NativeBuild\n"
        "from vitruvius.sim.native.engine import NativeRun\n"
        "from vitruvius.sim.native.script import Script\n"
        f"build = NativeBuild(Path({str(tmp_path)!r}), 128, 0.0, True, False)\n"
        "NativeRun(build).run(Script().sleep(10**12))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not processes(run.build.executable):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while processes(run.build.executable):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_simulation_that_dies_is_an_error_with_its_last_words(copier, tmp_path):
    program = tmp_path / "simulation"
    program.write_text("#!/bin/sh\necho 'no memory left'\nexit 3\n")
    program.chmod(0o755)
    broken = dataclasses.replace(copier().build, directory=tmp_path)
    with pytest.raises(NativeError, match="ended with exit code 3: no memory left") as caught:
        NativeRun(broken).run(Script().sleep(1))
    assert caught.value.kind == "crash"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("jump 3", "unknown step 'jump 3'"),
        ("write 0x0", "words are missing in 'write 0x0'"),
        ("sleep ten", "expected a number, got 'ten' in 'sleep ten'"),
    ],
)
def test_a_script_that_the_harness_does_not_know(copier, line, text):
    with pytest.raises(NativeError, match=text) as caught:
        copier().run(Script(lines=[line]))
    assert caught.value.kind == "script"


def test_arguments_out_of_range(copier, tmp_path):
    with pytest.raises(VitruviusError, match="jitter: expected a seed of 64 bits, got -1"):
        copier().run(Script(), jitter=-1)
    with pytest.raises(VitruviusError, match="waves: expected a build made with trace"):
        copier().run(Script(), waves=tmp_path / "waves.fst")
    with pytest.raises(VitruviusError, match="expected a file to load, got "):
        copier().run(Script(), memory=[(0, tmp_path / "absent")])


@pytest.mark.slow
@pytest.mark.parametrize("good", [True, False])
def test_waves_are_kept_also_of_a_run_that_fails(copier, tmp_path, good):
    waves = tmp_path / "made" / "run.fst"
    script = copy(2, 4).wait_done(1000)
    if good:
        copier(64, trace=True).run(script, waves=waves)
    else:
        with pytest.raises(NativeError, match="expected 0x00000000"):
            copier(64, trace=True).run(script.expect(INTERRUPT, 0), waves=waves)
    content = waves.read_bytes()
    assert content[0] == 0  # the header block of an FST file that was closed
    assert len(content) > 500
