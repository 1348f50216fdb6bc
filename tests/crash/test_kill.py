"""Kill -9 at every boundary between stages and at random moments inside them: what it ends in is as if undisturbed."""

import contextlib
import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from bedplate import settings, store
from bedplate.app.operations import Bedplate
from bedplate.app.read_models import STAGES
from bedplate.data.tables import Tables
from bedplate.records import Bundle, Endpoint, Observation, TrainResult
from tests import retail

pytestmark = pytest.mark.slow

PREDICTIONS = f"{retail.NAME}/predictions"
PATIENCE = 200.0


class Kill(NamedTuple):
    """When to kill: ``share`` of a stage's usual time after it began; at its end where ``share`` is None."""

    stage: str
    share: float | None


class Sweep(NamedTuple):
    """What a sweep did."""

    kills: int
    resumes: int
    seconds: float


def follow(process) -> "queue.Queue[tuple[float, str, bool] | None]":
    """Each stage that a run says is done: when, which, and whether it was just skipped. None at the end."""
    lines: queue.Queue[tuple[float, str, bool] | None] = queue.Queue()

    def read() -> None:
        with process.stdout as out:
            for line in out:
                place, _, rest = line.partition("]")
                if not place.startswith("[") or "/13" not in place:
                    continue
                stage, text = rest.split(maxsplit=1)
                skipped = text.startswith("unchanged: ")
                if skipped or text.rstrip().endswith(" s"):
                    lines.put((time.monotonic(), stage, skipped))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def ended(process) -> tuple[int, str]:
    """Wait for the end; the exit code and what it said on stderr."""
    with process.stderr as err:
        said = err.read()
    return process.wait(), said


def went_well(process) -> None:
    """It ended by itself, with exit code 0."""
    code, said = ended(process)
    assert code == 0, said


def kill_group(process) -> None:
    """Kill -9 the command and what shares its group, and nothing else."""
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)


def usual(home: Path, sample: Path) -> dict[str, float]:
    """Run undisturbed; how long each stage took, with what came before it since the last one."""
    process = retail.start(home, "run", str(sample))
    took, last = {}, time.monotonic()
    lines = follow(process)
    while (line := lines.get(timeout=PATIENCE)) is not None:
        took[line[1]] = line[0] - last
        last = line[0]
    went_well(process)
    assert list(took) == list(STAGES)
    return took


def run_until(home: Path, sample: Path, kill: Kill, took: dict[str, float]) -> bool:
    """Run, and kill at that moment. False: it ended before."""
    began = time.monotonic()
    process = retail.start(home, "run", str(sample))
    lines = follow(process)
    before = STAGES[STAGES.index(kill.stage) - 1] if kill.stage != STAGES[0] else None
    wanted = kill.stage if kill.share is None else before
    if wanted is not None:
        while (line := lines.get(timeout=PATIENCE)) is not None and line[1] != wanted:
            pass
        if line is None:
            went_well(process)
            return False
        began = line[0]
    if kill.share is not None:
        time.sleep(max(0.0, began + kill.share * took[kill.stage] - time.monotonic()))
    if process.poll() is not None:
        went_well(process)
        return False
    kill_group(process)
    return True


def sweep(home: Path, sample: Path, kills: list[Kill], took: dict[str, float]) -> Sweep:
    """Kill at each of these moments in turn, resuming each time, and let the last run end."""
    started = time.monotonic()
    done = runs = 0
    for kill in kills:
        runs += 1
        done += run_until(home, sample, kill, took)
    last = retail.command(home, "run", str(sample))
    assert last.returncode == 0, last.stderr
    return Sweep(done, runs, time.monotonic() - started)


# ------------------------------------------------------------------------------------------------- what it ends in


def processes_of(home: Path) -> list[str]:
    """Commands that are still at work on a home."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words, around = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"BEDPLATE_HOME={home}\0".encode() in around or str(home).encode() in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def no_process(home: Path) -> None:
    """Nothing is left at work within a moment: what lost its owner ends by itself."""
    deadline = time.monotonic() + 10
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def tables_of(home: settings.Home) -> dict[str, tuple[int, str]]:
    """Rows and content digest of every table but the predictions', after what killed writes left was collected."""
    tables = Tables(home.tables)
    found = {}
    for name in tables.names():
        tables.collect(name)
        scrub = tables.verify(name)
        assert scrub.sound, scrub
        version = tables.current(name)
        assert scrub.files == len({f.path for n in range(version.version + 1) for f in versions(tables, name, n)})
        if name != PREDICTIONS:
            found[name] = (version.rows, str(version.digest))
    return found


def versions(tables: Tables, name: str, number: int) -> Any:
    """The files of one version."""
    return tables.files(tables.version(name, number))


def replayed(home: settings.Home) -> Counter[tuple[str, str]]:
    """How often each replayed request was answered, by household and the values it was answered from."""
    tables = Tables(home.tables)
    columns = ["id", "request_id", "entity", "features", "outputs"]
    rows = tables.scan(tables.current(PREDICTIONS), columns).read_all().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows), "a prediction was shipped twice"
    asked = [row for row in rows if row["request_id"]]
    assert len({row["request_id"] for row in asked}) == len(asked), "a replayed request was logged twice"
    return Counter((row["entity"], row["features"] + row["outputs"]) for row in asked)


