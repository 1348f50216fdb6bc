"""Feature views: declared once, point in time, the same code offline and online."""

from bedplate.features.joins import join
from bedplate.features.online import materialise
from bedplate.features.point_in_time import compute, compute_view, moments, newest
from bedplate.features.views import FeatureView, Periods, Window, declared

__all__ = [
    "FeatureView",
    "Periods",
    "Window",
    "compute",
    "compute_view",
    "declared",
    "join",
    "materialise",
    "moments",
    "newest",
]
