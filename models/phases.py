"""The two ways in which a language model runs, as graphs of shapes: a whole text at once, and one
token behind a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch

from ..errors import VitruviusError
from .graph import Graph
from .trace import trace_shapes
from .zoo.language import HybridLanguageModel
from .zoo.language_config import LanguageConfig

__all__ = ["PHASES", "Phase", "check_contexts", "phase_graph", "piece_graph"]

Phase: TypeAlias = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def check_contexts(contexts: Sequence[int], config: LanguageConfig, name: str) -> None:
    """Raises VitruviusError for a context that is below 1 or longer than the model takes."""
    if not contexts:
        raise VitruviusError(f"{name}: expected at least one context length, got none")
    for context in contexts:
        if not 1 <= context <= config.max_context:
            raise VitruviusError(
                f"{name}: expected a context of 1 to {config.max_context:,} tokens, got {context:,}"
            )


def phase_graph(config: LanguageConfig, phase: Phase, context: int, name: str) -> Graph:
    """Prefill: ``context`` tokens, nothing kept. Decode: one token behind ``context`` kept ones.

    Raises VitruviusError for a context that the model does not take.
    """
    check_contexts([context], config, name)
    tokens, past = (context, 0) if phase == "prefill" else (1, context)
    return piece_graph(config, tokens, past, name)


def piece_graph(config: LanguageConfig, tokens: int, past: int, name: str) -> Graph:
    """``tokens`` new tokens behind ``past`` kept ones."""
    with torch.device("meta"):
        module = HybridLanguageModel(config).eval()
        inputs = module.inputs(tokens, past)
    return trace_shapes(module, inputs, name=name)
