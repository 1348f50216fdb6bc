"""Optional dependencies, loaded on use: a missing one prints the line that installs it."""

import importlib
from types import ModuleType

from bedplate.errors import MissingExtraError


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
