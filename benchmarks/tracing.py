"""Measures tracing at real sizes: seconds and peak memory of DeiT-Tiny, -Small and -Base.

    .venv/bin/python benchmarks/tracing.py

Each size runs in a process of its own with two threads. Seconds: of ``trace``, which includes the
export, the checks and the comparison with the module on two images; wall clock, and the processor
time of all threads. Memory: the highest resident size (``ru_maxrss``) of the whole process, less
the resident size after the imports and before the model is built, over the bytes of the model's
parameters and buffers.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

SIZES = ("tiny", "small", "base")
THREADS = 2


def main(sizes: tuple[str, ...] = SIZES) -> None:
    print("| DeiT | wall | processor | model | peak memory | peak / model |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in sizes:
        run = subprocess.run(
            [sys.executable, __file__, "--one", size], check=True, capture_output=True, text=True
        )
        row = json.loads(run.stdout.splitlines()[-1])
        print(
            f"| {size} | {row['wall_s']:.1f} s | {row['processor_s']:.1f} s "
            f"| {row['model_bytes'] / 1e6:.0f} MB | {row['peak_bytes'] / 1e6:.0f} MB "
            f"| {row['peak_bytes'] / row['model_bytes']:.2f} |",
            flush=True,
        )


def one(size: str) -> None:
    """Traces one size and prints what it took as JSON."""
    import torch
    import transformers.models.deit.modeling_deit  # noqa: F401 (before the baseline)

    from vitruvius.benchmarks.families import real_deit
    from vitruvius.models.trace import trace

    torch.set_num_threads(THREADS)
    before = _resident_bytes()
    module = real_deit(size)
    held = [*module.parameters(), *module.buffers()]
    start, started = time.perf_counter(), time.process_time()
    trace(module, (torch.zeros(1, 3, 224, 224),), name=f"deit_{size}")
    print(
        json.dumps(
            {
                "wall_s": time.perf_counter() - start,
                "processor_s": time.process_time() - started,
                "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in held),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
            }
        )
    )


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2])
    else:
        main(tuple(sys.argv[1:]) or SIZES)
