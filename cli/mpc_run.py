"""``vitruvius mpc run``: a model evaluated by two parties on shares."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from .options import Calibration, JsonFile, ModelName, Weights
from .output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.graph import Graph
    from ..models.resolve import Workload
    from ..sim.mpc.options import MpcOptions

__all__ = ["run"]

_CALIBRATION = 32
_PHOTOGRAPHS = 8
_DIFFERENT = 1
_PORTS = 65535
_PARTY = "127.0.0.1:7700"
_DEALER = "127.0.0.1:7701"


class Parties(StrEnum):
    """Who runs in this process."""

    LOCAL = "local"
    MODEL = "0"
    IMAGE = "1"
    DEALER = "dealer"


def run(
    model: ModelName,
    parties: Annotated[
        Parties,
        typer.Option(
            "--parties",
            help="local: both parties and the dealer as processes of this machine. Or one role, "
            "each started where it belongs: 0 has the model, 1 the image, dealer the masks.",
        ),
    ] = Parties.LOCAL,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=1, help="How many images, one by one.")
    ] = 1,
    mpc: Annotated[
        list[str] | None,
        typer.Option(
            "--mpc",
            metavar="KEY=VALUE,...",
            help="maximum=tree or pairs, gelu=sigmoid or pieces, division=element, weights=once, "
            "rsqrt=goldschmidt, heads=apart, fraction_bits=N; softmax=relu, 2quad or scale and "
            "gelu=quad, relu or identity replace them.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Roles 0 and dealer: where to wait for the others, on loopback unless told "
            f"otherwise. Default: {_PARTY}, and {_DEALER} of the dealer.",
            show_default=False,
        ),
    ] = None,
    peer: Annotated[
        str, typer.Option("--peer", metavar="HOST:PORT", help="Role 1: where party 0 listens.")
    ] = _PARTY,
    dealer: Annotated[
        str,
        typer.Option("--dealer", metavar="HOST:PORT", help="Roles 0 and 1: where the dealer is."),
    ] = _DEALER,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, help="How long a peer that runs may be silent."
        ),
    ] = 30.0,
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator, not kinds of them.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="For tests: the same shares and masks every time, which hide nothing.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Evaluate a model between two parties on additive shares, and count rounds and bytes.

    Party 0 has the model, party 1 the image, a dealer hands out multiplication triples. All talk
    over TCP; bytes and rounds are counted on the sockets and compared with the cost model, operator
    by operator; outputs are compared with PyTorch. Exit code 1 if a count differs.

    Threat model: semi-honest parties that do not work together, and a dealer that both trust. The
    connections are neither encrypted nor authenticated. This is a measuring instrument and a
    demonstrator, not a product for secrets.

    Example: vitruvius mpc run vit_digits --parties local --images 20 --mpc maximum=tree
    """
    output = Output(json)
    if parties is Parties.DEALER:
        _deal(output, listen or _DEALER, timeout, seed)
        return
    from ..sim.mpc.target import load_mpc, mpc_settings
    from .workload import load_workload, trace_workload

    target = load_mpc("mpc:crypten-lan", mpc_settings(mpc or []))
    if target.protocol.dealer != "ttp":
        raise VitruviusError(
            "--mpc: a run has a trusted third party as its dealer, dealer=ttp, got "
            f"{target.settings.dealer}"
        )
    options = target.options
    workload = load_workload(model, weights)
    graph = target.prepared(trace_workload(workload))
    shown, labels, owned = _images(workload, images, calibration)
    if parties is Parties.LOCAL:
        _local(output, graph, shown, labels, owned, options, seed, timeout, operators)
    else:
        addresses = (_address(listen or _PARTY, "--listen"), _address(peer, "--peer"))
        place = (*addresses, _address(dealer, "--dealer"))
        _one(output, int(parties), graph, shown, owned, options, seed, timeout, place)


def _local(
    output: Output,
    graph: Graph,
    images: Tensor,
    labels: Tensor | None,
    owned: Tensor,
    options: MpcOptions,
    seed: int | None,
    timeout: float,
    operators: bool,
) -> None:
    from ..reports.mpc_run import run_tables
    from ..sim.mpc.run import THREAT, run_model

    progress = output.progress

    def done(run: int) -> None:
        progress.print(f"image {run} of {len(images)}", end="\r", highlight=False)

    report = run_model(
        graph,
        images,
        calibration=owned,
        options=options,
        labels=labels,
        test_seed=seed,
        timeout_s=timeout,
        progress=done,
    )
    for part in run_tables(report, threat=THREAT, every=operators):
        output.console.print(part)
    output.write_json(report.record() | {"threat_model": THREAT})
    if not report.equal:
        raise typer.Exit(_DIFFERENT)


