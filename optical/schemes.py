"""How signed convolutions become exposures of a camera that measures intensity, and come back.

How many exposures a convolution takes is a property of the scheme and of the signs of input and
kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError

__all__ = [
    "Exposure",
    "Scheme",
    "box_sum",
    "exposures",
    "kernel_offset",
    "passes",
    "recombined",
]

Scheme: TypeAlias = Literal["split", "intensity", "offset", "reference", "absolute"]
"""How the sign survives the camera:

split: positive and negative parts in exposures of their own, square roots subtracted
    ("pseudo-negativity", J. Chang et al., 2018, doi 10.1038/s41598-018-30619-y);
intensity: the same without the square root: another layer, which must be trained for;
offset: kernel + c >= 0 in one exposure, c times the sum under the window subtracted by electronics;
reference: with a known coherent reference, I(+r) - I(-r) = 4 r Re u, for any real u;
absolute: |u|, as an activation (S. Li and P. Gupta, 2022, doi 10.1117/12.2614731).
"""


def passes(scheme: Scheme, *, signed_input: bool, signed_kernel: bool) -> int:
    """Exposures of one (input channel, output channel) pair.

    >>> [passes(s, signed_input=True, signed_kernel=True) for s in ("split", "offset", "reference")]
    [4, 2, 2]
    """
    _check(scheme)
    if scheme in ("split", "intensity"):
        return (2 if signed_input else 1) * (2 if signed_kernel else 1)
    if scheme == "offset":
        return 2 if signed_input else 1
    return 2 if scheme == "reference" and (signed_input or signed_kernel) else 1


@dataclass(frozen=True)
class Exposure:
    """What the panels show at once, the sign its result is added with, and the sign of the
    reference at the camera: 0 where there is none.
    """

    image: Tensor
    kernel: Tensor
    sign: int
    reference: int = 0


def kernel_offset(kernel: Tensor) -> Tensor:
    """The smallest c that makes ``kernel`` [..., kh, kw] + c non-negative, [..., 1, 1]."""
    return (-kernel).amax(dim=(-2, -1), keepdim=True).clamp(min=0)


def exposures(
    image: Tensor, kernel: Tensor, scheme: Scheme, *, signed_input: bool, signed_kernel: bool
) -> list[Exposure]:
    """The exposures of ``image`` and ``kernel``, as many as ``passes`` says.

    "reference" and "absolute" show signed values as they are, a negative one by a phase of pi.
    Raises ``VitruviusError`` for a negative value of what is said to have no sign.
    """
    _check(scheme)
    for name, values, signed in (
        ("input", image, signed_input),
        ("kernel", kernel, signed_kernel),
    ):
        if not signed and bool((values < 0).any()):
            raise VitruviusError(
                f"expected a non-negative {name} (signed_{name} is false), "
                f"got {float(values.min()):g}: the camera would lose its sign"
            )
    if scheme == "absolute":
        return [Exposure(image, kernel, 1)]
    if scheme == "reference":
        if not (signed_input or signed_kernel):
            return [Exposure(image, kernel, 1)]
        return [Exposure(image, kernel, sign, reference=sign) for sign in (1, -1)]
    kernels = [(1, kernel)]
    if scheme == "offset":
        kernels = [(1, kernel + kernel_offset(kernel))]
    elif signed_kernel:
        kernels = _parts(kernel)
    images = _parts(image) if signed_input else [(1, image)]
    return [Exposure(x, k, s * t) for s, x in images for t, k in kernels]


def recombined(
    shown: Sequence[Exposure],
    intensities: Sequence[Tensor],
    scheme: Scheme,
    *,
    reference: Tensor | float = 0.0,
    floor: float = 1e-30,
) -> Tensor:
    """The convolution from what the camera measured in each exposure, on the whole plane.

    ``intensities`` are |u|^2 [..., N, M] in the convolution's own units, upright;
    ``reference`` the amplitude of r; ``floor`` is added under the root and its root
    taken off, for a finite slope. "offset" leaves c times the sum under the window to its caller,
    who knows the image: see ``kernel_offset``.
    """
    _check(scheme)
    if len(shown) != len(intensities) or not shown:
        raise VitruviusError(f"expected {len(shown)} intensities, got {len(intensities)}")
    if any(exposure.reference for exposure in shown):
        terms = [e.sign * i for e, i in zip(shown, intensities, strict=True)]
        return torch.stack(terms).sum(0) / (4 * reference)
    if scheme == "intensity":
        return torch.stack([e.sign * i for e, i in zip(shown, intensities, strict=True)]).sum(0)
    roots = [torch.sqrt(i.clamp(min=0) + floor) - floor**0.5 for i in intensities]
    return torch.stack([e.sign * r for e, r in zip(shown, roots, strict=True)]).sum(0)


def box_sum(image: Tensor, kernel: Tensor) -> Tensor:
    """Sum of ``image`` [batch, in, h, w] under the window of ``kernel`` [..., kh, kw], padded as
    a full convolution, [batch, in, h + kh - 1, w + kw - 1]: cheap electronics.
    """
    channels = image.shape[1]
    height, width = kernel.shape[-2:]
    ones = image.new_ones((channels, 1, height, width))
    return functional.conv2d(image, ones, padding=(height - 1, width - 1), groups=channels)


def _parts(values: Tensor) -> list[tuple[int, Tensor]]:
    return [(1, values.clamp(min=0)), (-1, (-values).clamp(min=0))]


def _check(scheme: str) -> None:
    if scheme not in get_args(Scheme):
        raise VitruviusError(f"scheme must be {', '.join(get_args(Scheme))}, got {scheme!r}")
