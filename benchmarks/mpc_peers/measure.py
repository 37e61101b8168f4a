"""Runs CrypTen and SPU and writes what they counted.

    .venv/bin/python benchmarks/mpc_peers/measure.py [crypten] [spu]

Each needs an environment of its own: the Python that VITRUVIUS_CRYPTEN_PYTHON or
VITRUVIUS_SPU_PYTHON names, or else one that is made in .cache/mpc_peers at the first run.
Writes tests/sim/mpc/data/peers_crypten.json and peers_spu.json, which tests/sim/mpc/test_peers.py
and benchmarks/mpc_peers/page.py read. Takes about a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitruvius.benchmarks.mpc_peers.jobs import CRYPTEN, SPU, Job

__all__ = ["DATA", "HERE", "VARIABLES", "crypten_counts", "main", "spu_counts"]

HERE = Path(__file__).resolve().parent
DEALT = 3 * 10**6  # bytes of the largest operator that is run a second time with a dealer
ROOT = HERE.parent.parent
DATA = ROOT / "tests" / "sim" / "mpc" / "data"
VARIABLES = {"crypten": "VITRUVIUS_CRYPTEN_PYTHON", "spu": "VITRUVIUS_SPU_PYTHON"}
# CrypTen is installed without what it asks for: one of those is a package that was withdrawn
REQUIREMENTS = {
    "crypten": (
        ("torch==2.13.0", "numpy", "pyyaml", "omegaconf", "future", "onnx", "pandas", "scipy"),
        ("scikit-learn", "tensorboard"),
        ("--no-deps", "crypten==0.4.1"),
    ),
    "spu": (("spu==0.9.5",),),
}
CONVENTIONS = {
    "crypten": "CrypTen's communicator, one process for each party: rounds are collectives, bytes "
    "are those that one party sends plus those that it receives. dealt_bytes: what the dealer of "
    "the TTP provider sends to party 0, the only party it sends to. A list has one entry for each "
    "party. seconds: of the whole machine named here, both parties on it, loopback, least of a few "
    "runs, not on an idle machine.",
    "spu": "SPU's link in memory, all parties in one process: bytes sent and received by a party, "
    "and its sends. A list has one entry for each party that was asked: the first one of two, or "
    "all three. Triples come from the trusted first party, which costs no traffic; CHEETAH has no "
    "dealer, and its set-up is counted. kernels: bytes sent and sends by operation. seconds: of "
    "the whole machine named here, all parties on it, not on an idle machine.",
}


def python(name: str) -> str:
    """The interpreter of an environment with ``name``, made if need be."""
    if given := os.environ.get(VARIABLES[name]):
        return given
    folder = ROOT / ".cache" / "mpc_peers" / name
    found, stamp = folder / "bin" / "python", folder / "requirements.json"
    wanted = json.dumps(REQUIREMENTS[name])
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        install = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        *together, last = REQUIREMENTS[name]
        if together:
            subprocess.run([*install, *(each for some in together for each in some)], check=True)
        subprocess.run([*install, *last], check=True)
        stamp.write_text(wanted)
    return str(found)


def _answer(interpreter: str, script: str, asked: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [interpreter, HERE / script],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{script} ended with code {done.returncode}; its messages are above")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def crypten_counts(
    interpreter: str,
    jobs: list[Job],
    parties: int = 2,
    protocol: str = "beaver",
    dealer: str = "tfp",
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Versions, and a row for each job: counts of each party where they differ, else one."""
    asked = {"parties": parties, "protocol": protocol, "dealer": dealer, "jobs": jobs}
    answer = _answer(interpreter, "crypten_run.py", asked)
    rows = []
    for place, job in enumerate(jobs):
        each = [party[place] for party in answer["parties"]]
        row = {**job, **each[0], "seconds": round(max(party["seconds"] for party in each), 4)}
        if "error" in row:
            row["error"] = float(f"{row['error']:.2g}")
        for name in ("rounds", "bytes"):
            values = [party[name] for party in each]
            row[name] = values if len(set(values)) > 1 else values[0]
        if dealer == "tfp":
            del row["dealt_bytes"]
        rows.append(row)
    return answer["versions"], rows


def spu_counts(
    interpreter: str, protocol: str, jobs: list[Job]
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Versions, and a row for each job."""
    answer = _answer(interpreter, "spu_run.py", {"protocol": protocol, "jobs": jobs})
    rows = [{**job, **row} for job, row in zip(jobs, answer["rows"], strict=True)]
    for row in rows:
        row["seconds"], row["error"] = round(row["seconds"], 4), float(f"{row['error']:.2g}")
    return answer["versions"], rows


def dealt(interpreter: str, jobs: list[Job], rows: list[dict[str, Any]]) -> None:
    """Fills in what a third party that deals sends to party 0: its counter also has the requests,
    so that rounds and bytes stay those of the run without.
    """
    _, dealt_rows = crypten_counts(interpreter, jobs, dealer="ttp")
    for row, other in zip(rows, dealt_rows, strict=True):
        row["dealt_bytes"] = other["dealt_bytes"]


def job(row: dict[str, Any]) -> Job:
    """What a row was measured for."""
    return {name: row[name] for name in ("op", "shapes", "attributes")}


def measure_crypten() -> dict[str, Any]:
    """Every set of CrypTen's jobs."""
    interpreter = python("crypten")
    sets: dict[str, list[dict[str, Any]]] = {}
    for name in ("operators", "rows", "models"):
        versions, sets[name] = crypten_counts(interpreter, CRYPTEN[name])
    for name in ("operators", "rows"):
        small = [row for row in sets[name] if row["bytes"] < DEALT]
        dealt(interpreter, [job(row) for row in small], small)
    for protocol in ("beaver", "replicated"):
        _, rows = crypten_counts(interpreter, CRYPTEN["three parties"], 3, protocol)
        sets[f"three parties, {protocol}"] = rows
    return {"versions": versions, "sets": sets}


def measure_spu() -> dict[str, Any]:
    """Every set of SPU's jobs."""
    interpreter = python("spu")
    sets: dict[str, list[dict[str, Any]]] = {}
    for name, jobs in SPU.items():
        versions, sets[name] = spu_counts(interpreter, name.split()[0], jobs)
    return {"versions": versions, "sets": sets}


def machine() -> str:
    """The processor of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else "unknown"


def write(name: str, versions: dict[str, str], sets: dict[str, list[dict[str, Any]]]) -> None:
    """One data file, a line for each row."""
    record = {
        "convention": CONVENTIONS[name],
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    head = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in record.items()]
    blocks = [
        f"  {json.dumps(key)}: [\n" + ",\n".join(f"   {json.dumps(row)}" for row in rows) + "\n  ]"
        for key, rows in sets.items()
    ]
    text = "\n".join(["{", *head, ' "sets": {', ",\n".join(blocks), " }", "}"])
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / f"peers_{name}.json").write_text(text + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Writes the data files."""
    measures = {"crypten": measure_crypten, "spu": measure_spu}
    for name in names or list(measures):
        found = measures[name]()
        write(name, found["versions"], found["sets"])


if __name__ == "__main__":
    main(sys.argv[1:])
