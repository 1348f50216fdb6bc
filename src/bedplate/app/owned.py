"""What the owner of a home carries out: each operation authenticates, asks policy, then acts and records."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bedplate.app import (
    access,
    access_diff,
    contract_changes,
    erase,
    features,
    ingesting,
    model_changes,
    people,
    policies,
    promises,
    quotas,
    residency,
    rollouts,
    skew,
    tables,
    workspaces,
)
from bedplate.app.owner_socket import Listener, Request
from bedplate.app.read_models import StopReport, UpInfo
from bedplate.app.system import System
from bedplate.errors import AuthenticationError, NotFoundError, UnavailableError
from bedplate.identity import Principal
from bedplate.plan.types import Probe
from bedplate.policy import values as policy
from bedplate.records import Event
from bedplate.settings import Home, Settings
from bedplate.workflow import lease as leases

Emit = Callable[[Event], None]


def key_path(home: Home) -> Path:
    """Where the local administrator's key lies."""
    return home.keys / "admin.key"


def local_token(home: Home) -> str:
    """The local administrator's key, which the CLI uses without asking.

    Raises:
        AuthenticationError: it is not there or may not be read.
    """
    path = key_path(home)
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AuthenticationError(
            "the local administrator key cannot be read", where=str(path), fix="run as the user who owns the home"
        ) from error


