"""What code in a limited process gets and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[str, float | None, float | None], None]
"""``progress(message, done, total)``: one line for whoever watches; ``done`` of ``total`` in any unit, or None."""


def _silent(message: str, done: float | None = None, total: float | None = None) -> None:
    """Progress that nobody watches: the default, so that a training function can be called in a test."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a training function works on: rows by data set name, parameters from the file, and a seed.

    ``files`` are the models that ``train.models`` names, and the graph of the file if there is one.
    """

    tables: "dict[str, pa.Table]"
    files: dict[str, bytes] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 7
    progress: Progress = _silent


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training function made: files by flat name (``model.onnx``), and values that JSON can hold."""

    files: dict[str, bytes] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
