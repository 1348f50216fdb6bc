"""A release is let in where several replicas answer: each takes the route, and rolling back reaches them all."""

from collections import Counter
from pathlib import Path

import httpx
import msgspec
import pytest

from bedplate.app import endpoints, pricing, rollouts
from bedplate.app.exports import endpoint as exports
from bedplate.errors import InputError
from bedplate.plan import bought
from bedplate.release.rollout import Step
from bedplate.serve.scaling import Scale
from tests.app.rolling import INFER, NAME, Load, Served
from tests.kubernetes.test_export import check
from tests.plan.test_offers import OWN
from tests.serve.support import eventually, linear

pytestmark = pytest.mark.slow


def test_two_replicas_share_with_a_candidate_are_frozen_and_rolled_back(tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        system = served.system
        with system.store.transaction() as tx:
            row = tx.endpoints.get(NAME)
            two = msgspec.structs.replace(endpoints.spec_of(row), scale=Scale(min=2, max=3))
            tx.endpoints.put(NAME, use_case=NAME, bundle=row.bundle, spec=endpoints.as_row(two))
        endpoints.start(system, two)

        def ready() -> int:
            return next(status.ready for status in system.supervisor.status() if status.name == NAME)

        eventually(lambda: ready() == 2)
        candidate = msgspec.structs.replace(served.release(linear(2.0)), scale=Scale(min=2, max=3))
        served.begin(candidate, Step("split", 0.5, 60.0))

        def answers(count: int) -> Counter[float]:
            """By what each of so many answers on a new connection was multiplied."""
            seen: Counter[float] = Counter()
            body = {"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 1.0, 1.0]}]}
            headers = {"authorization": f"Bearer {system.token}", "connection": "close"}
            with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
                for _ in range(count):
                    answer = http.post(INFER, json=body)
                    answer.raise_for_status()
                    seen[answer.json()["outputs"][0]["data"][0]] += 1
            return seen

        eventually(lambda: answers(5)[2.0])
        seen = answers(200)
        assert seen[1.0] + seen[2.0] == 200
        assert 50 < seen[2.0] < 150
        eventually(lambda: served.state().steps[0].candidate >= seen[2.0])
        tallies = list((system.home.run / "rollouts").glob("*/0-*.json"))
        assert len(tallies) == 2  # each replica counts, and both are summed up

        asked = {"form": "deployment", "image": "", "namespace": "shop", "gateway": "public", "hosts": ()}
        made = exports.kubernetes(system, served.who, NAME, **asked).objects  # type: ignore[arg-type]
        for item in made:
            check(item)
        (route,) = (item for item in made if item["kind"] == "HTTPRoute")
        assert [ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]] == [500, 500]
        with pytest.raises(InputError, match="namespace"):
            exports.kubernetes(system, served.who, NAME, **(asked | {"namespace": "no_label"}))  # type: ignore[arg-type]

        # A cluster of one's own is a place to run in as well, once it was imported.
        assert "eu" not in exports.regions(system, ("eu",))
        rows, reports = bought.read(OWN, "own.csv", "own", None, "2026-10-01")
        pricing.keep(system, served.who, pricing.Bringing(rows=rows, reports=(reports,)))
        assert "eu" in exports.regions(system, ("eu",))

        assert rollouts.freeze(system, served.who, NAME).state == "frozen"
        with Load(served) as load:
            rollouts.roll_back(system, served.who, NAME)
            eventually(lambda: load.answered > 20)
            eventually(lambda: answers(20)[1.0] == 20)
        assert load.failed == []
        assert answers(40) == {1.0: 40}
        assert ready() == 2
