"""The composition root: one owner's view of a home, every port opened once and handed to whoever needs it."""

import contextlib
import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING

from bedplate import blobs, clock, store
from bedplate.app import home as homes
from bedplate.app import policies, rights, workspaces
from bedplate.app.models import ModelRegistry
from bedplate.identity import Identity, Tickets
from bedplate.ledger import Ledger
from bedplate.policy.policies import InForce
from bedplate.settings import Home, Settings
from bedplate.tracking.appends import Appends
from bedplate.tracking.artifacts import Artifacts
from bedplate.tracking.contents import Contents
from bedplate.tracking.uploads import Uploads
from bedplate.workflow import lease as leases
from bedplate.workflow.owner import Owner

if TYPE_CHECKING:
    from bedplate.app.scorings import Scorings
    from bedplate.compute.sandbox import Declared
    from bedplate.data.tables import Tables
    from bedplate.observe.spans import Exporter
    from bedplate.online import Online
    from bedplate.serve.supervisor import Supervisor
    from bedplate.workflow.engine import Engine


class System:
    """Everything that runs on one home. Only its owner process holds one; ``close`` gives the home back.

    What costs an import or a file handle that not every command needs is opened on first use. ``lease_seconds`` is how
    long an owner that died keeps others away from a database that several machines share.
    """

    def __init__(self, settings: Settings, *, lease_seconds: float = leases.SECONDS) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self._exit = contextlib.ExitStack()
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.rolling: set[str] = set()
        """Rollouts whose candidate this owner has up: no route leads to one that is not."""
        self.described: dict[str, tuple[Declared, ...]] = {}
        """What each version of a ``pipeline.py`` declares, by its digest."""
        try:
            opened = homes.create_or_open(self.home)
            self._exit.enter_context(Owner(self.home))
            self.store = store.open(settings.database or self.home.database)
            self._exit.callback(self.store.close)
            self.lease = self._take_lease(lease_seconds) if self.store.postgresql else None
            self.ledger = Ledger(self.store, self.home.ledger, opened.ledger_key)
            self._exit.callback(self.ledger.close)
            self.policies = InForce(policies.load(self.store))
            self.governing = threading.Lock()
            """Held while rights change."""
            self.changing_policies = threading.Lock()
            """Held while a new set of policies is put together, which takes longer."""
            self.identity = Identity(self.store, self.home.keys, self.ledger, lambda: rights.changing(self))
            self.workspaces = workspaces.Known(self.store)
            self.tickets = Tickets(self.store, self.home.keys)
            location = settings.storage or self.home.blobs
            place = blobs.open(location, self._storage_options, spool=self.home.run / "spool")
            self.contents = Contents(self.store, place)
            self.artifacts = Artifacts(self.store, self.contents)
            self.uploads = Uploads(self.store, self.contents, self.artifacts)
            self.appends = Appends(self.store, self.ledger)
            self._exit.callback(self.appends.close)
            self._settle()
            self.token = self.identity.administrator_key()
            """The local administrator's key: made at the first start, used by the CLI and by our own load runs."""
        except BaseException:
            self._exit.close()
            raise
        self.serving = False
        """Whether this owner keeps endpoints up, as ``bedplate up`` does; a run starts only what it must measure."""
        self.spans: Exporter | None = None
        """Where the spans of predictions go, if anywhere; set while endpoints are kept up."""
        self.opened = opened
        self.started = clock.timestamp()

    def close(self) -> None:
        """Close every port, stop every replica, and give up the home."""
        self._exit.close()

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check_owner(self) -> None:
        """Raise if it is known that another owner has taken the database over; asks nobody.

        Raises:
            FencedError: so it is.
        """
        if self.lease is not None:
            self.lease.check_lost()

    def _take_lease(self, seconds: float) -> leases.Lease:
        return self._exit.enter_context(leases.Lease(self.store, leases.holder_of(self.home), seconds))

    def _settle(self) -> None:
        """Put right what the owner before left: runs that it did not live to end. What they finished is finished."""
        previous = self.lease.previous if self.lease is not None else None
        with self.store.read() as tx:
            left = tx.executions.running()
        if not left and previous is None:
            return
        with self.store.transaction() as tx:
            for row in left:
                tx.executions.end(row.id, "stopped", "interrupted")
            if previous is not None:
                self.ledger.record(
                    tx,
                    actor="system",
                    action="home.take_over",
                    resource="home",
                    payload={"from": previous, "interrupted": [row.id for row in left]},
                    auth="none",
                )

    def lock(self, name: str) -> threading.Lock:
        """The lock under which one use case changes."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    @cached_property
    def models(self) -> ModelRegistry:
        """The registry."""
        return ModelRegistry(self)

    @cached_property
    def engine(self) -> "Engine":
        """Drives durable steps."""
        from bedplate.workflow.engine import Engine  # DBOS takes a second to load: not for every command

        engine = Engine(self.settings.database or self.home.workflow)
        self._exit.callback(engine.close)
        engine.open()
        return engine

    @cached_property
    def tables(self) -> "Tables":
        """Delta tables."""
        from bedplate.data.tables import Tables  # Delta and Arrow: not for every command

        location = f"{self.settings.storage}/tables" if self.settings.storage else self.home.tables
        return Tables(location, self._storage_options, before_commit=self.store.check_fence)

    @cached_property
    def scorings(self) -> "Scorings":
        """Scorings that go on by themselves."""
        from bedplate.app.scorings import Scorings

        scorings = Scorings(self)
        self._exit.callback(scorings.close)
        return scorings

    @property
    def _storage_options(self) -> dict[str, str]:
        """What object storage is told beside what it reads in ``AWS_``, ``GOOGLE_`` or ``AZURE_`` variables itself."""
        is_s3 = self.settings.storage.startswith("s3://")
        return {"endpoint": self.settings.endpoint} if is_s3 and self.settings.endpoint else {}

    @property
    def online_location(self) -> str:
        """Where online features are: a folder, or the address of a server, which may hold a password."""
        return self.settings.online or str(self.home.online)

    @cached_property
    def online(self) -> "Online":
        """Online features of every use case; :meth:`online_of` gives those of one."""
        from bedplate import online

        opened = online.open(self.online_location)
        self._exit.callback(opened.close)
        return opened

    def online_of(self, use_case: str) -> "Online":
        """Online features of one use case."""
        from bedplate import online

        return online.Scoped(self.online, use_case)

    @cached_property
    def supervisor(self) -> "Supervisor":
        """Replicas of endpoints; they end with the owner."""
        from bedplate.app import endpoints  # imports this module
        from bedplate.serve.supervisor import Supervisor

        supervisor = Supervisor(self.home, self.settings.memory, partial(endpoints.decide, self))
        self._exit.callback(supervisor.close)
        return supervisor
