"""What an owner finds when it begins."""

from pathlib import Path

from bedplate import settings
from bedplate.app.system import System


def loaded(root: Path) -> settings.Settings:
    """The settings of a home there."""
    return settings.load({"BEDPLATE_HOME": str(root / "home"), "BEDPLATE_PORT": "0"})


def test_runs_that_an_owner_did_not_live_to_end_are_interrupted(tmp_path: Path) -> None:
    """Nobody can be running them: the home has one owner, and that is the one who begins now."""
    with System(loaded(tmp_path)) as system, system.store.transaction() as tx:
        left = tx.executions.start("shop", "ana").id
        ended = tx.executions.start("shop", "ana").id
        tx.executions.end(ended, "succeeded")

    with System(loaded(tmp_path)) as system, system.store.read() as tx:
        assert system.lease is None  # the file lock is all there is
        assert tx.executions.running() == []
        assert (tx.executions.get(left).state, tx.executions.get(left).message) == ("stopped", "interrupted")
        assert tx.executions.get(ended).state == "succeeded"
