"""What is written into a pipe comes out of it, as fast as it is read, and each end notices that the other is gone."""

import asyncio
import threading
from pathlib import Path

import pytest

from bedplate.errors import UnavailableError
from bedplate.http import pipes


def write(path: Path, pieces: list[bytes]) -> None:
    async def send() -> None:
        async with pipes.Writer(path) as writer:
            for piece in pieces:
                await writer.write(piece)

    asyncio.run(send())


def test_everything_comes_out_in_order() -> None:
    pieces = [bytes([number % 251]) * (number * 997) for number in range(150)]
    with pipes.made() as path:
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
        reader.start()
        write(path, pieces)
        reader.join(10)
    assert found == [b"".join(pieces)]
    assert not path.exists()


def test_nobody_else_can_open_it() -> None:
    with pipes.made() as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_reader_that_is_gone_is_noticed() -> None:
    with pipes.made() as path:

        def a_little() -> None:
            with path.open("rb") as end:
                end.read(10)

        reader = threading.Thread(target=a_little)
        reader.start()
        with pytest.raises(BrokenPipeError):
            write(path, [b"x" * (8 * pipes.CAPACITY)])
        reader.join(10)


def test_a_reader_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "PATIENCE", 0.05)
    with pipes.made() as path, pytest.raises(UnavailableError, match="nobody reads"):
        write(path, [b"x"])
