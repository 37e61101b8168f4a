"""Trained models through 4f optics, before and after noise-aware retraining: docs/optical_run.md.

    .venv/bin/python benchmarks/optical_run.py --measure sweep|layers|retrain|all [--model NAME]
    .venv/bin/python benchmarks/optical_run.py --write

Figures are kept beside this file, one cell at a time, and are not computed again; ``--write`` puts
them between the page's marks. ConvShareViT without shipped weights is taken from ``out/convshare``,
where ``vitruvius train convshare`` writes it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.datasets import Dataset, shipped_images
from vitruvius.models.graph import Graph, execute
from vitruvius.models.resolve import Workload, resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.pretrained import load_pretrained
from vitruvius.optical.mapping import Placed, mapped
from vitruvius.optical.options import DeviceOptions
from vitruvius.optical.retraining import retrain
from vitruvius.optical.run import run_cell, run_layers

__all__ = ["DATA", "PAGE", "TABLES", "main", "tables"]

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "optical_run.md"
DATA = Path(__file__).with_suffix(".json")
OUT = ROOT / "out"
IMAGES = {"digits": 360, "mnistm": 200}
CALIBRATION = 64
WAVES = 3
READ_NOISE_E = 5.0
EPOCHS = {"digits": 20, "mnistm": 4}
RATES = {"digits": 1e-3, "mnistm": 5e-4}
LIGHTS = (1e5, 1e4, 1e3, 3e2, 1e2)

MODELS = {
    "vit_digits": "Vision Transformer, 8 x 8 digits",
    "convshare_linear_mnistm": "ConvShareViT `linear`",
    "convshare_valid_full_mnistm": "ConvShareViT `shared_valid_full`",
    "convshare_valid_k_mnistm": "ConvShareViT `shared_valid_k`",
    "convshare_same_mnistm": "ConvShareViT `shared_same`",
    "convshare_depthwise_mnistm": "ConvShareViT `depthwise_same`",
}
WHOLE_GRID = ("vit_digits", "convshare_valid_full_mnistm")
"""Models of which every combination is measured; of the others, light alone."""

RETRAINED = {"vit_digits": (1e2, 3e2), "convshare_valid_full_mnistm": (1e3,)}
"""Photons that a model is retrained with, and a 12-bit converter, with ideal panels: their eight
bits are far below this noise, and it is three times as fast; beside it a control with ideal
devices.
"""

TABLES = {
    name: (
        f"<!-- computed by benchmarks/optical_run.py: {name} -->",
        f"<!-- end of {name} -->",
    )
    for name in ("layers", "photons", "bits", "operators", "retraining")
}


@dataclass(frozen=True)
class Traced:
    """A trained model with its images."""

    workload: Workload
    graph: Graph
    placed: list[Placed]
    data: Dataset


def devices(photons: float | None, panel: int | None, adc: int | None) -> DeviceOptions:
    """Options of one cell."""
    read = 0.0 if photons is None else READ_NOISE_E
    return DeviceOptions(photons=photons, read_noise_e=read, panel_bits=panel, adc_bits=adc)


USUAL = devices(1e4, 8, 12)


def grid(model: str) -> list[DeviceOptions]:
    """The cells of a model, ideal devices first."""
    lights, panels, converters = (1e5, 1e4, 1e3, 1e2), (8, 6, 4), (12, 8)
    found = [devices(n, 8, 12) for n in LIGHTS]
    if model in WHOLE_GRID:
        found += [devices(n, p, a) for p in panels for a in converters for n in lights]
    return [DeviceOptions(), *dict.fromkeys(found)]


def traced(model: str, weights: Path | None = None) -> Traced | None:
    """The model with ``weights``, those it ships with, or those trained here; None without any."""
    workload = resolve_model(model)
    trained = OUT / "convshare" / f"{model.removeprefix('convshare_').rpartition('_')[0]}_0"
    trained = trained.with_suffix(".safetensors")
    shipped = ROOT / "models" / "zoo" / "weights" / f"{model}.safetensors"
    if weights is None and not shipped.exists():
        if not trained.exists():
            return None
        weights = trained
    if weights is not None:
        load_pretrained(workload.module, weights)
    graph = trace(workload.module, workload.example_inputs, name=model)
    data = workload.dataset or shipped_images(tuple(workload.example_inputs[0].shape[1:]))
    assert data is not None
    return Traced(workload, graph, mapped(graph, non_negative_inputs=True), data)


def load() -> dict[str, Any]:
    """All figures so far."""
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}


def keep(data: dict[str, Any]) -> None:
    """Writes the figures."""
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def cell_of(options: DeviceOptions) -> str:
    """What a cell is called in the file."""
    return f"{options.photons} {options.panel_bits} {options.adc_bits}"


def measure_cells(place: Sequence[str], it: Traced, wanted: Sequence[DeviceOptions]) -> None:
    """Runs the cells that the file does not have at ``place`` yet."""
    count = IMAGES[it.data.name]
    images, labels = it.data.test_images[:count], it.data.test_labels[:count]
    calibration = it.data.calibration_images[:CALIBRATION]
    for options in wanted:
        if cell_of(options) in _at(load(), place):
            continue
        found = run_cell(it.graph, it.placed, options, images, calibration, labels=labels)
        data = load()
        here = _at(data, place)
        here["images"] = len(labels)
        here["exact"] = int((execute(it.graph, images).flatten(1).argmax(-1) == labels).sum())
        here[cell_of(options)] = {
            "agree": found.agree,
            "correct": found.correct,
            "logit_error": found.logit_error,
        }
        if options == USUAL:
            here["operators"] = [asdict(row) for row in found.operators]
        keep(data)
        print(*place, cell_of(options), found.agree, found.correct, f"{found.logit_error:.3g}")


def _at(data: dict[str, Any], place: Sequence[str]) -> dict[str, Any]:
    for step in place:
        data = data.setdefault(step, {})
    return data


def measure_layers(model: str, it: Traced) -> None:
    """A few images through the math layer and through waves."""
    data = load()
    if model in data.setdefault("layers", {}):
        return
    few = it.data.test_images[:WAVES]
    calibration = it.data.calibration_images[:CALIBRATION]
    found = [asdict(layer) for layer in run_layers(it.graph, it.placed, USUAL, few, calibration)]
    data = load()
    data.setdefault("layers", {})[model] = found
    keep(data)


def measure_retraining(model: str) -> None:
    """Retrains with each light of ``RETRAINED`` and with ideal devices, and runs what comes out."""
    wanted = [devices(n, 8, 12) for n in LIGHTS]
    for options in (*(devices(n, None, 12) for n in RETRAINED[model]), DeviceOptions()):
        it = traced(model)
        if it is None:
            return
        name = "ideal" if options.photons is None else f"{options.photons:g}"
        out = OUT / "optical" / f"{model}_{name}.safetensors"
        if not out.exists():
            epochs = EPOCHS[it.data.name]
            retrain(
                it.workload.module,
                it.graph,
                it.placed,
                it.data,
                options,
                out,
                epochs=epochs,
                rate=RATES[it.data.name],
                progress=lambda epoch, of, loss: print(f"epoch {epoch} of {of}: {loss:.4f}"),
            )
        again = traced(model, out)
        assert again is not None
        measure_cells(("retrained", model, name), again, wanted)


def tables(data: dict[str, Any]) -> dict[str, list[str]]:
    """The lines between each pair of marks."""
    return {
        "layers": list(_layers(data)),
        "photons": list(_photons(data)),
        "bits": list(_bits(data)),
        "operators": list(_operators(data)),
        "retraining": list(_retraining(data)),
    }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}"


def _layers(data: dict[str, Any]) -> Iterator[str]:
    yield "| model | layer | images | labels as PyTorch | logit error |"
    yield "| --- | --- | --- | --- | --- |"
    for model, title in MODELS.items():
        for row in data.get("layers", {}).get(model, []):
            yield (
                f"| {title} | {row['layer']} | {row['images']} | {row['agree']} "
                f"| {row['logit_error']:.1e} |"
            )


def _photons(data: dict[str, Any]) -> Iterator[str]:
    lights = (None, *LIGHTS)
    shown = " | ".join("ideal" if n is None else f"{n:g}" for n in lights)
    yield f"| model | PyTorch | {shown} |"
    yield "| --- |" + " --- |" * (1 + len(lights))
    for model, title in MODELS.items():
        here = data.get("sweep", {}).get(model)
        if here is not None:
            found = [
                here.get(cell_of(DeviceOptions() if n is None else devices(n, 8, 12)))
                for n in lights
            ]
            cells = [
                "-" if one is None else _percent(one["correct"], here["images"]) for one in found
            ]
            yield f"| {title} | {_percent(here['exact'], here['images'])} | {' | '.join(cells)} |"


def _bits(data: dict[str, Any]) -> Iterator[str]:
    lights = (1e5, 1e4, 1e3, 1e2)
    yield "| model | panels | ADC | " + " | ".join(f"{n:g} photons" for n in lights) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(lights)
    for model, title in MODELS.items():
        here = data.get("sweep", {}).get(model)
        for panel in (8, 6, 4) if here is not None and model in WHOLE_GRID else ():
            for adc in (12, 8):
                found = [here.get(cell_of(devices(n, panel, adc))) for n in lights]
                if not any(found):
                    continue
                cells = [
                    "-"
                    if one is None
                    else f"{_percent(one['correct'], here['images'])} ({one['logit_error']:.2g})"
                    for one in found
                ]
                yield f"| {title} | {panel} bit | {adc} bit | {' | '.join(cells)} |"


def _operators(data: dict[str, Any]) -> Iterator[str]:
    yield "| model | operator | passes | exposures | own error | carried |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for model in WHOLE_GRID:
        rows = data.get("sweep", {}).get(model, {}).get("operators", [])
        for row in sorted(rows, key=lambda one: -one["own_error"])[:6]:
            yield (
                f"| {MODELS[model]} | {row['name']} | {row['passes']} | {row['exposures']:,} "
                f"| {row['own_error']:.2g} | {row['carried_error']:.2g} |"
            )
        total = sum(row["exposures"] for row in rows)
        if rows:
            yield f"| {MODELS[model]} | all {len(rows)} | | {total:,} | | |"


def _retraining(data: dict[str, Any]) -> Iterator[str]:
    yield "| model | retrained with | PyTorch | " + " | ".join(f"{n:g}" for n in LIGHTS) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(LIGHTS)
    for model, cases in data.get("retrained", {}).items():
        before = data["sweep"][model]
        for name in sorted(cases | {"": before}, key=_order):
            here = before if name == "" else cases[name]
            found = [here.get(cell_of(devices(n, 8, 12))) for n in LIGHTS]
            cells = [
                "-" if one is None else _percent(one["correct"], here["images"]) for one in found
            ]
            told = {"": "not retrained", "ideal": "ideal devices (control)"}
            yield (
                f"| {MODELS[model]} | {told.get(name, f'{name} photons')} "
                f"| {_percent(here['exact'], here['images'])} | {' | '.join(cells)} |"
            )


def _order(name: str) -> tuple[int, float]:
    """Not retrained, the control, then from light to dark."""
    if name in ("", "ideal"):
        return len(name), 0.0
    return 9, -float(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--measure", choices=("sweep", "layers", "retrain", "all"))
    parser.add_argument("--model", choices=tuple(MODELS), help="only this one")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for model in MODELS if arguments.measure else ():
        it = traced(model) if arguments.model in (None, model) else None
        if it is not None and arguments.measure in ("sweep", "all"):
            measure_cells(("sweep", model), it, grid(model))
        if it is not None and arguments.measure in ("layers", "all"):
            measure_layers(model, it)
        if it is not None and arguments.measure in ("retrain", "all") and model in RETRAINED:
            measure_retraining(model)
    page = PAGE.read_text(encoding="utf-8") if arguments.write else ""
    for name, lines in tables(load()).items():
        if arguments.write:
            page = replaced(page, *TABLES[name], lines)
        else:
            print("\n".join([*lines, ""]))
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
