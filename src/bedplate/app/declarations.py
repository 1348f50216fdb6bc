"""What the code of a use case declares: the marked functions of ``pipeline.py``, and views that are written in SQL."""

from typing import TYPE_CHECKING

from bedplate.app import inputs
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.compute.sandbox import Declared
    from bedplate.features.views import FeatureView


def described(system: "System", loaded: Loaded) -> "tuple[Declared, ...]":
    """What ``pipeline.py`` declares; read in a limited process, once for each version of the file."""
    from bedplate.compute import sandbox

    pipeline = inputs.pipeline_path(loaded)
    if pipeline is None:
        return ()
    digest = inputs.pipeline_digest(loaded)
    if digest not in system.described:
        high = loaded.use_case.risk.level == "high"
        system.described[digest] = sandbox.describe(pipeline, require_isolation=high)
    return system.described[digest]


def in_sql(loaded: Loaded) -> "tuple[FeatureView, ...]":
    """The feature views that a use case names and that are files of SQL.

    Raises:
        InputError: one does not say what a view is.
    """
    from bedplate.features.files import written
    from bedplate.features.views import declared

    found = written(loaded.folder, loaded.use_case.features)
    return declared(found, [each.name for each in found])


def views_of(system: "System", loaded: Loaded) -> "tuple[FeatureView, ...]":
    """The feature views that a use case names.

    Raises:
        InputError: one is declared nowhere, or an option of it makes no sense.
        UserCodeError: ``pipeline.py`` does not load.
    """
    from bedplate.features.files import written
    from bedplate.features.views import declared

    wanted = loaded.use_case.features
    files = written(loaded.folder, wanted)
    if len(files) == len(wanted):
        return declared(files, wanted)
    return declared((*described(system, loaded), *files), wanted)
