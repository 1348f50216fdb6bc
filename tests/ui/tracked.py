"""Runs, artifacts and models as clients log them, for the pages of tracking and registry."""

import math
import random
import struct
import zlib
from typing import Any

from bedplate.release.registry import NewVersion
from bedplate.store.datasets import DatasetRow
from bedplate.tracking import experiments, inputs, logged_models, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Linked
from bedplate.tracking.artifacts import folder_of
from bedplate.tracking.validation import Metric, Param, Tag
from tests.plane import Plane

T0 = 1_795_510_800_000
"""24 November 2026, 09:00 UTC."""
MINUTE = 60_000
MLMODEL = b"""flavors:
  sklearn:
    pickled_model: model.pkl
    serialization_format: cloudpickle
  python_function:
    loader_module: mlflow.sklearn
"""


class Tracked:
    """Fills a home through the same functions that the API calls."""

    def __init__(self, plane: Plane, workspace: str = "default") -> None:
        self.plane, self.workspace = plane, workspace
        self.principal = plane.identity.authenticate(plane.key)
        self.actor = Actor(ledger=plane.ledger, name=self.principal.id)

    def experiment(self, name: str, **tags: str) -> int:
        """Make an experiment."""
        with self.plane.store.transaction() as tx:
            made = experiments.create(
                tx, self.workspace, name, by=self.actor, tags=[Tag(key, value) for key, value in tags.items()]
            )
        return made.id

    def run(
        self,
        experiment: int,
        name: str,
        *,
        started: int = T0,
        minutes: float | None = 4,
        status: str = "FINISHED",
        params: dict[str, str] | None = None,
        metrics: dict[str, list[float]] | None = None,
        tags: dict[str, str] | None = None,
        every: int = 1000,
    ) -> str:
        """Log a run; with no ``minutes`` it is still going. ``metrics`` are values at steps 0, 1, 2 and on."""
        store, by = self.plane.store, self.actor
        given = {"mlflow.user": "ana", "mlflow.source.name": "/srv/train/fit.py", **(tags or {})}
        with store.transaction() as tx:
            page = runs.create(
                tx, self.workspace, str(experiment), by=by, name=name, started=started,
                tags=[Tag(key, value) for key, value in given.items()],
            )  # fmt: skip
            identifier = page.runs[0].id
            self._append(tx, identifier, started, params or {}, metrics or {}, every)
            if minutes is not None:
                ended = started + int(minutes * MINUTE)
                runs.update(tx, self.workspace, identifier, by=by, status=status, ended=ended)  # type: ignore[arg-type]
        return identifier

    def log(self, run: str, at: int, **metrics: list[float]) -> None:
        """Log more values."""
        with self.plane.store.transaction() as tx:
            self._append(tx, run, at, {}, metrics, 1000)

    def end(self, run: str, ended: int) -> None:
        """End a run."""
        with self.plane.store.transaction() as tx:
            runs.update(tx, self.workspace, run, by=self.actor, status="FINISHED", ended=ended)

    def _append(
        self, tx: Any, run: str, at: int, params: dict[str, str], metrics: dict[str, list[float]], every: int
    ) -> None:
        item = Appended(
            self.workspace,
            run,
            self.principal.id,
            metrics=[
                Metric(key, value, at + step * every, step)
                for key, values in metrics.items()
                for step, value in enumerate(values)
            ],
            params=[Param(key, value) for key, value in params.items()],
        )
        (error,) = self.plane.site.appends.write(tx, [item])
        assert error is None, error

    def read(self, run: str, name: str, context: str = "training") -> None:
        """Say that a run read a dataset."""
        row = DatasetRow(name=name, digest="a1b2c3d4", source_type="local", source='{"uri": "/srv/data/x.parquet"}')
        links = inputs.links(datasets=[inputs.dataset(row, [Tag("mlflow.data.context", context)])])
        with self.plane.store.transaction() as tx:
            self.plane.site.appends.write_links(tx, Linked(self.workspace, run, self.principal.id, links))

    def logged_model(self, experiment: int, run: str, name: str) -> str:
        """Log a model as the output of a run."""
        with self.plane.store.transaction() as tx:
            page = logged_models.create(
                tx, self.workspace, str(experiment), by=self.actor, name=name, model_type="classifier", source_run=run
            )
            model = page.models[0].id
            links = inputs.links(outputs=[(model, 3)])
            self.plane.site.appends.write_links(tx, Linked(self.workspace, run, self.principal.id, links))
        return model

    def put(self, run: str, path: str, data: bytes) -> None:
        """Log a file of a run or of a logged model."""
        with self.plane.store.read() as tx:
            if run.startswith("m-"):
                root = folder_of(logged_models.find(tx, self.workspace, run).artifact_location)
            else:
                root = folder_of(tx.runs.get(self.workspace, run).artifact_uri)
        incoming = self.plane.site.artifacts.receive()
        try:
            incoming.write(data)
            self.plane.site.artifacts.put(self.workspace, f"{root}/{path}", incoming, by=self.actor)
        finally:
            incoming.discard()

    def model(self, name: str, description: str = "", **tags: str) -> None:
        """Register a model."""
        registry = self.plane.site.models
        registry.write(
            lambda tx: registry.rules.create_model(tx, self.principal, self.workspace, name, tags, description)
        )

    def version(self, name: str, run: str, path: str = "model", description: str = "") -> int:
        """Register what a run logged as a version."""
        new = NewVersion(source=f"runs:/{run}/{path}", run=run, description=description)
        return self.plane.site.models.create_version(self.principal, self.workspace, name, new).row.number


