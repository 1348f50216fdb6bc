"""Users, keys, workspaces and policies as a program or a command asks about them: one noun each.

Each is an attribute of :class:`bedplate.app.operations.Bedplate`. Everything here is carried out by the owner of the
home, under the name of whoever asks; what policy does not allow is a DeniedError.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from bedplate.app.people_models import Key, NewKey, Policy, PolicyChange, PolicyCheck, PolicyTest, User, Workspace
from bedplate.app.serving_models import EndpointQuota, RolloutReport
from bedplate.errors import InputError
from bedplate.records import Event, Quota

T = TypeVar("T")

_LARGEST = 1 << 20


class CarryOut(Protocol):
    """How an operation reaches the owner: its name, the type of its answer, its arguments."""

    def __call__(self, operation: str, kind: type[T], on_event: Callable[[Event], None] = ..., **arguments: Any) -> T:
        """Carry it out."""
        ...


class Users:
    """Who can come in: people, and services that act by themselves."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def add(self, name: str, *, service: bool = False, groups: Sequence[str] = ()) -> User:
        """Add a user, or a service. Groups, not names, give rights."""
        return self._carry_out("add_user", User, name=name, service=service, groups=tuple(groups))

    def list(self) -> tuple[User, ...]:
        """Everybody who can or could come in, by name."""
        return self._carry_out("list_users", tuple[User, ...])

    def set_groups(self, name: str, groups: Sequence[str]) -> User:
        """Put somebody into exactly these groups."""
        return self._carry_out("set_groups", User, name=name, groups=tuple(groups))

    def disable(self, name: str) -> User:
        """Shut somebody out, with every key and session. The name stays taken."""
        return self._carry_out("disable_user", User, name=name)


class Keys:
    """What programs come in with."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def create(self, name: str, *, label: str = "", expires: str | None = None) -> NewKey:
        """A new key of somebody, which ends after a time such as ``90 d`` if one is given. Its text is shown once."""
        return self._carry_out("create_key", NewKey, name=name, label=label, expires=expires)

    def list(self, name: str | None = None) -> tuple[Key, ...]:
        """The keys of somebody, or of everybody, without their secrets."""
        return self._carry_out("list_keys", tuple[Key, ...], name=name)

    def revoke(self, key: str) -> Key:
        """End a key, named by its id."""
        return self._carry_out("revoke_key", Key, key=key)


class Workspaces:
    """What experiments, models and artifacts belong to."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def create(
        self,
        name: str,
        *,
        description: str = "",
        shared: bool = False,
        readers: Sequence[str] = (),
        writers: Sequence[str] = (),
    ) -> Workspace:
        """Make a workspace: open to whoever has rights in the home if ``shared``, else to the groups it names."""
        return self._carry_out(
            "create_workspace",
            Workspace,
            name=name,
            description=description,
            shared=shared,
            readers=tuple(readers),
            writers=tuple(writers),
        )

    def list(self) -> tuple[Workspace, ...]:
        """The workspaces that you may read."""
        return self._carry_out("list_workspaces", tuple[Workspace, ...])

    def update(
        self,
        name: str,
        *,
        description: str | None = None,
        shared: bool | None = None,
        readers: Sequence[str] | None = None,
        writers: Sequence[str] | None = None,
    ) -> Workspace:
        """Change what is given and leave the rest."""
        return self._carry_out(
            "update_workspace",
            Workspace,
            name=name,
            description=description,
            shared=shared,
            readers=None if readers is None else tuple(readers),
            writers=None if writers is None else tuple(writers),
        )

    def delete(self, name: str) -> Workspace:
        """Delete an empty workspace."""
        return self._carry_out("delete_workspace", Workspace, name=name)


