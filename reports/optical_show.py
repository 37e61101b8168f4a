"""One layer on a 4f system as a figure: what panel, mask and camera hold in every exposure."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import RenderableType
from rich.markup import escape

from ..errors import VitruviusError
from .quantities import count
from .table import plain, titled
from .writing import check_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from ..optical.frames import Frame, LayerFrames
    from ..optical.mapping import Placed

__all__ = ["check_figure", "frames_figure", "layers_table"]

_ENDINGS = (".png", ".svg", ".pdf")
_INK = "#22262b"
_GREY = "#5b636d"
_STEPS = (
    ("input panel", "amplitude\nof the light"),
    ("mask, amplitude", "|H| in the Fourier\nplane, after lens 1"),
    ("mask, phase", "arg H, dark\nwhere |H| is small"),
    ("camera", "intensity |u|²,\nafter lens 2"),
)
_PANEL, _MASK, _PHASE, _CAMERA, _SIGNED = "gray", "viridis", "twilight", "inferno", "RdBu_r"


def check_figure(path: Path) -> None:
    """Raises VitruviusError for a name that is no picture's, or a place that cannot be written."""
    if path.suffix not in _ENDINGS:
        raise VitruviusError(f"--out expects a name that ends in .png, .svg or .pdf, got {path}")
    check_file(path)


