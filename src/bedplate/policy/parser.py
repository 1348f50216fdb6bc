"""The process that parses and validates a policy text which nobody trusts yet: see :mod:`.untrusted`.

It loads the parser and next to nothing else, as one is started for each text.
"""

import json
import resource
import sys

import cedarpy

from bedplate.policy.pieces import pieces

SECONDS = 10
MEMORY = 1 << 30
"""What it may take: processor time, and bytes."""


def main() -> None:
    """The child: one request on standard input, one answer on standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
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
