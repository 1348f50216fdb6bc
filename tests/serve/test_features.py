"""Features by key at a replica: the values that were put online, to whom they may be shown."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest

from bedplate import online
from bedplate.errors import IntegrityError, NotFoundError, UnavailableError
from bedplate.features import materialise
from bedplate.ids import digest_bytes
from bedplate.journal import read, segments
from bedplate.online import Scoped
from bedplate.records import FeatureRead, Governance, ViewRecord
from bedplate.serve.access import Access
from bedplate.serve.features import Features
from bedplate.serve.online_views import READS, Lookup
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, STRANGER, World, client, eventually

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
ADMIN = "bp_admin_0123456789abcdef"
GOVERNED = Governance(purpose="care", sensitive=("income",))
DENIED = """@id("frozen") forbid (principal, action == Action::"read", resource is Table);"""


def view(*entity: str, **more: Any) -> ViewRecord:
    return ViewRecord(digest=digest_bytes(b""), entity=entity, **{"rests_on": (), **more})


def put(store: Scoped, **changes: ViewRecord) -> None:
    table = pa.table(
        {
            "customer": [7, 8],
            "as_of": pa.array([NOW, NOW], pa.timestamp("us", "UTC")),
            "seen": pa.array([NOW, NOW - timedelta(days=3)], pa.timestamp("us", "UTC")),
            "spend": pa.array([1.5, 2.5], pa.float32()),
            "visits": pa.array([3, None], pa.float32()),
        }
    )
    pairs = pa.table({"shop": [1], "customer": [7], "as_of": pa.array([NOW], pa.timestamp("us", "UTC")),
                      "times": pa.array([4], pa.float32())})  # fmt: skip
    views = {
        "recent": view("customer", ttl=86400.0, defaults={"visits": 0.0}, rests_on=("amount",)),
        "lasting": view("customer"),
        "rich": view("customer", rests_on=("income",)),
        "of_income": view("income"),
        **changes,
    }
    materialise(store, {name: (about, table.rename_columns([about.entity[0], *table.column_names[1:]]))
                        for name, about in views.items()}, NOW)  # fmt: skip
    materialise(store, {"pairs": (view("shop", "customer"), pairs)}, NOW)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    keys = {KEY: ("engineers",), STRANGER: ("viewers",), ADMIN: ("administrators",)}
    made = World(tmp_path_factory.mktemp("home"), keys)
    made.publish(governed={"demo": GOVERNED})
    return made


@pytest.fixture(scope="module")
def store(world: World) -> Iterator[Scoped]:
    opened = Scoped(online.open(world.home.online), "demo")
    put(opened)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def url(world: World, store: Scoped) -> Iterator[str]:
    with Supervisor(world.home) as supervisor:
        yield supervisor.start(world.spec())


def ask(url: str, body: Any, key: str = KEY) -> httpx.Response:
    with client(url, key) as http:
        return http.post("/v1/features", json=body)


def test_values_by_key_with_what_is_missing(url: str) -> None:
    moment = round(NOW.timestamp() * 1e6)
    assert ask(url, {"view": "recent", "keys": [7, 8, 9]}).json() == {
        "features": ["spend", "visits"],
        "values": [[1.5, 3.0], [None, 0.0], [None, 0.0]],
        "moments": [moment, moment - 3 * 86_400_000_000, 0],
        "missing": ["", "stale", "unknown"],
        "masked": False,
    }
    assert ask(url, {"view": "lasting", "keys": [8]}).json()["values"] == [[2.5, None]]


@pytest.mark.parametrize(
    ("key", "body", "status", "said"),
    [
        (KEY, {"view": "rich", "keys": [7]}, 200, '"values":[[null,null]]'),
        (ADMIN, {"view": "rich", "keys": [7]}, 200, '"values":[[1.5,3.0]]'),
        (KEY, {"view": "recent", "keys": [7], "purpose": "care"}, 200, '"masked":false'),
        (KEY, {"view": "of_income", "keys": [7]}, 403, "income is masked"),
        (KEY, {"view": "recent", "keys": [7], "purpose": "marketing"}, 403, "purpose"),
        (STRANGER, {"view": "recent", "keys": [7]}, 403, "policy"),
        ("bp_nobody_0123456789abcdef", {"view": "recent", "keys": [7]}, 401, "key"),
        (KEY, {"view": "nothing", "keys": [7]}, 404, "nothing"),
        (KEY, {"view": "bedplate.views", "keys": [7]}, 404, "no features"),
        (KEY, {"view": "pairs", "keys": [1]}, 404, "pairs"),
        (KEY, {"view": "recent", "keys": []}, 400, "keys"),
        (KEY, {"view": "recent", "keys": [1 << 63]}, 400, "keys"),
        (KEY, {"view": "recent", "keys": ["7"]}, 400, "keys"),
        (KEY, {"view": "recent", "keys": [7], "rows": 1}, 400, "rows"),
        (KEY, [], 400, "object"),
    ],
)
def test_who_may_ask_for_what(url: str, key: str, body: Any, status: int, said: str) -> None:
    answer = ask(url, body, key)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("more", "headers", "status"),
    [
        (0, {}, 200),
        (64 << 10, {}, 413),
        (0, {"origin": "http://elsewhere.example"}, 403),
        (0, {"host": "elsewhere.example"}, 421),
        (0, {"x-request-timeout-ms": "soon"}, 400),
        (0, {"authorization": "Bearer nobody"}, 401),
    ],
)
def test_what_came_at_once_is_answered_like_what_came_in_pieces(
    url: str, more: int, headers: dict[str, str], status: int
) -> None:
    body = msgspec.json.encode({"view": "recent", "keys": [7, 8, 9]}) + b" " * more
    with client(url) as http:
        at_once = http.post("/v1/features", content=body, headers=headers)
        in_pieces = http.post("/v1/features", content=iter([body]), headers=headers)
    assert (at_once.status_code, at_once.text) == (status, in_pieces.text)


def test_each_read_is_on_record_and_names_no_entity(url: str, world: World) -> None:
    folder = world.home.journal / READS

    def reads() -> Counter[tuple[str, str, str, int]]:
        lines = msgspec.json.Decoder(FeatureRead).decode_lines
        made = [one for each in segments(folder) for data in read(each) for one in lines(data)]
        return Counter((each.view, each.purpose, each.decision, each.keys) for each in made)

    many, more = [*range(100, 111)], [*range(100, 112)]  # as many keys as no other test asks for
    for body in ({"view": "recent", "keys": many}, {"view": "recent", "keys": more, "purpose": "marketing"}):
        ask(url, body)
    ask(url, {"view": "nothing", "keys": many})  # nothing was read
    ask(url, {"view": "recent", "keys": many})
    wanted = Counter({("recent", "care", "allow", 11): 2, ("recent", "marketing", "deny", 12): 1})
    eventually(lambda: folder.exists() and sum(reads()[each] for each in wanted) == 3)
    assert Counter({each: count for each, count in reads().items() if each[-1] in (11, 12)}) == wanted


def test_a_change_of_rules_or_of_the_view_holds_within_a_second(url: str, world: World, store: Scoped) -> None:
    """Decisions are kept until then; in the end all is as it was."""
    body = {"view": "recent", "keys": [7]}
    assert ask(url, body).status_code == 200
    world.publish((DENIED,), governed={"demo": GOVERNED})
    eventually(lambda: ask(url, body).status_code == 403)
    world.publish(governed={"demo": Governance(purpose="care", sensitive=("amount",))})
    eventually(lambda: ask(url, body).json().get("masked") is True)
    world.publish(governed={"demo": GOVERNED})
    eventually(lambda: ask(url, body).json().get("masked") is False)
    put(store, recent=view("customer", rests_on=("income",)))
    eventually(lambda: ask(url, body).json().get("masked") is True)
    world.publish()
    eventually(lambda: ask(url, body).status_code == 503)
    world.publish(governed={"demo": GOVERNED})
    put(store)
    eventually(lambda: ask(url, body).json().get("masked") is False)


def test_a_server_that_does_not_answer_holds_up_nobody_else(world: World) -> None:
    async def asked(edge: Features) -> bool:
        reading = asyncio.create_task(edge._look_up("recent"))
        await asyncio.sleep(0)  # it has begun
        others_go_on = not reading.done()
        with pytest.raises(UnavailableError):
            await reading
        return others_go_on

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with closing(Scoped(online.open(address, read_only=True), "demo")) as store:
            spec = world.spec()
            access = Access(spec.snapshot, spec.snapshot_key, spec.use_case)
            assert asyncio.run(asked(Features(access, store, spec)))


def test_a_view_of_another_shape_is_never_misread(tmp_path: Path) -> None:
    store = Scoped(online.open(tmp_path), "demo")
    put(store)
    lookup = Lookup(store, "lasting")
    assert lookup.get(7).values == (1.5, 3.0)
    store.put_many("lasting", [((7).to_bytes(8, "little"), b"other" * 5)])
    with pytest.raises(IntegrityError):
        lookup.get(7)
    with pytest.raises(NotFoundError):
        Lookup(Scoped(store, "other"), "lasting")
    store.close()
