"""The composition root: one owner's view of a home, every port opened once and handed to whoever needs it."""

import contextlib
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from bedplate import blobs, clock, store
from bedplate.app import home as homes
from bedplate.app import policies, rights, workspaces
from bedplate.identity import Identity
from bedplate.ledger import Ledger
from bedplate.policy.policies import InForce
from bedplate.settings import Home, Settings
from bedplate.workflow.owner import Owner

if TYPE_CHECKING:
    from bedplate.compute.sandbox import Declared
    from bedplate.data.tables import Tables
    from bedplate.online import Online
    from bedplate.serve.supervisor import Supervisor
    from bedplate.workflow.engine import Engine


class System:
    """Everything that runs on one home. Only its owner process holds one; ``close`` gives the home back.

    What costs an import or a file handle that not every command needs is opened on first use.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self._exit = contextlib.ExitStack()
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.described: dict[str, tuple[Declared, ...]] = {}
        """What each version of a ``pipeline.py`` declares, by its digest."""
        try:
            opened = homes.create_or_open(self.home)
            self._exit.enter_context(Owner(self.home))
            self.store = store.open(settings.database or self.home.database)
            self._exit.callback(self.store.close)
            self.ledger = Ledger(self.store, self.home.ledger, opened.ledger_key)
            self._exit.callback(self.ledger.close)
            self.policies = InForce(policies.load(self.store))
            self.governing = threading.Lock()
            """Held while rights change."""
            self.changing_policies = threading.Lock()
            """Held while a new set of policies is put together, which takes longer."""
            self.identity = Identity(self.store, self.home.keys, self.ledger, lambda: rights.changing(self))
            self.workspaces = workspaces.Known(self.store)
        except BaseException:
            self._exit.close()
            raise
        self.serving = False
        """Whether this owner keeps endpoints up, as ``bedplate up`` does; a run starts only what it must measure."""
        self.opened = opened
        self.token = self.identity.administrator_key()
        """The local administrator's key: made at the first start, used by the CLI and by our own load runs."""
        self.started = clock.timestamp()

    def close(self) -> None:
        """Close every port, stop every replica, and give up the home."""
        self._exit.close()

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def lock(self, name: str) -> threading.Lock:
        """The lock under which one use case changes."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    @cached_property
    def engine(self) -> "Engine":
        """Drives durable steps."""
        from bedplate.workflow.engine import Engine  # DBOS takes a second to load: not for every command

        engine = Engine(self.settings.database or self.home.workflow)
        self._exit.callback(engine.close)
        engine.open()
        return engine

    @cached_property
    def blobs(self) -> "blobs.Blobs":
        """Artifacts by digest."""
        return blobs.open(self.settings.storage or self.home.blobs, spool=self.home.run / "spool")

    @cached_property
    def tables(self) -> "Tables":
        """Delta tables."""
        from bedplate.data.tables import Tables  # Delta and Arrow: not for every command

        return Tables(f"{self.settings.storage}/tables" if self.settings.storage else self.home.tables)

    @cached_property
    def online(self) -> "Online":
        """Online features."""
        from bedplate import online

        opened = online.open(self.home.online)
        self._exit.callback(opened.close)
        return opened

    @cached_property
    def supervisor(self) -> "Supervisor":
        """Replicas of endpoints; they end with the owner."""
        from bedplate.serve.supervisor import Supervisor

        supervisor = Supervisor(self.home)
        self._exit.callback(supervisor.close)
        return supervisor
