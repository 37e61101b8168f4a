"""The folder of an accelerator: what is in it, and that a damaged one is refused."""

from __future__ import annotations

import json

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.accelerator import COUNTERS
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.generate import generate
from vitruvius.hwgen.manifest import read_manifest, read_parameters


@pytest.fixture(scope="module")
def program(digits_model):
    return compile_model(digits_model, load_machine("small"))


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    files = generate(program, folder)
    assert sorted(files) == sorted(folder.iterdir())
    return folder


def test_the_parameter_image_begins_with_who_it_is_for(folder, program):
    """The header as a host or a debugger sees it: magic word, machine, program."""
    manifest = read_manifest(folder)
    image = read_parameters(folder, manifest)
    assert image[:4] == b"VITR"
    assert f"{int.from_bytes(image[4:8], 'little'):08x}" == manifest.machine_digest[:8]
    assert f"{int.from_bytes(image[8:12], 'little'):08x}" == manifest.program_digest[:8]


def test_the_manifest_says_how_an_image_lies_in_memory(folder):
    """8 x 8 pixels in patches of 2: 16 tokens of 4 bytes, a beat of 8 bytes each."""
    manifest = read_manifest(folder)
    assert (manifest.image_tokens, manifest.image_words, manifest.image_features) == (16, 1, 4)
    assert (manifest.image_word_bytes, manifest.image_bytes) == (8, 128)
    assert (manifest.results, manifest.result_bytes) == (10, 24)
    assert manifest.image_pitch % 4096 == manifest.result_pitch % 4096 == 0
    assert manifest.counters == COUNTERS
    assert manifest.products[-1] == "head"


def test_the_register_map_names_every_counter(folder):
    header = (folder / "vitruvius.h").read_text()
    table = (folder / "registers.md").read_text()
    for index, name in enumerate(COUNTERS):
        assert f"#define VITRUVIUS_{name} 0x{0x100 + 4 * index:03x}u" in header
        assert f"| {name} |" in table


def test_the_listing_says_what_waits_for_what(folder, program):
    text = (folder / "program.txt").read_text()
    lines = {line.split()[1]: line for line in text.splitlines() if line[:4].strip().isdigit()}
    for step in program.steps:
        assert step.name in lines
    first = lines["patch_embed"]
    assert "begins when FETCHED >= 2" in first
    assert "NORMALISED" in lines["blocks.0.attn.apply.q"]
    assert "WEIGHED" in lines["blocks.0.attn.apply.head0.apply"]


@pytest.mark.parametrize("size", [0, 4096, -1])
def test_a_truncated_parameter_image_is_refused_by_its_length(folder, tmp_path, size):
    manifest = read_manifest(folder)
    whole = (folder / "parameters.bin").read_bytes()
    (tmp_path / "parameters.bin").write_bytes(whole[:size])
    with pytest.raises(VitruviusError, match=f"expected {len(whole)} bytes, got"):
        read_parameters(tmp_path, manifest)


def test_a_foreign_parameter_image_is_refused_by_its_hash(folder, tmp_path):
    manifest = read_manifest(folder)
    whole = bytearray((folder / "parameters.bin").read_bytes())
    whole[-5000] ^= 1
    (tmp_path / "parameters.bin").write_bytes(whole)
    with pytest.raises(VitruviusError, match="do not match the manifest's hash"):
        read_parameters(tmp_path, manifest)
    (tmp_path / "parameters.bin").unlink()
    with pytest.raises(VitruviusError, match=r"parameters\.bin: not readable"):
        read_parameters(tmp_path, manifest)


def test_a_folder_without_a_manifest_or_with_another_is_refused(folder, tmp_path):
    with pytest.raises(VitruviusError, match=r"found no manifest\.json"):
        read_manifest(tmp_path)
    fields = json.loads((folder / "manifest.json").read_text())
    del fields["port_bits"]
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(VitruviusError, match="not a manifest"):
        read_manifest(tmp_path)
