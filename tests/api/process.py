"""``bedplate up`` in a process of its own, for tests that kill it or measure it."""

import contextlib
import os
import signal
import time

import httpx

from bedplate.settings import Home
from tests import retail

START = 60.0


class Server:
    """``bedplate up`` on a home, and a client that has the administrator's key."""

    def __init__(self, path):
        self.home = Home(path)
        (self.home.run / "address").unlink(missing_ok=True)
        self.process = retail.start(path, "up")
        deadline = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError, httpx.TransportError):
                address = (self.home.run / "address").read_text()
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        key = (self.home.keys / "admin.key").read_text().strip()
        self.client = httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60)

    def kill(self):
        """Kill -9 the server, and nothing else."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._ended()

    def stop(self):
        """Let it end by itself."""
        self.process.terminate()
        self._ended()

    def _ended(self):
        self.process.communicate(timeout=60)
        self.client.close()
