"""The same calls against ``mlflow server`` and against Bedplate give the same replies, but for known differences."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mlflow import environment
from tests.mlflow.compare import Finding, Server, Tidy, findings, play, report, unequal
from tests.mlflow.conftest import Bedplate
from tests.mlflow.corpus import CONVERSATIONS, IN_PARTS, IN_WORKSPACES
from tests.mlflow.differences import DIFFERENCES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Played = Callable[[str], list[Finding]]


ALL = {**CONVERSATIONS, **IN_WORKSPACES, **IN_PARTS}
REFERENCE = {
    **dict.fromkeys(CONVERSATIONS, "reference"),
    **dict.fromkeys(IN_WORKSPACES, "reference_with_workspaces"),
    **dict.fromkeys(IN_PARTS, "reference_on_s3"),
}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, bedplate: Bedplate) -> Iterator[Played]:
    """What differs in a conversation. Each is played once on each of the two servers, at the same time."""
    done: dict[str, list[Finding]] = {}
    with ThreadPoolExecutor(2) as pool:

        def play_once(name: str) -> list[Finding]:
            if name not in done:
                steps, kind = ALL[name], REFERENCE[name]
                servers = (Server(request.getfixturevalue(kind)), Server(bedplate.address, bedplate.headers()))
                theirs, ours = pool.map(lambda server: play(server, steps), servers)
                done[name] = findings(steps, theirs, ours)
            return done[name]

        yield play_once


@pytest.mark.parametrize(
    "name", [*CONVERSATIONS, *(pytest.param(name, marks=pytest.mark.long) for name in (*IN_WORKSPACES, *IN_PARTS))]
)
def test_replies_are_the_same(played: Played, name: str):
    differing = [finding for finding in played(name) if finding.allowed is None]

    assert not differing, f"{len({f.number for f in differing})} of {len(ALL[name])} calls\n{report(differing)}"


@pytest.mark.long
def test_every_difference_in_the_table_is_still_there(played: Played):
    shown = {finding.allowed for name in ALL for finding in played(name)}

    assert {entry.name for entry in DIFFERENCES} - shown == set()


def test_the_stock_client_gives_the_same_entities(reference: str, bedplate: Bedplate, tmp_path: Path):
    def entities(name: str, settings: dict[str, str]) -> list[dict[str, object]]:
        folder = tmp_path / name
        folder.mkdir()
        environment.run("client_round.py", "seen.json", folder=folder, **settings)
        seen: list[dict[str, object]] = Tidy()(json.loads((folder / "seen.json").read_text()))
        return seen

    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(entities, ("theirs", "ours"), ({"MLFLOW_TRACKING_URI": reference}, bedplate.settings()))

    assert [entry["call"] for entry in ours] == [entry["call"] for entry in theirs]
    differing = [
        f"{a['call']}: {field}: MLflow {their!r}, Bedplate {our!r}"
        for a, b in zip(theirs, ours, strict=True)
        for field, their, our in unequal(a, b, "")
    ]
    assert not differing, "\n".join(differing)
