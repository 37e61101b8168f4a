"""The choices of a secure inference, as the options of several verbs have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ..errors import VitruviusError, nearest

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..sim.mpc.options import MpcOptions

__all__ = ["MpcChoices", "parsed_choices", "with_replacements"]

MpcChoices: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mpc",
        metavar="KEY=VALUE,...",
        help="How functions are put together: maximum=reduction|tree|pairs, "
        "gelu=tanh|sigmoid|pieces, division=row|element, weights=each|once, "
        "rsqrt=newton|goldschmidt, heads=batched|apart, fraction_bits=N. What replaces functions: "
        "softmax=relu|2quad|scale, gelu=quad|relu|identity.",
        show_default=False,
    ),
]

_REPLACED = {"softmax": ("relu", "2quad", "scale"), "gelu": ("quad", "relu", "identity")}


def parsed_choices(text: str | None) -> tuple[MpcOptions, dict[str, str]]:
    """The options of a protocol, and replacements of softmax and GELU by name.

    Raises VitruviusError naming a key or value that is unknown.
    """
    from pydantic import ValidationError

    from ..sim.mpc.options import MpcOptions

    chosen: dict[str, str] = {}
    replaced: dict[str, str] = {}
    known = sorted({*MpcOptions.model_fields, *_REPLACED})
    for item in [] if text is None else text.split(","):
        key, separator, value = (part.strip() for part in item.partition("="))
        if not separator or not value:
            raise VitruviusError(f"--mpc: expected KEY=VALUE, got '{item}'")
        if key not in known:
            raise VitruviusError(f"--mpc: unknown key '{key}', {nearest(key, known)}")
        if key in chosen or key in replaced:
            raise VitruviusError(f"--mpc: {key} is given more than once")
        if value in _REPLACED.get(key, ()):
            replaced[key] = value
        elif key in MpcOptions.model_fields:
            chosen[key] = value
        else:
            raise VitruviusError(f"--mpc: expected {key}={'|'.join(_REPLACED[key])}, got '{value}'")
    try:
        return MpcOptions.model_validate(chosen), replaced
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise VitruviusError(f"--mpc: {key}: {first['msg'].lower()}, got '{chosen[key]}'") from None


def with_replacements(graph: Graph, replaced: dict[str, str]) -> Graph:
    """The graph with softmax and GELU replaced as asked."""
    if not replaced:
        return graph
    from ..sim.mpc.replacements import replaced as written_out

    return written_out(graph, softmax=replaced.get("softmax"), gelu=replaced.get("gelu"))
