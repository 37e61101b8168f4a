"""Our cycles of matrix products against SCALE-Sim's, and how long both take, in one run.

    .venv/bin/python benchmarks/scalesim.py

Installs SCALE-Sim into .cache/scalesim at the first run, in an environment of its own, because it
needs an older numpy. The products are those of tests/sim/data/systolic_gemm.csv, on both arrays
and in all three dataflows; cycle counts must be equal, or the run fails. Times are processor time:
SCALE-Sim's without imports and traces, after a first run that does not count; ours once with one
product a call, once with all products of an array and dataflow in one call. Not like for like: ours
is a closed form, SCALE-Sim builds the address of every operand and also counts traffic. Takes some
minutes. Writes benchmarks/scalesim.json, which benchmarks/validation_systolic.py reads.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vitruvius.sim.systolic import Dataflow, scalesim_report

ROOT = Path(__file__).resolve().parent.parent
GEMMS = ROOT / "tests" / "sim" / "data" / "systolic_gemm.csv"
RECORD = Path(__file__).with_suffix(".json")
FOLDER = ROOT / ".cache" / "scalesim"
# scalesim 3.0.0 fails with newer ones; numba 0.59 is the last that goes with this numpy
REQUIREMENTS = ("scalesim==3.0.0", "numpy==1.26.4", "pandas<3", "numba<0.60")
REPEATS = 200


def environment() -> Path:
    """The Python of the environment with SCALE-Sim, made if need be."""
    python = FOLDER / "venv" / "bin" / "python"
    stamp = FOLDER / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if not stamp.is_file() or stamp.read_text() != wanted:
        if sys.version_info >= (3, 13):
            raise SystemExit("scalesim 3.0.0 needs Python 3.11 or 3.12: run this with one of them")
        venv.create(FOLDER / "venv", clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python


def jobs() -> list[dict[str, object]]:
    """The products of each array, in each dataflow."""
    lines = [line for line in GEMMS.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    return [
        {
            "array": array,
            "dataflow": flow.value,
            "gemms": [
                [int(row[name]) for name in "MNK"] for row in rows if int(row["array"]) == array
            ],
        }
        for array in sorted({int(row["array"]) for row in rows})
        for flow in Dataflow
    ]


def processor_seconds(work: Callable[[], object]) -> float:
    """Mean of many runs, after one that does not count."""
    work()
    began = time.process_time()
    for _ in range(REPEATS):
        work()
    return (time.process_time() - began) / REPEATS


def main() -> None:
    measured = jobs()
    run = subprocess.run(
        [environment(), "-I", Path(__file__).with_name("scalesim_run.py")],  # not this file
        input=json.dumps(measured),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    theirs = json.loads(run.stdout.splitlines()[-1])
    rows = []
    for job, their in zip(measured, theirs, strict=True):
        array, flow, gemms = job["array"], job["dataflow"], job["gemms"]
        shape = {"rows": array, "cols": array, "dataflow": flow}
        columns = np.array(gemms).T
        ours = scalesim_report(*columns, **shape).tolist()
        rows.append(
            {
                "array": array,
                "dataflow": flow,
                "products": len(gemms),
                "equal": sum(a == b for a, b in zip(ours, their["cycles"], strict=True)),
                "scalesim_s": their["processor_s"],
                "one_by_one_s": processor_seconds(
                    lambda gemms=gemms, shape=shape: [scalesim_report(*g, **shape) for g in gemms]
                ),
                "together_s": processor_seconds(
                    lambda columns=columns, shape=shape: scalesim_report(*columns, **shape)
                ),
            }
        )
    RECORD.write_text(json.dumps({"requirements": REQUIREMENTS, "rows": rows}, indent=2) + "\n")
    show(rows)
    if any(row["equal"] != row["products"] for row in rows):
        raise SystemExit(1)


def show(rows: list[dict[str, object]]) -> None:
    names = ["array", "dataflow", "equal", "SCALE-Sim", "ours, one by one", "ours, together"]
    table = Table(*names, "ratio", "ratio, together")
    for row in rows:
        theirs, single, together = (
            float(row[name]) for name in ("scalesim_s", "one_by_one_s", "together_s")
        )
        table.add_row(
            f"{row['array']} x {row['array']}",
            row["dataflow"],
            f"{row['equal']} of {row['products']}",
            f"{theirs:.2f} s",
            f"{single * 1e6:.0f} us",
            f"{together * 1e6:.0f} us",
            f"{theirs / single:,.0f}",
            f"{theirs / together:,.0f}",
        )
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if name.endswith("_s")}
    console = Console(width=140)
    console.print(table)
    console.print(
        f"all: SCALE-Sim {sums['scalesim_s']:.1f} s, ours {sums['one_by_one_s'] * 1e3:.2f} ms one "
        f"by one, {sums['together_s'] * 1e3:.2f} ms together: "
        f"{sums['scalesim_s'] / sums['one_by_one_s']:,.0f} and "
        f"{sums['scalesim_s'] / sums['together_s']:,.0f} times as fast"
    )


if __name__ == "__main__":
    main()
