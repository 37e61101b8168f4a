"""Writes the tables of docs/mpc_peers.md: what CrypTen and SPU counted beside the cost model.

    .venv/bin/python benchmarks/mpc_peers/page.py

Reads the two data files that benchmarks/mpc_peers/measure.py writes, and costs every row anew.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.mpc_peers import predicted
from vitruvius.sim.mpc.traffic import Traffic

__all__ = ["MARKS", "PAGE", "lines", "main", "record"]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "mpc_peers.md"
DATA = ROOT / "tests" / "sim" / "mpc" / "data"
MARKS = (
    "<!-- tables, by benchmarks/mpc_peers/page.py; nothing from here on is typed by hand -->",
    "<!-- end of the tables -->",
)
METHODS = (
    "log_reduction",
    "tree",
    "pairwise",
    "double_log_reduction",
    "accelerated_cascade",
)

Row = dict[str, Any]


@cache
def record(name: str) -> dict[str, Any]:
    """One data file: versions, date, machine, convention and rows by set."""
    found: dict[str, Any] = json.loads((DATA / f"peers_{name}.json").read_text("utf-8"))
    return found


def lines(models: bool = True) -> list[str]:
    """All tables, or all without whole models, which take longest to cost."""
    return [*_origin(), *_summary(), *_crypten(models), *_spu(models)]


def _origin() -> list[str]:
    found = []
    for name in ("crypten", "spu"):
        data = record(name)
        versions = ", ".join(f"{key} {value}" for key, value in data["versions"].items())
        text = f"**{versions}**, {data['date']}, {data['machine']}. {data['convention']}"
        found += [*textwrap.wrap(text, 116), ""]
    return found


def _summary() -> list[str]:
    """How many rows the model gives to the byte; whole models are in their own tables."""
    crypten = record("crypten")["sets"]
    rows = [*crypten["operators"], *crypten["rows"]]
    online = offline = dealt = 0
    for row in rows:
        model = predicted.crypten(row)
        counted = row["rounds"], row["bytes"]
        online += (model.online.rounds, model.online.sent_and_received) == counted
        if "dealt_bytes" in row:
            dealt += 1
            offline += model.offline.bytes_received == row["dealt_bytes"]
    models = [predicted.spu(row, "semi2k") for row in record("spu")["sets"]["semi2k"]]
    pairs = list(zip(record("spu")["sets"]["semi2k"], models, strict=True))
    equal = sum(
        model is not None
        and ([model.online.rounds], [model.online.bytes_sent]) == (row["sends"], row["sent"])
        for row, model in pairs
    )
    table = [
        ("CrypTen, rounds and bytes online", f"{len(rows)}", f"{online}"),
        ("CrypTen, bytes of the dealer", f"{dealt}", f"{offline}"),
        ("SEMI2K, sends and bytes", f"{len(pairs)}", f"{equal}"),
    ]
    reasons = [f"`{op}` of {shapes}: {why}" for (op, shapes), why in predicted.DEVIATIONS.items()]
    reasons += [f"`{op}` in SPU: {why}" for op, why in predicted.WITHOUT_FUNCTION.items()]
    listed = [
        line for why in reasons for line in textwrap.wrap(f"- {why}.", 116, subsequent_indent="  ")
    ]
    return [*_table(("operators of", "rows", "equal"), table, 1), "", *listed, ""]


def _what(row: Row) -> str:
    shapes = predicted.shapes_of(row)
    details = [f"{key} {value}" for key, value in row["attributes"].items() if key != "rewrite"]
    text = f"{row['op']} | {shapes}" + (f"; {', '.join(details)}" if details else "")
    return text + ("; division by row" if row["attributes"].get("rewrite") else "")


def _same(measured: int, model: int) -> str:
    if measured == model:
        return "equal"
    if not measured:
        return f"{model:,}"
    percent = 100 * (model / measured - 1)
    return f"{model:,} ({percent:+.1f} %)" if abs(percent) > 0.05 else f"{model - measured:+,}"


def _table(
    head: tuple[str, ...], rows: Iterable[tuple[str, ...]], words: int, note: str = ""
) -> list[str]:
    """A table whose first ``words`` columns are text, the others numbers."""
    rule = [" --- "] * words + [" ---: "] * (len(head) - words)
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [*([note, ""] if note else []), f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *body]


def _crypten(models: bool) -> list[str]:
    sets = record("crypten")["sets"]
    rows = []
    for row in sets["operators"]:
        model = predicted.crypten(row)
        rows.append(
            (
                _what(row),
                f"{row['rounds']}",
                _same(row["rounds"], model.online.rounds),
                f"{row['bytes']:,}",
                _same(row["bytes"], model.online.sent_and_received),
                f"{row['dealt_bytes']:,}" if "dealt_bytes" in row else "-",
                _same(row["dealt_bytes"], model.offline.bytes_received)
                if "dealt_bytes" in row
                else "-",
                f"{1e3 * row['seconds']:.0f}",
            )
        )
    head = ("operator", "shapes", "rounds", "model", "bytes", "model", "dealt", "model", "ms")
    found = ["## CrypTen, two parties", "", *_table(head, rows, 2), ""]
    found += ["### Rows", "", *_lengths(sets["rows"]), "", "### Whole models", ""]
    whole = _crypten_models(sets["models"]) if models else []
    return [*found, *whole, "", "### Three parties", "", *_three(sets)]


def _lengths(rows: list[Row]) -> list[str]:
    """Two rows of n numbers: rounds and bytes of each way to the maximum, and of softmax."""
    by_key = {
        (row["op"], row["shapes"][0][1], row["attributes"].get("method")): row
        for row in rows
        if row["shapes"][0][0] == 2
    }
    lengths = sorted({n for op, n, _ in by_key if op == "max"})
    keys = [("max", method) for method in METHODS]
    keys += [("softmax", "log_reduction"), ("softmax", "tree")]
    table = []
    for n in lengths:
        cells = [f"{n}"]
        for op, method in keys:
            row = by_key[op, n, method]
            model = predicted.crypten(row).online
            equal = (model.rounds, model.sent_and_received) == (row["rounds"], row["bytes"])
            cells.append(f"{row['rounds']}, {row['bytes']:,}{'' if equal else ' (differs)'}")
        table.append(tuple(cells))
    head = ("n", *(f"{op}, {method}".replace("_", " ") for op, method in keys))
    note = (
        "Two rows of n numbers: rounds, bytes. A cell that the cost model does not give exactly "
        "would say so."
    )
    return _table(head, table, 0, note)


def _model(row: Row) -> str:
    sizes = row["attributes"]
    name = "CIFAR" if sizes["width"] == 256 else "Tiny-ImageNet"
    layers = f"{sizes['layers']} layer{'s' if sizes['layers'] > 1 else ''}"
    affine = ", norms with weights" if sizes.get("affine") else ""
    return f"{name}, {layers}{affine} | {sizes['softmax']} | {sizes['gelu']}"


def _crypten_models(rows: list[Row]) -> list[str]:
    table = []
    for row in rows:
        model = predicted.crypten(row).online
        table.append(
            (
                _model(row),
                f"{row['rounds']:,}",
                _same(row["rounds"], model.rounds),
                f"{row['bytes']:,}",
                _same(row["bytes"], model.sent_and_received),
                f"{row['seconds']:.1f}",
            )
        )
    head = ("encoder", "attention", "activation", "rounds", "model", "bytes", "model", "s")
    return _table(head, table, 3)


def _three(sets: dict[str, list[Row]]) -> list[str]:
    def listed(value: object) -> str:
        parts = value if isinstance(value, list) else [value]
        return ", ".join(f"{part:,}" for part in parts)

    table = [
        (_what(row), protocol, listed(row["rounds"]), listed(row["bytes"]))
        for protocol in ("beaver", "replicated")
        for row in sets[f"three parties, {protocol}"]
    ]
    note = "Recorded only: the cost model has CrypTen for two parties. Several numbers: by rank."
    return _table(("operator", "shapes", "protocol", "rounds", "bytes"), table, 3, note)


def _spu(models: bool) -> list[str]:
    sets = record("spu")["sets"]
    found = ["", "## SPU, SEMI2K", ""]
    found += _one_by_one(sets["semi2k"], "semi2k", lambda row: row["sent"][0])
    found += ["", "### Whole models", ""]
    table = []
    for row in sets["semi2k models"] if models else []:
        model = _spu_model(row)
        table.append(
            (
                _model(row),
                "row" if row["attributes"].get("rewrite") else "element",
                f"{row['sends'][0]:,}",
                _same(row["sends"][0], model.rounds),
                f"{row['sent'][0]:,}",
                _same(row["sent"][0], model.bytes_sent),
                f"{row['seconds']:.1f}",
            )
        )
    head = ("encoder", "attention", "activation", "division by", "sends", "model")
    found += _table((*head, "sent bytes", "model", "s"), table, 4)
    found += [
        "",
        "## SPU, ABY3",
        "",
        "Bytes are the sum of three parties, sends the most of one.",
        "",
    ]
    found += _one_by_one(sets["aby3"], "aby3", lambda row: sum(row["sent"]))
    found += ["", "## SPU, CHEETAH", ""]
    return [*found, *_cheetah([row for row in sets["cheetah"] if models or row["op"] != "vit"])]


def _spu_model(row: Row) -> Traffic:
    model = predicted.spu(row, "semi2k")
    assert model is not None
    return model.online


def _one_by_one(rows: list[Row], protocol: str, sent: Callable[[Row], int]) -> list[str]:
    table = []
    for row in rows:
        model = predicted.spu(row, protocol)
        parties = len(row["sent"]) if protocol == "aby3" else 1
        rounds, size = max(row["sends"]), sent(row)
        if model is None:
            table.append((_what(row), f"{rounds}", "none", f"{size:,}", "none"))
            continue
        online = model.online
        near = abs(parties * online.bytes_sent - size) < parties
        table.append(
            (
                _what(row),
                f"{rounds}",
                _same(rounds, online.rounds),
                f"{size:,}",
                "equal" if near else _same(size, parties * online.bytes_sent),
            )
        )
    return _table(("operator", "shapes", "sends", "model", "sent bytes", "model"), table, 2)


def _cheetah(rows: list[Row]) -> list[str]:
    table = []
    for row in rows:
        model = predicted.spu(row, "cheetah")
        whole = row["op"] == "vit"
        cells = [f"{_model(row).replace(' | ', ', ')} | one image" if whole else _what(row)]
        for name, way in (("sent", "bytes_sent"), ("received", "bytes_received")):
            said = "none" if model is None else _same(row[name][0], getattr(model.online, way))
            cells += [f"{row[name][0]:,}", said]
        table.append((*cells, f"{row['sends'][0]:,}", f"{row['seconds']:.1f}"))
    note = "Measured with its set-up, which the model has apart and which is not in its columns."
    head = ("operator", "shapes", "sent", "model", "received", "model", "sends", "s")
    return _table(head, table, 2, note)


def main() -> None:
    """Writes the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, *MARKS, lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
