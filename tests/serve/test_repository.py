"""Triton's clients load and unload: replicas wake and rest, under policy and on record, and what is served stays."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import msgspec
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from bedplate.errors import BedplateError, DeniedError, UnavailableError
from bedplate.policy.values import Principal
from bedplate.serve.access import Admitted
from bedplate.serve.scaling import Scale
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.supervisor import EndpointStatus, Supervisor
from bedplate.serve.wishes import Asked, Wishes
from tests.serve.support import KEY, STRANGER, World, body, client, eventually

pytestmark = pytest.mark.slow

ENGINEER = "bp_engineer_0123456789abcdef"
PRINCIPAL = "svc-2"


class Endpoint:
    """An endpoint whose owner writes down what it was asked, and refuses what ``refuse`` says."""

    def __init__(self, world: World, supervisor_of: Callable[[Any], Supervisor]) -> None:
        self.record: list[tuple[str, str, str]] = []
        self.refuse: BedplateError | None = None
        self.supervisor = supervisor_of(self.decide)
        self.spec = world.spec(grpc=0, scale=Scale(min=0, idle=600.0))
        self.url = self.supervisor.start(self.spec)

    def decide(self, spec: ReplicaSpec, asked: Asked) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.record.append((spec.name, asked.wish, asked.principal))

    @property
    def status(self) -> EndpointStatus:
        (status,) = self.supervisor.status()
        return status

    def over(self, protocol: str) -> Any:
        """A stock client of Triton."""
        if protocol == "grpc":
            return triton.InferenceServerClient(self.status.grpc)
        return triton_http.InferenceServerClient(self.url.removeprefix("http://"))


def caller(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    keys: dict[str, tuple[str, ...]] = {KEY: ("callers",), STRANGER: (), ENGINEER: ("engineers",)}
    return World(tmp_path_factory.mktemp("home"), keys)


@pytest.fixture(scope="module")
def shared(world: World) -> Iterator[Endpoint]:
    made = Endpoint(world, lambda decide: Supervisor(world.home, decide=decide))
    with made.supervisor:
        yield made


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    """Awake, and without a past."""
    shared.record.clear()
    shared.refuse = None

    def awake() -> bool:
        with client(shared.url) as http:  # a replica on its way out answers as well: asked until one stays
            assert http.post("/v2/models/linear/infer", json=body()).status_code == 200
        return shared.status.state == "running"

    eventually(awake)
    return shared


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_endpoint_rests_wakes_and_serves_what_it_served(endpoint: Endpoint, protocol: str) -> None:
    before = endpoint.status
    with endpoint.over(protocol) as asked:
        asked.unload_model("linear", headers=caller(ENGINEER))
    assert endpoint.record == [("linear", "unload", PRINCIPAL)]
    eventually(lambda: endpoint.status.state == "asleep" and not endpoint.status.pids)

    with endpoint.over(protocol) as asked:
        asked.load_model("linear", headers=caller(ENGINEER))
        assert endpoint.record[1:] == [("linear", "load", PRINCIPAL)]
        assert asked.is_model_ready("linear", headers=caller(ENGINEER))
    eventually(lambda: endpoint.status.state == "running")
    assert endpoint.status.digest == before.digest
    assert not set(endpoint.status.pids) & set(before.pids)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_who_may_only_ask_for_predictions_changes_nothing(endpoint: Endpoint, protocol: str) -> None:
    with endpoint.over(protocol) as asked:
        for key in (KEY, STRANGER, "bp_unknown"):
            for wish in (asked.load_model, asked.unload_model):
                with pytest.raises(InferenceServerException) as refused:
                    wish("linear", headers=caller(key))
                status = "UNAUTHENTICATED" if key == "bp_unknown" else "PERMISSION_DENIED"
                expected = f"StatusCode.{status}" if protocol == "grpc" else {"U": "401", "P": "403"}[status[0]]
                assert refused.value.status() == expected
    assert (endpoint.record, endpoint.status.state) == ([], "running")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_served_cannot_be_chosen_by_a_caller(endpoint: Endpoint, protocol: str) -> None:
    """No other model, and no configuration or file of the caller's own."""
    with endpoint.over(protocol) as asked:
        with pytest.raises(InferenceServerException, match="not served here"):
            asked.load_model("other", headers=caller(ENGINEER))
        with pytest.raises(InferenceServerException, match="'config' cannot be met"):
            asked.load_model("linear", headers=caller(ENGINEER), config='{"max_batch_size": 4}')
        with pytest.raises(InferenceServerException, match="cannot be met"):
            asked.load_model("linear", headers=caller(ENGINEER), config="{}", files={"file:1/model.onnx": b"x"})
        asked.unload_model("linear", headers=caller(ENGINEER), unload_dependents=True)
    assert [wish for _, wish, _ in endpoint.record] == ["unload"]


