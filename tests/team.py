"""A real owner of a home with its control plane on a free port, and one member of each role with a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx

from bedplate import settings
from bedplate.api.server import ControlPlane
from bedplate.app import owned
from bedplate.app.site import Site
from bedplate.identity import Principal
from tests import plane

ROLES: dict[str, tuple[str, ...]] = {
    "administrator": ("administrators",),
    "engineer": ("engineers",),
    "viewer": ("viewers",),
    "auditor": ("auditors",),
    "caller": ("callers",),
    "nobody": (),
    "disabled": ("administrators",),
}
"""The roles of the matrix, with the groups that make them. Who is disabled was an administrator."""

SEALED = "sealed"
"""A workspace that is there, closed, and names groups that none of the roles is in."""
ABSENT = "absent"
"""A workspace that is not there."""


MARK = "unheard-of"
"""Stands in everything that the closed workspace holds."""
METRIC = {"key": "secret", "value": 0.5, "step": 1}


class Secret(NamedTuple):
    """What lies in the closed workspace: ids of an experiment, a run and a model, and the path of an artifact."""

    experiment: str
    run: str
    model: str
    path: str


class Team:
    """What a test holds: the owner, its address, and keys by role."""

    def __init__(self, root: Path, *, evidence: bool = False, database: str = "", **environ: str) -> None:
        environ = {"BEDPLATE_HOME": str(root), "BEDPLATE_PORT": "0", "BEDPLATE_DATABASE": database, **environ}
        self.home = owned.open_home(settings.load(environ))
        self.system = self.home.system
        if evidence:
            plane.fill(SimpleNamespace(store=self.system.store, ledger=self.system.ledger))  # type: ignore[arg-type]
        self.keys: dict[str, str] = {}
        self.admin = self.system.identity.authenticate(self.system.token)
        for role, groups in ROLES.items():
            self.keys[role] = self.member(f"{role}.one", *groups)
        self.do("disable_user", name="disabled.one")
        self.do("create_workspace", name=SEALED, readers=("insiders",), writers=("owners",))
        self.site = Site(self.system, self.home.carry_out)
        self.server = ControlPlane(self.site)
        self.address = self.server.address
        (self.system.home.run / "address").write_text(self.address)
        self.secret = self._seal()

    def _seal(self) -> Secret:
        """Put something of everything into the closed workspace, each marked by a word that stands nowhere else."""
        tag = {"key": "note", "value": MARK}
        with self.client("administrator", **{"x-mlflow-workspace": SEALED}) as client:

            def post(path: str, **body: Any) -> dict[str, Any]:
                made: dict[str, Any] = client.post(f"/api/2.0/mlflow/{path}", json=body).raise_for_status().json()
                return made

            experiment = post("experiments/create", name="secret", tags=[tag])["experiment_id"]
            run = post("runs/create", experiment_id=experiment, run_name="secret", tags=[tag])["run"]["info"]
            param = {"key": "secret", "value": MARK}
            post("runs/log-batch", run_id=run["run_id"], params=[param], metrics=[{**METRIC, "timestamp": 1}])
            named = post("registered-models/create", name="secret", description=MARK)["registered_model"]["name"]
            model = post("logged-models", experiment_id=experiment, name="secret", tags=[tag])["model"]["info"]
            version = {"name": named, "source": f"runs:/{run['run_id']}/m", "run_id": run["run_id"]}
            post("model-versions/create", **version, description=MARK)
            folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
            path = f"{folder}/secret.txt"
            client.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=MARK.encode()).raise_for_status()
        return Secret(experiment, run["run_id"], model["model_id"], path)

    def sealed_state(self) -> list[Any]:
        """What the closed workspace holds, as its administrator sees it."""
        with self.client("administrator", **{"x-mlflow-workspace": SEALED}) as client:
            return [
                client.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": self.secret.experiment}).json(),
                client.get("/api/2.0/mlflow/runs/get", params={"run_id": self.secret.run}).json(),
                client.get(f"/api/2.0/mlflow/logged-models/{self.secret.model}").json(),
                client.get("/api/2.0/mlflow/registered-models/get", params={"name": "secret"}).json(),
                client.get(f"/api/2.0/mlflow-artifacts/artifacts/{self.secret.path}").text,
            ]

    def member(self, name: str, *groups: str) -> str:
        """Add somebody, and return their key, which is kept under the name as well."""
        self.do("add_user", name=name, groups=groups)
        self.keys[name] = self.do("create_key", name=name).key
        return self.keys[name]

    def do(self, operation: str, *, role: str | None = None, **arguments: Any) -> Any:
        """Carry out an operation of the owner, as the local administrator or as a role."""
        token = self.system.token if role is None else self.keys[role]
        return self.home.carry_out(operation, arguments, token, lambda event: None)

    def who(self, role: str) -> Principal:
        """A role as it comes in."""
        return self.system.identity.authenticate(self.keys[role])

    def client(self, role: str | None, **headers: str) -> httpx.Client:
        """An HTTP client that sends the key of a role, or none."""
        key = {} if role is None else {"authorization": f"Bearer {self.keys[role]}"}
        return httpx.Client(base_url=self.address, headers={**key, **headers}, timeout=60)

    def size(self) -> int:
        """How many entries the ledger has."""
        with self.system.store.read() as tx:
            return tx.ledger.head()[0]

    def entries(self, start: int = 0) -> list[tuple[str, str, str]]:
        """Action, resource and decision of the ledger's entries from ``start`` on, oldest first."""
        size = self.size()
        with self.system.store.read() as tx:
            found = [self.system.ledger.entry(tx, index)[0] for index in range(start, size)]
        return [(entry.action, entry.resource, entry.decision) for entry in found]

    def close(self) -> None:
        """Stop, and give everything back."""
        self.server.stop()
        self.home.close()


@contextmanager
def running(root: Path, *, evidence: bool = False, database: str = "", **environ: str) -> Iterator[Team]:
    """A team for the length of a test. ``environ`` are further settings of its home."""
    team = Team(root, evidence=evidence, database=database, **environ)
    try:
        yield team
    finally:
        team.close()


__all__ = ["ABSENT", "MARK", "ROLES", "SEALED", "Team", "running"]
