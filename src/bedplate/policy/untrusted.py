"""Policy texts that users wrote, parsed and validated in a process of its own before this one touches them.

Cedar's parser recurses, and a text that nests deeply enough ends its process. The checks in :mod:`.guard` refuse the
ways that are known; here it is a child that ends, whatever the way. It has seconds, little memory, and says one word.
"""

import functools
import json
import resource
import subprocess
import sys
from collections.abc import Mapping

import cedarpy

from bedplate.errors import InputError, UnavailableError
from bedplate.policy.filters import Attribute, RowPolicies
from bedplate.policy.filters import schema_text as row_schema
from bedplate.policy.guard import check_text
from bedplate.policy.policies import Policies, builtin_text, schema_text
from bedplate.policy.source import Statement, pieces, statements

_SECONDS = 10
_MEMORY = 1 << 30
_REMEMBERED = 32


def load(*texts: str) -> Policies:
    """The built-in policies and ``texts`` that users wrote. Raises as :meth:`Policies.load`."""
    validate("\n".join((builtin_text(), *texts)), schema_text())
    return Policies.load(*texts)


def read(text: str) -> tuple[Statement, ...]:
    """The policies of one file that a user wrote, each by itself.

    Raises:
        InputError: it is too large or deep, does not validate, or holds none or one that cannot be kept.
        UnavailableError: there is no child to parse it.
    """
    check_text(text, where="policy")
    validate(text, schema_text())
    return statements(text)


def load_rows(text: str, columns: Mapping[str, Attribute]) -> RowPolicies:
    """Row policies that a user wrote. Raises as :meth:`RowPolicies.load`."""
    check_text(text, where="row policy")
    validate(text, row_schema(columns))
    return RowPolicies.load(text, columns)


@functools.lru_cache(maxsize=_REMEMBERED)
def validate(text: str, schema: str) -> None:
    """Parse and validate ``text`` in a child process.

    What was let through is remembered: text and schema alone decide, and a child takes a quarter of a second.

    Raises:
        InputError: it does not validate, or ended the child or kept it busy for too long.
        UnavailableError: there is no such child.
    """
    request = json.dumps({"text": text, "schema": schema}).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bedplate.policy.untrusted"],
            input=request,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError("a policy takes too long to read", where="policy", fix="write it shorter") from error
    if done.returncode > 0:
        raise UnavailableError(
            "policies cannot be checked: the process that parses them does not start", where="policy"
        )
    if done.returncode < 0:
        raise InputError("a policy overwhelms the parser", where="policy", fix="write its conditions flatter")
    problem = json.loads(done.stdout)["problem"]
    if problem is not None:
        raise InputError(f"a policy cannot be used: {problem}", where="policy", fix="see docs/explain/policy.md")


def main() -> None:
    """The child: one request on standard input, one answer on standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    request = json.load(sys.stdin)
    sys.stdout.write(json.dumps({"problem": _problem(request["text"], request["schema"])}))


def _problem(text: str, schema: str) -> str | None:
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return None
    if not any(error.policy_id for error in result.errors):
        return _does_not_parse(text) or (str(result.errors[0].error) if result.errors else "it does not validate")
    names = _names(text)
    first = result.errors[0]
    said = str(first.error).removeprefix(f"for policy `{first.policy_id}`, ")
    return f"{names.get(first.policy_id, first.policy_id)}: {said}"


def _does_not_parse(text: str) -> str | None:
    """Which policy of a text does not parse, and why."""
    for line, piece in pieces(text):
        try:
            cedarpy.policies_to_json_str(piece)
        except ValueError as error:
            return f"line {line}: {error}"
    return None


def _names(text: str) -> dict[str, str]:
    """The ids that the author of a text gave, by those that Cedar gives."""
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    policies = {**parsed["templates"], **parsed["staticPolicies"]}
    return {key: (policy.get("annotations") or {}).get("id") or key for key, policy in policies.items()}


if __name__ == "__main__":
    main()
