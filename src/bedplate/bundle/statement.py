"""The second signed statement: which bundle may be served in which environment, and until when.

A signature over files binds no place and no time: an old version that was approved once would verify for ever. This
statement is signed when a release is approved, and a replica that is given one serves nothing else.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bedplate import clock
from bedplate.bundle import dsse
from bedplate.bundle.keys import load_private, load_public
from bedplate.bundle.manifest import Manifest
from bedplate.errors import IntegrityError
from bedplate.ids import Digest

PREDICATE = "urn:bedplate:release:v1"
_STATEMENT = "https://in-toto.io/Statement/v1"


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """May be served in ``environment`` until ``expires`` (RFC 3339), or as long as the key holds when it is None."""

    tenant: str
    name: str
    version: int
    digest: Digest
    environment: str
    expires: str | None = None


class _Hashes(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str


class _Subject(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    digest: _Hashes


class _Statement(
    msgspec.Struct, rename={"kind": "_type", "predicate_type": "predicateType"}, forbid_unknown_fields=True
):
    kind: Literal["https://in-toto.io/Statement/v1"]
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: str
    predicate: Release


def sign_release(release: Release, private: Path) -> bytes:
    """The signed statement, as a Sigstore bundle over an in-toto statement.

    Raises:
        HomeError: the private key cannot be used.
    """
    subject = {"name": release.name, "digest": {"sha256": release.digest.removeprefix("sha256:")}}
    payload = {"_type": _STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": release}
    return dsse.sign(payload, load_private(private))


def verify_release(
    data: bytes, *, public_key: Path, manifest: Manifest, environment: str, at: datetime | None = None
) -> Release:
    """The release in ``data``, if it lets exactly this bundle be served in ``environment`` at ``at`` (default: now).

    Raises:
        IntegrityError: the signature does not hold, it is about another bundle or environment, or it has expired.
    """
    where = f"release statement of {manifest.name} version {manifest.version}"
    payload = dsse.verify(data, load_public(public_key), where)
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
        release = statement.predicate
        expires = clock.parse(release.expires) if release.expires is not None else None
    except (msgspec.DecodeError, ValueError) as error:
        raise IntegrityError(f"the statement cannot be read: {error}", where=where) from error
    if statement.predicate_type != PREDICATE:
        raise IntegrityError("the statement is of another kind", where=where)
    meant = (manifest.tenant, manifest.name, manifest.version, manifest.digest)
    if (release.tenant, release.name, release.version, release.digest) != meant:
        raise IntegrityError(
            f"it releases {release.tenant}/{release.name} version {release.version}, not this bundle", where=where
        )
    if f"sha256:{statement.subject[0].digest.sha256}" != release.digest:
        raise IntegrityError("the statement contradicts itself", where=where)
    if release.environment != environment:
        raise IntegrityError(f"it was released to {release.environment}, not to {environment}", where=where)
    if expires is not None and (at or clock.now()) >= expires:
        raise IntegrityError(f"the release expired at {release.expires}", where=where, fix="approve it again")
    return release
