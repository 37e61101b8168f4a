"""The host's procedures on a bus that is not a simulator: what they refuse."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.compiler import compile_model
from vitruvius.hwgen.generate import generate
from vitruvius.hwgen.loader import Target
from vitruvius.hwgen.manifest import read_manifest
from vitruvius.hwgen.registers import register
from vitruvius.sim.host import complete, load_program, run_image


class Registers:
    """A bus whose registers are a dictionary; the run is over at once."""

    cycles = 0

    def __init__(self, **values):
        self.values = {register(name): value for name, value in values.items()}
        self.loaded = {}

    async def load(self, target, image):
        self.loaded[target] = image

    async def write(self, address, value):
        self.values[address] = value

    async def read(self, address):
        return self.values.get(address, 0)

    async def send_image(self, beats):
        pass

    async def settle(self):
        pass

    def done(self):
        return True

    def take_logits(self):
        return [1, 2]


@pytest.fixture(scope="module")
def generated(machine, odd_model, tmp_path_factory):
    """(folder, manifest, machine register) of a small accelerator."""
    folder = tmp_path_factory.mktemp("generated")
    parameters = machine("small")
    generate(compile_model(odd_model[0], parameters), folder)
    return folder, read_manifest(folder), int(parameters.digest[:8], 16)


def test_every_memory_is_loaded(generated):
    folder, manifest, machine = generated
    bus = Registers(MACHINE=machine)
    complete(load_program(bus, folder, manifest))
    assert set(bus.loaded) == set(Target)
    assert bus.loaded[Target.WEIGHT] == (folder / "weights.bin").read_bytes()


def test_a_program_of_another_machine_is_refused(generated):
    folder, manifest, machine = generated
    bus = Registers(MACHINE=machine ^ 1)
    with pytest.raises(VitruviusError, match="expected machine 'small'"):
        complete(load_program(bus, folder, manifest))
    assert bus.loaded == {}


def test_a_changed_or_missing_image_is_refused(generated, tmp_path):
    folder, manifest, machine = generated
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = bytearray((copy / "weights.bin").read_bytes())
    weights[100] ^= 1
    (copy / "weights.bin").write_bytes(weights)
    with pytest.raises(VitruviusError, match="do not match the manifest's hash"):
        complete(load_program(Registers(MACHINE=machine), copy, manifest))
    (copy / "weights.bin").unlink()
    with pytest.raises(VitruviusError, match=r"weights\.bin: not readable"):
        complete(load_program(Registers(MACHINE=machine), copy, manifest))
    with pytest.raises(VitruviusError, match=r"found no manifest\.json"):
        read_manifest(tmp_path)


def test_a_run_that_ends_in_another_state_is_refused(generated):
    """Done, but not at the last step: the accelerator has run another program."""
    _, manifest, _ = generated
    last = len(manifest.steps) - 1
    run = complete(run_image(Registers(STATUS=0b010 | last << 16), manifest, []))
    assert run.logits == [1, 2]
    with pytest.raises(VitruviusError, match="expected status"):
        complete(run_image(Registers(STATUS=0b010 | (last - 1) << 16), manifest, []))
