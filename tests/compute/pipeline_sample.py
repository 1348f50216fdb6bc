"""An ordinary pipeline, and functions that go wrong in every way."""

import ctypes
import os
import time

from bedplate.compute.task import Result
from bedplate.errors import InputError
from bedplate.pipeline import dataset, feature_view, train


@dataset(name="orders")
def clean(table):
    return table.filter(table.column("amount").is_valid())


@feature_view(entity="household_id", inputs=("orders",), time="day")
def recent():
    return "select household_id, max(day) as last from orders group by 1"


@train
def fit(task):
    task.progress("half way", 1, 2)
    rows = {name: table.num_rows for name, table in task.tables.items()}
    return Result(
        files={"model.json": b"{}", "b.bin": bytes(3)}, result={"rows": rows, "seed": task.seed} | task.parameters
    )


@train
def raises(task):
    amounts = [1, 0]
    return amounts[0] / amounts[1]


@train
def refuses(task):
    raise InputError("no rows", where="orders")


@train
def returns_nothing(task):
    return None


@train
def returns_text(task):
    return Result(files={"a": "text"})


@train
def returns_nan(task):
    return Result(result={"x": float("nan")})


@train
def eats_memory(task):
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20) * 16))


@train
def never_ends(task):
    while True:
        time.sleep(0.01)


@train
def crashes(task):
    ctypes.string_at(0)


@train
def leaves(task):
    os._exit(3)


@train
def exits(task):
    raise SystemExit("enough")


@train
def forges(task):
    """Whoever finds the pipe can write frames, and gains nothing: they are checked like every answer."""
    for fd in range(3, 20):
        try:
            os.write(fd, b"R" + (1 << 60).to_bytes(8, "little"))
        except OSError:
            continue
    os._exit(0)


@train
def busy(task):
    held, until = bytearray(80 << 20), time.monotonic() + 2.5
    while time.monotonic() < until:
        held[0] = 1
    return Result(files={"a": bytes(held[:1])}, result={})
