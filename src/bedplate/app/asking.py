"""What a use case leaves open, as questions in plain words, and answers that go into its file.

A need that is missing or contradicts another is asked for first; then, where nothing meets the file or its budget, the
needs that are in the way; then what the planner would have to assume.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bedplate import files, usecase
from bedplate.app import planning
from bedplate.errors import InputError, UseCaseError
from bedplate.plan.types import Plan, Probe
from bedplate.settings import Settings
from bedplate.usecase import Loaded, checks, edit, nodes
from bedplate.usecase.load import read
from bedplate.usecase.nodes import Node
from bedplate.usecase.problems import Keys, path_text, problems

_WORDS = {
    "workload.catalogue": ("How many things are there to choose from?", "92000 items"),
    "workload.users": ("How many people or households is it for?", "2500 households"),
    "workload.target": ("Which column says what is to be predicted?", "paid_late"),
    "workload.task": ("Is a class predicted (classification), or a number (regression)?", "classification"),
    "workload.model": ("Which model: a config.json or ONNX file of this folder, or a published one?", "llama-3-8b"),
    "workload.images": ("How many images does one pass over the data take?", "112000 images"),
    "workload.tokens": ("How many tokens of text does one training run read?", "300000000000 tokens"),
    "workload.sequence": ("How many tokens long is one piece of text in training?", "4096 tokens"),
    "workload.batch": ("How many pieces go into one training step?", "1024"),
    "workload.tokens_in": ("How many tokens does a request bring?", "1500 tokens"),
    "workload.tokens_out": ("How many tokens has an answer?", "250 tokens"),
    "workload.rows": ("How many rows are scored in one run?", "2000000 rows"),
    "workload.bytes": ("How much data does one run read?", "10 TB"),
    "workload.record": ("How large is one record?", "120 kB"),
    "workload.cpu": ("How long does one core need to read one record?", "8 ms"),
    "requirements.latency.p99": ("How long may 99 of 100 callers wait for the whole answer?", "20 ms"),
    "requirements.latency.p50": ("How long may half of the callers wait?", "5 ms"),
    "requirements.latency.first_token": ("How long may it take until an answer begins?", "1500 ms"),
    "requirements.latency.per_token": ("How long may each further word take?", "60 ms"),
    "requirements.throughput.peak": ("How many requests come at the busiest moment?", "500/s"),
    "requirements.throughput.daily_shape": (
        "How is the day: the same at any hour (flat), office hours (office), or like a shop's (retail)?", "office",
    ),
    "requirements.time": ("By when must one run have ended?", "30 d"),
    "requirements.availability": ("Which share of the time must it answer?", "99.9 %"),
    "requirements.budget.monthly": ("What may it cost a month?", "2000 USD"),
    "requirements.budget.training_run": ("What may one run cost?", "40 USD"),
    "requirements.residency": ("Where may data and model lie? A list, such as [eu] or [eu, us].", "[eu]"),
    "requirements.freshness.model": ("How old may the model get before it is trained anew?", "28 d"),
    "governance.retention": ("For how long is kept what was predicted?", "400 d"),
    "serve.replicas.max": ("How many copies may serve at most?", "8"),
}  # fmt: skip
"""By path: the question, and an answer as it could be."""
_TALK = {"requirements.latency.p99": "20 s", "requirements.latency.p50": "8 s"}
"""Answers as they could be where a language model writes: nobody waits for those in milliseconds."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to ask. ``text`` is the question, ``because`` why it is asked, ``example`` how an answer may look.

    ``path`` and ``line`` say where the answer goes; 0 is a line that there is not yet. Without an answer the file stays
    as it is.
    """

    path: str
    line: int
    text: str
    because: str
    example: str
    keys: tuple[str | int, ...]


def questions(path: Path, measured: Probe, settings: Settings) -> tuple[Question, ...]:
    """What is open in a use case, most pressing first.

    Raises:
        UseCaseError: the file is wrong in a way that no answer mends.
    """
    try:
        loaded = usecase.load(path)
    except UseCaseError as error:
        found = tuple(_wrong(path, error))
        if not found:
            raise
        return found
    plan = planning.derive(loaded, measured, settings, planning.known(settings))[1]
    return (*_in_the_way(plan), *_over_budget(plan), *_assumed(loaded))


def answer(path: Path, question: Question, value: str) -> None:
    """Write an answer into the file, where it belongs; comments and order stay.

    Raises:
        InputError: it is not allowed there; the file stays as it was.
    """
    target = path / usecase.FILE_NAME if path.is_dir() else path
    data = target.read_bytes()
    mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    given = value.strip()
    written = given if given.startswith("[") else edit.quoted(given)
    changed = mark + edit.put(data.decode("utf-8-sig"), question.keys, written).encode()
    try:
        read(changed, target.absolute())
    except UseCaseError as error:
        here = [p for p in problems(error) if p.path == question.path or p.path.startswith(f"{question.path}[")]
        if here:
            fix = f"did you mean {here[0].nearest}?" if here[0].nearest else f"allowed: {here[0].allowed}"
            raise InputError(here[0].message, where=question.path, fix=fix) from None
        # what else is wrong was so before, and has questions of its own
    files.write(target.absolute(), changed, target.stat().st_mode & 0o777)


def _wrong(path: Path, error: UseCaseError) -> Iterator[Question]:
    """Questions for what is missing, then for values that are wrong or contradict each other."""
    target = path / usecase.FILE_NAME if path.is_dir() else path
    try:
        root, _ = nodes.read(target.read_bytes())
    except nodes.SyntaxProblem:
        return
    kind = root.at(("workload", "kind"))
    known = kind.text if kind is not None else ""
    missing = [keys for keys in checks.needed(known) if root.at(keys) is None] if known in checks.KINDS else []
    for keys in missing:
        yield _question(root, keys, f"a workload of kind {known} cannot be planned without it")
    for problem in problems(error):
        if problem.path in _WORDS and _keys(problem.path) not in missing:
            yield _question(root, _keys(problem.path), f"{problem.message}; allowed: {problem.allowed}")


def _in_the_way(plan: Plan) -> Iterator[Question]:
    for need in plan.in_the_way:
        text, example = _WORDS[need.path]
        because = f"nothing meets the file as it is; without line {need.line} something would"
        yield Question(
            path=need.path, line=need.line, text=text, because=because, example=example, keys=_keys(need.path)
        )


def _over_budget(plan: Plan) -> Iterator[Question]:
    cheapest = next((option for option in plan.options if option.meets), None)
    if plan.breach == "none" or cheapest is None or cheapest.cost is None:
        return
    path = f"requirements.budget.{'training_run' if cheapest.cost.period == 'run' else 'monthly'}"
    text, _ = _WORDS[path]
    example = f"{cheapest.cost.total.high:,.0f} {plan.currency}".replace(",", "")
    yield Question(path=path, line=0, text=text, because=plan.reason, example=example, keys=_keys(path))


def _assumed(loaded: Loaded) -> Iterator[Question]:
    """Needs that the file leaves open and the planner has to assume."""
    case, root = loaded.use_case, loaded.root
    ends = case.requirements.time is not None
    open_: list[tuple[str, str]] = []
    if not ends:
        open_.append(("requirements.throughput.daily_shape", "else every hour is taken to be as busy as the busiest"))
        open_.append(("requirements.availability", "else 99 % is taken, seven hours a month without an answer"))
    if case.requirements.budget is None:
        open_.append(("requirements.budget.monthly", "else nothing stops a plan for its price"))
    elif ends and case.requirements.budget.training_run is None:
        open_.append(("requirements.budget.training_run", "else nothing stops a run for its price"))
    open_.append(("requirements.residency", "else it may run anywhere"))
    if not ends:
        open_.append(("governance.retention", "else a year is taken"))
    every = any(condition.startswith("every") for condition in case.retrain.when)
    if case.workload.kind in ("recommender", "tabular") and not every:
        open_.append(("requirements.freshness.model", "else it is taken to be trained once a month"))
    for path, because in open_:
        if root.at(_keys(path)) is None:
            yield _question(root, _keys(path), because)


def _question(root: Node, keys: Keys, because: str) -> Question:
    path = path_text(keys)
    text, example = _WORDS[path]
    kind, line = root.at(("workload", "kind")), root.position(keys)[0] if root.at(keys) is not None else 0
    if kind is not None and kind.text == "llm_inference":
        example = _TALK.get(path, example)
    return Question(path=path, line=line, text=text, because=because, example=example, keys=keys)


def _keys(path: str) -> Keys:
    return tuple(path.split("."))
