"""Rules for reductions over axes."""

from __future__ import annotations

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Pieces, Ref, Value, rule

__all__ = [
    "logsumexp",
    "reduced",
    "reduction",
    "variance",
    "variance_and_mean",
    "vector_norm",
    "with_index",
]

_KINDS = {"amax": "ReduceMax", "amin": "ReduceMin", "mean": "Mean", "sum": "Sum"}


@rule("aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default")
def reduction(call: Call, raiser: Raiser) -> Value:
    """Average, sum, largest or smallest over some axes."""
    kind = _KINDS[call.target.split(".")[1]]
    operand = call.operand("self")
    if call.given("dtype") and call.spec().dtype != raiser.operators[operand.name].output.dtype:
        raise NoRuleError(f"a {kind} that changes the element type has no rule")
    dims = call.wholes("dim") if call.given("dim") else ()
    return reduced(raiser, kind, operand, dims, call.flag("keepdim"))


@rule("aten.max.dim", "aten.min.dim")
def with_index(call: Call, raiser: Raiser) -> Value:
    """The largest or smallest along one axis, where nobody asks which it was."""
    if 1 in call.picked():
        raise NoRuleError("the index of the largest or smallest has no rule")
    kind = "ReduceMax" if call.target == "aten.max.dim" else "ReduceMin"
    out = reduced(raiser, kind, call.operand("self"), (call.whole("dim"),), call.flag("keepdim"))
    return Pieces((lambda: out,))


@rule("aten.var.correction", "aten.var.dim", "aten.std.correction", "aten.std.dim")
def variance(call: Call, raiser: Raiser) -> Value:
    """Squared deviation from the mean, or its root."""
    dims = call.wholes("dim") if call.given("dim") else ()
    out = reduced(
        raiser,
        "Variance",
        call.operand("self"),
        dims,
        call.flag("keepdim"),
        correction=_correction(call),
    )
    return raiser.add("Sqrt", [out]) if call.target.startswith("aten.std") else out


@rule("aten.var_mean.correction", "aten.var_mean.dim")
def variance_and_mean(call: Call, raiser: Raiser) -> Value:
    """Both at once."""
    operand, keepdim = call.operand("self"), call.flag("keepdim")
    dims = call.wholes("dim") if call.given("dim") else ()
    correction = _correction(call)
    spread = reduced(raiser, "Variance", operand, dims, keepdim, correction=correction)
    middle = reduced(raiser, "Mean", operand, dims, keepdim)
    return Pieces((lambda: spread, lambda: middle))


@rule("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim")
def vector_norm(call: Call, raiser: Raiser) -> Value:
    """The length of vectors along some axes."""
    named = "p" if call.target == "aten.norm.ScalarOpt_dim" else "ord"
    order = call.number(named) if call.given(named) else 2.0
    dims = call.wholes("dim") if call.given("dim") else ()
    operand = call.operand("self")
    return reduced(raiser, "VectorNorm", operand, dims, call.flag("keepdim"), order=order)


@rule("aten.logsumexp.default")
def logsumexp(call: Call, raiser: Raiser) -> Value:
    """Largest + log(sum(exp(x - largest))) over some axes."""
    operand, dims = call.operand("self"), call.wholes("dim")
    top = reduced(raiser, "ReduceMax", operand, dims, True)
    lowered = raiser.add("Mul", [top, raiser.scalar(-1.0)])
    powers = raiser.add("Exp", [raiser.add("Add", [operand, lowered])])
    out = raiser.add("Log", [reduced(raiser, "Sum", powers, dims, True)])
    out = raiser.add("Add", [out, top])
    if call.flag("keepdim"):
        return out
    return raiser.add("View", [out], attributes={"op": "reshape", "shape": call.shape()})


def reduced(
    raiser: Raiser,
    kind: str,
    operand: Ref,
    dims: tuple[int, ...],
    keepdim: bool,
    **attributes: float,
) -> Ref:
    """A reduction over ``dims``, which may count from the back; all axes have no rule."""
    if not dims:
        raise NoRuleError(f"a {kind.lower()} over all axes, the batch included, has no rule")
    axes = len(raiser.shape(operand))
    ordered = tuple(sorted(dim % axes for dim in dims))
    full: dict[str, Attribute] = {"dims": ordered, "keepdim": keepdim, **attributes}
    return raiser.add(kind, [operand], attributes=full)


def _correction(call: Call) -> float:
    if call.target.endswith(".dim"):
        return 1.0 if call.flag("unbiased") else 0.0
    return call.number("correction") if call.given("correction") else 1.0
