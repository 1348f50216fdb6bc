"""Bedplate carries an AI use case from its objective to served predictions, with evidence at every step.

:class:`Bedplate` does everything the command line does; its methods return the structs below. ``pipeline`` holds the
decorators for ``pipeline.py``. Names load on first use, so that importing the package costs next to nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bedplate import pipeline
    from bedplate.app.operations import Bedplate
    from bedplate.app.read_models import CheckReport, PlanReport, RunSummary, Status, Trace
    from bedplate.compute.task import Result, Task
    from bedplate.errors import BedplateError, GateError, UseCaseError
    from bedplate.records import Estimate, Event
    from bedplate.settings import Settings

# ONNX Runtime gives the machine an id in the user's cache and reports what it runs, unless this is set before it loads.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "Bedplate",
    "BedplateError",
    "CheckReport",
    "Estimate",
    "Event",
    "GateError",
    "PlanReport",
    "Result",
    "RunSummary",
    "Settings",
    "Status",
    "Task",
    "Trace",
    "UseCaseError",
    "pipeline",
]

_HOMES = {
    "bedplate.app.operations": ("Bedplate",),
    "bedplate.app.read_models": ("CheckReport", "PlanReport", "RunSummary", "Status", "Trace"),
    "bedplate.compute.task": ("Result", "Task"),
    "bedplate.errors": ("BedplateError", "GateError", "UseCaseError"),
    "bedplate.records": ("Estimate", "Event"),
    "bedplate.settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    if name == "pipeline":
        return import_module("bedplate.pipeline")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'bedplate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