def test_what_cannot_be_put_on_record_does_not_happen(endpoint: Endpoint) -> None:
    """The owner decides again; its refusal, and a fault of its own, reach who asked, and the replicas stay."""
    endpoint.refuse = DeniedError("the ledger says no")
    pids = endpoint.status.pids
    with client(endpoint.url, ENGINEER) as http:
        refused = http.post("/v2/repository/models/linear/unload")
        assert (refused.status_code, refused.json()["error"]) == (403, "the ledger says no")
        endpoint.refuse = ValueError("broken")  # type: ignore[assignment]
        broken = http.post("/v2/repository/models/linear/unload")
        assert (broken.status_code, "broken" in broken.text) == (503, False)
        assert http.post("/v2/models/linear/infer", json=body()).status_code == 200
    assert (endpoint.record, endpoint.status.pids) == ([], pids)


def test_an_endpoint_that_must_have_replicas_keeps_them(endpoint: Endpoint) -> None:
    endpoint.supervisor.start(msgspec.structs.replace(endpoint.spec, scale=Scale(min=1)))
    try:
        with client(endpoint.url, ENGINEER) as http:
            refused = http.post("/v2/repository/models/linear/unload", json={"parameters": {}})
            assert (refused.status_code, "at least 1 replica now" in refused.json()["error"]) == (409, True)
            assert http.post("/v2/repository/models/linear/load").status_code == 200
        assert endpoint.record == [("linear", "load", PRINCIPAL)]
    finally:
        endpoint.supervisor.start(endpoint.spec)


def test_requests_in_flight_are_answered_when_an_endpoint_is_unloaded(endpoint: Endpoint) -> None:
    """Those that come meanwhile wait in the kernel and wake it again: none fails."""
    with client(endpoint.url, ENGINEER) as http, client(endpoint.url) as other:
        for i in range(40):
            if i % 20 == 10:
                assert http.post("/v2/repository/models/linear/unload").status_code == 200
            assert other.post("/v2/models/linear/infer", json=body()).status_code == 200
    assert len(endpoint.record) == 2


def test_messages_that_are_none_are_refused(endpoint: Endpoint) -> None:
    with client(endpoint.url, ENGINEER) as http:
        for content in (b"{", b"[]", b'{"parameters": 3}'):
            assert http.post("/v2/repository/models/linear/load", content=content).status_code == 400
    with grpc.insecure_channel(endpoint.status.grpc) as channel:
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            for message in (b"\xff", b"\x12\x01\xff"):
                with pytest.raises(grpc.RpcError) as refused:
                    call(message, metadata=tuple(caller(ENGINEER).items()))
                assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert endpoint.record == []


def test_a_replica_that_nobody_holds_says_so() -> None:
    """As in a container: whoever runs it decides how many there are."""

    async def ask() -> None:
        engineer = Principal(kind="Service", id="one", name="one", groups=("engineers",))
        await Wishes(lambda *_, **__: None, None).ask("unload", Admitted(engineer, "engineers", 0.0))

    with pytest.raises(UnavailableError, match="nothing here loads"):
        asyncio.run(ask())
