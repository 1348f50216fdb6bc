"""Decide with Cedar, and never fail open.

Cedar skips a policy that errors, and a skipped ``forbid`` lets the request through. So a text is taken only if it
validates against the schema, the schema is passed with every request, principal and resource are always there as
entities, and whatever is not a clean Allow is a Deny.
"""

import json
import logging
import re
from functools import lru_cache
from importlib import resources as package_files
from typing import Any, Protocol

import cedarpy

from bedplate.errors import InputError
from bedplate.ids import Digest, canonical, digest_bytes
from bedplate.policy.guard import check_text
from bedplate.policy.values import Decision, Principal, Resource

_LOG = logging.getLogger(__name__)
_CACHE = 4096
_DEFAULTS = {"purpose": "", "environment": "", "tag": "", "gates_passed": False}
_COMMENT = re.compile(r"//[^\n]*")
_ACTIONS = re.compile(r"\baction\s+([^{;]+?)\s+appliesTo\s*\{.*?\bresource:\s*\[([^\]]*)\]", re.DOTALL)


def schema_text() -> str:
    """The Cedar schema: entities, actions and what they apply to."""
    return (package_files.files("bedplate.policy") / "schema.cedarschema").read_text("utf-8")


def builtin_text() -> str:
    """The policies that every home starts with."""
    return (package_files.files("bedplate.policy") / "builtin.cedar").read_text("utf-8")


@lru_cache(maxsize=1)
def applicable() -> tuple[tuple[str, str], ...]:
    """Every action with every kind of resource that it can be about, as the schema says."""
    found = []
    for names, kinds in _ACTIONS.findall(_COMMENT.sub("", schema_text())):
        found += [(action, kind) for action in _words(names) for kind in _words(kinds)]
    return tuple(found)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@lru_cache(maxsize=1)
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


class Policies:
    """A validated set of policies, parsed once. ``version`` is the digest of their texts and the schema.

    ``texts`` are those beside the built-in ones.
    """

    def __init__(self, text: str, reasons: dict[str, str], texts: tuple[str, ...] = ()) -> None:
        self._set = cedarpy.PolicySet.from_str(text)
        self._reasons = reasons
        self.text = text
        self.texts = texts
        self.version: Digest = digest_bytes(schema_text().encode() + b"\0" + text.encode())
        # Decisions depend on nothing but the request and the policies, so they stay true as long as this object.
        self._cached = lru_cache(maxsize=_CACHE)(self._evaluate)

    @staticmethod
    def load(*texts: str) -> "Policies":
        """The built-in policies and ``texts``. Parse a text that a user wrote in a child process first.

        Raises:
            InputError: a text is too large or deep, does not parse, does not validate, or repeats an id.
        """
        for text in texts:
            check_text(text, where="policy")
        whole = "\n".join((builtin_text(), *texts))
        result = cedarpy.validate_policies(whole, _schema())
        if not result.validation_passed:
            first = result.errors[0].error if result.errors else "it does not validate"
            raise InputError(f"a policy cannot be used: {first}", where="policy", fix="see docs/explain/policy.md")
        return Policies(whole, reasons_of(whole), texts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all policies."""
        return tuple(self._reasons)

    def decide(
        self, principal: Principal, action: str, resource: Resource, context: dict[str, Any] | None = None
    ) -> Decision:
        """Whether ``principal`` may do ``action`` to ``resource``. Anything but a clean Allow is a Deny.

        ``context`` may hold ``purpose``, ``environment``, ``tag``, ``gates_passed``; what is left out is empty or
        false.
        """
        try:
            request = {
                "principal": {"type": principal.kind, "id": principal.id},
                "action": {"type": "Action", "id": action},
                "resource": {"type": resource.kind, "id": resource.id},
                "context": {**_DEFAULTS, **(context or {})},
            }
            return self._cached(canonical(request).decode(), json.dumps(entities(principal, resource), sort_keys=True))
        except Exception as error:  # noqa: BLE001  a decision that cannot be made is a Deny, whatever went wrong
            _LOG.error("denied %s on %s %s: %s", action, resource.kind, resource.id, error)
            return Decision(allowed=False, reasons=("the decision could not be made",))

    def _evaluate(self, request: str, people_and_things: str) -> Decision:
        schema = _schema()
        result = cedarpy.is_authorized(
            json.loads(request), self._set, cedarpy.Entities.from_json_str(people_and_things, schema), schema
        )
        diagnostics = result.diagnostics
        names = diagnostics.id_annotations_by_reason
        policies = tuple(sorted(names.get(reason, reason) for reason in diagnostics.reasons))
        if diagnostics.errors:
            _LOG.error("denied because a policy failed: %s", diagnostics.errors)
            return Decision(allowed=False, policies=policies, reasons=("a policy could not be evaluated",))
        if result.decision is not cedarpy.Decision.Allow:
            reasons = tuple(self._reasons.get(policy, policy) for policy in policies) or ("no policy allows it",)
            return Decision(allowed=False, policies=policies, reasons=reasons)
        if not policies:
            return Decision(allowed=False, reasons=("no policy allows it",))
        return Decision(
            allowed=True, policies=policies, reasons=tuple(self._reasons.get(policy, policy) for policy in policies)
        )


class Decides(Protocol):
    """Whatever decides: one set of policies, or the set that is in force at the moment."""

    def decide(
        self, principal: Principal, action: str, resource: Resource, context: dict[str, Any] | None = None
    ) -> Decision:
        """Whether ``principal`` may do ``action`` to ``resource``."""
        ...


class InForce:
    """The policies in force: asked anew for each decision, so that whoever holds this never decides by old ones."""

    def __init__(self, policies: Policies) -> None:
        self.now = policies

    @property
    def version(self) -> Digest:
        """The version of the set that decides now."""
        return self.now.version

    def decide(
        self, principal: Principal, action: str, resource: Resource, context: dict[str, Any] | None = None
    ) -> Decision:
        """As :meth:`Policies.decide`, by the set that is in force at this moment."""
        return self.now.decide(principal, action, resource, context)


def entities(principal: Principal, resource: Resource) -> list[dict[str, Any]]:
    """Principal, its groups, the resource and what it lies in, in Cedar's JSON."""
    groups = [{"type": "Group", "id": group} for group in principal.groups]
    parents = [{"type": parent.kind, "id": parent.id} for parent in resource.parents]
    found = [
        {"uid": {"type": principal.kind, "id": principal.id}, "attrs": {"name": principal.name}, "parents": groups},
        {"uid": {"type": resource.kind, "id": resource.id}, "attrs": resource.attributes, "parents": parents},
    ]
    return [*found, *({"uid": group, "attrs": {}, "parents": []} for group in groups)]


def reasons_of(text: str) -> dict[str, str]:
    """Policy ids and their ``@reason``.

    Raises:
        InputError: a policy has no id, or two have the same.
    """
    found: dict[str, str] = {}
    for policy in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values():
        annotations = policy.get("annotations", {})
        name = annotations.get("id") or ""
        if not name or name in found:
            raise InputError(
                f"two policies have the id {name!r}" if name else "a policy has no id",
                where="policy",
                fix='give each policy its own @id("...")',
            )
        found[name] = annotations.get("reason") or name
    return found
