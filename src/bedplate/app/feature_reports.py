"""What the features of a home answer to the command line and the API."""

import msgspec

from bedplate.ids import Digest
from bedplate.records import Estimate, Governance, ViewRecord

SKEW = "skew"
"""The kind of the fact that says how served features differed from their recomputation."""


class ViewLine(msgspec.Struct, frozen=True, kw_only=True):
    """One feature view. ``as_of`` is the moment that is online (ISO 8601, UTC), None where nothing is."""

    use_case: str
    view: str
    entity: tuple[str, ...]
    features: int
    owner: str
    as_of: str | None
    digest: Digest


class ViewReport(msgspec.Struct, frozen=True, kw_only=True):
    """One feature view: its features in order, its declaration, its table; what of it is online, and for whom.

    ``tags`` are those that the contracts put on the columns that it rests on, as far as the use case has masks for
    them; ``sensitive`` are those of these columns that it calls so. ``skew`` is what was found last.
    """

    use_case: str
    view: str
    features: tuple[str, ...]
    declared: ViewRecord
    purposes: tuple[str, ...]
    tags: tuple[str, ...]
    sensitive: tuple[str, ...]
    table: str
    version: int
    as_of: str | None
    online: int
    skew: "SkewReport | None" = None


class Materialised(msgspec.Struct, frozen=True, kw_only=True):
    """What was put online: how many entities by view, for the moment ``as_of``, and the entry of the ledger."""

    use_case: str
    as_of: str
    views: dict[str, int]
    entry: int


class EntityValues(msgspec.Struct, frozen=True, kw_only=True):
    """The features of one entity, None where there is none; ``as_of`` is what they rest on, None for an entity that is
    not known. ``missing`` says why defaults stand for all: ``unknown`` or ``stale``; empty where they do not."""

    key: int
    values: tuple[float | None, ...]
    as_of: str | None
    missing: str = ""


class FeatureValues(msgspec.Struct, frozen=True, kw_only=True):
    """Features by key, as whoever asks may see them; ``masked``: what they rest on is hidden, so all are None."""

    use_case: str
    view: str
    features: tuple[str, ...]
    entities: tuple[EntityValues, ...]
    masked: bool = False


class FeatureSkew(msgspec.Struct, frozen=True, kw_only=True):
    """How one feature as it was served differs from the same feature recomputed for that moment.

    ``share`` of the samples differ; ``size`` is the mean absolute difference over all, ``largest`` the greatest.
    """

    feature: str
    share: Estimate
    size: Estimate
    largest: float
    alarm: bool


class SkewReport(msgspec.Struct, frozen=True, kw_only=True):
    """Served features against their recomputation: ``samples`` predictions of the time from ``since`` to ``until``.

    A feature alarms where its share differs from none by more than ``limit``, with 95 % confidence.
    """

    use_case: str
    samples: int
    since: str | None
    until: str | None
    limit: float
    features: tuple[FeatureSkew, ...]
    alarm: bool
    entry: int = 0


class SkewAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert on skew that fired: the body of a fact ``alert``. ``features`` are those over the ``limit``."""

    features: tuple[str, ...]
    samples: int
    limit: float
    accountable: str
    notify: tuple[str, ...]


def inherited(governance: Governance, view: ViewRecord) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tags, and the sensitive columns, that a view inherits from the columns that it rests on."""
    tags = {tag for name in view.rests_on for tag in governance.tagged.get(name, ())}
    return tuple(sorted(tags)), tuple(name for name in view.rests_on if name in governance.sensitive)
