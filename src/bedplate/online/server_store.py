"""Online features on a Redis or Valkey server: one hash per namespace, which many machines read.

A change is one transaction of the server, so readers see it whole. How well it outlives the server is the server's
configuration (append-only file, snapshots); what is lost is materialised again from the feature tables.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from bedplate.errors import InputError, StorageError, UnavailableError
from bedplate.extensions import require
from bedplate.online.keys import Get, check_keys, check_namespace

_READ_WITHIN, _WRITE_WITHIN = 0.1, 60.0
"""Seconds in which the server must answer: who only reads is a request that somebody waits for."""
_REWRITE_WITHIN = 300.0
_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
_CHUNK = 1000
_PREFIX = b"bedplate:"


class ServerOnline:
    """The :class:`bedplate.online.Online` port on a server at ``address``, such as ``rediss://user:secret@host:6379/0``.

    Every method raises UnavailableError where the server does not answer in time.

    Raises:
        InputError: this is no such address.
        MissingExtraError: the client is not installed.
        StorageError: the server refuses the credentials.
        UnavailableError: nothing answers there.
    """

    waits = True

    def __init__(self, address: str, *, read_only: bool = False) -> None:
        client = require("redis", "redis")
        self._shown = shown(address)
        self._read_only = read_only
        self._errors = client.exceptions
        within = _READ_WITHIN if read_only else _WRITE_WITHIN
        try:
            self._client = client.Redis.from_url(
                address.replace("valkey", "redis", 1), socket_timeout=within, socket_connect_timeout=min(within, 5.0)
            )
        except ValueError as error:
            raise InputError(
                "this is no address of a server of online features",
                where="BEDPLATE_ONLINE",
                fix="write redis://host:6379/0, or rediss:// for TLS",
            ) from error
        if not read_only:  # a reader bears a server that is away for a while, from its start on
            with self._asked():
                self._client.ping()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except (self._errors.AuthenticationError, self._errors.NoPermissionError) as error:
            raise StorageError(
                f"the server of online features refuses: {error}", where=self._shown, fix="mend BEDPLATE_ONLINE"
            ) from error
        except (self._errors.ConnectionError, self._errors.TimeoutError) as error:
            raise UnavailableError(
                "the server of online features does not answer", where=self._shown, fix="start it, or try again"
            ) from error
        except self._errors.RedisError as error:
            raise StorageError(f"online features cannot be used: {error}", where=self._shown) from error

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        with self._asked():
            return self._client.hget(_hash(namespace), key)  # type: ignore[no-any-return]

    def getter(self, namespace: str) -> Get:
        """:meth:`get` of one namespace."""
        return partial(self.get, namespace)

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order, from one moment."""
        if not keys:
            return []
        with self._asked():
            return self._client.hmget(_hash(namespace), list(keys))  # type: ignore[no-any-return]

    def put_many(
        self, namespace: str, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, replace: bool = False
    ) -> int:
        """Store all of ``items`` or none; gives the namespace's new version.

        Raises:
            InputError: a key is empty or longer than 400 bytes.
            StorageError: opened for reading only, or the server refused; nothing was stored.
        """
        pairs = dict(items)
        check_keys(pairs)
        name = _hash(namespace)

        def change(pipe: Any) -> None:
            if replace:
                pipe.delete(name)
            for part in _parts(list(pairs.items())):
                pipe.hset(name, mapping=dict(part))

        return self._change(namespace, change)

    def delete(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Forget ``keys``; gives the namespace's new version."""
        wanted = list(keys)

        def change(pipe: Any) -> None:
            for part in _parts(wanted):
                pipe.hdel(_hash(namespace), *part)

        return self._change(namespace, change)

    def erase(self, namespace: str, left: Mapping[bytes, bytes | None]) -> int:
        """Forget what is under these keys, and have the server write its files anew without it.

        Under each key is what ``left`` says from then on, or nothing. Gives the namespace's new version.

        Raises:
            StorageError: opened for reading only, or the server may not be told to.
            UnavailableError: it did not write them in time: ask again.
        """
        gone = [key for key, value in left.items() if value is None]
        put = [(key, value) for key, value in left.items() if value is not None]

        def change(pipe: Any) -> None:
            for part in _parts(gone):
                pipe.hdel(_hash(namespace), *part)
            for pairs in _parts(put):
                pipe.hset(_hash(namespace), mapping=dict(pairs))

        version = self._change(namespace, change)
        with self._asked():
            if self._persistence()["aof_enabled"]:
                self._written_anew("aof_last_bgrewrite_status", self._client.bgrewriteaof)
            if self._client.config_get("save").get("save"):
                self._written_anew("rdb_last_bgsave_status", self._client.bgsave)
        return version

    def _persistence(self) -> dict[str, Any]:
        return self._client.info("persistence")  # type: ignore[no-any-return]

    def _written_anew(self, status: str, begin: Callable[[], object]) -> None:
        """Have one kind of file written after now: one that is being written began before."""
        end = time.monotonic() + _REWRITE_WITHIN
        self._wait(end)
        begin()
        self._wait(end)
        if self._persistence()[status] != "ok":
            raise StorageError("the server of online features could not write its files", where=self._shown)

    def _wait(self, end: float) -> None:
        while True:
            now = self._persistence()
            if not any(
                now[key] for key in ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
            ):
                return
            if time.monotonic() > end:
                raise UnavailableError(
                    "the server of online features is still writing its files", where=self._shown, fix="ask again"
                )
            time.sleep(0.02)

    def _change(self, namespace: str, change: Callable[[Any], None]) -> int:
        if self._read_only:
            raise StorageError("online features are open for reading only here", where=self._shown)
        with self._asked(), self._client.pipeline(transaction=True) as pipe:
            change(pipe)
            pipe.incr(_version(namespace))
            return int(pipe.execute()[-1])

    def items(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value; one that is changed meanwhile may come twice, before and after."""
        with self._asked():
            yield from self._client.hscan_iter(_hash(namespace), count=_CHUNK)

    def version(self, namespace: str) -> int:
        """How many batches changed the namespace; 0 when it was never written."""
        with self._asked():
            return int(self._client.get(_version(namespace)) or 0)

    def count(self, namespace: str) -> int:
        """How many keys the namespace holds."""
        with self._asked():
            return int(self._client.hlen(_hash(namespace)))

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def shown(address: str) -> str:
    """An address without what opens the door."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _hash(namespace: str) -> bytes:
    check_namespace(namespace)
    return _PREFIX + b"values:{" + namespace.encode() + b"}"


def _version(namespace: str) -> bytes:
    check_namespace(namespace)
    return _PREFIX + b"version:{" + namespace.encode() + b"}"


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
