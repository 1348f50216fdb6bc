"""What is loaded by name, on use: optional dependencies, and the edges that the composition root starts."""

import importlib
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from bedplate.errors import MissingExtraError

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "bedplate.control_plane": ("bedplate.api.server:ControlPlane",),
    "bedplate.presenters": ("bedplate.ui.routes:present", "bedplate.api.mlflow.left_out:present"),
    "bedplate.routes": ("bedplate.api.routes:routes", "bedplate.api.mlflow.routes:routes", "bedplate.ui.routes:routes"),
}
"""Our own plugins, by entry-point group: the product uses the interface that it offers to others."""


def plugins(group: str) -> list[Any]:
    """What is registered under an entry-point group: ours first, then that of installed packages, by name."""
    found = []
    for target in BUILT_IN.get(group, ()):
        module, _, name = target.partition(":")
        found.append(getattr(importlib.import_module(module), name))
    installed = sorted(_installed().select(group=group), key=lambda entry: entry.name)
    return [*found, *(entry.load() for entry in installed)]


@cache
def _installed() -> Any:  # the class of it differs between versions of Python
    """Read once in a process: it takes a look at every installed package."""
    from importlib.metadata import entry_points  # a tenth of what a limited process that parses a source loads

    return entry_points()


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``extra`` brings.

    Raises:
        MissingExtraError: it is not installed; the text holds the install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module} is needed here and not installed", fix=f"pip install 'bedplate[{extra}]'"
        ) from error
