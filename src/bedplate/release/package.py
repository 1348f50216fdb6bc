"""Make a released model version out of what training left: files, bill of materials, manifest, signature."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from bedplate import bundle
from bedplate.bundle import bom, folder
from bedplate.bundle.environment import installed
from bedplate.bundle.formats import identify
from bedplate.bundle.manifest import LIMITED, Manifest
from bedplate.errors import GateError, InputError, IntegrityError
from bedplate.ids import Digest, digest_bytes
from bedplate.records import Bundle, GateReport, TrainResult
from bedplate.release.gates import Security
from bedplate.usecase import Loaded


class Artifacts(Protocol):
    """Where files lie under their digest: :mod:`bedplate.blobs`."""

    def get(self, digest: Digest, /) -> bytes:
        """The bytes of ``digest``, verified."""
        ...


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which version this will be. ``training`` and ``gates`` are the facts it rests on; ``created`` is theirs too."""

    tenant: str
    name: str
    version: int
    training: Digest
    gates: Digest
    created: str


def package(
    artifacts: Artifacts,
    loaded: Loaded,
    training: TrainResult,
    report: GateReport,
    version: Version,
    *,
    bundles: Path,
    private_key: Path,
    public_key: Path,
) -> Bundle:
    """Write, sign and verify again the bundle of ``version`` below ``bundles``. Doing it again changes nothing.

    Raises:
        GateError: the gates did not pass.
        InputError: a file is of a format that trusted processes do not load.
        IntegrityError: what was written does not verify.
        StorageError: the disk is full or refuses.
    """
    if not report.passed:
        raise GateError(report.summary, where=str(loaded.path), fix="see the failed gates: bedplate status --json")
    files = {name: artifacts.get(digest) for name, digest in sorted(training.artifacts.items())}
    manifest = Manifest(
        tenant=version.tenant,
        name=version.name,
        version=version.version,
        workload=training.workload,
        signature=training.signature,
        data=training.inputs,
        code_digest=training.code_digest,
        environment_digest=training.environment_digest,
        training=version.training,
        gates=version.gates,
        created=version.created,
    )
    listed = folder.complete(files, manifest)
    if bom.NAME in files:
        raise InputError(f"{bom.NAME} is the bill of materials' own name", fix="give the file another name")
    files[bom.NAME] = bom.build(
        name=version.name,
        version=version.version,
        tenant=version.tenant,
        workload=training.workload,
        created=version.created,
        signature=training.signature,
        files=listed.files,
        data=training.inputs,
        metrics=training.metrics,
        card=_card(loaded, report),
        environment=installed(),
    )
    digest = bundle.write(bundles, files, manifest)
    path = bundle.path_of(bundles, digest)
    signature_digest = bundle.sign(path, private_key, public_key)
    verified = bundle.verify(path, public_key=public_key, digest=digest)
    if verified.files[bom.NAME].digest != digest_bytes(files[bom.NAME]):
        raise IntegrityError("the bill of materials is not the one that was written", where=str(path))
    return Bundle(
        name=version.name,
        version=version.version,
        digest=digest,
        tenant=version.tenant,
        files={name: file.digest for name, file in verified.files.items()},
        size=sum(file.size for file in verified.files.values()),
        signature_digest=signature_digest,
        bom_digest=verified.files[bom.NAME].digest,
    )


def inspect(files: Mapping[str, bytes], *, isolated: bool, predictor: str, reason: str = "") -> Security:
    """What the security gate needs to know about a candidate's files and the loader that its signature names."""
    limited = predictor in LIMITED
    formats: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, data in sorted(files.items()):
        try:
            formats[name] = identify(name, data, limited=limited)
        except InputError as error:
            refused[name] = error.message
    return Security(isolated=isolated, formats=formats, refused=refused, limited=limited, reason=reason)


def _card(loaded: Loaded, report: GateReport) -> bom.Card:
    use_case = loaded.use_case
    unsure = [result for result in report.results if result.verdict == "insufficient_evidence"]
    return bom.Card(
        statement=use_case.objective.statement,
        owner=f"{use_case.owner.accountable} ({use_case.owner.team})",
        purpose=use_case.governance.purpose,
        sensitive=use_case.governance.sensitive,
        limitations=tuple(f"{result.name}: {result.reason}" for result in unsure),
        risk=f"{use_case.risk.level} risk{': ' + use_case.risk.rationale if use_case.risk.rationale else ''}",
        groups=tuple((r.name, f"{r.verdict}: {r.reason}") for r in report.results if r.gate == "fairness"),
    )
