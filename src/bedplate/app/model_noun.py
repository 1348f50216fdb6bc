"""Registered models as a program or a command asks about them: ``Bedplate.models``.

Looking needs nobody's leave; what changes something is carried out by the owner of the home, under the name of whoever
asks.
"""

from bedplate.app import queries
from bedplate.app.model_reports import AliasMove, ApproversSet, Conversion, HistoryPage, LiveView, ModelList, ModelView
from bedplate.app.nouns import CarryOut
from bedplate.settings import Settings
from bedplate.store.workspaces import DEFAULT


class Models:
    """Registered models and their versions."""

    def __init__(self, carry_out: CarryOut, settings: Settings) -> None:
        self._carry_out, self._settings = carry_out, settings

    def list(self, workspace: str = DEFAULT, *, after: str | None = None) -> ModelList:
        """Models by name; ``after`` is the page that the last list named."""
        from bedplate.app import model_views

        with queries.reading(self._settings) as tx:
            return model_views.models(tx, workspace, after=after)

    def show(self, name: str, *, workspace: str = DEFAULT) -> ModelView:
        """One model with its newest versions."""
        from bedplate.app import model_views

        with queries.reading(self._settings) as tx:
            return model_views.model(tx, workspace, name)

    def history(
        self, name: str, *, version: int | None = None, before: int | None = None, workspace: str = DEFAULT
    ) -> HistoryPage:
        """What happened to a model, or to one version of it, newest first; also to one that is gone."""
        from bedplate.app import model_views

        with queries.reading(self._settings) as tx:
            return model_views.history(tx, workspace, name, version, before=before)

    def live(
        self,
        name: str,
        at: str | None = None,
        *,
        stage: str | None = None,
        alias: str | None = None,
        environment: str | None = None,
        workspace: str = DEFAULT,
    ) -> LiveView:
        """Which version was live at a moment, or is now: in a stage (else Production), as an alias, or serving."""
        from bedplate.app import model_views

        by, value = model_views.which(stage, alias, environment)
        moment = None if at is None else model_views.parse_time(at)
        with queries.reading(self._settings) as tx:
            return model_views.live(tx, workspace, name, moment, by, value)

    def alias(
        self, name: str, alias: str, version: int | None, *, expected: int | None = None, workspace: str = DEFAULT
    ) -> AliasMove:
        """Point an alias to a version, or take it away (None); ``expected`` is where it points now, 0 for nowhere."""
        return self._carry_out(
            "point_alias", AliasMove, workspace=workspace, name=name, alias=alias, version=version, expected=expected
        )

    def approvers(
        self, name: str, rule: str, *, environment: str = "production", workspace: str = DEFAULT
    ) -> ApproversSet:
        """Say who must agree to versions of a model that belongs to no use case; an empty rule names nobody."""
        return self._carry_out(
            "name_approvers", ApproversSet, workspace=workspace, name=name, environment=environment, rule=rule
        )

    def convert(self, name: str, version: int, *, workspace: str = DEFAULT) -> Conversion:
        """Make ONNX of a version whose files run code when they are loaded, and show that it says the same."""
        return self._carry_out("convert_version", Conversion, workspace=workspace, name=name, version=version)
