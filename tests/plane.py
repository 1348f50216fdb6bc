"""A real home with the sample's evidence in its store, and its control plane answering on a free port."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bedplate import blobs, store
from bedplate import settings as settings_module
from bedplate.api.server import ControlPlane
from bedplate.app import home as homes
from bedplate.app import workspaces
from bedplate.app.models import ModelRegistry
from bedplate.app.read_models import DecisionReport, Trace
from bedplate.app.site import Site
from bedplate.errors import NotFoundError
from bedplate.identity import Identity, Tickets
from bedplate.ledger import Ledger
from bedplate.policy.policies import InForce, Policies
from bedplate.settings import Home, Settings
from bedplate.tracking.appends import Appends
from bedplate.tracking.artifacts import Artifacts
from bedplate.tracking.contents import Contents
from bedplate.tracking.uploads import Uploads
from tests import sample


class Plane:
    """What a test holds of a running control plane. ``changes`` lists what the owner was asked to carry out."""

    def __init__(self, root: Path, **texts: str) -> None:
        environ = {"BEDPLATE_HOME": str(root), "BEDPLATE_PORT": "0"}
        self.settings: Settings = settings_module.load(environ)
        self.home = Home(self.settings.home)
        opened = homes.create_or_open(self.home)
        self.store = store.open(self.home.database)
        self.ledger = Ledger(self.store, self.home.ledger, opened.ledger_key)
        self.identity = Identity(self.store, self.home.keys, self.ledger)
        self.key = self.identity.administrator_key()
        self.changes: list[tuple[str, dict[str, Any]]] = []
        fill(self, **texts)
        self.contents = Contents(self.store, blobs.open(self.home.blobs))
        self.artifacts = Artifacts(self.store, self.contents)
        system: Any = SimpleNamespace(
            home=self.home,
            store=self.store,
            settings=self.settings,
            identity=self.identity,
            ledger=self.ledger,
            policies=InForce(Policies.load()),
            appends=Appends(self.store, self.ledger),
            workspaces=workspaces.Known(self.store),
            tickets=Tickets(self.store, self.home.keys),
            contents=self.contents,
            artifacts=self.artifacts,
            uploads=Uploads(self.store, self.contents, self.artifacts),
        )
        system.models = ModelRegistry(system)
        self.site = Site(system, self.carry_out, lambda: {sample.NAME: sample.endpoint()})
        self.server = ControlPlane(self.site)
        self.address = self.server.address

    def carry_out(self, operation: str, arguments: dict[str, Any], token: str, emit: Any) -> Any:
        """What the owner would do: here it is written down, after the same authentication."""
        principal = self.identity.authenticate(token)
        if operation == "trace":
            if arguments["prediction_id"] != sample.PREDICTION:
                raise NotFoundError("no prediction of this id", fix="check the id")
            return sample.trace()
        self.changes.append((operation, arguments))
        return DecisionReport(
            use_case=arguments.get("use_case", ""),
            action="approve",
            subject="version 3",
            by=principal.name,
            reason=arguments.get("reason", ""),
            ledger_index=7,
        )

    def link(self) -> str:
        """A login link of the administrator."""
        principal = self.identity.authenticate(self.key)
        return f"{self.address}/login/{self.identity.create_link(principal.id, actor=principal.id)}"

    def close(self) -> None:
        """Stop, and give everything back."""
        self.server.stop()
        self.ledger.close()
        self.store.close()


def fill(plane: Plane, *, statement: str = "", reason: str = "") -> None:
    """Put the sample's evidence into the store, with texts of a hostile author where a test gives them."""
    import msgspec

    evidence = sample.evidence()
    assert evidence.objective is not None
    objective = msgspec.structs.replace(
        evidence.objective.body, statement=statement or evidence.objective.body.statement
    )
    waiting = msgspec.structs.replace(sample.WAITING, reason=reason or sample.WAITING.reason)
    with plane.store.transaction() as tx:
        root = tx.facts.put("objective", sample.NAME, objective)
        tx.use_cases.put(
            sample.NAME,
            folder="/srv/retail",
            file="usecase.yaml",
            file_digest=objective.file_digest,
            objective=root.digest,
        )
        last = root.digest
        for item in evidence.datasets:
            last = tx.facts.put("dataset", sample.NAME, item.body, (root.digest,)).digest
        for kind in ("features", "training", "gates", "bundle", "approval"):
            stamped = getattr(evidence, kind)
            last = tx.facts.put(kind, sample.NAME, stamped.body, (last,)).digest
        tx.facts.put("approval", sample.NAME, waiting, (last,))
        for kind in ("endpoint", "observation", "retrain"):
            last = tx.facts.put(kind, sample.NAME, getattr(evidence, kind).body, (last,)).digest
        tx.endpoints.put(
            sample.NAME, use_case=sample.NAME, bundle=sample.BUNDLE.digest, spec={"url": sample.ENDPOINT.url}
        )
        tx.stages.finish(sample.NAME, "check", sample.digest("i"), {"usecase.yaml": "x"}, root.digest, 0.1)
        plane.ledger.record(
            tx, actor="administrator", action="flow.check", resource=f"use_case/{sample.NAME}", payload={"a": 1}
        )


@contextmanager
def running(root: Path, **texts: str) -> Iterator[Plane]:
    """A control plane for the length of a test."""
    plane = Plane(root, **texts)
    try:
        yield plane
    finally:
        plane.close()


__all__ = ["Plane", "Trace", "running"]
