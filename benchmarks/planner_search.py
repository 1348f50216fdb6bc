"""How long the planner takes to compare everything: one core, nothing remembered from a plan before.

Serving: an example of three kinds, from a catalogue of at least 1,500 machine types in regions; each is sized in every
market, and chosen again for each requirement that is let go and each input that could flip the choice. Training: the
search over layouts of a 7B model on every accelerator and number of machines, at least 50,000 of them. Times are
processor seconds of this process, the median of some plans, each in a process of its own.

Run: ``python benchmarks/planner_search.py [rounds]``; about 40 seconds with the three rounds that are usual.
"""

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: one core is the question

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.plan.conftest import PROBE

from bedplate.app import described
from bedplate.plan import catalogue, choose, generation, images, layouts, requirements, training
from bedplate.plan.accelerators import Accelerator
from bedplate.plan.types import DataFacts, LanguageTrainingSize, TableFacts
from bedplate.usecase import load

EXAMPLES = Path(__file__).parent.parent / "examples"
ROWS, SERVING = 1_500, 1.0
LAYOUTS, TRAINING = 50_000, 5.0


class Took(NamedTuple):
    """One plan: processor seconds, machine types in regions, options that were sized, and layouts that were judged."""

    seconds: float
    rows: int
    options: int
    layouts: int


def wide() -> catalogue.Catalogue:
    """The shipped catalogue, with as many more regions like its own as make ``ROWS`` machine types in regions."""
    found = catalogue.load()
    more = tuple(
        msgspec.structs.replace(row, region=f"{row.region}-{i}", price_hour=row.price_hour * (1 + i / 100))
        for i in range(1, 1 + -(-ROWS // len(found.instances)))
        for row in found.instances
    )
    return msgspec.structs.replace(found, instances=(*found.instances, *more)[: max(ROWS, len(found.instances))])


def once(name: str) -> Took:
    """Plan one example in this process, which has planned nothing yet."""
    loaded = load(EXAMPLES / name, check_files=False)
    tables = {data: TableFacts(rows=1_469_307, size=24 << 20) for data in loaded.use_case.data}
    needs = requirements.derive(loaded, DataFacts(tables=tables, model=described.model(loaded)))
    known = wide()
    for model in (training, generation, images):
        model.calibrated()
    judged, every = 0, layouts.candidates

    def counted(size: LanguageTrainingSize, device: Accelerator, devices: int) -> Iterator[training.Training]:
        nonlocal judged
        for layout in every(size, device, devices):
            judged += 1
            yield layout

    layouts.candidates = counted
    started = time.process_time()
    plan = choose.plan(needs, known, PROBE)
    return Took(time.process_time() - started, len(known.instances), len(plan.options), judged)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| plan of | machine types in regions | options | layouts | seconds | bound |")
    print("|---|---|---|---|---|---|")
    missed = False
    for name in ("retail", "llm-chat", "chest-xray", "llm-pretraining"):
        took = []
        for _ in range(rounds):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                took.append(pool.apply(once, (name,)))
        seconds, last = statistics.median(each.seconds for each in took), took[-1]
        trains = last.layouts > 0
        bound = TRAINING if trains else SERVING
        enough = last.rows >= ROWS and (not trains or last.layouts >= LAYOUTS)
        missed |= seconds >= bound or not enough
        verdict = "met" if seconds < bound and enough else "missed"
        judged = f"{last.layouts:,}" if trains else ""
        print(f"| {name} | {last.rows:,} | {last.options} | {judged} | {seconds:.2f} | {bound:g}: {verdict} |")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
