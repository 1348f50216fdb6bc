"""What the pages of experiments and runs show: lists, the table of runs with chosen columns, runs side by side."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from bedplate.errors import InputError, NotFoundError
from bedplate.store import Store, Transaction
from bedplate.store.filters import FilterError, Grammar, Order, parse_order
from bedplate.store.overview import Count, Logged
from bedplate.store.runs import RunRow
from bedplate.tracking import experiments, filters, runs
from bedplate.tracking.experiments import LIFECYCLES, Experiment, View
from bedplate.tracking.runs import USER_TAG

PAGE = 50
"""Rows of a page."""
MOST_COUNTED, MOST_LISTED = 100_000, 10_000
"""As many runs of an experiment are counted on its page, and in the list of experiments."""
MOST_NAMES = 300
"""As many names of each kind are offered as columns; others can be typed."""
MOST_COLUMNS = 40
_USUAL = 4
_LOOKED_AT = 6
MOST_COMPARED = 12
SYSTEM = "system/"
"""What clients put before the names of metrics that describe the machine."""
NOTE = "mlflow.note.content"
SOURCE, COMMIT, PARENT = "mlflow.source.name", "mlflow.source.git.commit", "mlflow.parentRunId"

ColumnKind = Literal["run", "metric", "param", "tag"]
_WORDS = re.compile(r"[\w .-]{1,100}")
_PREFIXES: Mapping[str, Logged] = {"metrics": "metric", "params": "param", "tags": "tag"}


class Column(msgspec.Struct, frozen=True):
    """One column of the table of runs. ``order`` is what ORDER BY calls it; empty if nothing orders by it."""

    name: str
    title: str
    kind: ColumnKind
    key: str
    order: str = ""

    @property
    def numeric(self) -> bool:
        """Whether what stands in it is aligned as numbers are."""
        return self.kind == "metric" or self.key == "duration"


OF_RUNS = tuple(
    Column(f"run.{key}", title, "run", key, order)
    for key, title, order in (
        ("status", "Status", "status"),
        ("started", "Started", "start_time"),
        ("duration", "Duration", ""),
        ("ended", "Ended", "end_time"),
        ("user", "User", f"tags.`{USER_TAG}`"),
        ("source", "Source", f"tags.`{SOURCE}`"),
        ("commit", "Commit", f"tags.`{COMMIT}`"),
        ("id", "Run id", "run_id"),
    )
)
"""The columns that every run has, beside its name."""
NAME = Column("run.name", "Run", "run", "name", "run_name")
_KNOWN = {column.name: column for column in OF_RUNS}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A view of the table of runs, as its address says it. ``order`` is one key of the grammar with its direction."""

    filter: str = ""
    order: str = ""
    view: View = "ACTIVE_ONLY"
    columns: tuple[str, ...] = ()
    page: str = ""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a filter or an order: the text up to the place, what stands there, and what follows.

    ``at`` is where the place is, counted from 0; ``instead`` is a filter that would find what was probably meant.
    """

    message: str
    fix: str
    before: str = ""
    there: str = ""
    after: str = ""
    instead: str = ""
    at: int = 0


class ExperimentLine(msgspec.Struct, frozen=True):
    """One experiment of the list. ``last`` is when a run was started last."""

    experiment: Experiment
    count: Count
    last: int | None


class ExperimentList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the experiments of a workspace."""

    workspace: str
    query: Query
    lines: tuple[ExperimentLine, ...] = ()
    next_page: str | None = None
    problem: Problem | None = None


class RunLine(msgspec.Struct, frozen=True):
    """One run with the values of the chosen columns. ``user`` is who started it, if anybody said so."""

    row: RunRow
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def user(self) -> str:
        """Who started the run, as far as it is known."""
        return self.tags.get(USER_TAG) or self.row.user_id


class Names(NamedTuple):
    """The names that runs of an experiment logged under."""

    metric: tuple[str, ...]
    param: tuple[str, ...]
    tag: tuple[str, ...]


