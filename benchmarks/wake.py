"""From no replica to answers: a thousand clients connect at once to an endpoint that is asleep.

Told are the first and the last answer, how many failed, and the seconds from the start of a process until it is ready.
Beside them, in the same run, what the same interpreter takes to load the same libraries and one model, with nothing of
ours: less nobody can take.

Run: python benchmarks/wake.py [--requests 1000] [--rounds 5]
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.serve.support import KEY, World

from bedplate.serve.scaling import Scale
from bedplate.serve.supervisor import Supervisor

BODY = b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","data":[0.1,0.2,0.3]}]}'
PATIENCE = 30.0
LIMIT = (
    "import asyncio, msgspec, numpy, cryptography.hazmat.primitives.serialization, cedarpy, prometheus_client, uvloop;"
    "from granian.server.embed import Server; import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1])"
)
FIRST, READY = 1.2, 0.8


async def ask(port: int, began: float, name: str) -> tuple[int, float]:
    """The status of one request on a new connection (0: none), and when it was there."""
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
    head += f"connection: close\r\ncontent-length: {len(BODY)}\r\n\r\n"
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + BODY)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return 0, time.monotonic() - began
    return int(answer.split(b" ", 2)[1]) if answer else 0, time.monotonic() - began


async def burst(port: int, count: int, name: str = "linear") -> list[tuple[int, float]]:
    """So many requests at once."""
    began = time.monotonic()
    return await asyncio.gather(*(ask(port, began, name) for _ in range(count)))


def asleep(supervisor: Supervisor) -> None:
    """Wait until there is no replica left."""
    while (status := supervisor.status()[0]).state != "asleep" or status.memory:
        time.sleep(0.05)


def main() -> None:
    """Wake it a few times and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    firsts, lasts, readies, limits, failed = [], [], [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "home")
        sleepy = world.spec(scale=Scale(min=0, max=1, idle=0.5))
        model = str(sleepy.bundle / "model.onnx")
        with Supervisor(world.home) as supervisor:
            port = int(supervisor.hold(sleepy).rpartition(":")[2])
            for number in range(given.rounds + 1):
                began = time.monotonic()
                subprocess.run([sys.executable, "-c", LIMIT, model], check=True)
                limit = time.monotonic() - began
                other = world.spec(scale=Scale(min=0, max=1))
                began = time.monotonic()
                with Supervisor(World(Path(folder) / f"ready{number}").home) as beside:
                    beside.start(other)
                    ready = time.monotonic() - began
                seen = asyncio.run(burst(port, given.requests))
                asleep(supervisor)
                if number == 0:
                    continue  # files come from the disk
                firsts.append(min(at for status, at in seen if status == 200))
                lasts.append(max(at for _, at in seen))
                failed += sum(status != 200 for status, _ in seen)
                limits.append(limit)
                readies.append(ready)
    for name, values, most in (
        ("the libraries and the model, bare", limits, None),
        ("start to ready", readies, READY),
        ("asleep to the first answer", firsts, FIRST),
        ("asleep to the last answer", lasts, None),
    ):
        middle = statistics.median(values)
        verdict = "" if most is None else f"  to reach {most:g}: {'met' if middle < most else 'MISSED'}"
        ratio = middle / statistics.median(limits)
        print(f"{name:34s} {middle:6.2f} s [{min(values):.2f}, {max(values):.2f}]  {ratio:4.1f} of bare{verdict}")
    asked = given.requests * given.rounds
    print(f"failed: {failed} of {asked:,} ({'met' if not failed else 'MISSED'})")


if __name__ == "__main__":
    main()