class OwnedHome:
    """An owner at work: its system, and the socket over which other commands reach it."""

    def __init__(self, settings: Settings, *, lease_seconds: float = leases.SECONDS) -> None:
        self.system = System(settings, lease_seconds=lease_seconds)
        self.stopping = threading.Event()
        if self.system.lease is not None:
            self.system.lease.when_lost(self.stopping.set)
        try:
            self._listener = Listener(self.system.home.socket, self._on_request)
        except BaseException:
            self.system.close()
            raise

    def __enter__(self) -> "OwnedHome":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what others asked for, then give the home back."""
        self._listener.close()
        self.system.close()

    def local_token(self) -> str:
        """The key of who started this process."""
        return local_token(self.system.home)

    def _on_request(self, request: Request, emit: Emit) -> Any:
        return self.carry_out(request.operation, request.arguments, request.token, emit)

    def carry_out(self, operation: str, arguments: dict[str, Any], token: str, emit: Emit) -> Any:
        """Do one operation for the holder of ``token``.

        Raises:
            AuthenticationError: the key is not valid.
            DeniedError: policy does not allow it.
            NotFoundError: there is no such operation.
        """
        method = _OPERATIONS.get(operation)
        if method is None:
            raise NotFoundError(f"there is no operation {operation!r}", fix=f"use one of {', '.join(_OPERATIONS)}")
        principal = self.system.identity.authenticate(token)
        return method(self, principal, emit, **arguments)

    # ---------------------------------------------------------------------------------------------------- operations

    def run(self, principal: Principal, emit: Emit, path: str, only: str | None = None) -> Any:
        """Carry a use case through the flow."""
        from bedplate.app import runs

        return runs.run(self.system, principal, Path(path), only, emit)

    def trace(self, principal: Principal, emit: Emit, prediction_id: str, purpose: str | None = None) -> Any:
        """Walk from a prediction to the objective."""
        from bedplate.app import tracing

        return tracing.trace(self.system, principal, prediction_id, purpose)

    def approve(self, principal: Principal, emit: Emit, use_case: str, environment: str, reason: str) -> Any:
        """Approve the latest bundle for an environment."""
        from bedplate.app import decisions

        return decisions.vote(self.system, principal, use_case, environment, reason, "approved")

    def refuse(self, principal: Principal, emit: Emit, use_case: str, environment: str, reason: str) -> Any:
        """Refuse the latest bundle for an environment."""
        from bedplate.app import decisions

        return decisions.vote(self.system, principal, use_case, environment, reason, "refused")

    def waive(self, principal: Principal, emit: Emit, use_case: str, gate: str, reason: str) -> Any:
        """Waive a gate that lacks evidence."""
        from bedplate.app import decisions

        return decisions.waive(self.system, principal, use_case, gate, reason)

    def login_link(self, principal: Principal, emit: Emit) -> str:
        """A one-time link to the pages."""
        return self.link(principal.id)

    def up_info(self, principal: Principal, emit: Emit) -> Any:
        """Where this owner serves, with a new one-time link."""
        return UpInfo(address=self.address(), link=self.login_link(principal, emit), pid=os.getpid())

    def backup(self, principal: Principal, emit: Emit, destination: str, region: str = "") -> Any:
        """Write a verified copy of the home."""
        from bedplate.app import backup

        access.demand(self.system, principal, "administer", policy.HOME)
        residencies = residency.may_copy(self.system, principal.id, region)
        with self.system.store.transaction() as tx:
            self.system.ledger.record(
                tx, actor=principal.id, action="home.backup", resource="home",
                payload={"to": destination, "region": region},
            )  # fmt: skip
        return backup.backup(self.system.home, Path(destination), region, residencies)

    def keep_probe(self, principal: Principal, emit: Emit, measured: dict[str, Any]) -> Any:
        """Keep a measurement of this machine."""
        from bedplate.app import planning

        return planning.keep(self.system, principal, msgspec.convert(measured, Probe))

    def keep_prices(self, principal: Principal, emit: Emit, brought: dict[str, Any]) -> Any:
        """Keep prices that were read from a list."""
        from bedplate.app import pricing

        return pricing.keep(self.system, principal, msgspec.convert(brought, pricing.Bringing))

    def gc(self, principal: Principal, emit: Emit, older_than: str, dry_run: bool) -> Any:
        """Delete for good what was deleted long enough ago."""
        from bedplate.app import collecting

        return collecting.gc(self.system, principal, older_than, dry_run=dry_run)

    def status(self, principal: Principal, emit: Emit) -> Any:
        """What this owner is doing now."""
        from bedplate.app import endpoints, queries

        found = queries.status(self.system.settings, endpoints.live(self.system))
        spans = self.system.spans
        if spans is None:
            return found
        return msgspec.structs.replace(found, spans_sent=spans.sent, spans_dropped=spans.dropped)

    def load_target(self, principal: Principal, emit: Emit, endpoint: str, logged: bool) -> Any:
        """What a load run against an endpoint goes by."""
        from bedplate.app import load_target

        return load_target.find(self.system, principal, endpoint, logged=logged)

    def profile_training(self, principal: Principal, emit: Emit, run: str, seconds: float) -> Any:
        """What holds a training back."""
        from bedplate.app import training_profile

        return training_profile.profile(self.system, principal, emit, run, seconds)

    def export_kubernetes(self, principal: Principal, emit: Emit, **asked: Any) -> Any:
        """An endpoint as Kubernetes objects."""
        from bedplate.app.exports import endpoint

        return endpoint.kubernetes(self.system, principal, **asked)

    def export_launch(self, principal: Principal, emit: Emit, **asked: Any) -> Any:
        """The option of a plan for a tool that launches it."""
        from bedplate.app.exports import planned

        return planned.launch(self.system, principal, **asked)

    def score(self, principal: Principal, emit: Emit, **asked: Any) -> Any:
        """Score a table."""
        from bedplate.app import scoring

        return scoring.score(self.system, principal, emit, **asked)

    def start_scoring(self, principal: Principal, emit: Emit, **asked: Any) -> Any:
        """Score a table while nobody waits for it."""
        from bedplate.app import scorings

        return scorings.start(self.system, principal, **asked)

    def show_scoring(self, principal: Principal, emit: Emit, **which: Any) -> Any:
        """How far a scoring is."""
        from bedplate.app import scorings

        return scorings.show(self.system, principal, **which)

    def cancel_scoring(self, principal: Principal, emit: Emit, **which: Any) -> Any:
        """End a scoring."""
        from bedplate.app import scorings

        return scorings.cancel(self.system, principal, **which)

    def stop(self, principal: Principal, emit: Emit) -> Any:
        """Ask this owner to end."""
        from bedplate.app import endpoints

        access.demand(self.system, principal, "operate", policy.HOME)
        names = tuple(endpoints.live(self.system))
        self.stopping.set()
        return StopReport(pid=os.getpid(), endpoints=names)

    def link(self, principal: str | None = None) -> str:
        """A one-time link to the pages, for a principal or for who started this process."""
        who = self.system.identity.authenticate(self.system.token).id if principal is None else principal
        return f"{self.address()}/login/{self.system.identity.create_link(who, actor=who)}"

    def address(self) -> str:
        """Where API and pages answer.

        Raises:
            UnavailableError: this owner does not serve them.
        """
        try:
            return (self.system.home.run / "address").read_text("ascii").strip()
        except OSError as error:
            raise UnavailableError("no pages are being served", fix="start them: bedplate up") from error


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that needs nothing of its owner but the system."""

    def carry_out(home: OwnedHome, principal: Principal, emit: Emit, **arguments: Any) -> Any:
        return function(home.system, principal, **arguments)

    return carry_out


