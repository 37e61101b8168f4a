"""From an IntegerModel and a Machine to a Program.

What the compiler does for each kind of operator stands in one table, `OPERATORS`; its steps are
made in a file of their own. Here they are put in order, and the matrices and transfers with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ...errors import VitruviusError
from ...models.integer_model import IntegerModel, IntegerOperator
from ..placement import Rows, ceil_div
from ..refusals import refuse_unknown, scheme_of
from ..units.ivit.code_tables import ENTRIES
from ..units.ivit.gelu_table import table_words
from .attention_steps import attention, shift_attention
from .buffer_usage import buffer_usage
from .core import Target
from .counters import Counter
from .draft import Draft, Ready
from .instruction import Source
from .linear_steps import add, attention_operand, embed, gelu, result, shift_gelu
from .machine import TABLE_WORD, Machine, load_machine, machine_names
from .mixture_steps import expert_operators, gate, mixture
from .norm_steps import i_layernorm, layernorm, select
from .program import Fetch, Program, Usage, check
from .weight_placement import place_matrices

__all__ = ["OPERATORS", "Compiled", "compile_model"]


def compile_model(model: IntegerModel, machine: Machine, *, prefetch: bool = True) -> Program:
    """The Program of ``model`` on ``machine``, which is built for the model's scheme. Without
    ``prefetch`` no transfer begins before the product that reads it is the next one: the same
    results, for comparison.

    Raises VitruviusError if the model's operators do not form a pre-norm encoder that the
    accelerator knows (all that it has no step for), or if a buffer is too small (all of them, with
    what is missing, and the smallest shipped machine on which the model fits).
    """
    refuse_unknown(model)
    machine = machine.for_scheme(scheme_of(model))
    program = _compiled(model, machine, prefetch)
    short = _short(program)
    if short:
        raise VitruviusError(
            f"{model.name} does not fit machine '{machine.name}': "
            + "; ".join(
                f"buffers.{usage.buffer} needs {usage.used} {usage.unit}, has {usage.capacity}, "
                f"{usage.used - usage.capacity} missing"
                for usage in short
            )
            + _that_fits(model)
        )
    check(program)
    return program


def _short(program: Program) -> list[Usage]:
    return [usage for usage in program.usage if usage.used > usage.capacity]


def _size(machine: Machine) -> tuple[int, int]:
    return machine.multipliers, machine.buffers.token + machine.buffers.weight


def _that_fits(model: IntegerModel) -> str:
    """The smallest shipped machine on which ``model`` fits, in words."""
    shipped = sorted(map(load_machine, machine_names()), key=_size)
    for machine in shipped:
        with suppress(VitruviusError):  # experts that come in unequal numbers of products there
            if not _short(_compiled(model, machine.for_scheme(scheme_of(model)))):
                return f"; it fits machine '{machine.name}'"
    return "; no shipped machine is large enough"


# -- kinds of operators ---------------------------------------------------------------------------


def _image(draft: Draft, operator: IntegerOperator) -> None:
    """No step: the patches are fetched; in the image buffer a row is a word."""
    tokens, features = operator.output
    words = ceil_div(features, draft.machine.depth)
    draft.places[operator.name] = Rows(0, words, tokens, 1, features)
    draft.ready[operator.name] = Ready(Counter.FETCHED, 0, Source.IMAGE)
    draft.need("image", tokens * words)


def _linear(draft: Draft, operator: IntegerOperator) -> None:
    """As the operator that reads it wants it; those of an expert are for its Mixture to make."""
    if operator.name in draft.of_experts:
        return
    readers = draft.readers[operator.name]
    if not readers:
        result(draft, operator)
        return
    product = OPERATORS[readers[0].kind].of_linear
    assert product is not None and len(readers) == 1  # otherwise `refuse_unknown` refuses it
    product(draft, operator, readers[0])


def _by_mixture(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Nothing: the Mixture ``reader`` makes the steps of its experts."""


@dataclass(frozen=True)
class Compiled:
    """What is done for a kind of operator.

    steps: appends its own steps to a Draft, and says there where its result lies and when it can be
    read; None if it has none of its own. of_linear: appends the steps of a Linear that such an
    operator reads, given both; None if it reads none.
    """

    steps: Callable[[Draft, IntegerOperator], None] | None = None
    of_linear: Callable[[Draft, IntegerOperator, IntegerOperator], None] | None = None


