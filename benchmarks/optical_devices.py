"""Measures what each device of a 4f system does to a convolution: docs/optical_devices.md.

    .venv/bin/python benchmarks/optical_devices.py [--write]

One scene throughout: a 64 x 64 uniform-random image, a 5 x 5 normal-random kernel, planes of
256 x 256, two passes, everything ideal but the device named. Errors are relative L2 against
``conv2d(padding="same")`` in float64. Prints the tables, or writes them between the page's marks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.optical.bench import Bench
from vitruvius.optical.camera import Camera
from vitruvius.optical.schemes import Scheme, passes

__all__ = ["DETERMINISTIC", "EARLIER", "NOISY", "PAGE", "SCHEMES", "main", "measured"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "optical_devices.md"
DETERMINISTIC = (
    "<!-- computed by benchmarks/optical_devices.py: levels and shifts -->",
    "<!-- end of levels and shifts -->",
)
NOISY = (
    "<!-- computed by benchmarks/optical_devices.py: noise -->",
    "<!-- end of noise -->",
)
SCHEMES = (
    "<!-- computed by benchmarks/optical_devices.py: schemes -->",
    "<!-- end of schemes -->",
)
SEEDS = range(5)
"""The first one is the scene of the earlier measurement; the others show how far scenes differ."""

PLANE = (256, 256)


def _levels(effect: str, bits: int) -> Bench:
    options: Mapping[str, Callable[[], Bench]] = {
        "input amplitude levels": lambda: Bench(PLANE, input_levels=2**bits),
        "mask amplitude levels": lambda: Bench(PLANE, mask_amplitude_levels=2**bits),
        "mask phase levels": lambda: Bench(PLANE, mask_phase_levels=2**bits),
        "camera ADC (on intensity)": lambda: Bench(PLANE, camera=Camera(adc_bits=bits)),
    }
    return options[effect]()


def _noise(effect: str, photons: float) -> Bench:
    read = 0.0 if effect == "shot noise" else 5.0
    return Bench(PLANE, camera=Camera(photons=photons, read_noise_e=read))


def _shift(effect: str, by: float) -> Bench:
    if effect == "mask shift, samples of 256":
        return Bench(PLANE, mask_shift=(by, by))
    return Bench(PLANE, camera_shift=(by, by))


BENCHES: Mapping[str, Callable[[str, float], Bench]] = {
    "input amplitude levels": lambda e, b: _levels(e, int(b)),
    "mask amplitude levels": lambda e, b: _levels(e, int(b)),
    "mask phase levels": lambda e, b: _levels(e, int(b)),
    "camera ADC (on intensity)": lambda e, b: _levels(e, int(b)),
    "shot noise": _noise,
    "shot noise and 5 e- read noise": _noise,
    "mask shift, samples of 256": _shift,
    "camera shift, pixels": _shift,
}

EARLIER: Mapping[str, Mapping[float, float]] = {
    "input amplitude levels": {4: 3.8e-2, 6: 9.1e-3, 8: 2.2e-3, 10: 5.6e-4},
    "mask amplitude levels": {4: 2.1e-2, 6: 3.4e-3, 8: 9.8e-4, 10: 2.6e-4},
    "mask phase levels": {4: 1.0e-1, 6: 5.4e-2, 8: 2.8e-3, 10: 1.1e-3},
    "camera ADC (on intensity)": {6: 3.0e-2, 8: 7.4e-3, 10: 1.8e-3, 12: 4.5e-4},
    "shot noise": {1e2: 2.9e-1, 1e3: 9.1e-2, 1e4: 2.9e-2, 1e5: 9.0e-3, 1e6: 2.9e-3},
    "shot noise and 5 e- read noise": {
        1e2: 4.6e-1,
        1e3: 9.6e-2,
        1e4: 2.9e-2,
        1e5: 9.2e-3,
        1e6: 2.9e-3,
    },
    "mask shift, samples of 256": {0.5: 2.9e-4, 1: 1.2e-3, 2: 4.7e-3, 4: 1.9e-2},
    "camera shift, pixels": {0.05: 5.8e-2, 0.1: 1.2e-1, 0.25: 2.8e-1, 0.5: 5.5e-1, 1: 9.1e-1},
}
"""Errors of the same set-up that an independent script measured before this code existed."""

EARLIER_SCHEMES: Mapping[Scheme, float | None] = {
    "split": 6e-16,
    "intensity": 0.14,
    "offset": 3e-15,
    "reference": None,
    "absolute": 0.24,
}


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, kernel and their ``conv2d``."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 1, 64, 64, generator=generator, dtype=torch.float64)
    kernel = torch.randn(1, 1, 5, 5, generator=generator, dtype=torch.float64)
    return image, kernel, functional.conv2d(image, kernel, padding="same")


def measured(effect: str, amount: float, seed: int = 0) -> float:
    """Relative L2 error of one effect, on one scene."""
    image, kernel, wanted = scene(seed)
    got = BENCHES[effect](effect, amount).convolve(
        image, kernel, signed_input=False, generator=torch.Generator().manual_seed(seed)
    )
    return float((got - wanted).norm() / wanted.norm())


def table(effects: Sequence[str], unit: str) -> Iterator[str]:
    """Lines of the table of some effects."""
    yield f"| effect | {unit} | error | measured earlier | ratio | median of 5 scenes |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for effect in effects:
        for amount, earlier in EARLIER[effect].items():
            error = measured(effect, amount)
            typical = median(measured(effect, amount, seed) for seed in SEEDS)
            yield (
                f"| {effect} | {amount:g} | {error:.1e} | {earlier:.1e} "
                f"| {error / earlier:.2f} | {typical:.1e} |"
            )


def deterministic() -> list[str]:
    """Tables without random numbers but the scene's."""
    names = list(EARLIER)
    return [
        *table(names[:4], "bits"),
        "",
        *table(names[6:], "shift"),
    ]