def ledger_of(opened: store.Store) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every entry of the ledger with its payload."""
    with opened.read() as tx:
        size = tx.ledger.head()[0]
        found = []
        for row in tx.ledger.entries(0, size):
            kept = tx.ledger.payload(row.position)
            found.append((msgspec.json.decode(row.entry), msgspec.json.decode(kept[1]) if kept else {}))
        return found


def facts_of(opened: store.Store) -> dict[str, Any]:
    """What the stages found that does not depend on the clock."""
    with opened.read() as tx:

        def body(kind: str, type: Any) -> Any:
            latest = tx.facts.latest(retail.NAME, kind)
            assert latest is not None, kind
            return msgspec.convert(latest.body, type)

        training, observation = body("training", TrainResult), body("observation", Observation)
        bundle, endpoint = body("bundle", Bundle), body("endpoint", Endpoint)
        return {
            "metrics": training.metrics,
            "comparisons": training.comparisons,
            "artifacts": training.artifacts,
            "version": bundle.version,
            "failed": endpoint.load.failed,
            "revision": endpoint.revision,
            "predictions": observation.predictions,
            "matched": observation.matched,
            "drift": [(finding.feature, finding.alarm) for finding in observation.drift],
            "kinds": Counter(
                {
                    kind: len(tx.facts.list(retail.NAME, kind))
                    for kind in ("dataset", "training", "gates", "observation")
                }
            ),
            "waivers": len(list(tx.waivers.list(retail.NAME))),
            "principals": len(list(tx.principals.list())),
            "running": len(list(tx.executions.running())),
        }


def each_stage_once(entries: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """One ledger entry for each finished stage, one for each shipped segment, one for each waiver and key."""
    flow = Counter(entry["action"] for entry, _ in entries if entry["action"].startswith("flow."))
    assert flow == Counter(f"flow.{stage}" for stage in STAGES)
    shipped = Counter(body["segment"] for entry, body in entries if entry["action"] == "prediction.ship")
    assert set(shipped.values()) == {1}
    waived = Counter(body["gate"] for entry, body in entries if entry["action"] == "gate.waive")
    assert set(waived.values()) == {1}
    assert sum(entry["action"] == "key.create" for entry, _ in entries) == 1


def shipped_rows(entries: list[tuple[dict[str, Any], dict[str, Any]]], home: settings.Home) -> None:
    """The ledger accounts for every row of the prediction table."""
    counted = sum(body["count"] for entry, body in entries if entry["action"] == "prediction.ship")
    assert counted == Tables(home.tables).current(PREDICTIONS).rows


def temporary(home: Path) -> list[str]:
    """Files that only a write under way has."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.suffix in (".tmp", ".partial")]


def compare(killed: Path, undisturbed: Path) -> None:
    """The two homes hold the same, each stage ran once in both, and nothing is left over."""
    ends = []
    for root in (undisturbed, killed):
        no_process(root)
        home = settings.Home(root)
        audit = Bedplate(settings.load({"BEDPLATE_HOME": str(root)})).audit_verify()
        assert audit.verified, audit.problems
        with contextlib.closing(store.open(home.database)) as opened:
            entries = ledger_of(opened)
            each_stage_once(entries)
            shipped_rows(entries, home)
            ends.append((facts_of(opened), tables_of(home), replayed(home)))
        assert not temporary(root)
    (facts, tables, answers), (facts_after, tables_after, answers_after) = ends
    assert tables_after == tables
    assert facts_after == facts
    assert answers_after == answers


def moments(rng: random.Random, stages: tuple[str, ...]) -> list[Kill]:
    """For each stage one kill somewhere inside it, then one right after it said it was done."""
    return [kill for stage in stages for kill in (Kill(stage, rng.random()), Kill(stage, None))]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_every_boundary(sample: Path, tmp_path: Path):
    """Fourteen kills: while the home is made, and right after each stage."""
    took = usual(tmp_path / "undisturbed", sample)
    kills = [Kill("check", 0.4), *(Kill(stage, None) for stage in STAGES)]

    result = sweep(tmp_path / "killed", sample, kills, took)

    print(f"\n{result.kills} kills, {result.resumes} resumes, {result.seconds:.0f} s")
    assert result.kills >= 12
    compare(tmp_path / "killed", tmp_path / "undisturbed")


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [20261124, 7])
def test_killed_anywhere(sample: Path, tmp_path: Path, seed: int):
    """At least thirty kills: while the home is made, inside each stage, and right after it."""
    rng = random.Random(seed)
    took = usual(tmp_path / "undisturbed", sample)
    making = [Kill("check", rng.random()) for _ in range(4)]
    long = ("ingest", "features", "train", "gates", "bundle", "serve", "observe")
    inside = {stage: [Kill(stage, rng.random())] for stage in long}
    kills = [*making, *(kill for stage in STAGES for kill in (*inside.get(stage, ()), *moments(rng, (stage,))))]

    result = sweep(tmp_path / "killed", sample, kills, took)

    print(f"\nseed {seed}: {result.kills} kills, {result.resumes} resumes, {result.seconds:.0f} s")
    assert result.kills >= 30
    compare(tmp_path / "killed", tmp_path / "undisturbed")
