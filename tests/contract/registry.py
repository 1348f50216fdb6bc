"""A registry on a store, for the suites that look at it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.policy.policies import Policies
from bedplate.release.environments import ALIASES
from bedplate.release.foreign import Findings
from bedplate.release.moves import Moved, Moves
from bedplate.release.registry import NewVersion, Registry
from bedplate.store import Store, Transaction

KEY = new_key("bedplate/test")


def person(name: str, *groups: str, kind: str = "user") -> Principal:
    """Somebody who signed in."""
    return Principal(id=f"prn_{name}", kind=kind, name=name, groups=groups, auth="key", credential="key_1")  # type: ignore[arg-type]


ANA, BO = person("ana", "engineers"), person("bo", "engineers")


class Tracked:
    """What tracking knows: where the artifacts of runs and of logged models lie."""

    def __init__(self) -> None:
        self.runs: dict[str, str] = {}
        self.models: dict[str, tuple[str, str | None]] = {}
        self.contents: dict[str, Digest] = {}

    def run(self, tx: Transaction, workspace: str, run: str) -> str | None:
        """Where the artifacts of a run lie."""
        return self.runs.get(run)

    def content(self, tx: Transaction, workspace: str, folder: str) -> Digest | None:
        """The digest of all files in a folder."""
        return self.contents.get(folder)

    def logged_model(self, tx: Transaction, workspace: str, model: str) -> tuple[str, str | None] | None:
        """Where the artifacts of a logged model lie, and its run."""
        return self.models.get(model)


class Home:
    """A registry with its ledger and policies; the store is the test's."""

    def __init__(self, store: Store, folder: Path, aliases: Mapping[str, str] = ALIASES, policy: str = "") -> None:
        self.store = store
        self.ledger = Ledger(store, folder / "ledger", Signer(KEY))
        self.tracked = Tracked()
        self.registry = Registry(self.ledger, self.tracked)
        self.moves = Moves(self.ledger, Policies.load(*([policy] if policy else [])), self.tracked, aliases)

    def close(self) -> None:
        """Stop the ledger's timer."""
        timer = self.ledger._timer
        if timer is not None:
            timer.cancel()

    def model(self, name: str, versions: int = 0, by: Principal = ANA) -> None:
        """A model of this name with versions 1 to ``versions``."""
        with self.store.transaction() as tx:
            self.registry.create_model(tx, by, "default", name, {}, None)
        for _ in range(versions):
            with self.store.transaction() as tx:
                self.registry.create_version(tx, by, "default", name, NewVersion(source="s3://models/a"))

    def logged(self, name: str, seen: Findings | None, by: Principal = ANA, run: str = "r1") -> int:
        """A version of a model whose files lie with the artifacts of a run; ``seen`` is what is in them."""
        folder = f"mlflow-artifacts:/1/{run}/artifacts/model"
        self.tracked.runs[run] = f"mlflow-artifacts:/1/{run}/artifacts"
        if seen is not None:
            self.tracked.contents[folder] = seen.content
        with self.store.transaction() as tx:
            new = NewVersion(source=f"runs:/{run}/model", run=run)
            return self.registry.create_version(tx, by, "default", name, new, seen).number

    def alias(self, name: str, alias: str, number: int, by: Principal = ANA) -> Moved:
        """Point an alias to a version."""
        with self.store.transaction() as tx:
            return self.moves.set_alias(tx, by, "default", name, alias, number)

    def move(
        self,
        name: str,
        number: int,
        stage: str,
        by: Principal = ANA,
        *,
        archive: bool = False,
    ) -> Moved:
        """Move a version to a stage."""
        with self.store.transaction() as tx:
            return self.moves.transition(tx, by, "default", name, number, stage, archive_existing=archive)

    @contextmanager
    def without_triggers(self) -> Iterator[sa.Connection]:
        """What somebody can do who owns the database: a connection in which the history is not guarded."""
        with self.store.transaction() as tx:
            if self.store.postgresql:
                tx._connection.execute(sa.text("ALTER TABLE version_history DISABLE TRIGGER USER"))
            else:
                for name in ("follows", "stays", "as_it_was"):
                    tx._connection.execute(sa.text(f"DROP TRIGGER version_history_{name}"))
            yield tx._connection
