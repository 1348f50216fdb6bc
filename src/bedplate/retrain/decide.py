"""Deciding about retraining: every signal shown with what was measured, then whether it is worth the cost.

The rule. Signals that ask are *hard* when the file promises to act on them (drift, age) and *soft* otherwise (new
rows, quality). A known gain decides: its whole interval must exceed the cost for soft signals; a hard signal is only
held back by a gain whose whole interval lies at or below the cost. An unknown gain never justifies a cost, so it never
lets a soft signal through; a hard signal goes through without it, because keeping a promise of the file needs no claim
of profit.
"""

import msgspec

from bedplate.records import Estimate, RetrainDecision, Signal
from bedplate.retrain.conditions import Condition, Worth, parse, parse_worth
from bedplate.usecase.types import Retrain

_HARD = frozenset({"drift", "age"})


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What is known. None: not measured. ``age`` in seconds since training; money in ``currency``.

    ``gain`` is the worth of one retraining; a replay of history cannot give it (``replayed``). ``quality`` is the
    shortfall of served quality against its promise: above zero is worse. ``budget`` is what one training run may cost.
    """

    drift_alarm: bool | None = None
    drift_evidence: float = 0.0
    drift_limit: float = 1000.0
    drifted: tuple[str, ...] = ()
    new_rows: int | None = None
    age: float | None = None
    quality: Estimate | None = None
    gain: Estimate | None = None
    cost: float | None = None
    budget: float | None = None
    currency: str = "USD"
    replayed: bool = False


def decide(section: Retrain, signals: Signals) -> RetrainDecision:
    """Decide by the rule above. A cost that is unknown or above the budget refuses.

    Raises:
        InputError: an entry of the section cannot be read.
    """
    conditions = tuple(parse(text) for text in section.when)
    worth = parse_worth(section.if_)
    rows = tuple(_look(condition, signals) for condition in conditions)
    fired = [(condition, row) for condition, row in zip(conditions, rows, strict=True) if row.fired]
    if not fired:
        retrain, reason = False, "no signal asks for it" if rows else "the file names no reason to retrain"
    else:
        asks = "; ".join(row.why for _, row in fired)
        hard = any(condition.signal in _HARD for condition, _ in fired)
        retrain, because = _weigh(worth, signals, hard)
        reason = f"{asks}. {because}"
    return RetrainDecision(
        retrain=retrain,
        signals=rows,
        expected_gain=signals.gain,
        expected_cost=signals.cost,
        currency=signals.currency,
        reason=reason,
    )


def _look(condition: Condition, signals: Signals) -> Signal:
    measured: float | Estimate | None = None
    threshold = condition.threshold
    fired, why = False, "not measured"
    if condition.signal == "drift":
        measured, threshold = signals.drift_evidence, signals.drift_limit
        if signals.drift_alarm is not None:
            fired = signals.drift_alarm
            what = f"drift in {', '.join(signals.drifted)}" if signals.drifted else "drift"
            why = (
                what
                if fired
                else f"no drift alarm (evidence {measured:,.3g}, limit {threshold:,.0f}, and an effect must matter)"
            )
    elif condition.signal == "quality":
        threshold = 0.0
        if signals.quality is not None:
            measured = signals.quality
            fired = signals.quality.low > 0
            why = "quality fell below its promise" if fired else "no fall below the promise is shown"
    elif condition.signal == "new_rows" and signals.new_rows is not None:
        measured = signals.new_rows
        fired = measured > threshold if condition.operator == ">" else measured >= threshold
        why = f"{measured:,} new rows, asked at {threshold:,.0f}"
    elif condition.signal == "age" and signals.age is not None:
        measured = signals.age
        fired = measured >= threshold
        why = f"the model is {measured / 86400:.1f} days old, asked at {threshold / 86400:g}"
    return Signal(
        when=condition.text,
        signal=condition.signal,
        hard=condition.signal in _HARD,
        measured=measured,
        threshold=threshold,
        fired=fired,
        why=why,
    )


def _weigh(worth: Worth, signals: Signals, hard: bool) -> tuple[bool, str]:
    cost, gain, money = signals.cost, signals.gain, signals.currency
    if cost is None:
        return False, "The cost of a training run is not known, so none is started"
    if signals.budget is not None and cost > signals.budget:
        return False, f"A training run costs {cost:,.2f} {money}, above its budget of {signals.budget:,.2f} {money}"
    if worth.factor is None:
        return True, f"The file asks for it at any gain; it costs {cost:,.2f} {money}"
    needed = worth.factor * cost
    if gain is None:
        unknown = (
            "No effect claim is possible from replayed history: the expected gain is not known"
            if signals.replayed
            else "The expected gain is not known"
        )
        if hard:
            return True, f"{unknown}; drift and age are promises of the file and are acted on without it"
        return False, f"{unknown}, and an unknown gain never justifies a cost of {cost:,.2f} {money}"
    interval = f"{gain.value:,.2f} {money} [{gain.low:,.2f}, {gain.high:,.2f}]"
    shown = f"The expected gain is {interval} against {needed:,.2f} {money}"
    if gain.low > needed:
        return True, f"{shown}: worth it"
    if hard and gain.high > needed:
        return True, f"{shown}: not shown to be worth it nor to be a loss, and the file promises to act"
    return False, f"{shown}: not shown to be worth it"