def png(width: int = 320, height: int = 200) -> bytes:
    """A small picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (30 + x * 180 // width, 90 + y * 120 // height, 170))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def descent(seed: int, points: int, start: float, end: float) -> list[float]:
    """A curve that falls, with noise."""
    noise = random.Random(seed)
    return [
        end + (start - end) * math.exp(-4 * i / points) + noise.gauss(0, 0.02) * (start - end) for i in range(points)
    ]


def fill(plane: Plane) -> dict[str, Any]:
    """A home as a team leaves it after some days."""
    home = Tracked(plane)
    churn = home.experiment("churn", team="growth", **{"mlflow.note.content": "Who will leave within 30 days."})
    home.experiment("a-name-that-was-made-by-a-program-and-goes-on-and-on-without-an-end-in-sight-" + "x" * 60)
    made = []
    choices = random.Random(3)
    for number in range(64):
        learning_rate = choices.choice(("0.001", "0.003", "0.01", "0.03"))
        end = 0.2 + 0.3 * choices.random()
        status = choices.choices(("FINISHED", "FAILED", "KILLED"), (90, 6, 4))[0]
        made.append(
            home.run(
                churn,
                "-".join((choices.choice(("calm", "swift", "bold")), choices.choice(("otter", "lynx")), str(number))),
                started=T0 + number * 11 * MINUTE,
                minutes=2 + 20 * choices.random(),
                status=status,
                params={
                    "learning_rate": learning_rate,
                    "depth": str(choices.randrange(3, 12)),
                    "optimizer": choices.choice(("adam", "sgd")),
                    "features": "recency, frequency, spend, discount_share, tickets",
                },
                metrics={
                    "train/loss": descent(number, 60, 0.9, end),
                    "val/loss": descent(number + 1000, 60, 0.95, end + 0.05),
                    "auc": [1 - end],
                },
                tags={"mlflow.source.git.commit": "8c1d2e3f4a5b6c7d8e9f8c1d2e3f4a5b6c7d8e9f", "team": "growth"},
            )
        )
    best = made[-1]
    home.read(best, "transactions")
    forest = home.logged_model(churn, best, "forest")
    home.put(forest, "MLmodel", MLMODEL)
    long = descent(5, 5000, 1.0, 0.1)
    long[2400:2600] = [math.nan] * 200
    rich = home.run(
        churn, "rich-run", started=T0 + 900 * MINUTE, minutes=95,
        params={"learning_rate": "0.003", "note": "word " * 200},
        metrics={
            "train/loss": long, "train/accuracy": [1 - v for v in long[:400]], "val/loss": descent(8, 400, 1.1, 0.2),
            "grad_norm": [10 ** (-i / 80) for i in range(400)], "epoch": [float(i) for i in range(40)],
            "system/cpu_utilization_percentage": [20 + i % 60 for i in range(100)],
            "system/system_memory_usage_megabytes": [1200 + 3 * i for i in range(100)],
        },
        tags={"mlflow.note.content": "The long one, with everything that a run can have.", "reviewed": "yes"},
    )  # fmt: skip
    home.put(rich, "model/MLmodel", MLMODEL)
    home.put(rich, "model/model.pkl", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07forest!\x94.")
    home.put(rich, "model/requirements.txt", b"scikit-learn==1.6\n")
    home.put(rich, "plots/confusion.png", png())
    home.put(rich, "report.json", b'{"auc": 0.81, "slices": {"new": 0.77, "old": 0.84}}')
    home.put(rich, "predictions.csv", b"customer,score\n" + b"".join(b"%d,0.%04d\n" % (i, i * 7) for i in range(400)))
    home.put(rich, "notes.md", "# What was tried\n\nDeeper trees; ünïcode.\n".encode())
    home.put(rich, "weights.bin", bytes(range(256)) * 40)
    going = home.run(
        churn, "going-now", started=T0 + 1000 * MINUTE, minutes=None, metrics={"train/loss": descent(9, 30, 1, 0.5)}
    )
    home.model("churn-classifier", "Tells who will leave within 30 days.", team="growth")
    for run in (rich, rich, rich):
        home.version("churn-classifier", run, description="Forest on five features.")
    models = plane.site.models
    models.transition(home.principal, "default", "churn-classifier", 1, "Staging")
    models.set_alias(home.principal, "default", "churn-classifier", "candidate", 1)
    models.set_alias(home.principal, "default", "churn-classifier", "candidate", 2)
    models.transition(home.principal, "default", "churn-classifier", 2, "Staging", archive_existing=True)
    return {"experiment": churn, "runs": made, "best": best, "rich": rich, "going": going, "forest": forest}