OPERATORS: Mapping[str, Compiled] = {
    "Quantize": Compiled(_image),
    "Linear": Compiled(_linear),
    "LayerNorm": Compiled(layernorm),
    "Select": Compiled(select),
    "Attention": Compiled(attention, of_linear=attention_operand),
    # These run in the drain path of the Linear before them.
    "Gelu": Compiled(of_linear=gelu),
    "Embed": Compiled(of_linear=embed),
    "Add": Compiled(of_linear=add),
    # Scheme ivit.
    "Linear31": Compiled(_linear),
    "ILayerNorm": Compiled(i_layernorm),
    "ShiftAttention": Compiled(shift_attention, of_linear=attention_operand),
    "ShiftGelu": Compiled(of_linear=shift_gelu),
    "Embed31": Compiled(of_linear=embed),
    "Add31": Compiled(of_linear=add),
    # The Gate stands in the router, what its scores become in the steps of the Mixture.
    "Gate": Compiled(of_linear=gate),
    "Mixture": Compiled(mixture, of_linear=_by_mixture),
}
"""Every kind of integer operator that has a step."""


# -- the whole model ------------------------------------------------------------------------------


def _compiled(model: IntegerModel, machine: Machine, prefetch: bool = True) -> Program:
    """The Program, whether it fits or not."""
    draft = Draft(model, machine, expert_operators(model))
    done: set[str] = set()
    for operator in model.operators:
        steps = OPERATORS[operator.kind].steps
        if steps is not None:
            steps(draft, operator)
        done.add(operator.name)
        draft.release(done)
    last = draft.steps[-1]
    draft.steps[-1] = replace(last, instruction=replace(last.instruction, final=1))
    fetches = _fetch(draft, prefetch)
    image = draft.places[model.operators[0].name]
    features = model.operators[0].output[1]
    tokens, features_out = model.operators[-1].output
    results = max(step.instruction.results for step in draft.steps)
    return Program(
        model=model,
        machine=machine,
        steps=tuple(draft.steps),
        norms=tuple(draft.norms),
        boot=_boot(draft),
        fetches=fetches,
        weights=draft.packing.weights,
        columns=tuple(draft.columns),
        norm_columns=tuple(draft.norm_columns),
        tables=tuple(word for table in draft.tables for word in table_words(table, TABLE_WORD)),
        constants=tuple(draft.constants),
        image_tokens=image.tokens,
        image_words=ceil_div(features, machine.depth),
        image_features=features,
        results=results,
        result_tokens=tokens,
        result_features=features_out,
        totals={**draft.counts, Counter.FETCHED: len(fetches)},
        mixtures=tuple(draft.mixtures),
        boundaries=tuple(draft.boundaries),
        usage=buffer_usage(draft, results=results, fetches=len(fetches)),
    )


def _boot(draft: Draft) -> tuple[Fetch, ...]:
    """What is brought once: columns, constants, and the programs with their LOOPs."""
    extents = {
        Target.COLUMN: len(draft.columns),
        Target.NORM_COLUMN: len(draft.norm_columns),
        Target.CONSTANT: len(draft.constants),
        Target.TABLE: len(draft.tables) * ENTRIES // TABLE_WORD,
        Target.PRODUCT_PROGRAM: len(draft.steps) + 1,
        Target.NORM_PROGRAM: len(draft.norms) + 1,
    }
    return tuple(Fetch(target, 0, words, 0) for target, words in extents.items() if words)


def _fetch(draft: Draft, prefetch: bool) -> tuple[Fetch, ...]:
    """What is brought for each image, in order: the matrices, and the image right behind the first
    one. Lets the product of each matrix wait for it.
    """
    products = len(draft.steps)
    places = place_matrices(draft.matrices, draft.machine.weight_words, products)
    image = draft.places[draft.model.operators[0].name]
    readers = [
        index for index, step in enumerate(draft.steps) if step.instruction.a_source is Source.IMAGE
    ]
    fetches: list[Fetch] = []
    for matrix, place in zip(draft.matrices, places, strict=True):
        fetches.append(
            Fetch(
                Target.WEIGHT,
                matrix.source,
                matrix.words,
                place.start,
                place.threshold if prefetch else matrix.product,
                matrix.expert,
                matrix.routed if matrix.expert else 0,
                matrix.tasks,
            )
        )
        if len(fetches) == 1:
            # Once every part of the embedding has read the image before.
            free = readers[-1] + 1 - products if prefetch else matrix.product
            fetches.append(Fetch(Target.IMAGE, 0, image.tokens * image.pitch, 0, free))
        step = draft.steps[matrix.product]
        item = replace(
            step.instruction,
            b_base=place.start,
            start_wait=Counter.FETCHED,
            start_threshold=len(fetches),
        )
        draft.steps[matrix.product] = replace(step, instruction=item)
    return tuple(fetches)
