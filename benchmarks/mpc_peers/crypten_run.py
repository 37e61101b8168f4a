"""Runs operators in CrypTen and prints what its communicator counted as JSON.

Needs only crypten and torch: `benchmarks/mpc_peers/measure.py` runs it with the Python of an
environment of their own. Reads ``{"parties", "protocol", "dealer", "jobs": [{"op", "shapes",
"attributes"}]}`` from standard input; operators are in crypten_operators.py beside this file.
Parties are processes of this machine that talk over gloo; rounds and bytes are those of CrypTen's
own counters, where bytes are sent plus received. With dealer ``ttp`` a further process deals the
triples, and the bytes that it sends to party 0 are counted apart, without the requests.
"""

from __future__ import annotations

import json
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

# crypten 0.4.1 asks for a module that torch no longer has, for a conversion that is not used here
sys.modules["torch.onnx.symbolic_registry"] = types.ModuleType("torch.onnx.symbolic_registry")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parent))

import crypten  # noqa: E402
import crypten.communicator as communicator  # noqa: E402
import crypten_operators  # noqa: E402
import crypten_vit  # noqa: E402
import torch  # noqa: E402
from crypten.mpc import MPCTensor  # noqa: E402

REPEATS, SMALL = 2, 10**7  # more runs of what is small; by traffic, so that parties agree on it
SCALE = 2**16  # of what an operator opens itself


def decoded(share: MPCTensor | torch.Tensor) -> torch.Tensor:
    """Values of a shared tensor: opened in the ring, since CrypTen's decoder is off for some
    negative numbers.
    """
    if isinstance(share, torch.Tensor):  # opened by the operator itself
        return share.double() / SCALE
    opened: torch.Tensor = share.reveal()
    return opened.double() / share.encoder.scale


def run_parties(jobs: list[dict[str, Any]], protocol: str, dealer: str) -> list[dict[str, Any]]:
    """What one party counts for each job."""
    torch.set_num_threads(1)
    crypten.cfg.communicator.verbose = True
    crypten.cfg.mpc.protocol = protocol
    link = communicator.get()
    dealt = [0]
    if dealer == "ttp":
        plain = link.broadcast

        def counted(tensor: torch.Tensor, *rest: object) -> torch.Tensor:
            dealt[0] += 8 * tensor.nelement()
            result: torch.Tensor = plain(tensor, *rest)
            return result

        link.broadcast = counted
    rows = []
    for job in jobs:
        torch.manual_seed(0)
        make = crypten_vit.prepared if job["op"] == "vit" else crypten_operators.prepared
        work, reference = make(job["op"], job["shapes"], job["attributes"])
        link.reset_communication_stats()
        dealt[0] = 0
        began = time.perf_counter()
        outcome = work()
        spent = [time.perf_counter() - began]
        counted_here = link.get_communication_stats()
        row = {
            "rounds": counted_here["rounds"],
            "bytes": int(counted_here["bytes"]),
            "dealt_bytes": dealt[0],
        }
        if isinstance(outcome, dict):  # whole models count their own parts
            row["parts"] = outcome
        elif reference is not None:
            row["error"] = float((decoded(outcome) - reference.double()).abs().max())
        for _ in range(REPEATS if dealer == "tfp" and counted_here["bytes"] < SMALL else 0):
            began = time.perf_counter()
            work()
            spent.append(time.perf_counter() - began)
        rows.append({**row, "seconds": min(spent)})
    return rows


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["dealer"] == "ttp":
        crypten.cfg.mpc.provider = "TTP"
    launched = crypten.mpc.run_multiprocess(world_size=asked["parties"])(run_parties)
    parties = launched(asked["jobs"], asked["protocol"], asked["dealer"])
    if parties is None:
        raise SystemExit("a party of CrypTen failed; its own message is above")
    parties = [rows for rows in parties if rows is not None]
    versions = {name: sys.modules[name].__version__ for name in ("crypten", "torch")}
    print(json.dumps({"versions": versions, "parties": parties}))


if __name__ == "__main__":
    main()
