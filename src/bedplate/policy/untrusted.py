"""Policy texts that users wrote, parsed and validated in a process of its own before this one touches them.

Cedar's parser recurses, and a text that nests deeply enough ends its process. The checks in :mod:`.guard` refuse the
ways that are known; here it is a child that ends, whatever the way. It has seconds, little memory, and says one word.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Mapping

from bedplate.errors import InputError, UnavailableError
from bedplate.policy.filters import Attribute, RowPolicies
from bedplate.policy.filters import schema_text as row_schema
from bedplate.policy.guard import check_text
from bedplate.policy.parser import SECONDS
from bedplate.policy.policies import Policies, builtin_text, schema_text
from bedplate.policy.source import Statement, statements

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

    What was let through is remembered: text and schema alone decide, and a child takes a tenth of a second.

    Raises:
        InputError: it does not validate, or ended the child or kept it busy for too long.
        UnavailableError: there is no such child.
    """
    request = json.dumps({"text": text, "schema": schema}).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bedplate.policy.parser"],
            input=request,
            capture_output=True,
            timeout=SECONDS,
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
