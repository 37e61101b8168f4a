"""``vitruvius search``: an architecture chosen by what it is worth and what it costs on shares."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import VitruviusError
from ..reports.writing import check_folder, write_text
from .options import JsonFile, OutFolder
from .output import Output

__all__ = ["app", "mpcvit"]

app = typer.Typer(no_args_is_help=True, help="Search for an architecture.")


class _Penalty(StrEnum):
    """What the search pays for."""

    L1 = "l1"
    COST = "cost"


class _Granularity(StrEnum):
    """What a unit of the search is."""

    LAYER = "layer"
    HEAD = "head"
    ROW = "row"


@app.callback()
def _search() -> None:
    pass


@app.command("mpcvit")
def mpcvit(
    data: Annotated[
        str, typer.Option("--data", metavar="NAME", help="Images to learn from: digits or mnistm.")
    ] = "digits",
    network: Annotated[
        str,
        typer.Option(
            "--network", metavar="NAME|FILE", help="wan, lan, another one, or its TOML file."
        ),
    ] = "wan",
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="semi2k, crypten or another one.")
    ] = "semi2k",
    mu: Annotated[
        str,
        typer.Option(
            "--mu", metavar="LIST", help="Shares that keep ReLU-softmax, with commas between them."
        ),
    ] = ".1,.3,.5,.7",
    penalty: Annotated[
        _Penalty,
        typer.Option(
            "--penalty",
            help="l1: the sum of alphas, and the share mu of the heads with the largest ones. "
            "cost: seconds from the cost model, and the heads that fit in the share mu of them.",
        ),
    ] = _Penalty.COST,
    granularity: Annotated[
        _Granularity,
        typer.Option(
            "--granularity", help="What is chosen: whole layers, heads, or rows of the scores."
        ),
    ] = _Granularity.HEAD,
    strength: Annotated[
        float,
        typer.Option("--lambda", metavar="FACTOR", help="Factor of the penalty in the loss."),
    ] = 5e-3,
    plus: Annotated[
        bool, typer.Option("--plus/--no-plus", help="MPCViT+ too, with less GELU.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same result.")] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="As many runs, from --seed on.")
    ] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", metavar="N", help="Of teacher and students.", show_default="by data"
        ),
    ] = None,
    search_epochs: Annotated[
        int | None,
        typer.Option("--search-epochs", metavar="N", help="Of the search.", show_default="by data"),
    ] = None,
    out: OutFolder = Path("out/search"),
    json: JsonFile = None,
) -> None:
    """Search MPCViT's attention from end to end, and train what it is compared with.

    A teacher with softmax is trained, then one factor for each head together with new weights; for
    every mu the heads with the largest factors keep a ReLU-softmax, and that model is trained from
    nothing to do what the teacher does. So are the baselines: ReLU-softmax, ScaleAttn, and models
    like MPCFormer and THE-X. Accuracy is that on held-out images; rounds, bytes and seconds are
    those of the cost model. A run that was stopped goes on when the command is given again, and
    finished trainings in DIR are used again; they depend on no network and no mu.

    Example: vitruvius search mpcvit --data digits --network wan --seeds 3 --out out/search
    """
    output = Output(json)
    if seeds < 1:
        raise VitruviusError(f"--seeds: expected at least 1, got {seeds}")
    check_folder(out)
    from pydantic import ValidationError

    from ..reports.search import front_markdown, front_plot, front_record, front_table
    from ..sim.mpc.network import load_network
    from ..sim.mpc.protocols import load_protocol
    from ..sim.mpc.search.front import SearchOptions, run_search
    from ..sim.mpc.search.latency import Place
    from ..sim.mpc.search.lessons import load_lesson

    try:
        options = SearchOptions(
            mu=_shares(mu),
            penalty=penalty.value,
            granularity=granularity.value,
            strength=strength,
            plus=plus,
            seeds=tuple(range(seed, seed + seeds)),
            epochs=epochs,
            search_epochs=search_epochs,
        )
    except ValidationError as error:
        raise VitruviusError(_problems(error)) from error
    place = Place(load_protocol(protocol), load_network(network))
    lesson = load_lesson(data)
    console = output.progress
    start = time.perf_counter()

    def report(name: str, epoch: int, total: int, loss: float) -> None:
        end = "\n" if epoch == total else "\r"
        text = f"{time.perf_counter() - start:6.0f} s  {name}: epoch {epoch} of {total}, "
        console.print(f"{text}loss {loss:.4f}", end=end, highlight=False, markup=False)

    front = run_search(lesson, place, options, out, report=report)
    name = f"pareto-{front.protocol}-{front.network}-{options.penalty}"
    if granularity is not _Granularity.HEAD:
        name += f"-{granularity.value}"
    for suffix in ("svg", "png"):
        front_plot(front, out / f"{name}.{suffix}")
    write_text(out / f"{name}.md", front_markdown(front))
    output.console.print(front_table(front))
    output.console.print(
        f"written: {out / name}.svg, .png, .md", highlight=False, markup=False, soft_wrap=True
    )
    output.write_json(front_record(front))


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise VitruviusError(f"--mu: expected shares such as .1,.3,.5, got '{text}'") from None


def _problems(error: object) -> str:
    """Every option that is wrong, by its name on the command line."""
    from pydantic import ValidationError

    assert isinstance(error, ValidationError)
    names = {"strength": "lambda", "search_epochs": "search-epochs"}
    texts = []
    for problem in error.errors():
        field = str(problem["loc"][0])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "value_error":
            text += f", got {problem['input']}"
        texts.append(f"--{names.get(field, field)}: {text}")
    return "; ".join(texts)
