"""Random changes of the registry against a model of it in plain values: what is, and what was at every moment."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bedplate import clock
from bedplate.errors import ConflictError, NotFoundError
from bedplate.release import past
from bedplate.release.registry import NewVersion
from bedplate.store import Store
from tests.contract.registry import ANA, Home
from tests.laws import examples

pytestmark = pytest.mark.slow

ALIASES = st.sampled_from(["blue", "green", "canary"])
STAGES = st.sampled_from(["None", "Staging", "Archived"])
NUMBERS = st.integers(1, 6)
START = datetime(2026, 11, 1, tzinfo=UTC)


class Machine(RuleBasedStateMachine):
    """One model of a home that other machines use as well, under another name."""

    home: Home
    count = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.count += 1
        self.name = f"model-{Machine.count}"
        self.second = 0
        self.names = 0
        self.last = 0
        self.stages: dict[int, str] = {}
        self.aliases: dict[str, int] = {}
        self.was: list[tuple[int, str, dict[int, str], dict[str, int]]] = []

    # --------------------------------------------------------------------------------------------------------- changes

    def _change(self, method: str, *arguments: object, **options: object) -> object:
        """Carry a change out a second after the last one; whatever it raises comes through."""
        self.second += 1
        home = Machine.home
        with clock.frozen(START + timedelta(seconds=self.second)), home.store.transaction() as tx:
            owner = home.moves if hasattr(home.moves, method) else home.registry
            return getattr(owner, method)(tx, ANA, "default", *arguments, **options)

    def _note(self) -> None:
        moment = clock.milliseconds(START + timedelta(seconds=self.second))
        self.was.append((moment, self.name, dict(self.stages), dict(self.aliases)))

    @initialize()
    def begin(self) -> None:
        """There is a model without versions."""
        self._change("create_model", self.name, {}, None)
        self._note()

    @rule()
    def register(self) -> None:
        """A version is added: under the next number that none ever had."""
        self._change("create_version", self.name, NewVersion(source="s3://models/a"))
        self.last += 1
        self.stages[self.last] = "None"
        self._note()

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        """A version goes, and the aliases with it."""
        if number not in self.stages:
            with pytest.raises(NotFoundError):
                self._change("delete_version", self.name, number)
            return
        self._change("delete_version", self.name, number)
        del self.stages[number]
        self.aliases = {alias: to for alias, to in self.aliases.items() if to != number}
        self._note()

    @rule(number=NUMBERS, stage=STAGES, expected=st.none() | STAGES, archive=st.booleans())
    def move(self, number: int, stage: str, expected: str | None, archive: bool) -> None:
        """A version moves, if it is where the mover believes it to be."""
        archive = archive and stage == "Staging"
        options = {"archive_existing": archive, "expected": expected}
        if number not in self.stages:
            with pytest.raises(NotFoundError):
                self._change("transition", self.name, number, stage, **options)
            return
        if expected is not None and expected != self.stages[number]:
            with pytest.raises(ConflictError):
                self._change("transition", self.name, number, stage, **options)
            return
        self._change("transition", self.name, number, stage, **options)
        if archive:
            self.stages = {n: "Archived" if at == stage else at for n, at in self.stages.items()}
        self.stages[number] = stage
        self._note()

    @rule(alias=ALIASES, number=NUMBERS, known=st.booleans(), believed=st.none() | NUMBERS)
    def point(self, alias: str, number: int, known: bool, believed: int | None) -> None:
        """An alias moves, if it points where the mover believes."""
        options = {"expected": believed} if known else {}
        if number not in self.stages:
            with pytest.raises(NotFoundError):
                self._change("set_alias", self.name, alias, number, **options)
            return
        if known and believed != self.aliases.get(alias):
            with pytest.raises(ConflictError):
                self._change("set_alias", self.name, alias, number, **options)
            return
        self._change("set_alias", self.name, alias, number, **options)
        self.aliases[alias] = number
        self._note()

    @rule(alias=ALIASES)
    def unpoint(self, alias: str) -> None:
        """An alias goes, or was not there."""
        self._change("delete_alias", self.name, alias)
        self.aliases.pop(alias, None)
        self._note()

    @precondition(lambda self: self.names < 2)
    @rule()
    def rename(self) -> None:
        """The model gets another name."""
        self.names += 1
        name = f"{self.name}-renamed"
        self._change("rename_model", self.name, name)
        self.name = name
        self._note()

    # ---------------------------------------------------------------------------------------------------------- checks

    @invariant()
    def is_what_it_should_be(self) -> None:
        """Stages and aliases are those of the model in plain values."""
        if not self.was:
            return
        with Machine.home.store.read() as tx:
            assert {row.number: row.stage for row in tx.versions.list(self.name)} == self.stages
            assert tx.models.aliases("default", [self.name])[self.name] == self.aliases

    def teardown(self) -> None:
        """At every moment it was what it was then."""
        with Machine.home.store.read() as tx:
            for moment, name, stages, aliases in self.was:
                for stage in ("None", "Staging", "Archived"):
                    found = past.live(tx, "default", name, moment, "stage", stage)
                    assert list(found.versions) == sorted(n for n, at in stages.items() if at == stage)
                for alias in ("blue", "green", "canary"):
                    found = past.live(tx, "default", name, moment, "alias", alias)
                    assert found.version == aliases.get(alias)


@pytest.mark.hypothesis
def test_the_registry_is_what_it_was_told_and_stays_what_it_was(store: Store, tmp_path: Path) -> None:
    """Compare-and-set on stages and aliases, and the history of both, over random sequences of changes."""
    Machine.home = Home(store, tmp_path)
    run_state_machine_as_test(
        Machine,
        settings=examples(6, stateful_step_count=25, suppress=tuple(HealthCheck)),
    )
    with store.read() as tx:
        assert list(past.verify(tx)) == []
    Machine.home.close()