def _one(
    output: Output,
    rank: int,
    graph: Graph,
    images: Tensor,
    owned: Tensor,
    options: MpcOptions,
    seed: int | None,
    timeout: float,
    place: tuple[tuple[str, int], ...],
) -> None:
    """Party 0 or 1 in this process, the others elsewhere."""
    from ..sim.mpc.parties import ring
    from ..sim.mpc.parties.link import accept, listen, reach
    from ..sim.mpc.parties.roles import NAMES, run_party, without_values
    from ..sim.mpc.run import prepared_task

    task, _ = prepared_task(graph, owned, options, len(images), test_seed=seed, timeout_s=timeout)
    here, peer_at, dealer_at = place
    if rank == 0:
        with listen(here) as server:
            output.progress.print(f"{NAMES[0]} waits for party 1 at {here[0]}:{here[1]}")
            peer = accept(server, NAMES[1], timeout_s=task.start_s)
    else:
        peer = reach(peer_at, NAMES[0], timeout_s=task.start_s)
    try:
        dealer = reach(dealer_at, NAMES[2], timeout_s=task.start_s)
    except VitruviusError as error:
        peer.stop(str(error))
        raise
    known = graph if rank == 0 else without_values(graph)
    given = [[image[None]] for image in images] if rank == 1 else None
    result = run_party(rank, known, task, peer, dealer, images=given)
    counted = result.counted[0]
    values = [ring.decode(run[0], task.fraction_bits).flatten() for run in result.outputs]
    answers = [int(item.argmax()) for item in values]
    rounds, sent = sum(op.rounds for op in counted), sum(op.bytes_sent for op in counted)
    online = sum(result.online_s) / len(result.online_s)
    output.console.print(
        f"{NAMES[rank]}: labels {', '.join(map(str, answers))}\n"
        f"{rounds} rounds, {sent} bytes sent and as many received for an image, "
        f"{online:.3g} s an image online",
        markup=False,
        highlight=False,
    )
    output.write_json(
        {
            "role": NAMES[rank],
            "rounds": rounds,
            "bytes_sent": sent,
            "bytes_received": sum(op.bytes_received for op in counted),
            "offline_bytes": result.offline_bytes[0],
            "online_s": result.online_s,
            "offline_s": result.offline_s,
            "outputs": [item.tolist() for item in values],
            "labels": answers,
        }
    )


def _deal(output: Output, where: str, timeout: float, seed: int | None) -> None:
    from ..sim.mpc.options import MpcOptions
    from ..sim.mpc.parties.link import listen
    from ..sim.mpc.parties.roles import Task, run_dealer

    address = _address(where, "--listen")
    task = Task(MpcOptions(), 0, 0, test_seed=seed, timeout_s=timeout)
    server = listen(address)
    output.progress.print(f"the dealer waits for both parties at {address[0]}:{address[1]}")
    served = 0

    def done(run: int) -> None:
        nonlocal served
        served = run

    run_dealer(server, task, progress=done)
    output.console.print(f"the dealer: masks for {served} images", highlight=False)
    output.write_json({"role": "dealer", "images": served})


def _images(
    workload: Workload, count: int, calibration: Path | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Images of party 1 [n, ...], their labels if known, and images of the model's owner."""
    from ..models.datasets import photographs, shipped_images
    from ..models.images import load_images

    if len(workload.example_inputs) != 1:
        raise VitruviusError(
            f"{workload.name} has {len(workload.example_inputs)} inputs, expected one: the image "
            "of party 1"
        )
    shape = tuple(workload.example_inputs[0].shape[1:])
    data = workload.dataset or shipped_images(shape)
    if calibration is not None:
        given = load_images(calibration, shape).images
        if len(given) <= count:
            raise VitruviusError(
                f"--calibration: expected more than {count} images, {count} for party 1 and the "
                f"others for the model's owner, got {len(given)}"
            )
        return given[-count:], None, given[: len(given) - count][:_CALIBRATION]
    if data is not None:
        if count > len(data.test_images):
            raise VitruviusError(
                f"--images: expected at most {len(data.test_images)} (test images of {data.name}), "
                f"got {count}"
            )
        return (
            data.test_images[:count],
            data.test_labels[:count],
            data.calibration_images[:_CALIBRATION],
        )
    if len(shape) == 3 and shape[0] == 3:
        crops = photographs(count + _PHOTOGRAPHS, (shape[1], shape[2]))
        return crops[:count], None, crops[count:]
    raise VitruviusError(
        f"{workload.name} has no images of its own: give some with --calibration, a file of floats "
        f"[n, {', '.join(str(size) for size in shape)}]"
    )


def _address(text: str, option: str) -> tuple[str, int]:
    """A host and a port from 1 to 65535."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= _PORTS:
        raise VitruviusError(f"{option}: expected HOST:PORT such as 127.0.0.1:7700, got '{text}'")
    return host, int(port)
