"""The table against the addresses that hosts were promised, and the texts made from it."""

import itertools
import re

from vitruvius.hwgen.axi.register_map import register_header, register_map, register_table

PROMISED = {
    "CONTROL": 0x000, "STATUS": 0x004, "ERROR_ADDRESS": 0x008, "ERROR_ADDRESS_HIGH": 0x00C,
    "PARAMETERS": 0x010, "PARAMETERS_HIGH": 0x014, "IMAGES": 0x018, "IMAGES_HIGH": 0x01C,
    "RESULTS": 0x020, "RESULTS_HIGH": 0x024, "COUNT": 0x028, "IMAGE_PITCH": 0x02C,
    "RESULT_PITCH": 0x030, "TASK": 0x034, "INTERRUPT": 0x038, "INTERRUPT_ENABLE": 0x03C,
    "WATCHDOG": 0x040, "MACHINE": 0x044, "PROGRAM": 0x048, "BREAK": 0x04C,
    "DEBUG_ADDRESS": 0x050, "RUN_OPTIONS": 0x054, "MEMORY_ADDRESS": 0x058, "MEMORY_DATA": 0x05C,
    "CYCLES": 0x100, "READ_BEATS": 0x104, "DEBUG_DATA": 0x400,
}  # fmt: skip


def test_addresses_are_the_promised_ones():
    registers = register_map(["cycles", "read_beats"])
    assert {entry.name: entry.address for entry in registers} == PROMISED
    spans = [(entry.address, entry.address + 4 * entry.count) for entry in registers]
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_table_and_header_name_every_register():
    registers = register_map(["cycles", "read_beats"])
    table = register_table(registers)
    header = register_header(registers)
    for name, address in PROMISED.items():
        assert re.search(rf"\| 0x{address:03x}[^|]* \| {name} \|", table)
        assert f"#define VITRUVIUS_{name} 0x{address:03x}u " in header
    assert "| 4 | watchdog |" in table
    assert "#define VITRUVIUS_ERROR_FOREIGN 3u" in header
    assert "0x400 to 0x7fc" in table
