"""Artifacts of a server in a process of its own: acknowledged ones survive kill -9, large ones do not fill it."""

import hashlib
import itertools
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.slow

BASE = "/api/2.0/mlflow-artifacts/artifacts"
MPU = "/api/2.0/mlflow-artifacts/mpu"
LEAST = 12
"""Files, and parts, that the server acknowledges before it is killed."""
ROOT = Path(__file__).parents[2]


def content(name):
    """What an artifact of this name holds: a size and bytes of its own."""
    chance = random.Random(name)
    return chance.randbytes(chance.randrange(1, 400_000))


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=[pytest.mark.long, pytest.mark.sweep])])
def test_kill_9_loses_nothing_that_was_acknowledged(server, rounds):
    """Files and parts that were answered are there and whole after each kill; uploads are carried on and completed."""
    first = server()
    created = first.client.post(f"{MPU}/create/kill", json={"path": "big.bin", "num_parts": 1000}).json()
    first.client.close()
    upload, numbers = created["upload_id"], itertools.count(1)
    files, parts, names = [], {}, itertools.count()
    running = first
    for _ in range(rounds):
        stop = threading.Event()

        def work(served, stop=stop):
            with httpx.Client(base_url=served.client.base_url, headers=served.client.headers, timeout=60) as client:
                while not stop.is_set():
                    name, number = f"kill/{next(names)}", next(numbers)
                    try:
                        if client.put(f"{BASE}/{name}", content=content(name)).status_code == 200:
                            files.append(name)
                        answer = client.put(f"{MPU}/part/{upload}/{number}", content=content(str(number)))
                        if answer.status_code == 200:
                            parts[number] = answer.headers["etag"]
                    except httpx.TransportError:
                        return

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(work, running)
            enough, deadline = len(files) + random.randrange(LEAST, 2 * LEAST), time.monotonic() + 60
            while min(len(files), len(parts)) < enough and time.monotonic() < deadline:
                time.sleep(0.01)
            running.kill()
            stop.set()
        running = server()
        for name in files:
            assert running.client.get(f"{BASE}/{name}").content == content(name)

    assert len(files) >= rounds * LEAST
    assert len(parts) >= rounds * LEAST
    listed = [{"part_number": number, "etag": parts[number]} for number in sorted(parts)]
    done = {"path": "big.bin", "upload_id": upload, "parts": listed}
    answer = running.client.post(f"{MPU}/complete/kill", json=done)
    assert answer.status_code == 200, answer.text
    whole = running.client.get(f"{BASE}/kill/big.bin").content
    assert whole == b"".join(content(str(number)) for number in sorted(parts))
    shown = {file["path"] for file in running.client.get(BASE, params={"path": "kill"}).json()["files"]}
    assert {name.removeprefix("kill/") for name in files} | {"big.bin"} <= shown


def pieces(size):
    """Bytes that no two pieces have in common, and their digest once they were all sent."""
    hashed, block = hashlib.sha256(), random.Random(7).randbytes(1 << 20)

    def generate():
        for number in range(size >> 20):
            piece = number.to_bytes(8, "big") + block[8:]
            hashed.update(piece)
            yield piece

    return generate(), hashed


class Peak:
    """The greatest resident memory of a process within the block, above what it was before, in bytes."""

    def __init__(self, pid):
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self.growth = 0

    def __enter__(self):
        self._before = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.005):
            self.growth = max(self.growth, self._process.memory_info().rss - self._before)

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()


def test_large_files_pass_through_little_memory(server):
    """128 MB go in, and out, and in again in parts, while the server grows by less than 50 MB."""
    running, size = server(), 128 << 20
    client = running.client
    client.put(f"{BASE}/warm", content=b"x" * 2_000_000)
    client.get(f"{BASE}/warm")
    with Peak(running.process.pid) as putting:
        body, hashed = pieces(size)
        assert client.put(f"{BASE}/large", content=body).status_code == 200
    with Peak(running.process.pid) as getting:
        got = hashlib.sha256()
        with client.stream("GET", f"{BASE}/large") as answer:
            for piece in answer.iter_bytes():
                got.update(piece)
    assert got.digest() == hashed.digest()
    with Peak(running.process.pid) as joining:
        created = client.post(f"{MPU}/create/x", json={"path": "parts", "num_parts": 4}).json()
        sent = []
        for credential in created["credentials"]:
            body, _ = pieces(size // 4)
            sent.append(httpx.put(credential["url"], content=body, headers=credential["headers"], timeout=60))
        listed = [{"part_number": n, "etag": answer.headers["etag"]} for n, answer in enumerate(sent, 1)]
        done = {"path": "parts", "upload_id": created["upload_id"], "parts": listed}
        assert client.post(f"{MPU}/complete/x", json=done).status_code == 200

    growth = {name: peak.growth >> 20 for name, peak in (("put", putting), ("get", getting), ("parts", joining))}
    print(growth)
    assert max(growth.values()) < 50, growth


MOUNT = 'mount -t tmpfs -o size=48m none "$1" && cd "$4" && exec "$2" -m tests.api.full_disk "$1"'


def test_a_full_disk_is_said_to_be_and_leaves_nothing_half_done(tmp_path):
    """507, no partial file, and the same server takes what fits afterwards; an upload in parts is carried on."""

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    if run("unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    done = run("unshare", "-rm", "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable, "", str(ROOT))

    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
