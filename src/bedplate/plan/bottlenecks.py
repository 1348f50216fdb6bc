"""What holds a piece of work back, from measured shares of its time: ten classes, the first that fits.

Pure: profilers measure elsewhere. What was not measured is None and makes no class. Thresholds are stated in the
finding, and so is what a remedy can gain at most, by Amdahl's law: a share f that goes away altogether gives 1/(1-f).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from bedplate.records import Estimate

Class = Literal[
    "data-loader",
    "interpreter-lock",
    "serialization",
    "launch",
    "communication",
    "transfer",
    "memory-bandwidth",
    "compute",
    "capacity",
    "queue",
    "mixed",
]


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the time of a step, 0 to 1, of one window of a measurement."""

    seconds: float
    """Of one step, or of the window where steps are not known."""
    loader: float | None = None
    """Waiting for, or making, the next input."""
    runnable: float | None = None
    """Threads that want to run, on average."""
    held: float | None = None
    """Cores that those threads had together."""
    asleep: float | None = None
    """Share of their time in which they neither ran nor waited for a core."""
    serialization: float | None = None
    launch: float | None = None
    """Around the kernels: calls, hand-over, bookkeeping."""
    flat: float | None = None
    """Time of twice the rows over the time of the rows: near 1 where rows cost nothing."""
    kernel_us: float | None = None
    """Median time of one kernel."""
    communication: float | None = None
    """Waiting for other processes."""
    transfer: float | None = None
    """Copies to and from an accelerator."""
    bandwidth: float | None = None
    """Bytes a second over what this machine's memory gives one thread."""
    intensity: float | None = None
    """Operations for each byte."""
    ridge: float | None = None
    """The intensity above which this machine is held back by operations."""
    compute: float | None = None
    """Operations a second over what one core gives."""
    memory: float | None = None
    """Bytes taken over bytes allowed."""
    wait: float | None = None
    """Seconds that a request waits before it is worked on."""
    service: float | None = None
    """Seconds of work on a request."""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do, how many times faster it can make a step at most, and what that rests on."""

    what: str
    gain: float
    why: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What holds the work back: its share with the spread over windows, the threshold, evidence, and what to do."""

    kind: Class
    share: Estimate
    threshold: float
    evidence: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    stable: bool
    """Each window alone gives the same class."""


class _Rule(NamedTuple):
    kind: Class
    threshold: float
    share: Callable[[Signals], float | None]
    """The measured share; None where it was not measured or a side condition does not hold."""
    say: Callable[[Signals], str]
    remedies: Callable[[Signals, float], tuple[Remedy, ...]]


def find(windows: Sequence[Signals], measured: Sequence[Remedy] = ()) -> Finding:
    """The class of the median over windows. ``measured`` are remedies that were tried: they come first.

    Raises:
        ValueError: there is no window.
    """
    if not windows:
        raise ValueError("no window")
    whole = _median(windows)
    rule = _first(whole)
    if rule is None:
        return Finding(
            kind="mixed",
            share=Estimate(value=0.0, low=0.0, high=0.0, n=len(windows), method="no class reached its threshold"),
            threshold=0.0,
            evidence=tuple(_told(whole)) or ("nothing that tells classes apart could be measured",),
            remedies=tuple(measured),
            stable=all(_first(window) is None for window in windows),
        )
    shares = [rule.share(window) or 0.0 for window in windows]
    share = rule.share(whole) or 0.0
    return Finding(
        kind=rule.kind,
        share=Estimate(value=share, low=min(shares), high=max(shares), n=len(windows), method="windows"),
        threshold=rule.threshold,
        evidence=(rule.say(whole), *(text for text in _told(whole) if text != rule.say(whole))),
        remedies=(*measured, *rule.remedies(whole, share)),
        stable=all(_first(window) is rule for window in windows),
    )


def amdahl(share: float, faster: float = float("inf")) -> float:
    """How many times faster the whole gets when a share of it gets ``faster`` times faster."""
    return 1 / max(1 - share + share / faster, 0.01)


