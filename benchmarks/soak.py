"""An endpoint that lives for long: steady load, swaps, kills, sleep and waking, and what it leaves behind.

Three endpoints. One is asked all the time, swapped between releases, and has a replica killed now and then. One is
asked all the time and left alone, so that its replica lives from the first minute to the last. One is asked in bursts
and sleeps between them. Every two seconds the anonymous memory (what nothing else shares) and the open files of their
owner, a process of its own, of each replica and of this program are taken. A slope is that of a line through the values
of one process after its first minute; its 95 % interval is from residuals drawn in blocks. Flat: not shown to grow by
more than 1 % an hour.

Run: python benchmarks/soak.py [--minutes 20] [--rate 50]
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
import numpy as np
import numpy.typing as npt
from benchmarks.wake import burst
from tests.serve.support import KEY, World, linear

from bedplate.serve.scaling import Scale
from bedplate.serve.supervisor import Supervisor

BODY = b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","data":[0.1,0.2,0.3]}]}'
LOOK, WARM, FLAT = 2.0, 60.0, 0.01
Series = npt.NDArray[np.float64]


class Process:
    """What one process took over time."""

    def __init__(self) -> None:
        self._seen = array("d")  # whoever measures memory must not take more and more

    @property
    def seen(self) -> Series:
        """A line for each look: seconds, MiB, open files."""
        return np.array(self._seen).reshape(-1, 3)

    def look(self, pid: int, now: float) -> None:
        """Take memory and open files; a process that has ended is left out."""
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return
        own = int(next(line for line in rollup.splitlines() if line.startswith("Anonymous:")).split()[1])
        self._seen.extend((now, own / 1024, files))


def slope(times: Series, values: Series, rounds: int = 500) -> tuple[float, float, float]:
    """Units an hour, and the ends of its 95 % interval; residuals that follow each other are drawn together."""
    hours = (times - times.mean()) / 3600
    fit = np.polyfit(hours, values, 1)
    rest = values - np.polyval(fit, hours)
    size, rng = max(1, len(values) // 10), np.random.default_rng(0)
    drawn = []
    for _ in range(rounds):
        starts = rng.integers(0, len(values) - size + 1, -(-len(values) // size))
        noise = np.concatenate([rest[start : start + size] for start in starts])[: len(values)]
        drawn.append(np.polyfit(hours, np.polyval(fit, hours) + noise, 1)[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(fit[0]), float(low), float(high)


class Load:
    """Asks at a rate on kept connections, and counts."""

    def __init__(self, url: str, name: str, rate: float, connections: int = 4) -> None:
        self._port, self._name, self._pause = int(url.rpartition(":")[2]), name, connections / rate
        self._stop = threading.Event()
        self.answered, self.failed = 0, list[str]()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(connections)))
        self._thread.start()

    async def _run(self, connections: int) -> None:
        await asyncio.gather(*(self._ask() for _ in range(connections)))

    async def _ask(self) -> None:
        head = f"POST /v2/models/{self._name}/infer HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        request = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
        reader = writer = None
        while not self._stop.is_set():
            try:
                if writer is None or reader is None or reader.at_eof():
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                async with asyncio.timeout(20):
                    writer.write(request)
                    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                    await reader.readexactly(int(answer.split("content-length:")[1].split("\r\n")[0]))
                status = answer.split(" ", 2)[1]
                if status == "200":
                    self.answered += 1
                else:
                    self.failed.append(status)
                if "connection: close" in answer:
                    writer.close()
                    writer = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failed.append(type(error).__name__)
                writer = None
            await asyncio.sleep(self._pause)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()


class Owner:
    """The process that has the endpoints, which does what it is told, one line each."""

    def __init__(self, folder: str) -> None:
        command = [sys.executable, __file__, "--owner", folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.urls: dict[str, str] = self._told()

    def _told(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, what: str) -> dict[str, tuple[list[int], int]]:
        """Have it swap the release, or nothing; the processes of each endpoint then, and how many were restarted."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        told: dict[str, tuple[list[int], int]] = self._told()
        return told

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def own(folder: Path) -> None:
    """Be that process."""
    world, swaps = World(folder / "home"), 0
    releases = [world.spec(world.bundle(linear(1.0 + n), version=n + 1), scale=Scale(min=2, max=2)) for n in (0, 1)]
    steady = msgspec.structs.replace(world.spec(world.bundle(version=3)), name="steady")
    sleepy = msgspec.structs.replace(world.spec(), name="sleepy", scale=Scale(min=0, max=1, idle=3.0))
    with Supervisor(world.home, 4 << 30) as supervisor:
        starts = {"linear": supervisor.start(releases[0]), "steady": supervisor.start(steady)}
        print(json.dumps({**starts, "sleepy": supervisor.hold(sleepy)}), flush=True)
        for line in sys.stdin:
            if line == "swap\n":
                swaps += 1
                supervisor.start(releases[swaps % 2])
            told = {status.name: (status.pids, status.restarts) for status in supervisor.status()}
            print(json.dumps(told), flush=True)


def main() -> None:
    """Let it live, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--owner", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.owner:
        own(given.owner)
        return
    processes: defaultdict[str, Process] = defaultdict(Process)
    swaps = kills = wakes = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        owner = Owner(folder)
        load = Load(owner.urls["linear"], "linear", given.rate)
        still = Load(owner.urls["steady"], "steady", given.rate)
        sleeping = int(owner.urls["sleepy"].rpartition(":")[2])
        began, number = time.monotonic(), 0
        while (now := time.monotonic() - began) < given.minutes * 60:
            number += 1
            endpoints = owner.ask("swap" if number % 10 == 5 else "nothing")
            swaps += number % 10 == 5
            processes["owner"].look(owner.pid, now)
            processes["this program"].look(os.getpid(), now)
            for name, (pids, _) in endpoints.items():
                for pid in pids:
                    processes[f"{name} {pid}"].look(pid, now)
            if number % 30 == 20:
                kills += 1
                os.kill(endpoints["linear"][0][0], signal.SIGKILL)
            if number % 8 == 0:
                wakes += 1
                seen = asyncio.run(burst(sleeping, 20, "sleepy"))
                lost += sum(status != 200 for status, _ in seen)
            time.sleep(max(0.0, began + number * LOOK - time.monotonic()))
        load.close()
        still.close()
        restarts = sum(count for _, count in owner.ask("nothing").values())
        owner.close()
    print(
        f"{given.minutes:g} minutes: {load.answered:,} and {still.answered:,} answered, {swaps} swaps, {kills} kills "
        f"({restarts} restarts), {wakes} wakes"
    )
    print(f"failed: {len(load.failed)} {load.failed[:5]} beside kills, {len(still.failed)} steady, {lost} waking")
    for name, process in processes.items():
        tell(name, process)


def tell(name: str, process: Process) -> None:
    """Print how the memory and the open files of a process went, if it lived long enough to have a slope."""
    seen = process.seen[process.seen[:, 0] > WARM]
    if len(seen) < 30:
        return
    rate, low, high = slope(seen[:, 0], seen[:, 1])
    memory, files = float(seen[:, 1].mean()), seen[:, 2]
    flat = low <= FLAT * memory
    leak = files[len(files) // 2 :].min() > files[: len(files) // 2].max()
    told = "LEAKS" if leak else "no leak"
    print(
        f"{name:16s} {memory:6.1f} MiB, {rate:+7.2f} MiB/h [{low:+.2f}, {high:+.2f}] "
        f"({'flat' if flat else 'GROWS'}), open files {files.min():.0f} to {files.max():.0f} ({told})"
    )


if __name__ == "__main__":
    main()
