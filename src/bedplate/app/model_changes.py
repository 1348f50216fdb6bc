"""Changes of the registry that its owner carries out for the command line: each asks policy about the workspace."""

from typing import TYPE_CHECKING

from bedplate.app import model_views, workspaces
from bedplate.app.model_reports import AliasMove, ApproversSet, Conversion
from bedplate.identity import Principal
from bedplate.release.changes import UNSAID

if TYPE_CHECKING:
    from bedplate.app.system import System


def point_alias(
    system: "System",
    principal: Principal,
    workspace: str,
    name: str,
    alias: str,
    version: int | None,
    expected: int | None = None,
) -> AliasMove:
    """Point an alias to a version, or take it away; ``expected`` is where it must point now, 0 for nowhere.

    Raises:
        DeniedError: the workspace may not be written to, or the version not go where the alias stands for.
        NotFoundError: there is no such model or version.
        InputError: the alias cannot be used.
        ConflictError: the alias points elsewhere.
    """
    workspaces.demand(system, principal, "write", workspace)
    models = system.models
    believed = UNSAID if expected is None else expected or None
    environment = models.moves.environment_of(alias)
    if version is not None:
        moved = models.set_alias(principal, workspace, name, alias, version, expected=believed)
        return model_views.alias_move(moved, alias, environment)
    index = models.write(lambda tx: models.moves.delete_alias(tx, principal, workspace, name, alias, expected=believed))
    return AliasMove(
        workspace=workspace, name=name, alias=alias, version=None, environment=environment, ledger_index=index
    )


def name_approvers(
    system: "System", principal: Principal, workspace: str, name: str, environment: str, rule: str
) -> ApproversSet:
    """Say who must agree to versions of a model in an environment.

    Raises:
        DeniedError: the workspace may not be administered.
        NotFoundError: there is no such model.
        InputError: the rule is malformed.
    """
    workspaces.demand(system, principal, "administer", workspace)
    index = system.models.name_approvers(principal, workspace, name, environment, rule)
    return ApproversSet(workspace=workspace, name=name, environment=environment, rule=rule, ledger_index=index)


def convert_version(system: "System", principal: Principal, workspace: str, name: str, version: int) -> Conversion:
    """Make ONNX of a version that runs code when loaded.

    Raises:
        DeniedError: the workspace may not be written to.
        NotFoundError: there is no such version.
        BedplateError: as :meth:`bedplate.app.models.ModelRegistry.convert`.
    """
    workspaces.demand(system, principal, "write", workspace)
    return model_views.conversion(*system.models.convert(principal, workspace, name, version))
