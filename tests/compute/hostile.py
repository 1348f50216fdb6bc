"""A pipeline that tries everything it must not be able to do. Each attempt returns what it got; denial raises."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

from bedplate.compute.task import Result, Task
from bedplate.pipeline import train

LIBC = ctypes.CDLL(None, use_errno=True)


def _syscall(number, *arguments):
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _prctl(option, value):
    if LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _udp(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return s.sendto(b"rows", address)


def _unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect(path)


def _through_link(key):
    Path("link").symlink_to(key)
    return Path("link").read_text()


def _bind():
    with socket.socket() as s:
        return s.bind(("127.0.0.1", 0))


def attempts(p):
    """What is tried, by name. ``p`` holds the paths, addresses and process ids of the test."""
    owner, key = p["owner"], Path(p["key"])
    return {
        "read the key": key.read_text,
        "list the keys": lambda: os.listdir(key.parent),
        "read a table": Path(p["table"]).read_bytes,
        "read passwd": Path("/etc/passwd").read_text,
        "list the root": lambda: os.listdir("/"),
        "read the key through proc": Path(f"/proc/self/root{key}").read_text,
        "read the key through a link": lambda: _through_link(key),
        "read the key through a hard link": lambda: os.link(key, "hard"),
        "read the owner's environment": Path(f"/proc/{owner}/environ").read_bytes,
        "read the owner's memory": lambda: Path(f"/proc/{owner}/mem").open("rb"),
        "read the owner's files": lambda: os.listdir(f"/proc/{owner}/fd"),
        "list processes": lambda: os.listdir("/proc"),
        "read another script": Path(p["neighbour"]).read_text,
        "write outside": lambda: Path(p["outside"]).write_text("x"),
        "write its own code": lambda: Path(p["pipeline"]).write_text("x"),
        "truncate the key": lambda: os.truncate(key, 0),
        "remove the key": key.unlink,
        "rename the key": lambda: key.rename(key.with_name("other")),
        "open the key to all": lambda: key.chmod(0o666),
        "touch the key": lambda: os.utime(key, (0, 0)),
        "connect": lambda: socket.create_connection(tuple(p["tcp"]), timeout=1),
        "listen": _bind,
        "send UDP": lambda: _udp(tuple(p["udp"])),
        "resolve a name": lambda: _udp(("localhost", p["udp"][1])),
        "connect to a unix socket": lambda: _unix(p["unix"]),
        "connect to an abstract socket": lambda: _unix("\0" + p["abstract"]),
        "make a socket pair": socket.socketpair,
        "set up io_uring": lambda: _syscall(425, 1, ctypes.create_string_buffer(256)),
        "run a program": lambda: subprocess.run(["/bin/true"], check=True),
        "become a program": lambda: os.execv("/bin/true", ["true"]),
        "fork": os.fork,
        "signal the owner": lambda: os.kill(owner, 0),
        "signal everybody": lambda: os.kill(-1, 0),
        "signal a thread of the owner": lambda: signal.pidfd_send_signal(os.pidfd_open(owner), 0),
        "trace the owner": lambda: _syscall(101 if os.uname().machine == "x86_64" else 117, 16, owner, 0, 0),
        "limit the owner": lambda: __import__("resource").prlimit(owner, 7),
        "lift its own limits": lambda: __import__("resource").setrlimit(7, (1 << 16, 1 << 16)),
        "become free of the owner": lambda: _prctl(1, 0),
        "leave its namespaces": lambda: _syscall(272 if os.uname().machine == "x86_64" else 97, 0x10000000),
        "keep memory that is not counted": lambda: os.memfd_create("hidden"),
        "read a secret of the environment": lambda: os.environ["BEDPLATE_DATABASE"],
    }


@train
def escape(task: Task) -> Result:
    reached, denied = {}, {}
    for name, attempt in attempts(task.parameters).items():
        try:
            reached[name] = repr(attempt())[:200]
        except (OSError, KeyError, ValueError) as error:
            denied[name] = repr(error)
    return Result(result={"reached": reached, "denied": denied, "environment": dict(os.environ)})


@train
def work(task: Task) -> Result:
    """What ordinary code needs stays possible."""
    Path("scratch.bin").write_bytes(b"x" * 1000)
    Path("folder").mkdir()
    Path("scratch.bin").rename(Path("folder") / "moved.bin")
    (Path("folder") / "moved.bin").unlink()
    total = []
    threads = [threading.Thread(target=total.append, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    signal.raise_signal(signal.SIGCHLD)
    print("printing does not disturb the answer")
    os.write(1, b"nor does writing to standard output\n")
    import numpy as np
    import onnxruntime  # noqa: F401

    product = float((np.ones((200, 200)) @ np.ones((200, 200))).sum())
    return Result(files={"model.json": b"{}"}, result={"threads": len(total), "product": product})
