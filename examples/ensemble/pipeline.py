"""An ensemble: one function before two models. The steps are wired in ``usecase.yaml``."""

from bedplate import pipeline
from bedplate.compute.task import Result, Task

LARGEST = 20_000.0
"""Amounts beyond it say no more than this one."""


@pipeline.predictor
def tidy(inputs):
    """The amount, cut off. It is called with the rows of a request, and in training."""
    return {"amount": inputs["amount"].clip(0, LARGEST)}


@pipeline.train
def train(task: Task) -> Result:
    """Two models of different depth, and how the whole graph does with them."""
    import pyarrow as pa  # heavy: only the training process pays for it

    from bedplate.train import tabular, wired

    invoices = task.tables["invoices"]
    amounts = tidy({"amount": invoices["amount"].to_numpy()})["amount"]
    tidied = invoices.set_column(invoices.column_names.index("amount"), "amount", pa.array(amounts))
    rows = Task(tables={"invoices": tidied}, parameters=task.parameters, seed=task.seed)
    models = {
        "deep.onnx": tabular.fit(rows, num_leaves=31),
        "shallow.onnx": tabular.fit(rows, num_leaves=4),
    }
    return wired.release(task, models, functions={"tidy": tidy})
