"""Filters and orders: what is read as what, and that everything else is refused with its position."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.store.filters import LONGEST, MOST_COMPARISONS, MOST_KEYS, Clause, Order, parse, parse_order
from bedplate.tracking.filters import EXPERIMENTS, RUNS

READ = [
    ("metrics.loss < 0.1", Clause("metric", "loss", "<", 0.1)),
    ("metric.`a b` >= -1e-3", Clause("metric", "a b", ">=", -1e-3)),
    ("metrics.acc = 1", Clause("metric", "acc", "=", 1)),
    ("metrics.acc>.5", Clause("metric", "acc", ">", 0.5)),
    ("metrics.1 = 1E+5", Clause("metric", "1", "=", 1e5)),
    ("`metrics`.acc != 1", Clause("metric", "acc", "!=", 1)),
    ("params.lr = '0.1'", Clause("param", "lr", "=", "0.1")),
    ('parameters."batch size" LIKE "3%"', Clause("param", "batch size", "LIKE", "3%")),
    ("param.lr ilike 'X'", Clause("param", "lr", "ILIKE", "X")),
    ("params.lr IS NULL", Clause("param", "lr", "IS NULL", None)),
    ("tags.mlflow.parentRunId = 'a'", Clause("tag", "mlflow.parentRunId", "=", "a")),
    ("tag.`mlflow.note.content` is not null", Clause("tag", "mlflow.note.content", "IS NOT NULL", None)),
    ("tags.a = 'it''s'", Clause("tag", "a", "=", "it's")),
    ('tags.a = "it\'s"', Clause("tag", "a", "=", "it's")),
    ("attributes.status = 'FINISHED'", Clause("attribute", "status", "=", "FINISHED")),
    ("status != 'FAILED'", Clause("attribute", "status", "!=", "FAILED")),
    ("attr.start_time > 5", Clause("attribute", "start_time", ">", 5)),
    ("run.end_time <= 5.5", Clause("attribute", "end_time", "<=", 5.5)),
    ("Created > 99999999999999999999", Clause("attribute", "start_time", ">", 1e20)),
    ("`run name` = 'x'", Clause("attribute", "run_name", "=", "x")),
    ("attributes.\"Run name\" LIKE 'x'", Clause("attribute", "run_name", "LIKE", "x")),
    ("run_id IN ('a', \"b\")", Clause("attribute", "run_id", "IN", ("a", "b"))),
    ("attributes.run_id not in ('a',)", Clause("attribute", "run_id", "NOT IN", ("a",))),
    ("datasets.name = 'x'", Clause("dataset", "name", "=", "x")),
    ("dataset.context IN ('train')", Clause("dataset", "context", "IN", ("train",))),
]

REFUSED = [
    "metrics.acc",
    "metrics.acc >",
    "metrics.acc > 'high'",
    "metrics.acc > 0.1.2",
    "metrics.acc > 12abc",
    "metrics.acc > nan",
    "metrics.acc LIKE 1",
    "metrics.acc IS NULL",
    "metrics.acc > 1 OR metrics.acc < 0",
    "metrics.acc > 1 AND",
    "AND metrics.acc > 1",
    "metrics.acc > 1 metrics.acc < 2",
    "(metrics.acc > 1)",
    "NOT metrics.acc > 1",
    "metrics.acc > 1; DROP TABLE runs",
    "metrics.acc == 1",
    "metrics.acc <> 1",
    "metrics.val-acc > 1",
    "metrics..acc > 1",
    "metric acc > 1",
    "params.lr > '1'",
    "params.lr = 1",
    "params.lr = lr",
    "params.lr = `lr`",
    "params.lr = '1",
    "params.lr IN ('1')",
    "params.lr = 'a\0b'",
    "params.lr = '\ud800'",
    "tags.a IS NOT 'x'",
    "tags.a NOT LIKE 'x'",
    "start_time > '5'",
    "start_time LIKE '5'",
    "status IN ('RUNNING')",
    "run_id IN ()",
    "run_id IN (1)",
    "run_id IN ('a' 'b')",
    "run_id IN ('a'",
    "run_id = ('a')",
    "nothing = 'x'",
    "attributes.lifecycle_stage = 'active'",
    "model.name = 'x'",
    "`metrics.acc` > 1",
    "datasets.source = 'x'",
    "1 = 1",
    "'a' = 'a'",
    "-- comment",
    "metrics.a > 1 /* */",
]


@pytest.mark.parametrize(("text", "clause"), READ)
def test_a_comparison_is_read(text, clause):
    assert parse(text, RUNS) == (clause,)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_filter_is_refused_with_its_position(text):
    with pytest.raises(InputError, match=r"at character \d+ of"):
        parse(text, RUNS)


def test_nothing_asks_for_nothing():
    assert parse("", RUNS) == parse("  \n", RUNS) == ()


def test_comparisons_are_joined_by_and():
    assert [clause.key for clause in parse("metrics.a > 1 and params.b='x'\nAND tags.c IS NULL", RUNS)] == list("abc")


def test_a_filter_is_not_endless():
    one = "metrics.a > 1"
    parse(" AND ".join([one] * MOST_COMPARISONS), RUNS)

    with pytest.raises(InputError, match="at most 100 comparisons"):
        parse(" AND ".join([one] * (MOST_COMPARISONS + 1)), RUNS)
    with pytest.raises(InputError, match="longer than"):
        parse(" " * (LONGEST + 1), RUNS)
    with pytest.raises(InputError, match="a pattern has at most"):
        parse(f"tags.a LIKE '{'%' * 10_001}'", RUNS)
    with pytest.raises(InputError, match="at most 20 keys"):
        parse_order([f"metrics.m{number}" for number in range(MOST_KEYS + 1)], RUNS)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("metrics.acc", Order("metric", "acc", True)),
        ("metrics.`a b` DESC", Order("metric", "a b", False)),
        ("params.lr asc", Order("param", "lr", True)),
        ("tags.mlflow.user desc", Order("tag", "mlflow.user", False)),
        ("attributes.start_time DESC", Order("attribute", "start_time", False)),
        ("Created", Order("attribute", "start_time", True)),
        ("run_id", Order("attribute", "run_id", True)),
    ],
)
def test_an_order_is_read(text, order):
    assert parse_order([text], RUNS) == (order,)


@pytest.mark.parametrize(
    "text",
    ["", "metrics.acc UP", "metrics.acc DESC ASC", "metrics", "datasets.name", "lifecycle_stage", "metrics.acc,"],
)
def test_what_is_no_order_is_refused(text):
    with pytest.raises(InputError, match="at character"):
        parse_order([text], RUNS)


def test_a_key_to_order_by_comes_once():
    with pytest.raises(InputError, match="twice"):
        parse_order(["created", "start_time DESC"], RUNS)


@pytest.mark.parametrize(
    "text",
    [
        "name = 'a'",
        "name ILIKE 'a%'",
        "attribute.experiment_id IN ('1', '2')",
        "experiment_id != '1'",
        "creation_time > 5 AND last_update_time <= 7",
        "tags.team = 'a'",
        "tag.team IS NOT NULL",
    ],
)
def test_filters_of_experiments(text):
    assert parse(text, EXPERIMENTS)


@pytest.mark.parametrize(
    "text",
    ["creation_time > 5.5", "creation_time = '5'", "experiment_id LIKE '1'", "experiment_id = 1", "name IN ('a')",
     "name > 'a'", "params.a = 'x'", "metrics.a > 1", "attributes.name = 'x'", "name IS NULL", "run_id = 'a'"],
)  # fmt: skip
def test_what_is_no_filter_of_experiments(text):
    with pytest.raises(InputError, match="at character"):
        parse(text, EXPERIMENTS)


# Pieces that come near a filter, so that more than the first character is looked at.
pieces = st.sampled_from(
    ["metrics.", "params.", "tags.", "attributes.", "run_id", "start_time", "status", "acc", ".", "=", "!=", "<", ">=",
     "LIKE", "IN", "NOT", "IS", "NULL", "AND", "OR", "(", ")", ",", "'a'", '"b"', "`c d`", "1", "-2.5e3", " ", "'", "`",
     '"', ";", "--", "\\", "\0", "é", "1e999", "٣", "\ud800"]
)  # fmt: skip


@given(st.one_of(st.text(), st.text(alphabet=string.printable), st.lists(pieces, max_size=12).map("".join)))
def test_any_text_is_a_filter_or_is_refused(text):
    for grammar in (RUNS, EXPERIMENTS):
        try:
            clauses = parse(text, grammar)
        except InputError as error:
            assert "at character" in error.message  # noqa: PT017 whether it raises is what is not known
        else:
            assert all(isinstance(clause, Clause) for clause in clauses)
        try:
            parse_order([text], grammar)
        except InputError as error:
            assert "at character" in error.message  # noqa: PT017


@given(st.text(), st.text())
def test_what_is_quoted_stays_what_it_is(key, value):
    """Whatever a user writes between quotes comes out as one key or one value, never as more of the grammar."""
    text = "tags.`{}` = '{}'".format(key.replace("`", "``"), value.replace("'", "''"))
    storable = "\0" not in key + value and not any("\ud800" <= character <= "\udfff" for character in key + value)

    if storable:
        assert parse(text, RUNS) == (Clause("tag", key, "=", value),)
    else:
        with pytest.raises(InputError):
            parse(text, RUNS)