class RunTable(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the runs of an experiment."""

    workspace: str
    experiment: Experiment
    query: Query
    columns: tuple[Column, ...]
    names: Names
    count: Count
    lines: tuple[RunLine, ...] = ()
    next_page: str | None = None
    problem: Problem | None = None
    ordered: Order | None = None
    newest: str | None = None

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of those of the runs that are going."""
        return tuple(line.row.id for line in self.lines if line.row.status == "RUNNING")


class Compared(msgspec.Struct, frozen=True):
    """One param or metric of several runs: a value for each, None where a run has none."""

    name: str
    values: tuple[str | float | None, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs disagree."""
        return any(value != self.values[0] for value in self.values)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Runs side by side."""

    workspace: str
    runs: tuple[RunLine, ...]
    experiments: Mapping[int, str]
    params: tuple[Compared, ...]
    metrics: tuple[Compared, ...]


# -------------------------------------------------------------------------------------------------------- experiments


def experiment_list(store: Store, workspace: str, query: Query) -> ExperimentList:
    """A page of the experiments of a workspace. What is wrong with filter or order is part of the page.

    Raises:
        InputError: the page token does not belong to the query.
    """
    found = ExperimentList(workspace=workspace, query=query)
    with store.read() as tx:
        problem = problem_of(query, filters.EXPERIMENTS, "name")
        if problem is not None:
            return msgspec.structs.replace(found, problem=problem)
        page = experiments.search(
            tx,
            workspace,
            filter=query.filter,
            order_by=[query.order] if query.order else [],
            view=query.view,
            max_results=PAGE,
            page_token=query.page or None,
        )
        lines = tuple(_experiment_line(tx, each) for each in page.experiments)
    return msgspec.structs.replace(found, lines=lines, next_page=page.next_page_token)


def _experiment_line(tx: Transaction, found: Experiment) -> ExperimentLine:
    row = found.row
    newest = tx.runs.rows(tx.overview.newest(row.id, row.lifecycle))
    count = tx.overview.count(row.id, row.lifecycle, most=MOST_LISTED)
    return ExperimentLine(found, count, newest[0].started if newest else None)


# --------------------------------------------------------------------------------------------------------------- runs


def run_table(store: Store, workspace: str, experiment: str, query: Query) -> RunTable:
    """A page of the runs of an experiment. What is wrong with filter or order is part of the page.

    Raises:
        NotFoundError: the workspace has no such experiment.
        InputError: it is no id of an experiment, or the page token does not belong to the query.
    """
    with store.read() as tx:
        found = experiments.get(tx, workspace, experiment)
        number = found.row.id
        names = Names(*(tuple(tx.overview.names(number, kind, most=MOST_NAMES)) for kind in _PREFIXES.values()))
        lifecycle = LIFECYCLES[query.view][0]
        newest = tx.runs.rows(tx.overview.newest(number, lifecycle, most=_LOOKED_AT))
        table = RunTable(
            workspace=workspace,
            experiment=found,
            query=query,
            columns=chosen(query.columns) or usual(tx, newest),
            names=names,
            count=tx.overview.count(number, lifecycle, most=MOST_COUNTED),
            newest=newest[0].id if newest else None,
        )
        problem = problem_of(query, filters.RUNS, "run_name")
        if problem is not None:
            return msgspec.structs.replace(table, problem=problem)
        page = runs.listed(
            tx,
            workspace,
            [experiment],
            filter=query.filter,
            order_by=[query.order] if query.order else [],
            view=query.view,
            max_results=PAGE,
            page_token=query.page or None,
        )
        lines = _lines(tx, page.runs, table.columns)
    ordered = parse_order([query.order], filters.RUNS)[0] if query.order else None
    return msgspec.structs.replace(table, lines=lines, next_page=page.next_page_token, ordered=ordered)


def run_lines(
    store: Store, workspace: str, experiment: str, ids: Sequence[str], columns: Sequence[str]
) -> tuple[tuple[RunLine, ...], tuple[Column, ...], str | None]:
    """Chosen runs of an experiment as they are now, the columns, and the id of the run that was started last.

    Raises:
        NotFoundError: the workspace has no such experiment.
        InputError: it is no id of an experiment, or these are more than stand on a page.
    """
    if len(ids) > PAGE:
        raise InputError(f"at most {PAGE} runs are asked for at once", where="run")
    with store.read() as tx:
        number = experiments.row(tx, workspace, experiment).id
        shown = chosen(columns)
        rows = tx.runs.rows(tx.overview.keys(number, ids))
        newest = tx.runs.rows(tx.overview.newest(number))
        return _lines(tx, rows, shown), shown, newest[0].id if newest else None


def chosen(wanted: Sequence[str]) -> tuple[Column, ...]:
    """The columns that an address names; what it names otherwise is passed over."""
    found = [_column(name) for name in dict.fromkeys(wanted)]
    return tuple(column for column in found if column is not None)[:MOST_COLUMNS]


def usual(tx: Transaction, rows: Sequence[RunRow]) -> tuple[Column, ...]:
    """The columns that are shown unless others are chosen: what most of these runs logged, and where they differ."""
    keys = [row.key for row in rows]
    metrics = Counter(
        key for logged in tx.metrics.latest(keys).values() for key, *_ in logged if not key.startswith(SYSTEM)
    )
    params = [pair for logged in tx.runs.params(keys).values() for pair in logged]
    values = Counter(key for key, _ in set(params))
    names = ["run.status", "run.started", "run.duration", "run.user"]
    names += [f"metrics.{key}" for key in sorted(metrics, key=lambda key: (-metrics[key], key))[:_USUAL]]
    names += [f"params.{key}" for key in sorted(values, key=lambda key: (-values[key], key))[:_USUAL]]
    return chosen(names)


def _column(name: str) -> Column | None:
    if name in _KNOWN:
        return _KNOWN[name]
    prefix, _, key = name.partition(".")
    kind = _PREFIXES.get(prefix)
    if kind is None or not key or not key.isprintable():
        return None
    return Column(name, key, kind, key, f"{prefix}.{quoted(key)}")


def quoted(name: str) -> str:
    """A name as it stands in a filter or an order: in backticks."""
    return f"`{name.replace('`', '``')}`"


def _lines(tx: Transaction, rows: Sequence[RunRow], columns: Iterable[Column]) -> tuple[RunLine, ...]:
    keys = [row.key for row in rows]
    wanted: dict[ColumnKind, list[str]] = {"run": [], "metric": [], "param": [], "tag": [USER_TAG, SOURCE, COMMIT]}
    for column in columns:
        wanted[column.kind].append(column.key)
    metrics = tx.overview.metrics(keys, wanted["metric"])
    params, tags = tx.overview.params(keys, wanted["param"]), tx.overview.tags(keys, wanted["tag"])
    return tuple(
        RunLine(
            row,
            {key: value for key, value, *_ in metrics.get(row.key, ())},
            dict(params.get(row.key, ())),
            dict(tags.get(row.key, ())),
        )
        for row in rows
    )


# --------------------------------------------------------------------------------------------------------- comparing


def comparison(store: Store, workspace: str, ids: Sequence[str]) -> Comparison:
    """Runs of a workspace side by side, in the order given.

    Raises:
        InputError: these are less than two, or too many.
        NotFoundError: the workspace has not all of them.
    """
    wanted = list(dict.fromkeys(ids))
    if not 2 <= len(wanted) <= MOST_COMPARED:
        raise InputError(
            f"2 to {MOST_COMPARED} runs can be compared, not {len(wanted)}",
            where="run",
            fix="go back and tick the runs to compare",
        )
    with store.read() as tx:
        rows = [tx.runs.find(workspace, run) for run in wanted]
        known = [row for row in rows if row is not None]
        if len(known) < len(wanted):
            missing = next(run for run, row in zip(wanted, rows, strict=True) if row is None)
            raise NotFoundError(f"there is no run {missing[:80]} here", fix="go back and tick the runs to compare")
        keys = [row.key for row in known]
        metrics, params = tx.metrics.latest(keys), tx.runs.params(keys)
        tags = tx.overview.tags(keys, [USER_TAG, SOURCE, COMMIT])
        homes = {row.experiment: tx.experiments.get(workspace, row.experiment).name for row in known}
    lines = tuple(
        RunLine(
            row,
            {key: value for key, value, *_ in metrics.get(row.key, ())},
            dict(params.get(row.key, ())),
            dict(tags.get(row.key, ())),
        )
        for row in known
    )
    return Comparison(
        workspace=workspace,
        runs=lines,
        experiments=homes,
        params=_side_by_side([line.params for line in lines]),
        metrics=_side_by_side([line.metrics for line in lines]),
    )


def _side_by_side(each: Sequence[Mapping[str, str] | Mapping[str, float]]) -> tuple[Compared, ...]:
    names = sorted({name for values in each for name in values})
    return tuple(Compared(name, tuple(values.get(name) for values in each)) for name in names)


# ----------------------------------------------------------------------------------------------------------- problems


def problem_of(query: Query, grammar: Grammar, name: str) -> Problem | None:
    """What is wrong with the filter or the order of a query, and where; None if nothing is.

    ``name`` is the attribute that is meant by words alone.
    """
    try:
        experiments.experiment_clauses(query.filter, grammar)
        parse_order([query.order] if query.order else [], grammar)
    except FilterError as error:
        at = min(error.at, len(error.text))
        start, end = max(0, at - 60), at + 60
        words = error.text == query.filter and _WORDS.fullmatch(query.filter.strip())
        return Problem(
            error.problem,
            error.fix or "",
            ("…" if start else "") + error.text[start:at],
            error.text[at : at + 1],
            error.text[at + 1 : end] + ("…" if end < len(error.text) else ""),
            f"{name} ILIKE '%{query.filter.strip()}%'" if words else "",
            error.at,
        )
    except InputError as error:
        return Problem(error.message, error.fix or "")
    return None
