"""The generated accelerator through synthesis: it fits, and its multipliers are hard blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.synthesis import synthesize, utilisation
from vitruvius.hwgen.core.accelerator import Accelerator
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.verilog import to_verilog


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ecp5-85f", "zcu102"])
def test_the_small_machine_fits(tmp_path: Path, name: str) -> None:
    device = load_device(name)
    machine = load_machine("small")
    text = to_verilog(Accelerator(machine), "vitruvius")
    used = synthesize(text, "vitruvius", device, workdir=tmp_path)
    shares = utilisation(used, device)
    assert all(share <= 1 for share in shares.values()), shares
    # Every product of the array is a hard multiplier; the drain path and LayerNorm add theirs.
    assert machine.multipliers <= used.dsp <= 2 * machine.multipliers
    # Weights alone, data bits only, and no buffer in registers.
    data_bits = device.bram_kbit * 1024 * 8 // 9
    assert used.bram >= machine.buffers.weight * 1024 * 8 / data_bits
    assert used.ff < machine.buffers.token * 1024 * 8
