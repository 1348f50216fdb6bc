"""What is told of rollouts, quotas and exports, beside :mod:`bedplate.app.read_models`."""

from typing import Any, Literal

import msgspec

from bedplate.ids import Digest
from bedplate.records import GuardFinding, Quota, RolloutState


class EndpointQuota(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may ask of an endpoint. ``holder`` is a name; ``kind`` is ``each`` for what the file gives others.

    ``used_day`` and ``used_month`` are what a principal with a quota was granted so far, in UTC. ``cost_month`` is the
    second times what a prediction has cost since the owner started, in ``currency``; None where no cost is known.
    """

    endpoint: str
    kind: Literal["principal", "group", "each"]
    holder: str
    quota: Quota
    by: str = ""
    created: str = ""
    used_day: int | None = None
    used_month: int | None = None
    cost_month: float | None = None
    currency: str = ""


class KubernetesExport(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as Kubernetes objects, in an order in which they can be applied, and what they need beside them."""

    endpoint: str
    objects: tuple[dict[str, Any], ...]
    needs: tuple[str, ...]


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout: what was seen in it, and how it ended. ``state`` is ``to come`` before it begins."""

    mode: Literal["shadow", "split"]
    share: float
    hold: float
    state: Literal["to come", "now", "passed", "stopped"]
    stable: int = 0
    candidate: int = 0
    findings: tuple[GuardFinding, ...] = ()
    rows: int = 0
    different: int = 0
    ended: str = ""


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it is now, in words: which release is let in, in the place of which, how far, and why it ended."""

    id: str
    endpoint: str
    use_case: str
    state: RolloutState
    bundle: Digest
    before: Digest
    by: str
    reason: str
    created: str
    updated: str
    steps: tuple[RolloutStep, ...]
