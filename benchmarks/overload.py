"""What an attack costs those who ask honestly: their p99 with it and without it, in turns, and the replica's memory.

The attack, all at once: connections on which nothing is asked and which are opened again when they are closed; senders
of one byte a second, half of them of headers, half of a large body; and a burst of ten times the honest rate by another
principal, whose key is as good, in waves of 64 requests. All on 127.0.0.1: the replica on one core, everybody else on
another, where who asks honestly goes first: attackers are other machines, and keep nobody's client from its processor.
``--times inf`` has each connection of the burst ask again as soon as it is answered; ``--unknown`` gives it a bad key.

Run: python benchmarks/overload.py [--seconds 8] [--pairs 2] [--idle 10000] [--slow 200] [--rate 100] [--times 10]
[--unknown]   (80 seconds)
"""

import argparse
import asyncio
import collections
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import serving
import uvloop

from bedplate.app import load

AIM_RATIO, AIM_MEMORY, AIM_CUT = 2.0, 500, 15.0
UNKNOWN = "bp_nobody_0123456789abcdef"
PATH = f"/v2/models/{serving.MODEL}/infer"
LARGE, SENT = 3_500_000, 1_000_000


def request(key: str, length: int) -> bytes:
    """The head of a request that promises a body of so many bytes."""
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


# ---------------------------------------------------------------------------------------------------------- the attack


class _Idle(asyncio.Protocol):
    """Asks nothing."""

    def __init__(self, attack: "Attack", number: int) -> None:
        self._attack, self._number = attack, number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attack.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._attack.open -= 1
        asyncio.get_running_loop().call_later(0.1, self._attack.come, self._number)


class Attack:
    """Everything that wants to keep the replica from answering others."""

    def __init__(self, port: int, idle: int, slow: int, burst: float, key: str) -> None:
        self._port, self._idle, self._slow, self._burst, self._key = port, idle, slow, burst, key
        self.open = self.refused = 0
        self._ending, self._coming = False, set[asyncio.Task[None]]()
        self.lives: list[float] = []
        self.statuses: collections.Counter[str] = collections.Counter()

    async def run(self) -> None:
        """Attack until the standard input ends, and tell what was seen."""
        ending = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for number in range(self._idle):
            self.come(number)
            if number % 100 == 99:  # they come over some seconds
                await asyncio.sleep(0.02)
        tasks = [asyncio.create_task(self._dribble(headers=bool(number % 2))) for number in range(self._slow)]
        while self.open < 0.98 * self._idle and not ending.done():
            await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(self._ask()) for _ in range(64)]
        print(json.dumps({"open": self.open}), flush=True)
        await ending
        self._ending, still = True, self.open
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        told = {"open": still, "refused": self.refused, "longest": max(self.lives, default=0.0)}
        print(json.dumps({**told, "cut": len(self.lives), "burst": self.statuses}), flush=True)

    async def _come(self, number: int) -> None:
        """A connection on which nothing is asked, opened again whenever it is closed."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Idle(self, number), "127.0.0.1", self._port)
        except OSError:
            self.refused += 1
            loop.call_later(1.0, self.come, number)

    def come(self, number: int) -> None:
        """Open a connection, if the attack still goes on."""
        if not self._ending:
            task = asyncio.ensure_future(self._come(number))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _dribble(self, *, headers: bool) -> None:
        """Send as slowly as is borne; how long that was is noted."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                started = time.monotonic()
                head = request(serving.KEY, LARGE)
                writer.write(head[:40] if headers else head + b" " * SENT)
                ended = asyncio.create_task(reader.read(1))
                while not ended.done():
                    writer.write(b"x")
                    await asyncio.wait([ended], timeout=1.0)
                self.lives.append(time.monotonic() - started)
                ended.exception()  # how it was cut does not matter
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(1.0)  # it wants to be slow, not to fill the line

    async def _ask(self) -> None:
        body = serving.requests(self._port, 1)[0].partition(b"\r\n\r\n")[2]
        ask = request(self._key, len(body)) + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due = time.monotonic()
        while True:
            due = max(due + 64 / self._burst, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                writer.write(ask)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                self.statuses[head[9:12].decode()] += 1
            except (OSError, asyncio.IncompleteReadError):
                self.statuses["broken"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)


# --------------------------------------------------------------------------------------------------------- the measure


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def honest(port: int, seconds: float, rate: float) -> Any:
    """What honest callers see."""
    body = json.loads(serving.requests(port, 1)[0].partition(b"\r\n\r\n")[2])
    return load.run(
        f"http://127.0.0.1:{port}", serving.MODEL, [body], seconds=seconds, connections=16, rate=rate, key=serving.KEY
    )


def main() -> None:
    """Measure in turns and say what was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--unknown", action="store_true")
    parser.add_argument("--attack", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if given.attack:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # nice alone lets it finish 3 ms of its time
        key = UNKNOWN if given.unknown else serving.OTHER
        uvloop.run(Attack(given.attack, given.idle, given.slow, given.times * given.rate, key).run())
        return
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, serving.bedplate(Path(folder), serving.trees()) as (port, pid):
        os.sched_setaffinity(pid, cores[:1])
        os.sched_setaffinity(0, cores[-1:])
        honest(port, 2.0, given.rate)
        before, most, longest = resident(pid), 0.0, 0.0
        calm, attacked = [], []
        for number in range(given.pairs):
            calm.append(honest(port, given.seconds, given.rate))
            command = [sys.executable, __file__, "--attack", str(port), "--idle", str(given.idle)]
            command += ["--slow", str(given.slow), "--rate", str(given.rate), "--times", str(given.times)]
            command += ["--unknown"] if given.unknown else []
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                opened = json.loads(process.stdout.readline())["open"]
                attacked.append(honest(port, given.seconds + AIM_CUT, given.rate))
                most = max(most, resident(pid))
                process.stdin.close()
                told = json.loads(process.stdout.readline())
            one, other = calm[-1], attacked[-1]
            print(
                f"pair {number + 1}: p50 {one.p50_ms:.2f} -> {other.p50_ms:.2f} ms, p99 {one.p99.value:.2f} -> "
                f"{other.p99.value:.2f} ms, failed {one.failed} -> {other.failed}, unsent {other.unsent}, client late "
                f"{one.lag_p99_ms:.2f} -> {other.lag_p99_ms:.2f} ms; {opened:,} idle open, {told}"
            )
            longest = max(longest, told["longest"])
        ratio = statistics.median(b.p99.value / a.p99.value for a, b in zip(calm, attacked, strict=True))
        print(f"| honest p99, with the attack / without | {ratio:.2f} | <= {AIM_RATIO:g} |")
        print(f"| a slow sender is cut after, at most | {longest:.1f} s | <= {AIM_CUT:g} s |")
        print(f"| memory with the attack | {most - before:+.0f} MB (from {before:.0f}) | <= +{AIM_MEMORY} MB |")


if __name__ == "__main__":
    main()
