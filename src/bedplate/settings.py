"""The only reader of the environment: one table of settings, one layout of the home folder."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from bedplate.errors import InputError
from bedplate.records import REGIONS

FORMAT = 1
"""Version of everything we write into a home folder. A home of another format is refused, never guessed at."""


ONLINE_SCHEMES = ("redis", "rediss", "valkey", "valkeys")
"""How an address of a server of online features begins; an ``s`` at the end stands for TLS."""


class Setting(NamedTuple):
    """One setting: its environment variable, its default as text, and what it does."""

    variable: str
    default: str
    help: str


SETTINGS = (
    Setting("BEDPLATE_HOME", "~/.bedplate", "Folder that holds everything Bedplate keeps: database, tables, keys."),
    Setting("BEDPLATE_DATABASE", "", "postgresql:// address of the metadata database; empty: SQLite in the home."),
    Setting("BEDPLATE_STORAGE", "", "s3:// or az:// address for tables and artifacts; empty: folders in the home."),
    Setting(
        "BEDPLATE_ONLINE",
        "",
        "redis:// or rediss:// address of the Redis or Valkey server with online features; empty: a file in the home.",
    ),
    Setting(
        "BEDPLATE_REGION",
        "",
        f"Region in which this machine and the home lie: {', '.join(REGIONS)}. It is your word; empty: use cases "
        "with residency are refused.",
    ),
    Setting("BEDPLATE_DATABASE_REGION", "", "Region in which the database of BEDPLATE_DATABASE lies."),
    Setting("BEDPLATE_STORAGE_REGION", "", "Region in which the storage of BEDPLATE_STORAGE lies."),
    Setting("BEDPLATE_ONLINE_REGION", "", "Region in which the server of BEDPLATE_ONLINE lies."),
    Setting("BEDPLATE_HOST", "127.0.0.1", "Address that the API, the pages and the endpoints listen on."),
    Setting("BEDPLATE_PORT", "8700", "Port of the API and the pages. Endpoints take the free ports that follow it."),
    Setting("BEDPLATE_ENVIRONMENT", "dev", "Environment that releases go to: dev approves by policy, production asks."),
    Setting(
        "BEDPLATE_ALIASES",
        "",
        "Aliases of registered models that stand for an environment: canary=staging adds one, live= makes it a label.",
    ),
    Setting(
        "BEDPLATE_MEMORY",
        "",
        "Memory in MiB that all replicas together may take; endpoints that may have none make room. Empty: no limit.",
    ),
    Setting(
        "BEDPLATE_TRACES",
        "",
        "Address of an OTLP/HTTP collector for traces of predictions, such as http://127.0.0.1:4318; empty: none.",
    ),
    Setting(
        "BEDPLATE_CONNECTIONS",
        "",
        "Databases and programs that sources may name, as name=address apart by white space: "
        "shop=postgresql://reader@db/shop crm=program:crm.export:customers.",
    ),
    Setting(
        "BEDPLATE_NETWORKS",
        "",
        "Private networks that web servers of sources may lie in, apart by white space: 10.1.0.0/16; empty: none.",
    ),
    Setting(
        "BEDPLATE_ISOLATION",
        "preferred",
        "What becomes of sources where the kernel cannot confine the process that parses them: preferred reads them "
        "and says so, required refuses them.",
    ),
    Setting("BEDPLATE_LOG", "info", "Least severe log line that is written: debug, info, warning or error."),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, read once at the start of a process."""

    home: Path
    database: str
    storage: str
    endpoint: str
    """Where object storage answers, if not at Amazon: ``AWS_ENDPOINT_URL``, as other programs read it too."""
    online: str
    """May hold a password."""
    host: str
    port: int
    environment: str
    log: str
    aliases: str = ""
    memory: int | None = None
    """Bytes."""
    traces: str = ""
    connections: Mapping[str, str] = {}
    networks: tuple[str, ...] = ()
    isolation: str = "preferred"
    region: str = ""
    """Where the home is, empty where nobody says; so are those below."""
    database_region: str = ""
    storage_region: str = ""
    online_region: str = ""


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        InputError: a value cannot be used; the text names the variable.
    """
    source = os.environ if environ is None else environ
    values = {s.variable: source.get(s.variable, "") or s.default for s in SETTINGS}
    for name in source:
        if name.startswith("BEDPLATE_") and name not in values:
            raise InputError(f"{name} is not a setting", where="environment", fix=f"use one of {', '.join(values)}")
    port = values["BEDPLATE_PORT"]
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise InputError(f"{port!r} is not a port", where="BEDPLATE_PORT", fix="give a number from 0 to 65535")
    if values["BEDPLATE_LOG"] not in ("debug", "info", "warning", "error"):
        raise InputError(
            f"{values['BEDPLATE_LOG']!r} is not a level", where="BEDPLATE_LOG", fix="use debug, info, warning or error"
        )
    if values["BEDPLATE_ISOLATION"] not in ("preferred", "required"):
        raise InputError(
            f"{values['BEDPLATE_ISOLATION']!r} is no word for it", where="BEDPLATE_ISOLATION",
            fix="use preferred or required",
        )  # fmt: skip
    return Settings(
        home=Path(values["BEDPLATE_HOME"]).expanduser().absolute(),
        database=values["BEDPLATE_DATABASE"],
        storage=values["BEDPLATE_STORAGE"],
        endpoint=source.get("AWS_ENDPOINT_URL_S3", "") or source.get("AWS_ENDPOINT_URL", ""),
        online=_online(values["BEDPLATE_ONLINE"]),
        host=values["BEDPLATE_HOST"],
        port=int(port),
        environment=values["BEDPLATE_ENVIRONMENT"],
        log=values["BEDPLATE_LOG"],
        aliases=values["BEDPLATE_ALIASES"],
        traces=values["BEDPLATE_TRACES"],
        memory=_memory(values["BEDPLATE_MEMORY"]),
        connections=_connections(values["BEDPLATE_CONNECTIONS"]),
        networks=_networks(values["BEDPLATE_NETWORKS"]),
        isolation=values["BEDPLATE_ISOLATION"],
        region=_region("BEDPLATE_REGION", values),
        database_region=_region("BEDPLATE_DATABASE_REGION", values),
        storage_region=_region("BEDPLATE_STORAGE_REGION", values),
        online_region=_region("BEDPLATE_ONLINE_REGION", values),
    )


def _online(text: str) -> str:
    if text and text.partition("://")[0] not in ONLINE_SCHEMES:
        raise InputError(  # without the text: an address may hold a password
            "this is no address of a Redis or Valkey server", where="BEDPLATE_ONLINE", fix="write redis://host:6379/0"
        )
    return text


def _region(variable: str, values: Mapping[str, str]) -> str:
    region = values[variable]
    if region and region not in REGIONS:
        raise InputError(f"{region!r} is not a region", where=variable, fix=f"use one of {', '.join(REGIONS)}")
    return region


def _connections(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, entry in enumerate(text.split(), 1):
        name, _, address = entry.partition("=")
        if not name.isidentifier() or not address or name in found:
            raise InputError(  # without the entry: an address may hold a password
                f"entry {number} is no name=address of its own", where="BEDPLATE_CONNECTIONS",
                fix="write shop=postgresql://reader@db/shop",
            )  # fmt: skip
        found[name] = address
    return found


def _networks(text: str) -> tuple[str, ...]:
    for network in text.split():
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise InputError(f"{error}", where="BEDPLATE_NETWORKS", fix="write 10.1.0.0/16") from error
    return tuple(text.split())


def _memory(text: str) -> int | None:
    """Bytes, from MiB."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or not int(text):
        raise InputError(
            f"{text!r} is not an amount of memory", where="BEDPLATE_MEMORY", fix="give a whole number of MiB"
        )
    return int(text) << 20


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of ours that must have the same settings."""
    return {
        **os.environ,
        "BEDPLATE_HOME": str(settings.home),
        "BEDPLATE_DATABASE": settings.database,
        "BEDPLATE_STORAGE": settings.storage,
        "BEDPLATE_ONLINE": settings.online,
        "BEDPLATE_HOST": settings.host,
        "BEDPLATE_PORT": str(settings.port),
        "BEDPLATE_ENVIRONMENT": settings.environment,
        "BEDPLATE_LOG": settings.log,
        "BEDPLATE_ALIASES": settings.aliases,
        "BEDPLATE_TRACES": settings.traces,
        "BEDPLATE_CONNECTIONS": " ".join(f"{name}={address}" for name, address in settings.connections.items()),
        "BEDPLATE_NETWORKS": " ".join(settings.networks),
        "BEDPLATE_ISOLATION": settings.isolation,
        "BEDPLATE_REGION": settings.region,
        "BEDPLATE_DATABASE_REGION": settings.database_region,
        "BEDPLATE_STORAGE_REGION": settings.storage_region,
        "BEDPLATE_ONLINE_REGION": settings.online_region,
        "BEDPLATE_MEMORY": "" if settings.memory is None else str(settings.memory >> 20),
    }


def thread_limits(threads: int) -> dict[str, str]:
    """The variables by which numerical libraries take ``threads`` threads each.

    Left alone, each takes every core, and threads that wait for each other cost more than they bring on small matrices.
    """
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def threads_environment(threads: int) -> dict[str, str]:
    """The environment of a process with these :func:`thread_limits`."""
    return {**os.environ, **thread_limits(threads)}


class Home(msgspec.Struct, frozen=True):
    """Where things lie inside a home folder. Only paths: :mod:`bedplate.app.home` makes and checks the folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        """``{"format": 1, "id": ..., "created": ...}``; its presence makes a folder a home."""
        return self.root / "home.json"

    @property
    def lock(self) -> Path:
        """Held with flock by the one owner process."""
        return self.root / "owner.lock"

    @property
    def socket(self) -> Path:
        """Unix socket on which the owner serves other commands."""
        return self.root / "owner.sock"

    @property
    def database(self) -> Path:
        """Metadata, when no ``BEDPLATE_DATABASE`` is set."""
        return self.root / "bedplate.db"

    @property
    def workflow(self) -> Path:
        """What drives durable steps; whether a step is done stands in the metadata."""
        return self.root / "workflow.db"

    @property
    def probe(self) -> Path:
        """What a short measurement found on this machine, kept so that equal files give equal plans."""
        return self.root / "probe.json"

    @property
    def prices(self) -> Path:
        """Prices that somebody imported, beside those that ship; plans are made from both."""
        return self.root / "prices.json"

    @property
    def keys(self) -> Path:
        """Folder (0700) of key files (0600)."""
        return self.root / "keys"

    @property
    def ledger(self) -> Path:
        """Tiles and signed checkpoints of the audit ledger."""
        return self.root / "ledger"

    @property
    def tables(self) -> Path:
        """Delta tables."""
        return self.root / "tables"

    @property
    def blobs(self) -> Path:
        """Artifacts by digest."""
        return self.root / "blobs"

    @property
    def bundles(self) -> Path:
        """Signed model folders, by digest, as replicas load them."""
        return self.root / "bundles"

    @property
    def journal(self) -> Path:
        """Append-only segments: predictions not yet shipped to their table."""
        return self.root / "journal"

    @property
    def online(self) -> Path:
        """Online features."""
        return self.root / "online"

    @property
    def run(self) -> Path:
        """What belongs to running processes: replica specs, snapshots, addresses. Safe to delete when stopped."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Log files of the owner and the replicas."""
        return self.root / "logs"
