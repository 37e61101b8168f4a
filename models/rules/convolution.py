"""Rules for convolutions with trained weights: all become 2-D ones."""

from __future__ import annotations

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule
from .linear import reshaped

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose2d", "convolution"]


@rule("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(call: Call, raiser: Raiser) -> Value:
    """Zero-padded, possibly strided, dilated or grouped."""
    weights = _weights(call)
    kernel = tuple(raiser.tensor(weights["weight"]).shape[2:])
    stride, dilation = _pair(call.wholes("stride")), _pair(call.wholes("dilation"))
    operand, padding = _padded(call, raiser, call.operand("input"), kernel, dilation)
    attributes: dict[str, Attribute] = {
        "stride": stride,
        "padding": _pair(padding),
        "dilation": dilation,
        "groups": call.whole("groups"),
    }
    return raiser.add("Conv2d", [operand], attributes=attributes, weights=weights)


@rule("aten.conv1d.default", "aten.conv1d.padding")
def conv1d(call: Call, raiser: Raiser) -> Value:
    """[B, C, L]: a 2-D convolution over one row."""
    weights = _weights(call)
    held = weights["weight"]
    kernel = tuple(raiser.tensor(held).shape[2:])
    dilation = call.wholes("dilation")
    weights["weight"] = raiser.hold(
        f"{held.key}.folded", raiser.tensor(held).unsqueeze(2), parameter=held.parameter
    )
    *lead, length = call.shape("input")
    row = reshaped(raiser, call.operand("input"), (*lead, 1, length))
    row, padding = _padded(call, raiser, row, kernel, dilation)
    attributes: dict[str, Attribute] = {
        "stride": (1, call.wholes("stride")[0]),
        "padding": (0, padding[-1]),
        "dilation": (1, dilation[0]),
        "groups": call.whole("groups"),
    }
    out = raiser.add("Conv2d", [row], attributes=attributes, weights=weights)
    return reshaped(raiser, out, call.shape())


@rule("aten.conv_transpose2d.input")
def conv_transpose2d(call: Call, raiser: Raiser) -> Value:
    """Each input value spread through the kernel."""
    names = ("stride", "padding", "output_padding", "dilation")
    attributes: dict[str, Attribute] = {name: _pair(call.wholes(name)) for name in names}
    attributes["groups"] = call.whole("groups")
    return raiser.add(
        "ConvTranspose2d",
        [call.operand("input")],
        attributes=attributes,
        weights=_weights(call),
    )


@rule("aten.convolution.default")
def convolution(call: Call, raiser: Raiser) -> Value:
    """The general form of all of the above."""
    axes = len(call.shape("input")) - 2
    if axes == 2:
        return (conv_transpose2d if call.flag("transposed") else conv2d)(call, raiser)
    if axes == 1 and not call.flag("transposed"):
        return conv1d(call, raiser)
    return conv3d(call, raiser)


@rule("aten.conv3d.default", "aten.conv3d.padding", "aten.conv_transpose1d.default")
def conv3d(call: Call, raiser: Raiser) -> Value:
    """Videos, and 1-D convolutions transposed, have no kind."""
    axes = len(call.shape("input")) - 2
    transposed = call.flag("transposed") or "transpose" in call.target
    named = "transposed convolution" if transposed else "convolution"
    raise NoRuleError(f"a {axes}-D {named} has no rule")


def _weights(call: Call) -> dict[str, Weight]:
    return {role: held for role in ("weight", "bias") if (held := call.weight(role))}


def _padded(
    call: Call, raiser: Raiser, operand: Ref, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Ref, tuple[int, ...]]:
    """The operand and the zeros on both sides of each axis; where "same" wants one more zero behind
    (an even kernel), all zeros are a Pad in front of the convolution.
    """
    if not call.target.endswith("padding"):
        return operand, call.wholes("padding")
    if call.text("padding") == "valid":
        return operand, (0,) * len(kernel)
    steps = dilation if len(dilation) == len(kernel) else dilation * len(kernel)
    spans = [step * (size - 1) for step, size in zip(steps, kernel, strict=True)]
    if not any(span % 2 for span in spans):
        return operand, tuple(span // 2 for span in spans)
    pads = tuple(side for span in reversed(spans) for side in (span // 2, span - span // 2))
    attributes: dict[str, Attribute] = {"pads": pads, "mode": "constant", "value": 0.0}
    return raiser.add("Pad", [operand], attributes=attributes), (0,) * len(kernel)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[-1])
