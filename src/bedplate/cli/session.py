"""The way from a command to the application: the facade is imported when a command runs, never for `--help`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bedplate.app.operations import Bedplate

_home: Path | None = None
"""``bedplate --home FOLDER command``: set once by the root callback, before a command runs."""


def use_home(home: Path | None) -> None:
    """Remember the home that was named before the command."""
    global _home
    _home = home


def connect(home: Path | None = None) -> "Bedplate":
    """The facade on the home that the command, the root option or the environment names."""
    # Imported here: the facade brings store and policy with it, which `--help` does not need.
    import msgspec

    from bedplate import settings
    from bedplate.app.operations import Bedplate

    loaded = settings.load()
    chosen = home or _home
    if chosen is not None:
        loaded = msgspec.structs.replace(loaded, home=chosen.expanduser().absolute())
    return Bedplate(loaded)
