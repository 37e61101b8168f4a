"""Compares the propagated 4f system with torchoptics: the table of docs/optical_waves.md.

    .venv/bin/python benchmarks/optical_waves.py [--write]

One scene: a 64 x 64 uniform-random image and a 5 x 5 normal-random kernel, 532 nm, f = 50 mm,
critical pitch. Errors are relative L2 against ``conv2d(padding="same")`` after the best complex
scale; "fields" is the largest difference of the two libraries' camera fields over the largest
amplitude. torchoptics is used nowhere in the product.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.panel import Panel
from vitruvius.optical.planes import fourier_mask, input_plane, kernel_plane, upright
from vitruvius.optical.system4f import System4f, order_mask

__all__ = ["CASES", "PAGE", "WAVES", "Case", "case", "main", "torchoptics_field"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "optical_waves.md"
WAVES = ("<!-- measured by benchmarks/optical_waves.py -->", "<!-- end of what was measured -->")
GREEN, FOCAL, SIDE = 532e-9, 50e-3, 64


@dataclass(frozen=True)
class Case:
    """One set-up: what is on the panels, through which system, and what was measured earlier."""

    name: str
    system: System4f
    field: Tensor
    mask: Tensor
    panel: Panel | None
    wanted: Tensor
    earlier: str

    def error(self, camera: Tensor) -> float:
        """Relative L2 against ``conv2d`` after the best complex scale."""
        seen = camera if self.panel is None else self.panel.read(camera)
        rows, cols = (side // 2 - SIDE // 2 for side in seen.shape)
        seen = seen[rows : rows + SIDE, cols : cols + SIDE]
        seen = seen * (seen.conj() * self.wanted).sum() / seen.abs().square().sum()
        return float((seen - self.wanted).norm() / self.wanted.norm())


CASES = {
    "critical, Fresnel": "3.8e-14",
    "critical, exact": "3.6e-2",
    "one sample a pixel, padded": "24 %",
    "one sample a pixel, padded, round lens": "38 %",
    "5 samples a pixel, no compensation": "15 %",
    "5 samples a pixel, compensated": "2.8e-4",
}
"""Set-ups, and torchoptics' error on a scene of the same kind that an earlier script measured with
its default padding."""


def case(name: str, *, pixels: int = 204) -> Case:
    """The set-up ``name``; ``pixels`` a side where a pixel has 5 samples."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(SIDE, SIDE, generator=generator, dtype=torch.float64)
    kernel = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    wanted = functional.conv2d(image[None, None], kernel[None, None], padding="same")[0, 0]
    wanted = wanted.to(torch.complex128)
    if name.startswith("5 samples"):
        pitch = 5 * critical_pitch(5 * pixels, FOCAL, GREEN)
        panel = Panel(pixels, pixels, pitch)
        grid = panel.grid(GREEN)
        system = System4f(
            grid,
            FOCAL,
            lens_radius_m=grid.extent_m[0] / 2,
            object_m=(SIDE * pitch, SIDE * pitch),
            bandwidth_per_m=panel.bandwidth_per_m,
        )
        mask, _ = order_mask(kernel, panel, system, compensated=name.endswith(", compensated"))
        return Case(name, system, panel.show(image), mask, panel, wanted, CASES[name])
    grid = Grid(256, 256, critical_pitch(256, FOCAL, GREEN), GREEN)
    system = System4f(grid, FOCAL, padding=1, method="exact" if "exact" in name else "fresnel")
    if "padded" in name:
        # refused otherwise: light of one sample a pixel does not fit window and lenses
        radius = grid.extent_m[0] / 2 if "round" in name else None
        system = replace(system, padding=2, lens_radius_m=radius, checked=False)
    mask, _ = fourier_mask(kernel_plane(kernel, (256, 256)))
    field = input_plane(image, (256, 256))
    return Case(name, system, field, mask, None, wanted, CASES[name])


def torchoptics_field(setup: Case) -> Tensor:
    """The camera field of torchoptics for the same planes, upright.

    Its grids have the axis between two samples, so its lens profile is moved by half a pitch. Its
    ``asm_pad`` counts samples on each side.
    """
    from torchoptics import Field
    from torchoptics.elements import Modulator
    from torchoptics.profiles import lens_phase

    system, grid = setup.system, setup.system.grid
    half = grid.pitch_m / 2
    phase = lens_phase(grid.shape, system.focal_m, grid.wavelength_m, grid.pitch_m, (half, half))
    lens = torch.exp(1j * phase.to(torch.float64))
    if system.lens_radius_m is not None:
        y, x = grid.positions()
        lens = lens * (y.square() + x.square() <= system.lens_radius_m**2)
    pad = [(system.padding - 1) * side // 2 for side in grid.shape]
    method = "ASM" if system.method == "exact" else "ASM_FRESNEL"
    field = Field(
        setup.field.to(torch.complex128),
        wavelength=grid.wavelength_m,
        z=0,
        spacing=grid.pitch_m,
    )
    elements = (lens, setup.mask.to(torch.complex128), lens)
    for step, element in enumerate(elements, start=1):
        z = step * system.focal_m
        field = field.propagate_to_z(z, propagation_method=method, asm_pad=pad)
        field = Modulator(element, z=z, spacing=grid.pitch_m)(field)
    field = field.propagate_to_z(4 * system.focal_m, propagation_method=method, asm_pad=pad)
    return upright(field.data)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest amplitude, the global phase taken out."""
    turn = (theirs.conj() * ours).sum()
    return float((ours - theirs * turn / turn.abs()).abs().max() / ours.abs().max())


def table() -> Iterator[str]:
    yield "| set-up | N | this code | torchoptics 1.0.2 | fields differ by | measured earlier |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in CASES:
        setup = case(name)
        ours = setup.system.camera_field(setup.field, setup.mask)
        theirs = torchoptics_field(setup)
        yield (
            f"| {name} | {setup.system.grid.rows} | {setup.error(ours):.1e} "
            f"| {setup.error(theirs):.1e} | {difference(ours, theirs):.1e} | {setup.earlier} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    lines = list(table())
    if arguments.write:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), *WAVES, lines), encoding="utf-8")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
