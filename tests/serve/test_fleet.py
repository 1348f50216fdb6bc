"""Several replicas of one endpoint, none, and many endpoints on a host with little memory: real processes."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from bedplate import journal
from bedplate.errors import UnavailableError
from bedplate.serve import fleet as fleets
from bedplate.serve.fleet import Fleet
from bedplate.serve.process import Process
from bedplate.serve.scaling import Scale, Shift
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.supervisor import EndpointStatus, Supervisor
from tests.serve.support import KEY, World, body, client, eventually, linear, log_of
from tests.serve.test_holding import Client
from tests.serve.test_supervisor import INFER, Load

pytestmark = pytest.mark.slow

IDLE = Scale(min=0, max=2, idle=0.4)


def only(supervisor: Supervisor) -> EndpointStatus:
    (status,) = supervisor.status()
    return status


async def burst(url: str, count: int) -> list[int]:
    """The answers to so many requests at once, each on a connection of its own."""
    address = httpx.URL(url)
    text = msgspec.json.encode(body())
    head = f"POST {INFER} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    request = f"{head}content-length: {len(text)}\r\n\r\n".encode() + text

    async def ask() -> int:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    return await asyncio.gather(*(ask() for _ in range(count)))


def named(world: World, name: str, **changes: object) -> ReplicaSpec:
    return msgspec.structs.replace(world.spec(), name=name, journal=world.root / "journal" / name, **changes)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    return World(tmp_path)


def test_nobody_starts_a_replica_beside_the_one_that_is_being_started(world: World) -> None:
    """Who looks after all endpoints may come by between the making of one and its start."""
    spawned: list[ReplicaSpec] = []

    def spawn(fleet: Fleet, spec: ReplicaSpec) -> None:
        spawned.append(spec)  # and there is no room

    with socket.create_server(("127.0.0.1", 0)) as listener:
        fleet = Fleet(world.spec(), listener, None, spawn)
        fleet.look()
        assert spawned == []
        fleet.begun = True
        fleet.look()
        assert spawned == [world.spec()]
        assert "waits for about 96 MiB" in fleet.error


def test_two_replicas_share_a_socket_and_one_may_be_killed(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(scale=Scale(min=2, max=2)))
        assert (only(supervisor).ready, only(supervisor).state) == (2, "running")
        with Load(url) as load:
            eventually(lambda: len(load.answered) > 20)
            victim, other = only(supervisor).pids
            os.kill(victim, signal.SIGKILL)
            before = len(load.answered)
            eventually(lambda: only(supervisor).ready == 2 and victim not in only(supervisor).pids)
            assert other in only(supervisor).pids
            eventually(lambda: len(load.answered) > before)
            version = world.bundle(linear(2.0), version=2)
            assert supervisor.start(world.spec(version, scale=Scale(min=2, max=2))) == url
        status = only(supervisor)
        told = eventually(lambda: (seen := only(supervisor)).took.predictions >= 0.8 * len(load.answered) and seen)
        assert told.took.predictions <= len(load.answered)  # less what the killed one had not told yet
        eventually(lambda: only(supervisor).took.seconds > told.took.seconds + 0.2)  # idle time counts
        assert (status.ready, status.restarts, status.digest) == (2, 1, version[1])
        assert not {victim, other} & set(status.pids)
    assert load.failed == []


def test_a_replica_killed_while_a_swap_waits_comes_back_before_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, on = threading.Event(), threading.Event()
    await_ready = fleets._await_ready

    def late(process: Process, end: float, within: float) -> None:
        if process.spec.digest == version[1]:
            waiting.set()
            assert on.wait(30)
        await_ready(process, end, within)

    version = world.bundle(linear(2.0), version=2)
    monkeypatch.setattr(fleets, "_await_ready", late)
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec())
        with Load(url) as load:
            swapping = threading.Thread(target=supervisor.start, args=(world.spec(version),))
            swapping.start()
            assert waiting.wait(30)
            (victim,) = only(supervisor).pids
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: only(supervisor).ready == 1 and victim not in only(supervisor).pids)
            before = len(load.answered)
            eventually(lambda: len(load.answered) > before + 5)
            on.set()
            swapping.join()
        with client(url) as http:
            assert http.post(INFER, json=body()).json()["model_version"] == "2"
        assert only(supervisor).restarts == 1
    assert load.failed == []


def test_the_schedule_and_a_changed_file_move_the_number_without_a_swap(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec())
        (first,) = only(supervisor).pids
        shift = Shift(start="00:00", end="00:00", min=2)
        supervisor.start(world.spec(scale=Scale(min=1, max=2, schedule=(shift,))))
        eventually(lambda: only(supervisor).ready == 2)
        assert only(supervisor).pids[0] == first
        supervisor.start(world.spec())
        eventually(lambda: only(supervisor).pids == (first,))
        assert only(supervisor).restarts == 0


def test_to_zero_and_back_while_hundreds_wait(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        url = supervisor.hold(world.spec(scale=IDLE, mode="durable"))
        assert (only(supervisor).state, only(supervisor).pids) == ("asleep", ())

        for _ in range(2):
            assert asyncio.run(burst(url, 200)) == [200] * 200
            eventually(lambda: only(supervisor).state == "asleep" and not only(supervisor).memory)
        assert only(supervisor).restarts == 0
    assert sum(segment.count for segment in journal.segments(world.home.journal)) == 400


def test_a_kept_connection_is_left_to_the_next_replica_and_wakes_an_endpoint(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(scale=Scale(min=2, max=2)))
        clients = [Client(url) for _ in range(8)]

        def ask(client: Client, name: str) -> list[float]:
            client.send([1.0, 2.0, 3.0], name)
            status, _, said = client.answer()
            assert status == 200
            return said["outputs"][0]["data"]

        before = [ask(client, "before") for client in clients]
        version = world.bundle(linear(2.0), version=2)
        assert supervisor.start(world.spec(version, scale=Scale(min=2, max=2))) == url
        after = [ask(client, "after") for client in clients]
        assert all(new != old for new, old in zip(after, before, strict=True))

        supervisor.start(world.spec(version, scale=IDLE))
        eventually(lambda: only(supervisor).state == "asleep" and only(supervisor).pids == ())
        clients.pop().close()
        eventually(lambda: supervisor._named("linear").kept == len(clients))
        assert only(supervisor).state == "asleep"  # neither those that are there nor one that goes asks for anything
        assert [ask(client, "asleep") for client in clients] == after[:-1]
        for client in clients:
            client.close()
    assert len(log_of(world)) == 23


def test_who_asks_while_the_last_replica_drains_is_answered(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(scale=Scale(min=0, max=1, idle=0.2)))
        for number in range(6):
            with client(url) as http:
                assert http.post(INFER, json=body()).status_code == 200
            threading.Event().wait(0.35 + 0.08 * number)  # about as long as it may be idle
        eventually(lambda: only(supervisor).state == "asleep")


def test_a_start_that_fails_while_asleep_says_why_and_is_tried_again(world: World) -> None:
    folder, digest = world.bundle()
    model = folder / "model.onnx"
    good = model.read_bytes()
    model.chmod(0o600)
    model.write_bytes(linear(9.0))
    with Supervisor(world.home) as supervisor:
        url = supervisor.hold(world.spec((folder, digest), scale=IDLE))
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)):
            eventually(lambda: only(supervisor).restarts and only(supervisor).error)
            model.write_bytes(good)
            with client(url) as http:
                assert http.post(INFER, json=body()).status_code == 200


def test_a_replica_that_tells_nothing_is_not_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate.serve.fleet._SILENT_SECONDS", 2.0)
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec())
        (first,) = only(supervisor).pids
        eventually(lambda: only(supervisor).memory > 1 << 20)
        os.kill(first, signal.SIGSTOP)
        eventually(lambda: only(supervisor).ready == 1 and first not in only(supervisor).pids)
        assert only(supervisor).restarts == 1


@pytest.mark.usefixtures("real_replicas")
def test_the_least_recently_used_makes_room_and_comes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate.serve.fleet._IDLE_SECONDS", 0.3)
    zero = Scale(min=0, max=1, idle=600.0)
    with Supervisor(world.home) as supervisor:

        def awake() -> set[str]:
            return {status.name for status in supervisor.status() if status.state == "running"}

        def ask(name: str) -> int:
            with client(urls[name]) as http:
                return http.post(f"/v2/models/{name}/infer", json=body()).status_code

        def heard(name: str) -> bool:
            return all(process.load and process.memory for process in supervisor._named(name).replicas)

        urls = {name: supervisor.start(named(world, name, scale=zero)) for name in ("a", "b")}
        eventually(lambda: awake() == {"a", "b"} and heard("a") and heard("b"))
        # What a replica takes depends on the machine. One whose use nobody knows yet is taken for 1 GiB: beside that
        # there is room for one of these, and not for two.
        unknown, one = 1 << 30, max(status.memory for status in supervisor.status())
        monkeypatch.setattr("bedplate.serve.fleet._BASE_MEMORY", unknown)
        budget = supervisor._memory = unknown + one * 3 // 2
        assert ask("a") == 200
        eventually(lambda: supervisor._named("a").used > supervisor._named("b").used)
        urls["c"] = supervisor.start(named(world, "c", scale=zero))
        assert awake() == {"a", "c"}  # b was the one that nobody had asked for longest
        assert ask("b") == 200
        assert one < sum(status.memory for status in supervisor.status()) <= budget

        for name in urls:  # from now on each has to have one
            supervisor.start(named(world, name))
        with pytest.raises(UnavailableError, match="no memory"):
            supervisor.start(named(world, "d"), within=0.5)
        assert {status.name for status in supervisor.status()} == {"a", "b", "c"}
