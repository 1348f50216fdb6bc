"""What is told of people, their keys and rights: users, workspaces, policies and what a change of them alters."""

from typing import Literal

import msgspec


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who can come in, or could until ``disabled``. ``keys`` is how many keys of theirs are in force.

    ``unnamed`` is told where groups are given: those that no policy, workspace, quota, model or file names yet.
    """

    id: str
    name: str
    kind: Literal["user", "service"]
    groups: tuple[str, ...]
    created: str
    disabled: str | None = None
    keys: int = 0
    unnamed: tuple[str, ...] = ()


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is public about a key."""

    id: str
    user: str
    label: str
    created: str
    expires: str | None
    revoked: str | None
    state: Literal["in force", "expired", "revoked"]


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was made just now. ``key`` is its text: it is shown here and never again."""

    id: str
    user: str
    label: str
    created: str
    expires: str | None
    key: str


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace. A shared one is open to whoever has rights in the home, another only to the groups it names."""

    name: str
    description: str
    shared: bool
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    created: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in force. ``by`` is who added it, or "built in"; ``unusable`` is one that locks the home."""

    id: str
    effect: Literal["permit", "forbid", "unusable"]
    reason: str
    text: str
    by: str
    created: str
    digest: str = ""


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """A right that somebody gained, or lost where ``allowed`` is false. ``resource`` is ``KIND/ID``."""

    who: str
    action: str
    resource: str
    allowed: bool


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What adding or removing policies changed: their ids, and who may do more and who less.

    Home, ledger, use cases, endpoints and workspaces were compared, without a purpose or an environment;
    ``compared_all`` is false where there were too many of them.
    """

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    gains: tuple[Gain, ...]
    compared_all: bool


class PolicyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of policies holds, and what adding it would change where there is a home to ask."""

    policies: tuple[Policy, ...]
    change: PolicyChange | None = None


class PolicyTest(msgspec.Struct, frozen=True, kw_only=True):
    """What the policies in force say, by which of them, and why."""

    principal: str
    action: str
    resource: str
    allowed: bool
    policies: tuple[str, ...]
    reasons: tuple[str, ...]
