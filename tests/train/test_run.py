"""A run sends governed rows to a limited process, and keeps artifacts by digest and figures as typed values."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from bedplate import blobs, ids
from bedplate.compute import sandbox
from bedplate.errors import InputError, UserCodeError
from bedplate.records import TableVersion
from bedplate.train import run
from bedplate.usecase.types import Resources, Train, Workload

VERSION = TableVersion(name="invoices", version=1, digest=ids.digest_bytes(b"rows"), rows=300)


class Rows:
    """Stands where a governed reader stands: gives rows, and notes what was asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.asked: list[tuple[str, object]] = []

    def read(self, version, columns=None):
        self.asked.append((version.name, columns))
        return (self.table if columns is None else self.table.select(columns)).to_reader()


def loaded(**parameters):
    use_case = SimpleNamespace(
        workload=Workload(kind="tabular", target="late", task="classification"),
        train=Train(
            holdout="25 %", resources=Resources(cpu=1, memory=2 << 30), parameters={"rounds": 20, **parameters}
        ),
        risk=SimpleNamespace(level="minimal"),
        graph=None,
    )
    return SimpleNamespace(use_case=use_case)


def invoices(n=300):
    random = np.random.default_rng(0)
    amount = random.normal(10, 3, n)
    return pa.table({"amount": amount, "late": np.where(amount + random.normal(0, 1, n) > 10, "yes", "no")})


def trained(case, reader, store, *, pipeline=None, **watched):
    """The training of a use case with one data set, from its rows to its result."""
    declared = sandbox.describe(pipeline) if pipeline is not None else ()
    made = run.prepare(case, reader, {"invoices": VERSION}, None, pipeline=pipeline, declared=declared)
    return run.run(case, made, store, pipeline=pipeline, **watched)


def test_a_recipe_runs_and_its_model_is_kept(tmp_path):
    """The result names the artifact by its digest, the rows by their version, and the environment."""
    store = blobs.open(tmp_path / "blobs")
    reader = Rows(invoices())
    lines: list[str] = []

    made = trained(loaded(), reader, store, on_progress=lambda message, *_: lines.append(message))

    assert reader.asked == [("invoices", None)]
    assert made.inputs == (VERSION,)
    assert set(made.artifacts) == {"model.onnx"}
    assert store.get(made.artifacts["model.onnx"])
    assert made.signature.predictor == "onnx"
    assert {c.baseline for c in made.comparisons} == {"majority", "best_single_feature", "logistic"}
    assert made.environment_digest == run.environment()
    assert lines


def test_code_of_the_user_trains_on_what_it_asks_for(tmp_path):
    """Only the columns that ``inputs`` names reach it, and the code that ran is part of the result."""
    pipeline = tmp_path / "pipeline.py"
    pipeline.write_text(
        "from bedplate import pipeline\n"
        "@pipeline.train(inputs={'invoices': ('late',)})\n"
        "def mine(task):\n"
        "    raise ValueError(task.tables['invoices'].column_names)\n"
    )
    reader = Rows(invoices())

    with pytest.raises(UserCodeError, match=r"ValueError.*late"):
        trained(loaded(), reader, blobs.open(tmp_path / "blobs"), pipeline=pipeline)
    assert reader.asked == [("invoices", ["late"])]


@pytest.mark.parametrize("answer", ["Result()", "Result(files={'a': b'1'}, result={'metrics': 3})"])
def test_an_answer_that_is_no_training_result_is_refused(tmp_path, answer):
    """A training function must say signature and metrics, as the recipes do."""
    pipeline = tmp_path / "pipeline.py"
    pipeline.write_text(
        "from bedplate import pipeline\nfrom bedplate.compute.task import Result\n"
        f"@pipeline.train\ndef mine(task):\n    return {answer}\n"
    )

    with pytest.raises(UserCodeError, match="cannot be used"):
        trained(loaded(), Rows(invoices()), blobs.open(tmp_path / "blobs"), pipeline=pipeline)


def test_a_recipe_says_what_does_not_suit_it(tmp_path):
    """An error of the recipe arrives as what it is, through the limited process."""
    with pytest.raises(InputError, match="no table 'other'"):
        trained(loaded(table="other"), Rows(invoices()), blobs.open(tmp_path / "blobs"))
