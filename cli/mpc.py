"""``vitruvius mpc``: secure inference by several parties, its functions, protocols and networks."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import VitruviusError
from .mpc_run import run
from .options import JsonFile
from .output import Output

__all__ = ["app", "cost", "networks", "protocols"]

app = typer.Typer(
    no_args_is_help=True, help="Secure inference by several parties: rounds, bytes, networks."
)


@app.callback()
def _mpc() -> None:
    pass


@app.command("cost")
def cost(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="Such as relu, softmax, gelu, matmul, layernorm; an unknown name lists them all.",
            show_default=False,
        ),
    ],
    shape: Annotated[
        list[str],
        typer.Option(
            "--shape",
            metavar="AxBxC",
            help="Shape of an operand, such as 64x65; once for each operand. Functions of rows "
            "reduce the last axis.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help="See 'vitruvius mpc protocols'."),
    ] = "crypten",
    parties: Annotated[
        int | None,
        typer.Option(
            "--parties",
            metavar="N",
            help="How many parties; refused where the protocol has another number.",
            show_default=False,
        ),
    ] = None,
    dealer: Annotated[
        str | None,
        typer.Option(
            "--dealer",
            metavar="ttp|tfp|none",
            help="Who deals random products: a third party, or the first one (benchmarks only).",
            show_default=False,
        ),
    ] = None,
    maximum: Annotated[
        str, typer.Option("--maximum", help="Of a row: reduction (CrypTen's), tree, or pairs.")
    ] = "reduction",
    gelu: Annotated[
        str, typer.Option("--gelu", help="The function gelu: tanh, sigmoid, or pieces.")
    ] = "tanh",
    division: Annotated[
        str, typer.Option("--division", help="A reciprocal for each row, or for each element.")
    ] = "row",
    weights: Annotated[
        str, typer.Option("--weights", help="Opened under a mask for each image, or once.")
    ] = "each",
    rsqrt: Annotated[
        str, typer.Option("--rsqrt", help="Inverse roots: newton (CrypTen's) or goldschmidt.")
    ] = "newton",
    json: JsonFile = None,
) -> None:
    """Rounds and bytes of one function of a protocol, for one party, online and offline.

    Bytes in both conventions that are in use: CrypTen's, sent + received, and SPU's, sent.

    Examples: vitruvius mpc cost softmax --shape 64x65 --maximum tree;
    vitruvius mpc cost matmul --shape 65x256 --shape 256x512 --protocol semi2k
    """
    output = Output(json)
    from ..reports.mpc import cost_record, cost_table
    from ..sim.mpc.protocols import load_protocol
    from ..sim.mpc.target import mpc_settings

    shapes = tuple(_extents(text) for text in shape)
    given = {
        "maximum": maximum,
        "gelu": gelu,
        "division": division,
        "weights": weights,
        "rsqrt": rsqrt,
    }
    if gelu in ("quad", "relu", "identity"):
        raise VitruviusError(f"--gelu: expected tanh, sigmoid, pieces, got '{gelu}'")
    options = mpc_settings([f"{key}={value}" for key, value in given.items()]).options
    chosen = load_protocol(protocol, parties=parties, dealer=dealer)
    traffic = chosen.traffic(function, shapes, options)
    output.console.print(cost_table(function, shapes, chosen, traffic))
    output.write_json(cost_record(function, shapes, chosen, options, traffic))


app.command("run")(run)


@app.command("protocols")
def protocols(json: JsonFile = None) -> None:
    """List the protocols, their parameters and options, and where their figures come from.

    Example: vitruvius mpc protocols
    """
    output = Output(json)
    from ..reports.mpc import protocols_table
    from ..sim.mpc.protocols import PROTOCOLS, load_protocol

    found = [load_protocol(name) for name in PROTOCOLS]
    output.console.print(protocols_table(found))
    output.write_json(
        [
            {
                "name": item.name,
                "title": item.title,
                **item.model_dump(),
                "choices": {key: list(values) for key, values in item.choices.items() if values},
                "functions": sorted(item.functions()),
                "source": item.source,
            }
            for item in found
        ]
    )


@app.command("networks")
def networks(json: JsonFile = None) -> None:
    """List the networks that are shipped, with their sources.

    Example: vitruvius mpc networks
    """
    output = Output(json)
    from ..reports.mpc import networks_table
    from ..sim.mpc.network import load_network, network_names

    found = [load_network(name) for name in network_names()]
    output.console.print(networks_table(found))
    output.write_json([item.model_dump() for item in found])


def _extents(text: str) -> tuple[int, ...]:
    """A shape written as 64x65."""
    words = text.lower().split("x")
    if not all(word.isdecimal() and len(word) <= 9 for word in words):
        raise VitruviusError(f"--shape: expected extents such as 64x65, got '{text}'")
    return tuple(int(word) for word in words)
