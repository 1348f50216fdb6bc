"""The recipe of a graph: what the whole answers is measured against the baselines of the tabular recipe.

The models come with the use case (``train.models``), or a training function makes them and hands them to
:func:`release`. The graph takes columns of the table by their names and gives ``score``, as the tabular recipe's model
does: the probability of the second class, one for each class, or a value.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.bundle.formats import PIPELINE
from bedplate.compute.task import Result, Task
from bedplate.errors import InputError
from bedplate.graph import FILE, Graph
from bedplate.records import TensorSpec
from bedplate.serve import graph as wiring
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.tensors import DTYPES
from bedplate.train import tabular

SCORE = "score"
Functions = Mapping[str, Callable[..., Mapping[str, Any]]]


def train(task: Task) -> Result:
    """Measure a graph whose models were trained elsewhere.

    Raises:
        InputError: as :func:`release`.
    """
    return release(task, {})


def release(task: Task, models: Mapping[str, bytes], functions: Functions | None = None) -> Result:
    """What a training function returns that made the ``models`` of the graph: they, and how the whole graph does.

    ``functions`` are those of ``pipeline.py`` that steps name, by name: they are called here, in this process.

    Raises:
        InputError: the graph cannot answer with these models, takes what is no column, or does not give ``score``.
    """
    files = {**task.files, **models}
    graph = msgspec.json.decode(files[FILE], type=Graph)
    if functions:
        files.setdefault(PIPELINE, b"")  # where they are from
    promised = wiring.signature(graph, files)
    predictor = wiring.assemble(files, promised, functions=functions or {})
    task.progress(f"a graph of {len(graph.steps)} steps, held against baselines", None, None)

    def answer(rows: Any, classes: int) -> npt.NDArray[np.float64]:
        arrays = {spec.name: _column(rows, spec) for spec in promised.inputs}
        outputs = predictor.predict(arrays, NO_FEATURES).outputs
        return _scores(outputs.get(SCORE), rows.num_rows, classes)

    return Result(files=dict(models), result=tabular.evaluate(task, answer))


def _column(rows: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """One column as the input of its name, shape ``[n]`` or ``[n, 1]``."""
    if spec.name not in rows.column_names:
        raise InputError(
            f"the graph takes {spec.name!r}, which is no column", where="graph.inputs", fix=f"use {rows.column_names}"
        )
    column = rows[spec.name]
    if column.null_count:
        raise InputError(
            f"the column {spec.name!r} has rows without a value", where="graph.inputs", fix="leave none empty"
        )
    values = np.array(column.to_pylist(), object) if spec.datatype == "BYTES" else column.to_numpy()
    return np.asarray(values, DTYPES[spec.datatype]).reshape([-1] + [1] * (len(spec.shape) - 1))


def _scores(found: npt.NDArray[Any] | None, rows: int, classes: int) -> npt.NDArray[np.float64]:
    """Class probabilities, shape (rows, classes), or values, shape (rows,)."""
    width = classes if classes > 2 else 1
    if found is None or found.dtype.kind != "f" or found.size != rows * width:
        given = "none" if found is None else f"{found.dtype} of shape {list(found.shape)}"
        raise InputError(
            f"the graph has to give {SCORE!r} for each row, {width} a row, and gave {given}",
            where="graph.outputs",
            fix=f"name an output {SCORE}",
        )
    flat = np.asarray(found, np.float64).reshape(rows, width)
    if classes == 2:
        return np.column_stack([1 - flat[:, 0], flat[:, 0]])
    return flat if classes else flat[:, 0]