def frames_figure(frames: LayerFrames, path: Path, *, title: str, lines: Sequence[str]) -> None:
    """Draws ``frames`` into a PNG, SVG or PDF file: a column for every exposure, the planes from
    panel to camera below each other, and beside them what electronics make of it, with PyTorch's
    result. ``lines`` are told below ``title``.

    Raises VitruviusError as ``check_figure`` does.
    """
    check_figure(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = len(frames.frames)
    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 8, "text.color": _INK}):
        figure = Figure(figsize=(0.9 + 1.95 * columns + 4.9, 9.0), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        heights = [0.15 + 0.18 * len(lines), 8.4]
        head, body = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        head.text(0.01, 0.98, "\n".join(lines), va="top", fontsize=8.5, linespacing=1.5)
        widths = [0.9 + 1.95 * columns, 4.9]
        left, right = body.subfigures(1, 2, width_ratios=widths, squeeze=False)[0]
        _exposures(left, frames.frames)
        _electronics(right, frames)
        kind = path.suffix[1:]
        metadata = {
            "svg": {"Date": None},
            "png": {"Software": None},
            "pdf": {"CreationDate": None},
        }[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        figure.savefig(temporary, format=kind, metadata=metadata, dpi=150)
        temporary.replace(path)


def layers_table(model: str, placed: Sequence[Placed]) -> RenderableType:
    """The operators that go on optics, one row each."""
    table = plain(
        ["layer", "kind", "planes", "size", "kernels", "taps", "read-out"],
        numbers=["planes", "kernels"],
    )
    for item in placed:
        if (work := item.work) is not None:
            table.add_row(
                escape(item.operator.name),
                item.operator.kind,
                count(work.images * work.in_channels),
                f"{work.size[0]} x {work.size[1]}",
                count(work.out_channels),
                f"{work.kernel[0]} x {work.kernel[1]}",
                work.readout,
            )
    return titled(f"{escape(model)}: what goes on optics; give one with --layer", table)


def _exposures(figure: SubFigure, frames: Sequence[Frame]) -> None:
    axes = figure.subplots(len(_STEPS), len(frames), squeeze=False)
    brightest = max(float(frame.intensity.max()) for frame in frames)
    for place, frame in enumerate(frames):
        magnitude = frame.mask.abs().numpy()
        phase = np.ma.masked_where(magnitude < 1e-3 * magnitude.max(), frame.mask.angle().numpy())
        signed = bool((frame.panel < 0).any())
        shown = [
            _picture(
                axes[0, place],
                frame.panel.numpy(),
                _SIGNED if signed else _PANEL,
                (-1.0 if signed else 0.0, 1.0),
            ),
            _picture(axes[1, place], magnitude, _MASK, (0.0, 1.0)),
            _picture(axes[2, place], phase, _PHASE, (-pi, pi)),
            _picture(axes[3, place], frame.intensity.numpy(), _CAMERA, (0.0, brightest)),
        ]
        axes[2, place].set_facecolor("black")
        axes[0, place].set_title(_exposure_title(place, frame, len(frames)), fontsize=8)
        if place == len(frames) - 1:
            for row, image in enumerate(shown):
                bar = figure.colorbar(image, ax=axes[row, :].tolist(), fraction=0.03, pad=0.01)
                bar.ax.tick_params(labelsize=6)
                if row == 2:
                    bar.set_ticks([-pi, 0, pi], labels=["−π", "0", "π"])
    for row, (name, text) in enumerate(_STEPS):
        axes[row, 0].set_ylabel(f"{name}\n{text}", fontsize=7.5, linespacing=1.4)


def _exposure_title(place: int, frame: Frame, total: int) -> str:
    what = "added" if frame.sign > 0 else "subtracted"
    if frame.reference:
        what = f"{'+' if frame.reference > 0 else '−'}r, {what}"
    return f"exposure {place + 1} of {total}\n{frame.shown.replace('-', '−')}: {what}"


def _electronics(figure: SubFigure, frames: LayerFrames) -> None:
    axes = figure.subplots(4, 2, height_ratios=[1, 1, 1, 0.9])
    dynamic = frames.placed.work is not None and frames.placed.work.dynamic
    kernel = _side_by_side(frames.kernels.double().numpy())
    _picture(axes[0, 0], kernel, _SIGNED, _even(kernel))
    axes[0, 0].set_title("kernels: the keys" if dynamic else "kernel, as conv2d has it")
    axes[0, 0].set_xlabel(
        f"{len(frames.kernels)} of " * dynamic
        + f"{frames.kernels.shape[-2]} x {frames.kernels.shape[-1]} taps"
    )
    axes[0, 1].axis("off")
    axes[0, 1].text(0, 1, _reading(frames), va="top", fontsize=7.5, linespacing=1.45)
    total = frames.total.double().numpy()
    # what is not read may be much brighter
    limits = _even(total[frames.read.numpy()])
    _picture(axes[1, 0], total, _SIGNED, limits)
    axes[1, 0].set_title("camera, recombined")
    axes[1, 0].set_xlabel("the signs are back")
    kept = np.where(frames.read.numpy(), total, np.nan)
    image = _picture(axes[1, 1], kept, _SIGNED, limits)
    axes[1, 1].set_facecolor("#d3d6da")
    axes[1, 1].set_title("what is read")
    axes[1, 1].set_xlabel(f"{int(frames.read.sum())} of {frames.read.numel()} samples")
    _bar(figure, image, axes[1, :])
    got, expected = _laid(frames, "result"), _laid(frames, "expected")
    limits = _even(expected)
    _picture(axes[2, 0], got, _SIGNED, limits)
    axes[2, 0].set_title("result of the optics")
    image = _picture(axes[2, 1], expected, _SIGNED, limits)
    axes[2, 1].set_title("PyTorch, conv2d")
    for place in axes[2, :]:
        place.set_xlabel(_meaning(frames))
    _bar(figure, image, axes[2, :])
    _scatter(axes[3, 0], frames)
    _errors(axes[3, 1], frames)
    for place in axes.flat:
        place.title.set_fontsize(8)
        place.xaxis.label.set_fontsize(7)


def _bar(figure: SubFigure, image: AxesImage, places: NDArray[np.object_]) -> None:
    bar = figure.colorbar(image, ax=places.tolist(), fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=6)


def _meaning(frames: LayerFrames) -> str:
    work = frames.placed.work
    assert work is not None
    if work.dynamic:
        return "queries down, keys across"
    if frames.result.shape[-2:] == (1, 1):
        return "one number for every tile"
    return "before the sum over channels" if work.in_channels > work.groups else ""


def _scatter(axes: Axes, frames: LayerFrames) -> None:
    expected = frames.expected.flatten().numpy()
    got = frames.result.flatten().numpy()
    ends = [float(expected.min()), float(expected.max())]
    axes.plot(ends, ends, color="#b8bfc6", linewidth=1, zorder=0)
    axes.scatter(expected, got, s=6, color="#1f6f8b", linewidths=0)
    axes.set_xlabel("PyTorch")
    axes.set_ylabel("optics", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.set_title(f"relative error {frames.error:.2g}")
    axes.spines[["top", "right"]].set_visible(False)


def _errors(axes: Axes, frames: LayerFrames) -> None:
    errors = (frames.result - frames.expected).flatten().double().numpy()
    axes.hist(errors, bins=min(41, max(5, errors.size)), color="#1f6f8b")
    axes.set_xlabel("optics - PyTorch")
    axes.set_yticks([])
    axes.tick_params(labelsize=6)
    axes.xaxis.get_offset_text().set_fontsize(6)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3))
    axes.set_title("errors")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _reading(frames: LayerFrames) -> str:
    layout, work = frames.layout, frames.placed.work
    assert work is not None
    tiles = len(frames.result)
    lines = [
        f"plane of {layout.plane[0]} x {layout.plane[1]} samples",
        f"{tiles} tile{'s' * (tiles > 1)} of {work.size[0]} x {work.size[1]},",
        f"   pitch {layout.pitch[0]} x {layout.pitch[1]} ({work.readout} read-out)",
        f"input {'signed' if work.signed_input else 'not negative'},",
        f"   kernel {'signed' if work.signed_kernel else 'not negative'}",
        "",
        "Optics convolve, conv2d correlates:",
        "the mask is of the flipped kernel.",
        "Both lenses transform forwards, the",
        "camera sees all turned by 180°; here",
        "it is turned back.",
    ]
    return "\n".join(lines)


def _laid(frames: LayerFrames, which: Literal["result", "expected"]) -> NDArray[np.float64]:
    """A result as one picture: of scores queries by keys, of one sample a tile the tiles as they
    lie, else the images side by side.
    """
    values = getattr(frames, which).double().numpy()
    images, kernels, height, width = values.shape
    if kernels > 1:
        return values.reshape(images, kernels)  # type: ignore[no-any-return]
    if height == width == 1:
        rows, cols = frames.layout.images
        padded = np.full(rows * cols, np.nan)
        padded[:images] = values.ravel()
        return padded.reshape(rows, cols)
    return _side_by_side(values[:, 0])


def _side_by_side(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tiles [n, h, w] in rows, as square as can be, with a line of nothing between them."""
    count, height, width = tiles.shape
    cols = int(np.ceil(np.sqrt(count)))
    rows = -(-count // cols)
    sheet = np.full((rows * (height + 1) - 1, cols * (width + 1) - 1), np.nan)
    for place, tile in enumerate(tiles):
        top, left = place // cols * (height + 1), place % cols * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _even(values: NDArray[np.float64]) -> tuple[float, float]:
    most = float(np.nanmax(np.abs(values))) or 1.0
    return -most, most


def _picture(
    axes: Axes, values: NDArray[np.float64], colours: str, limits: tuple[float, float]
) -> AxesImage:
    image = axes.imshow(
        values, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return image