_OPERATIONS: dict[str, Callable[..., Any]] = {
    method.__name__: method
    for method in (
        OwnedHome.run,
        OwnedHome.trace,
        OwnedHome.approve,
        OwnedHome.refuse,
        OwnedHome.waive,
        OwnedHome.login_link,
        OwnedHome.up_info,
        OwnedHome.backup,
        OwnedHome.gc,
        OwnedHome.status,
        OwnedHome.load_target,
        OwnedHome.profile_training,
        OwnedHome.export_kubernetes,
        OwnedHome.export_launch,
        OwnedHome.keep_probe,
        OwnedHome.keep_prices,
        OwnedHome.score,
        OwnedHome.start_scoring,
        OwnedHome.show_scoring,
        OwnedHome.cancel_scoring,
        OwnedHome.stop,
    )
} | {
    "add_user": _of(people.add),
    "list_users": _of(people.listed),
    "set_groups": _of(people.set_groups),
    "disable_user": _of(people.disable),
    "create_key": _of(people.create_key),
    "list_keys": _of(people.keys),
    "revoke_key": _of(people.revoke_key),
    "create_workspace": _of(workspaces.create),
    "list_workspaces": _of(workspaces.visible),
    "update_workspace": _of(workspaces.update),
    "delete_workspace": _of(workspaces.delete),
    "point_alias": _of(model_changes.point_alias),
    "name_approvers": _of(model_changes.name_approvers),
    "convert_version": _of(model_changes.convert_version),
    "start_rollout": _of(rollouts.start),
    "show_rollout": _of(rollouts.report),
    "freeze_rollout": _of(rollouts.freeze),
    "resume_rollout": _of(rollouts.resume),
    "roll_back": _of(rollouts.roll_back),
    "set_quota": _of(quotas.put),
    "list_quotas": _of(quotas.listed),
    "remove_quota": _of(quotas.remove),
    "take_outcomes": _of(rollouts.take_outcomes),
    "list_features": _of(features.listed),
    "show_features": _of(features.show),
    "get_features": _of(features.get),
    "materialise_features": _of(features.materialise),
    "measure_skew": _of(skew.measure),
    "add_policies": _of(policies.add),
    "compare_policies": _of(policies.compare),
    "list_policies": _of(policies.listed),
    "remove_policy": _of(policies.remove),
    "test_policies": _of(policies.trial),
    "list_tables": _of(tables.listed),
    "show_table": _of(tables.show),
    "table_history": _of(tables.history),
    "read_table": _of(tables.read),
    "scrub_table": _of(tables.scrub),
    "compact_table": _of(tables.compact),
    "restore_table": _of(tables.restore),
    "backfill_table": _of(ingesting.backfill),
    "replay_table": _of(ingesting.replay),
    "explain_access": _of(tables.explain),
    "check_promises": _of(promises.check),
    "erase_subject": _of(erase.subject),
    "expire": _of(erase.expire),
    "hold_erasure": _of(erase.hold),
    "diff_contracts": _of(contract_changes.diff),
    "diff_policies": _of(access_diff.of_policies),
    "diff_use_case": _of(access_diff.of_use_case),
}


def open_home(settings: Settings, *, lease_seconds: float = leases.SECONDS) -> OwnedHome:
    """Become the owner of a home.

    Raises:
        HeldError: another process owns it.
        LeasedError: the owner of another home holds the database.
        HomeError: the folder cannot be a home.
    """
    return OwnedHome(settings, lease_seconds=lease_seconds)