class Rollouts:
    """Releases on their way in, step by step."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def start(self, endpoint: str) -> RolloutReport:
        """Begin to let the newest approved release in at an endpoint."""
        return self._carry_out("start_rollout", RolloutReport, endpoint=endpoint)

    def status(self, endpoint: str) -> RolloutReport:
        """The newest rollout of an endpoint, with what its guards see."""
        return self._carry_out("show_rollout", RolloutReport, endpoint=endpoint)

    def freeze(self, endpoint: str) -> RolloutReport:
        """Take no more steps. Guards still roll back."""
        return self._carry_out("freeze_rollout", RolloutReport, endpoint=endpoint)

    def resume(self, endpoint: str) -> RolloutReport:
        """Go on with the step at which it was frozen."""
        return self._carry_out("resume_rollout", RolloutReport, endpoint=endpoint)

    def roll_back(self, endpoint: str, reason: str = "") -> RolloutReport:
        """Have the release from before answer everything, within a second while steps are taken."""
        return self._carry_out("roll_back", RolloutReport, endpoint=endpoint, reason=reason)

    def take_outcomes(self, endpoint: str, outcomes: Sequence[tuple[str, float]]) -> RolloutReport:
        """Say what came of answers: pairs of the key that was asked with and what it earned, for the guard ``kpi``."""
        return self._carry_out("take_outcomes", RolloutReport, endpoint=endpoint, outcomes=tuple(outcomes))


class Quotas:
    """What principals and groups may ask of endpoints."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def set(
        self,
        endpoint: str,
        holder: str,
        *,
        group: bool = False,
        rate: float | None = None,
        burst: int | None = None,
        day: int | None = None,
        month: int | None = None,
    ) -> EndpointQuota:
        """Let somebody, or each of a group, ask so much: ``rate`` a second, ``burst`` at once, in a day and a month."""
        quota = msgspec.to_builtins(Quota(rate=rate, burst=burst, day=day, month=month))
        return self._carry_out("set_quota", EndpointQuota, endpoint=endpoint, holder=holder, quota=quota, group=group)

    def list(self, endpoint: str) -> tuple[EndpointQuota, ...]:
        """The quotas in force at an endpoint, and what was used of them."""
        return self._carry_out("list_quotas", tuple[EndpointQuota, ...], endpoint=endpoint)

    def remove(self, endpoint: str, holder: str, *, group: bool = False) -> EndpointQuota:
        """Have the quota of the file hold again for somebody."""
        return self._carry_out("remove_quota", EndpointQuota, endpoint=endpoint, holder=holder, group=group)


class Policies:
    """Who may do what, in Cedar, beside the built-in policies."""

    def __init__(self, carry_out: CarryOut, home: Path) -> None:
        self._carry_out, self._manifest = carry_out, home / "home.json"

    def add(self, path: str | Path, *, replace: bool = False) -> PolicyChange:
        """Take the policies of a file into force: all, or none if one cannot be."""
        return self._carry_out("add_policies", PolicyChange, text=read_policies(path), replace=replace, where=str(path))

    def list(self) -> tuple[Policy, ...]:
        """Every policy in force."""
        return self._carry_out("list_policies", tuple[Policy, ...])

    def remove(self, policy: str) -> PolicyChange:
        """Take one policy out of force."""
        return self._carry_out("remove_policy", PolicyChange, policy_id=policy)

    def check(self, path: str | Path) -> PolicyCheck:
        """Whether a file could be added, and what it would change in the home, if there is one. Changes nothing."""
        from bedplate.app import policies

        text = read_policies(path)
        found = policies.check(text, str(path))
        if not self._manifest.exists():
            return found
        change = self._carry_out("compare_policies", PolicyChange, text=text, where=str(path))
        return msgspec.structs.replace(found, change=change)

    def test(
        self,
        principal: str,
        action: str,
        resource: str,
        *,
        purpose: str = "",
        environment: str = "",
        gates_passed: bool = False,
    ) -> PolicyTest:
        """What the policies in force say about somebody, an action, and a resource written as ``KIND/ID``."""
        return self._carry_out(
            "test_policies",
            PolicyTest,
            name=principal,
            action=action,
            resource=resource,
            purpose=purpose,
            environment=environment,
            gates_passed=gates_passed,
        )


def read_policies(path: str | Path) -> str:
    """The text of a file of policies.

    Raises:
        InputError: it cannot be read, is larger than a megabyte, or is no text.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise InputError("the file is larger than a megabyte", where=str(path), fix="split it")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", where=str(path), fix="save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(path), fix="check the path") from error
