"""What the registry answers to the command line, the API and the pages."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bedplate.ids import Digest
from bedplate.records import GateReport, TableVersion
from bedplate.release.past import By


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. ``entry`` is the ledger entry that holds it; ``by`` who did it, by name if known."""

    seq: int
    time: str
    kind: str
    version: int | None
    value: str
    before: str
    after: str
    by: str
    name: str
    entry: int | None


class VersionApproval(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said about a version for an environment."""

    environment: str
    state: str
    by: str
    reason: str
    time: str


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version with everything that is known about it.

    A version that the flow made has ``bundle``, ``signature``, ``data`` and ``gates`` from the evidence of its use
    case; one that a client registered has ``source``, what was seen in its files (``safety``, ``reasons``) and the one
    gate that this is. ``onnx`` is what it was converted to, ``evidence`` the fact that shows it says the same.
    """

    workspace: str
    name: str
    version: int
    stage: str
    aliases: tuple[str, ...]
    status: str
    created: str
    updated: str
    creator: str
    description: str
    tags: Mapping[str, str]
    use_case: str | None
    source: str
    run: str
    bundle: Digest | None
    signature: Digest | None
    data: tuple[TableVersion, ...]
    gates: GateReport
    approvals: tuple[VersionApproval, ...]
    safety: str
    reasons: tuple[str, ...]
    flavors: tuple[str, ...]
    onnx: Digest | None
    evidence: Digest | None


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One registered model. ``approvers`` says who must agree, by environment, where the model itself says it."""

    workspace: str
    name: str
    created: str
    updated: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    approvers: Mapping[str, str]
    stages: Mapping[str, int]
    """The newest version in each stage."""
    versions: tuple[VersionView, ...] = ()


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Models by name; ``next_page`` asks for those after them."""

    models: tuple[ModelView, ...]
    next_page: str | None = None


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, newest first; ``before`` is the ``seq`` to ask for earlier lines with, None if there are none."""

    workspace: str
    name: str
    lines: tuple[HistoryLine, ...]
    before: int | None = None


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """Which version was live. ``name`` is what the model was called then; ``since`` says what had made it so."""

    workspace: str
    name: str
    at: str
    by: By
    value: str
    version: int | None
    versions: tuple[int, ...]
    since: tuple[HistoryLine, ...]


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was converted to, and how it compares."""

    workspace: str
    name: str
    version: int
    onnx: Digest
    evidence: Digest
    compared: Mapping[str, Any]


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """An alias that was pointed to a version, or taken away (``version`` is None). ``ledger_index`` holds it."""

    workspace: str
    name: str
    alias: str
    version: int | None
    environment: str | None
    ledger_index: int | None
    reason: str = ""


class ApproversSet(msgspec.Struct, frozen=True, kw_only=True):
    """Who must agree from now on; an empty rule names nobody."""

    workspace: str
    name: str
    environment: str
    rule: str
    ledger_index: int
