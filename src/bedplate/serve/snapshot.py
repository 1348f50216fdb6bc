"""What replicas know of keys, policies and routes: one signed file, replaced by rename.

The owner writes it; replicas look for a new one several times a second. A file that is missing, whose signature does
not fit, or that is older than one already seen opens nothing: everything is denied until a good one is there.
"""

import hashlib
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bedplate import clock, files
from bedplate.errors import IntegrityError
from bedplate.ids import Digest
from bedplate.policy.values import Principal
from bedplate.records import Governance, Quota

_DOMAIN = b"bedplate access snapshot 1\n"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a key stands for, and until when (RFC 3339; None: until it is revoked)."""

    principal: Principal
    expires: str | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an endpoint shares its requests with a candidate release that runs in a process of its own.

    ``split`` gives the candidate ``share`` of the requests, by the hash of ``salt`` and the request's key: the first
    value of the input ``key``, or each request by itself if that is empty. ``shadow`` has it answer that share a second
    time, for comparison only. ``patience`` is how many seconds its answer may take before the stable one is given,
    ``slack`` how many it may be slower than the stable release's p95 without being called slow, and ``tolerance`` the
    relative difference at which two values still are the same. Replicas leave their counts in the folder ``tallies``.
    """

    rollout: str
    step: int
    mode: Literal["shadow", "split"]
    share: float
    salt: str
    bundle: Digest
    version: str
    evidence: Digest
    socket: Path
    tallies: Path
    patience: float
    key: str = ""
    slack: float = 0.0
    tolerance: float = 1e-6


class Quotas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quotas at one endpoint beside the one of its file: of ``principals`` by id, and of each member of ``groups``."""

    principals: dict[str, Quota] = {}
    groups: dict[str, Quota] = {}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``keys`` by :func:`key_name`; ``policies`` are texts beside the built-in ones; ``number`` never goes back.

    ``routes`` are those of endpoints, by name, that are being rolled out now; ``quotas`` are those of endpoints;
    ``governed`` is what rows of use cases are for, by name.
    """

    number: int
    created: str
    keys: dict[str, Key]
    policies: tuple[str, ...] = ()
    routes: dict[str, Route] = {}
    quotas: dict[str, Quotas] = {}
    governed: dict[str, Governance] = {}


class _Signed(msgspec.Struct, frozen=True):
    snapshot: msgspec.Raw
    signature: str


def key_name(key_id: str, secret_hash: bytes) -> str:
    """The name of a key in a snapshot, from what the store keeps of it: its public id and the SHA-256 of its secret."""
    return f"{key_id}:{secret_hash.hex()}"


def name_of_token(token: str) -> str:
    """The name under which a presented key would stand in a snapshot. Keys read ``<prefix>_<id>_<secret>``."""
    parts = token.split("_", 2)
    if len(parts) != 3 or len(token) > 200:
        return ""
    return key_name(parts[1], hashlib.sha256(parts[2].encode("utf-8", "replace")).digest())


def new(
    keys: dict[str, Key],
    policies: tuple[str, ...] = (),
    after: int = 0,
    routes: dict[str, Route] | None = None,
    quotas: dict[str, Quotas] | None = None,
    governed: dict[str, Governance] | None = None,
) -> Snapshot:
    """A snapshot numbered by the time, but above ``after``: clocks are set back, numbers never."""
    number = max(int(clock.now().timestamp() * 1_000_000), after + 1)
    return Snapshot(
        number=number,
        created=clock.timestamp(),
        keys=keys,
        policies=policies,
        routes=routes or {},
        quotas=quotas or {},
        governed=governed or {},
    )


def write(path: Path, snapshot: Snapshot, key: Ed25519PrivateKey) -> None:
    """Sign ``snapshot`` and put it in the place of the one before.

    Raises:
        StorageError: the disk is full or refuses; the one before stays in force.
    """
    text = msgspec.json.encode(snapshot, enc_hook=str)
    signed = _Signed(snapshot=msgspec.Raw(text), signature=key.sign(_DOMAIN + text).hex())
    files.write(path, msgspec.json.encode(signed))


def read(path: Path, key: Ed25519PublicKey) -> Snapshot:
    """The snapshot in force.

    Raises:
        IntegrityError: it is missing, malformed, or not signed with the key's other half.
    """
    try:
        signed = msgspec.json.decode(path.read_bytes(), type=_Signed)
        key.verify(bytes.fromhex(signed.signature), _DOMAIN + bytes(signed.snapshot))
        return msgspec.json.decode(signed.snapshot, type=Snapshot, dec_hook=lambda kind, value: kind(value))
    except InvalidSignature as error:
        raise IntegrityError("the access snapshot is not signed by this home", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the access snapshot cannot be read: {error}", where=str(path)) from error


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file.

    Raises:
        IntegrityError: there is none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the snapshot key cannot be read: {error}", where=str(path)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise IntegrityError("the snapshot key is not an Ed25519 key", where=str(path))
    return key


def make_key(private: Path, public: Path) -> Ed25519PrivateKey:
    """The private key that snapshots are signed with, made at the first call; both files are PEM, 0600 and 0644.

    Raises:
        IntegrityError: the private key is there and cannot be read.
        StorageError: the disk is full or refuses.
    """
    if private.exists():
        try:
            key = serialization.load_pem_private_key(private.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise IntegrityError(f"the snapshot key cannot be read: {error}", where=str(private)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IntegrityError("the snapshot key is not an Ed25519 key", where=str(private))
    else:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.write(private, pem, 0o600)
    if not public.exists():
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        files.write(public, pem, 0o644)
    return key
