"""Features as a program or a command asks about them: ``Bedplate.features``."""

from collections.abc import Sequence

from bedplate.app.feature_reports import FeatureValues, Materialised, SkewReport, ViewLine, ViewReport
from bedplate.app.nouns import CarryOut


class Features:
    """Feature views: what is declared, what is online, and whether what is served is what was learned from."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def list(self) -> tuple[ViewLine, ...]:
        """The views of the use cases that you may list, as they were last computed."""
        return self._carry_out("list_features", tuple[ViewLine, ...])

    def show(self, use_case: str, view: str) -> ViewReport:
        """One view: features, declaration, table, purposes and tags that it inherits, and what is online."""
        return self._carry_out("show_features", ViewReport, use_case=use_case, view=view)

    def get(self, use_case: str, view: str, keys: Sequence[int], purpose: str | None = None) -> FeatureValues:
        """The online features of entities, as you may see them. Every read is in the ledger."""
        return self._carry_out(
            "get_features", FeatureValues, use_case=use_case, view=view, keys=tuple(keys), purpose=purpose
        )

    def materialise(
        self,
        use_case: str,
        views: Sequence[str] = (),
        *,
        as_of: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Materialised:
        """Compute views, all or those named, from the newest rows for a moment (default: now), and put them online.

        With ``since`` and ``until`` (not included) only entities that rows of that range touch are computed anew.
        """
        return self._carry_out(
            "materialise_features", Materialised, use_case=use_case, views=tuple(views), as_of=as_of, since=since,
            until=until,
        )  # fmt: skip

    def skew(self, use_case: str, *, sample: int = 1000, since: str | None = None, limit: float = 0.01) -> SkewReport:
        """How the features of sampled predictions differ from the same computed again; kept, and in the ledger."""
        return self._carry_out("measure_skew", SkewReport, use_case=use_case, sample=sample, since=since, limit=limit)
