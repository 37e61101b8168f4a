"""Runs operators in SPU's simulator and prints what its link counted as JSON.

Needs only spu and jax: `benchmarks/mpc_peers/measure.py` runs it with the Python of an environment
of their own. Reads ``{"protocol", "jobs": [{"op", "shapes", "attributes"}]}`` from standard input;
operators are in spu_operators.py beside this file, and the attribute ``rewrite`` turns on SPU's
compiler option for denominators that are broadcast. All parties run in this process with links in
memory; counts are what SPU's profile says at the end, per party: bytes sent, bytes received, and
sends. Of two parties the first one's are asked, of three all of theirs, in no order.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
import spu_operators
from spu import api, libspu
from spu.utils import frontend

PARTIES = {"semi2k": 2, "cheetah": 2, "aby3": 3}
LINK = re.compile(r"total send bytes (\d+), recv bytes (\d+), send actions (\d+)")
SPENT = re.compile(r"execution took ([\d.e+-]+)s")
KERNEL = re.compile(r"- (pphlo\.\S+), executed \d+ times.*send bytes (\d+).*send actions (\d+)")


@contextmanager
def written() -> Iterator[list[str]]:
    """What the library writes on both output streams, which it does not do through Python."""
    text: list[str] = []
    streams = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield text
        finally:
            for place, stream in enumerate(streams, 1):
                os.dup2(stream, place)
                os.close(stream)
            file.seek(0)
            text.append(file.read())


def run(executable: libspu.Executable, protocol: str, inputs: list[Any]) -> tuple[str, list[Any]]:
    """One run: the profiles of the parties asked, and the outputs."""
    parties = PARTIES[protocol]
    config = libspu.RuntimeConfig(
        protocol=getattr(libspu.ProtocolKind, protocol.upper()), field=libspu.FieldType.FM64
    )
    files = api.Io(parties, config)
    shares = [files.make_shares(x, libspu.Visibility.VIS_SECRET) for x in inputs]
    description = libspu.link.Desc()
    description.recv_timeout_ms = 600_000
    for rank in range(parties):
        description.add_party(f"id_{rank}", f"thread_{rank}")
    outputs: list[Any] = [None] * parties

    def party(rank: int) -> None:
        own = libspu.RuntimeConfig(config)
        own.enable_pphlo_profile = rank == 0 or parties > 2
        runtime = api.Runtime(libspu.link.create_mem(description, rank), own)
        for name, share in zip(executable.input_names, shares, strict=True):
            runtime.set_var(name, share[rank])
        runtime.run(executable)
        outputs[rank] = [runtime.get_var(name) for name in executable.output_names]

    with written() as text:
        threads = [threading.Thread(target=party, args=(rank,)) for rank in range(parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if any(output is None for output in outputs):
        raise SystemExit(f"a party of SPU failed:\n{text[0][-2000:]}")
    return text[0], [files.reconstruct(parts) for parts in zip(*outputs, strict=True)]


def counts(protocol: str, job: dict[str, Any]) -> dict[str, Any]:
    attributes = dict(job["attributes"])
    rewrite = attributes.pop("rewrite", False)
    work, inputs = spu_operators.prepared(job["op"], job["shapes"], attributes)
    executable, _ = frontend.compile(
        frontend.Kind.JAX,
        work,
        inputs,
        {},
        [f"in{place}" for place in range(len(inputs))],
        [libspu.Visibility.VIS_SECRET] * len(inputs),
        lambda flat: [f"out{place}" for place in range(len(flat))],
        copts=libspu.CompilerOptions(enable_optimize_denominator_with_broadcast=rewrite),
    )
    text, outputs = run(executable, protocol, inputs)
    links = [[int(count) for count in found] for found in LINK.findall(text)]
    spent = [float(found) for found in SPENT.findall(text)]
    if not links or len(links) != len(spent):
        raise SystemExit(f"SPU's profile was not understood:\n{text[-2000:]}")
    row: dict[str, Any] = {
        "sent": [link[0] for link in links],
        "received": [link[1] for link in links],
        "sends": [link[2] for link in links],
        "seconds": max(spent),
    }
    if job["op"] == "vit":
        row["kernels"] = {
            name: [int(sent), int(sends)] for name, sent, sends in KERNEL.findall(text) if int(sent)
        }
    reference = np.asarray(jax.jit(work)(*inputs), dtype=np.float64)
    row["error"] = float(np.abs(np.asarray(outputs[0], dtype=np.float64) - reference).max())
    return row


def main() -> None:
    asked = json.load(sys.stdin)
    rows = [counts(asked["protocol"], job) for job in asked["jobs"]]
    versions = {name: version(name) for name in ("spu", "jax")}
    print(json.dumps({"versions": versions, "rows": rows}))


if __name__ == "__main__":
    main()