def noisy() -> list[str]:
    """The tables of the camera's noise, then everything at once."""
    lines = list(table(list(EARLIER)[4:6], "peak photons"))
    bench = Bench(
        PLANE,
        input_levels=256,
        mask_amplitude_levels=256,
        mask_phase_levels=256,
        camera=Camera(photons=1e4, adc_bits=12),
    )
    errors = []
    for seed in SEEDS:
        image, kernel, wanted = scene(seed)
        got = bench.convolve(
            image, kernel, signed_input=False, generator=torch.Generator().manual_seed(seed)
        )
        errors.append(float((got - wanted).norm() / wanted.norm()))
    lines.append(
        f"| 8-bit panels, 12-bit ADC, shot noise | 10000 | {errors[0]:.1e} | 3.0e-02 "
        f"| {errors[0] / 3.0e-2:.2f} | {median(errors):.1e} |"
    )
    return lines


def schemes() -> list[str]:
    """Passes of every scheme for each pair of signs, and the error where it is not exact."""
    lines = [
        "| scheme | passes +,+ | +,± | ±,+ | ±,± | error | measured earlier |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    image, kernel, wanted = scene(0)
    for scheme, earlier in EARLIER_SCHEMES.items():
        counts = [
            passes(scheme, signed_input=signed_input, signed_kernel=signed_kernel)
            for signed_input in (False, True)
            for signed_kernel in (False, True)
        ]
        got = Bench(PLANE).convolve(image, kernel, scheme=scheme, signed_input=False)
        got = got * (got * wanted).sum() / got.square().sum()
        error = float((got - wanted).norm() / wanted.norm())
        shown = "exact, below 1e-13" if error < 1e-13 else f"{error:.1e}"
        before = "exact (textbook)" if earlier is None else f"{earlier:.1e}"
        cells = " | ".join(str(count) for count in counts)
        lines.append(f"| {scheme} | {cells} | {shown} | {before} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8") if arguments.write else ""
    for marks, lines in ((SCHEMES, schemes()), (DETERMINISTIC, deterministic()), (NOISY, noisy())):
        if arguments.write:
            page = replaced(page, *marks, lines)
        else:
            print("\n".join([*lines, ""]))
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