def _median(windows: Sequence[Signals]) -> Signals:
    def middle(values: list[float]) -> float | None:
        return sorted(values)[len(values) // 2] if values else None

    fields = {
        name: middle([value for window in windows if (value := getattr(window, name)) is not None])
        for name in Signals.__struct_fields__
    }
    return msgspec.convert(fields, Signals)


def _first(signals: Signals) -> _Rule | None:
    for rule in _RULES:
        share = rule.share(signals)
        if share is not None and share > rule.threshold:
            return rule
    return None


def _told(signals: Signals) -> list[str]:
    """What was measured of every class, so that one can see what did not reach its threshold."""
    return [rule.say(signals) for rule in _RULES if rule.share(signals) is not None]


def _lock(s: Signals) -> float | None:
    if s.runnable is None or s.held is None or s.runnable < 1.5 or s.held > 1.2:
        return None
    return s.asleep


def _launch(s: Signals) -> float | None:
    if s.launch is None:
        return None
    small = s.kernel_us is not None and s.kernel_us < 10
    flat = small if s.flat is None else s.flat < 1.35  # a training is not done with twice the rows
    return s.launch if flat and (small or s.launch > 0.25) else 0.0


def _bandwidth(s: Signals) -> float | None:
    below = s.intensity is not None and s.ridge is not None and s.intensity < s.ridge
    return s.bandwidth if s.bandwidth is None or below else 0.0


def _queue(s: Signals) -> float | None:
    return s.wait / (s.wait + s.service) if s.wait is not None and s.service else None


def _remedy(what: str, gain: float, why: str) -> Remedy:
    return Remedy(what=what, gain=gain, why=why)


_RULES = (
    _Rule(
        "data-loader",
        0.15,
        lambda s: s.loader,
        lambda s: f"{s.loader or 0:.0%} of the time goes into the next input (limit 15 %)",
        lambda s, f: (
            _remedy("prepare inputs in other processes, ahead of the step", amdahl(f), "all of the waiting goes away"),
            _remedy("keep decoded inputs in memory or in Arrow", amdahl(f, 4), "inputs made four times faster"),
        ),
    ),
    _Rule(
        "interpreter-lock",
        0.20,
        _lock,
        lambda s: (
            f"{s.runnable or 0:.1f} threads want to run, have {s.held or 0:.2f} cores together, and sleep "
            f"{s.asleep or 0:.0%} of the time (limit 20 %)"
        ),
        lambda s, f: (
            _remedy("processes instead of threads", s.runnable or 1.0, "each has its own lock; needs as many cores"),
        ),
    ),
    _Rule(
        "serialization",
        0.20,
        lambda s: s.serialization,
        lambda s: f"{s.serialization or 0:.0%} of the time writes or reads pickle, JSON or copies (limit 20 %)",
        lambda s, f: (
            _remedy("hand tensors over as they are: Arrow, shared memory, the binary protocol", amdahl(f), "no copy"),
            _remedy("a faster format: msgspec or orjson for json", amdahl(f, 5), "five times faster"),
        ),
    ),
    _Rule(
        "launch",
        0.20,
        _launch,
        lambda s: (
            f"{s.launch or 0:.0%} of a call is around its kernels, each {s.kernel_us or 0:.1f} us"
            + (f"; twice the rows take {s.flat:.2f} times as long" if s.flat is not None else "")
        ),
        lambda s, f: (_remedy("one larger step instead of many small ones: fuse the graph", amdahl(f), "no calls"),),
    ),
    _Rule(
        "communication",
        0.20,
        lambda s: s.communication,
        lambda s: f"{s.communication or 0:.0%} of the time waits for other processes (limit 20 %)",
        lambda s, f: (
            _remedy("send while the next step computes", amdahl(f), "all of the waiting is hidden"),
            _remedy("send half the bytes: 16-bit numbers, or every second step", amdahl(f, 2), "half the bytes"),
        ),
    ),
    _Rule(
        "transfer",
        0.20,
        lambda s: s.transfer,
        lambda s: f"{s.transfer or 0:.0%} of the time copies to or from the accelerator (limit 20 %)",
        lambda s, f: (_remedy("pinned memory, and copies beside the step", amdahl(f), "all copies are hidden"),),
    ),
    _Rule(
        "memory-bandwidth",
        0.60,
        _bandwidth,
        lambda s: (
            f"{s.bandwidth or 0:.0%} of the memory's rate (limit 60 %), {s.intensity or 0:.1f} operations a byte where "
            f"this machine balances at {s.ridge or 0:.0f}"
        ),
        lambda s, f: (
            _remedy("weights of 8 bits", amdahl(f, 4), "a quarter of the bytes, while bytes decide"),
            _remedy("more rows a call", (s.ridge or 1) / max(s.intensity or 1, 1e-9), "until operations decide"),
        ),
    ),
    _Rule(
        "compute",
        0.50,
        lambda s: s.compute,
        lambda s: f"{s.compute or 0:.0%} of the operations that one core can do (limit 50 %)",
        lambda s, f: (
            _remedy("a second core for each call", amdahl(f, 2), "products split well; the rest does not"),
            _remedy(
                "whole numbers of 8 bits, where the processor has products of them", amdahl(f, 4), "four to a register"
            ),
        ),
    ),
    _Rule(
        "capacity",
        0.90,
        lambda s: s.memory,
        lambda s: f"{s.memory or 0:.0%} of the memory that is allowed is taken (limit 90 %)",
        lambda s, f: (_remedy("twice the memory", 2.0, "twice the batch, where rows share the fixed cost"),),
    ),
    _Rule(
        "queue",
        0.50,
        _queue,
        lambda s: f"a request waits {(s.wait or 0) * 1e3:.2f} ms for {(s.service or 0) * 1e3:.2f} ms of work",
        lambda s, f: (_remedy("a second replica", amdahl(f), "almost nobody waits"),),
    ),
)
