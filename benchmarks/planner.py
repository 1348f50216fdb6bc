"""How far the planner's predictions are from published measurements that it was not calibrated with.

Every prediction is made by a calibration that has not seen what it is asked for. Training steps: a tenth of the rows
is left out in turn (source seen), then each publication in turn (unseen). Serving: each accelerator x model is left
out in turn (its generation of accelerators seen), then each generation (unseen). Images: an eighth of the pairs of
model and accelerator in turn, so that the same model was measured elsewhere (anchor); each accelerator in turn, so that
nothing is known of it; then an eighth of the models in turn (no anchor). Only seconds, and what is one over them, are
compared. A cell counts from 20 rows on; smaller ones are shown with their number.

``--kind`` runs one kind; ``--write`` calibrates with every exact row and writes ``facts/efficiencies.csv``.
"""

import argparse
import csv
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bedplate.plan import calibration, generation, images, training

KINDS: dict[str, Any] = {"llm_training": training, "llm_serving": generation, "images": images}
Row = calibration.Measured[Any]


class Split(NamedTuple):
    """One way to leave rows out: the label of what is left out together, the cell that is reported, and the aims."""

    name: str
    apart: Callable[[Row], str]
    cell: Callable[[Row], str]
    aims: dict[str, tuple[float, float | None]]


def part(text: str, parts: int) -> str:
    """One of ``parts`` by content, the same in every run."""
    return str(zlib.crc32(text.encode()) % parts)


def training_cell(row: Row) -> str:
    t = row.workload
    return f"{'MoE' if t.model.experts else 'dense'} {t.precision}"


def image_cell(row: Row) -> str:
    return "training" if row.workload.training else "inference"


def serving_cell(row: Row) -> str:
    return "all"


SPLITS = {
    "llm_training": (
        Split(
            "source seen",
            lambda row: part(repr((row.workload, row.seconds)), 10),
            training_cell,
            {"dense bf16": (8, 20), "dense fp8": (13, 25), "MoE bf16": (25, 45), "MoE fp8": (25, 45)},
        ),
        Split(
            "source unseen",
            lambda row: row.groups["source"],
            training_cell,
            {"dense bf16": (12, 30), "dense fp8": (13, 25), "MoE bf16": (25, 45), "MoE fp8": (25, 45)},
        ),
    ),
    "llm_serving": (
        Split("generation seen", lambda row: row.groups["cell"], serving_cell, {"all": (8, 15)}),
        Split("generation unseen", lambda row: row.workload.accelerator.generation, serving_cell, {"all": (20, 30)}),
    ),
    "images": (
        Split(
            "with an anchor",
            lambda row: part(row.groups["model"] + row.workload.accelerator.name, 8),
            image_cell,
            {"inference": (10, None), "training": (10, None)},
        ),
        Split(
            "with an anchor, accelerator unseen",
            lambda row: row.workload.accelerator.name,
            image_cell,
            {"inference": (10, None), "training": (10, None)},
        ),
        Split(
            "without an anchor",
            lambda row: part(row.groups["model"], 8),
            image_cell,
            {"inference": (20, None), "training": (20, None)},
        ),
    ),
}


def predictions(model: Any, rows: list[Row], apart: Callable[[Row], str]) -> Iterator[tuple[Row, Any]]:
    """Each row with the estimate of a calibration without all rows that are left out together with it."""
    for label in sorted({apart(row) for row in rows}):
        known = calibration.calibrate(model, [row for row in rows if apart(row) != label])
        for row in rows:
            if apart(row) == label:
                yield row, known.estimate(row.workload, row.groups, row.at).seconds


def line(name: str, pairs: list[tuple[Row, Any]], aim: tuple[float, float | None] | None) -> str:
    error = np.array([estimate.value / row.seconds - 1 for row, estimate in pairs])
    inside = np.mean([estimate.low <= row.seconds <= estimate.high for row, estimate in pairs])
    median, high, bias = np.median(abs(error)) * 100, np.quantile(abs(error), 0.9) * 100, np.median(error) * 100
    verdict = ""
    if aim:
        limit = aim[1] if aim[1] is not None else float("inf")
        missed = [
            text
            for text, bad in (
                ("median", median > aim[0]),
                ("p90", high > limit),
                ("bias", abs(bias) > 5),
                ("cover", not 0.86 <= inside <= 0.94),
            )
            if bad
        ]
        shown = f"{aim[0]:.0f} / {aim[1]:.0f}" if aim[1] is not None else f"{aim[0]:.0f}"
        few = "too few to gate" if len(pairs) < 20 else "met" if not missed else "missed: " + ", ".join(missed)
        verdict = f"{shown} | {few}"
    else:
        verdict = "|"
    return f"| {name} | {len(pairs)} | {median:.1f} / {high:.1f} | {bias:+.1f} | {inside * 100:.0f} | {verdict} |"


def report(kind: str) -> None:
    module = KINDS[kind]
    rows = [row for quality, row in module.measured() if quality == "exact"]
    for split in SPLITS[kind]:
        cells = defaultdict(list)
        inner: dict[tuple[str, str], list[tuple[Row, Any]]] = defaultdict(list)
        for row, estimate in predictions(module.MODEL, rows, split.apart):
            cells[split.cell(row)].append((row, estimate))
            label = split.apart(row) if not split.apart(row).isdigit() else ""
            if label:
                inner[split.cell(row), label].append((row, estimate))
        for cell, pairs in cells.items():
            print(line(f"{kind}, {split.name}: {cell}", pairs, split.aims.get(cell)), flush=True)
            for (of, label), some in inner.items():
                if of == cell:
                    print(line(f"… {label}", some, split.aims.get(cell)), flush=True)


def recalled(kind: str) -> None:
    """What nobody could look up again is no measure of anything, but may be looked at: never calibrated with."""
    module = KINDS[kind]
    known = module.calibrated()
    by_source = defaultdict(list)
    for quality, row in module.measured():
        if quality != "exact":
            by_source[row.groups["source"]].append((row, known.estimate(row.workload, row.groups, row.at).seconds))
    for source, pairs in sorted(by_source.items()):
        print(line(f"{kind}, recalled: {source}", pairs, None), flush=True)


def write(kinds: Iterable[str]) -> None:
    target = Path(calibration.__file__).parent / "facts" / "efficiencies.csv"
    old = list(csv.DictReader(target.open(encoding="utf-8"))) if target.exists() else []
    rows = [row for row in old if row["kind"] not in kinds]
    for kind in kinds:
        module = KINDS[kind]
        exact = [row for quality, row in module.measured() if quality == "exact"]
        rows += calibration.facts(kind, calibration.calibrate(module.MODEL, exact))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["kind"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    kinds = given.kind or list(KINDS)
    if given.write:
        write(kinds)
        return 0
    print("| left out | rows | median / p90 error % | bias % | in the 90 % interval, % | aim | |")
    print("|---|---|---|---|---|---|---|")
    for kind in kinds:
        report(kind)
        recalled(kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
