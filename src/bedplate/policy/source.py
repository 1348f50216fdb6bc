"""A text of several policies, taken apart: each stands under its own id, with its own words and comments.

Only for texts that :mod:`bedplate.policy.untrusted` has let through: this parses in the process.
"""

import json
import re
from typing import Any, Literal

import cedarpy
import msgspec

from bedplate.errors import InputError
from bedplate.policy.pieces import pieces

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. ``line`` is where it begins in its file, ``reason`` its ``@reason`` or else its id."""

    id: str
    effect: Literal["permit", "forbid"]
    reason: str
    text: str
    line: int


def statements(text: str) -> tuple[Statement, ...]:
    """The policies of a text, in order.

    Raises:
        InputError: it holds none, or one that is a template, has no id, or repeats one.
    """
    found: dict[str, Statement] = {}
    for line, piece in pieces(text):
        parsed = json.loads(cedarpy.policies_to_json_str(piece))
        if parsed["templates"]:
            raise InputError(f"the policy at line {line} is a template", where="policy", fix="write out whom it is for")
        (policy,) = parsed["staticPolicies"].values()
        statement = _statement(policy, piece, line)
        if statement.id in found:
            raise InputError(
                f"two policies have the id {statement.id!r}", where=f"line {line}", fix="give each its own"
            )
        found[statement.id] = statement
    if not found:
        raise InputError("there is no policy in this text", where="policy", fix="see docs/explain/policy.md")
    return tuple(found.values())


def _statement(policy: dict[str, Any], text: str, line: int) -> Statement:
    annotations = policy.get("annotations") or {}
    name = annotations.get("id") or ""
    if not _ID.fullmatch(name):
        raise InputError(
            f"the policy at line {line} has no id that can be used",
            where="policy",
            fix='write @id("...") before it: at most 100 letters, digits, ".", "_" and "-"',
        )
    return Statement(id=name, effect=policy["effect"], reason=annotations.get("reason") or name, text=text, line=line)
