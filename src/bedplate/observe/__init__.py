"""What served traffic shows: outcomes, drift, health."""

from bedplate.observe.drift import Reference, columns_of, reference, watch
from bedplate.observe.outcomes import match
from bedplate.observe.replay import ReplayPlan, ReplayReport, ReplayRequest, ReplayWindow, http_sender, replay
from bedplate.observe.report import Observed, observe
from bedplate.observe.ship import ShipReport, answered, find, latest, ship

__all__ = [
    "Observed",
    "Reference",
    "ReplayPlan",
    "ReplayReport",
    "ReplayRequest",
    "ReplayWindow",
    "ShipReport",
    "answered",
    "columns_of",
    "find",
    "http_sender",
    "latest",
    "match",
    "observe",
    "reference",
    "replay",
    "ship",
    "watch",
]
