"""Who must agree to a release: ``2 of [growth-leads, risk]``, ``all of [a, b]``, ``any of [a, b]``, or one name."""

import re
from typing import NamedTuple

_FORM = re.compile(r"\s*(\d+|all|any)\s+of\s+\[([^\[\]]*)\]\s*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._@-]*")


class Quorum(NamedTuple):
    """``need`` of the people or groups ``of`` must approve."""

    need: int
    of: tuple[str, ...]


class QuorumError(ValueError):
    """The text is not a quorum, or one that nobody could reach."""


def parse(text: str) -> Quorum:
    """The quorum that ``text`` asks for.

    Raises:
        QuorumError: wrong form, a name twice, or more approvals asked for than there are names.
    """
    if _NAME.fullmatch(text.strip()):
        return Quorum(1, (text.strip(),))
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuorumError(f"{text!r} does not say who approves")
    names = tuple(name.strip() for name in match[2].split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise QuorumError(f"{name!r} is not the name of a person or group" if name else "a name is missing")
    if len(set(names)) != len(names):
        raise QuorumError("a name stands twice in the list")
    need = {"all": len(names), "any": 1}.get(match[1]) or int(match[1])
    if need < 1:
        raise QuorumError("at least one must approve")
    if need > len(names):
        raise QuorumError(f"{need} approvals are asked of {len(names)} names: nobody could release")
    return Quorum(need, names)
