"""Runs SCALE-Sim on matrix products and prints its cycles and processor seconds as JSON.

Needs only scalesim: `benchmarks/scalesim.py` runs it in an environment of its own, with a JSON
list of ``{"array", "dataflow", "gemms": [[M, N, K], ...]}`` on standard input. Traces are off. A
first small run, which is not counted, pays for imports and for what is compiled at first use.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight: {array}
ArrayWidth: {array}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 10
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def run(array: int, dataflow: str, gemms: list[list[int]]) -> tuple[list[int], float]:
    """The column "Total Cycles" of the compute report, and the processor seconds of the run."""
    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as folder:
        config, topology, layout = (Path(folder) / name for name in ("c.cfg", "t.csv", "l.csv"))
        config.write_text(CONFIG.format(array=array, dataflow=dataflow))
        lines = [f"layer{place},{m},{n},{k}," for place, (m, n, k) in enumerate(gemms)]
        topology.write_text("\n".join(["Layer,M,N,K,", *lines]) + "\n")
        layout.write_text("Layer,\n")
        began = time.process_time()
        tool = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(config),
            topology=str(topology),
            layout=str(layout),
            input_type_gemm=True,
        )
        tool.run_scale(top_path=folder)
        spent = time.process_time() - began
        report = (Path(folder) / "run" / "COMPUTE_REPORT.csv").read_text().splitlines()
    names = [name.strip() for name in report[0].split(",")]
    column = names.index("Total Cycles")
    return [int(float(line.split(",")[column])) for line in report[1:]], spent


def main() -> None:
    jobs = json.load(sys.stdin)
    results = []
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        run(4, "ws", [[8, 8, 8]])
        for job in jobs:
            cycles, spent = run(job["array"], job["dataflow"], job["gemms"])
            results.append({"cycles": cycles, "processor_s": spent})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
