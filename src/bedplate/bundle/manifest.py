"""``bedplate.json``: what a model version is, inside the signed folder. Its digest is the digest of the bundle."""

import re
from typing import Annotated, Literal

import msgspec

from bedplate.errors import InputError, IntegrityError
from bedplate.ids import Digest, canonical, digest_bytes
from bedplate.records import ModelSignature, TableVersion

NAME = "bedplate.json"
MANIFEST_LIMIT = 4 << 20
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)

Format = Literal["onnx", "safetensors", "arrow", "json", "lightgbm", "python", "torch-export"]

LIMITED = frozenset({"graph-limited", "python", "torch-export"})
"""Loaders that run what the bundle holds, in a limited process. Only their bundles may hold files of these formats."""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle: its digest, its size in bytes, and the format its content was found to have."""

    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    format: Format


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model version: whose it is, what it takes and gives, and the evidence that it rests on.

    ``training`` and ``gates`` are digests of facts. ``created`` belongs to the version, not to the moment of writing:
    the same manifest written again gives the same digest.
    """

    format: Literal[1] = 1
    tenant: str
    name: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    workload: str
    signature: ModelSignature
    files: dict[str, File] = {}
    data: tuple[TableVersion, ...]
    code_digest: Digest
    environment_digest: Digest
    training: Digest
    gates: Digest
    created: str

    def encode(self) -> bytes:
        """The one JSON text of this manifest."""
        return canonical(self)

    @property
    def digest(self) -> Digest:
        """The digest of the bundle."""
        return digest_bytes(self.encode())


def decode(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``, which MUST be in canonical form so that one manifest has one digest.

    Raises:
        IntegrityError: it is malformed, of another format, or not canonical.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the manifest cannot be read: {error}", where=where) from error
    if manifest.encode() != data:
        raise IntegrityError("the manifest is not in canonical form", where=where)
    return manifest


def check_name(name: str) -> None:
    """Names are flat: lower-case letters, digits, ``.``, ``_`` and ``-``; never a path.

    Raises:
        InputError: ``name`` is none.
    """
    if not _FILE_NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"{name!r} cannot name a file of a bundle",
            fix="use lower-case letters, digits, '.', '_' and '-', no folders",
        )
