"""A plan beside what it would be if the file said otherwise: the file is changed in memory, read and checked again."""

import re
from collections.abc import Sequence

from bedplate.errors import InputError, UseCaseError
from bedplate.plan.compare import Difference
from bedplate.usecase import Loaded, edit
from bedplate.usecase.load import read
from bedplate.usecase.problems import Keys, listing, nearest, path_text, problems
from bedplate.usecase.types import RequirementsSection, UseCase

_STEP = re.compile(r"([A-Za-z_][\w-]*)((?:\[\d+\])*)")


def changed(loaded: Loaded, asked: Sequence[str]) -> tuple[Loaded, tuple[Difference, ...]]:
    """The use case with each ``PATH=VALUE`` put into its file, and what stood there before.

    A path may leave out ``requirements.``. Values are written as in the file, with their units.

    Raises:
        InputError: a path does not exist, or a value is not allowed there, with what would be.
    """
    text = loaded.text
    rows: list[Difference] = []
    for one in asked:
        path, equals, value = one.partition("=")
        where = f"--what-if {one}"
        if not equals or not value.strip():
            raise InputError(
                f"{one!r} names no value", where=where, fix='write PATH=VALUE, such as "throughput.peak=2000/s"'
            )
        keys = keys_of(path.strip(), where)
        before = loaded.root.at(keys)
        stood = "" if before is None else " ".join(loaded.text[before.span[0] : before.span[1]].split())
        text = edit.put(text, keys, value.strip())
        rows.append(Difference(what=path_text(keys), before=stood, after=value.strip(), line=loaded.line(*keys)))
    try:
        return read(text.encode(), loaded.path), tuple(rows)
    except UseCaseError as error:
        said = "; ".join(f"{problem.path}: {problem.message}" for problem in problems(error))
        allowed = next((problem for problem in problems(error) if problem.allowed or problem.nearest), None)
        fix = "give a value that the file may have"
        if allowed is not None:
            fix = f"did you mean {allowed.nearest}?" if allowed.nearest else f"allowed: {allowed.allowed}"
        raise InputError(said, where=f"--what-if {', '.join(asked)}", fix=fix) from None


def keys_of(path: str, where: str) -> Keys:
    """``throughput.peak`` as a way into the file; what does not begin at its top begins in ``requirements``.

    Raises:
        InputError: it is no path, or begins nowhere.
    """
    keys: list[str | int] = []
    for step in path.split("."):
        match = _STEP.fullmatch(step)
        if match is None:
            raise InputError(
                f"{path!r} is not a path of usecase.yaml", where=where, fix="write it like requirements.latency.p99"
            )
        keys.append(match[1])
        keys += [int(number) for number in re.findall(r"\d+", match[2])]
    top, needs = UseCase.__struct_encode_fields__, RequirementsSection.__struct_encode_fields__
    if keys[0] in top:
        return tuple(keys)
    if keys[0] in needs:
        return ("requirements", *keys)
    near = nearest(str(keys[0]), (*top, *needs))
    raise InputError(
        f"usecase.yaml has no {keys[0]!r}",
        where=where,
        fix=f"did you mean {near!r}?" if near else f"begin with one of {listing((*needs, *top))}",
    )
