"""Whether to retrain, and why."""

from bedplate.retrain.conditions import parse, parse_worth
from bedplate.retrain.decide import Signals, decide

__all__ = ["Signals", "decide", "parse", "parse_worth"]
