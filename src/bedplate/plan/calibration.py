"""From counts and measurements to a number with an interval: constants of a model, then anchors.

A model turns a workload into seconds by exact counts and a few constants (efficiencies, overheads). Each constant has
a value known beforehand and a spread, and so has what a piece of hardware does to it: measurements move them as far
as they outweigh that. What the model still misses is shared between measurements that have something in common (the
same source, hardware or model): the logarithm of measured over predicted is a Gaussian process, so a near measurement
pulls the estimate (an anchor), a far one hardly, and the interval widens with distance from all of them.

Source: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, chapters 2 and 5.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from scipy import linalg, optimize

from bedplate.errors import InputError
from bedplate.plan.accelerators import rows
from bedplate.records import Estimate

W = TypeVar("W")
_Z90 = 1.645
_LEAST = 0.015
"""No error below 1.5 % is believed: a step is not timed twice to better than that."""
_LEVELS = 0.47
"""How far a level's spread may be from what was known, as a standard deviation of logs: a factor of 1.6."""
_SCALES = 0.12
"""How far errors of one ``like`` may be from the others' in size, in the same terms: few sources tell it."""
_ENOUGH = 9
"""Names of a group, from which a 90 % point is taken: fewer have none (split conformal), but tell a spread."""


class Constant(NamedTuple):
    """What is known of a constant before any measurement: its value, and its spread as a standard deviation of logs.

    ``each`` is the spread between the names it is asked for (hardware, generation), around the common value.
    """

    value: float
    spread: float
    each: float = 0.0


class Level(NamedTuple):
    """Something that measurements have in common: its standard deviation of logs before any measurement."""

    spread: float
    near: bool = False
    """Fades with the distance between workloads (``Measured.at``)."""


class Constants:
    """The constants of a model, each asked for in general or for one hardware."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def __call__(self, name: str, *of: str) -> float:
        """The constant ``name`` times what each name in ``of`` was found to do to it."""
        value = self._values[name]
        for part in of:
            value *= self._values.get(f"{name}@{part}", 1.0)
        return value


class Measured(NamedTuple, Generic[W]):
    """One published measurement: what was run, the seconds, what it shares with others, and where it lies."""

    workload: W
    seconds: float
    groups: Mapping[str, str]
    at: tuple[float, ...]
    """Logarithms of the sizes that make two workloads alike."""


class Estimated(NamedTuple):
    """Seconds with a 90 % interval; ``known`` is the share of the model's uncertainty that anchors took away."""

    seconds: Estimate
    known: float


class Model(NamedTuple, Generic[W]):
    """A kind of workload: seconds from constants, what its constants are, and what its measurements share."""

    seconds: Callable[[Constants, W], float]
    constants: Mapping[str, Constant]
    names: Callable[[W], Mapping[str, Sequence[str]]]
    """For each constant that differs by hardware, the names that this workload asks it for."""
    levels: Mapping[str, Level]
    noise: float
    apart: tuple[str, ...]
    """Groups whose measurements say much of each other, from near to far: an interval is held to the errors that are
    left with all of one left out, of the farthest group that nothing is known of."""
    like: str
    """The group whose errors are of a size: intervals are held to those of each by itself."""


class Calibrated(NamedTuple, Generic[W]):
    """A model with its constants and the measurements that serve as anchors."""

    model: Model[W]
    values: Mapping[str, float]
    spreads: Mapping[str, float]
    noise: float
    scales: Mapping[str, float]
    """How many times as large as that errors of each ``like`` are."""
    anchors: tuple[Measured[W], ...]
    weights: Any
    inverse: Any
    tails: Mapping[str, tuple[float, ...]]
    """Standard deviations that hold 90 % of the errors, for each group of ``apart``: by ``like``, and under the empty
    name those of all."""

    def estimate(self, workload: W, groups: Mapping[str, str], at: tuple[float, ...]) -> Estimated:
        """Seconds for a workload; ``groups`` name what it shares with the anchors.

        Raises:
            InputError: the hardware or precision has no calibrated rate.
        """
        plain = math.log(self.model.seconds(Constants(self.values), workload))
        here = Measured(workload, 1.0, groups, at)
        strange = self._strange(workload, plain)
        scale = self.scales.get(groups[self.model.like], 1.0)
        shared = scale * _kernel(self.spreads, self.model.levels, [here], self.anchors)[0]
        shared *= _scaled(self.model, self.scales, self.anchors)
        before = scale**2 * sum(spread**2 for spread in self.spreads.values())
        after = max(before - float(shared @ self.inverse @ shared), 0.0)
        seen = any(groups["source"] == anchor.groups["source"] for anchor in self.anchors)
        middle = plain + float(shared @ self.weights)
        new = [all(groups[name] != anchor.groups[name] for anchor in self.anchors) for name in self.model.apart]
        farthest = max((i for i, unknown in enumerate(new) if unknown), default=0)
        tail = self.tails.get(groups[self.model.like], self.tails[""])[farthest]
        width = tail * math.sqrt(after + strange + (scale * self.noise) ** 2)
        return Estimated(
            Estimate(
                value=math.exp(middle),
                low=math.exp(middle - width),
                high=math.exp(middle + width),
                level=0.9,
                n=len(self.anchors),
                method="anchored" if seen else "model",
            ),
            1 - (after + strange) / (before + strange),
        )

    def _strange(self, workload: W, plain: float) -> float:
        """Variance that comes from hardware that was never measured: what it may do to each constant."""
        off, step = 0.0, 0.05
        for name, parts in self.model.names(workload).items():
            new = [part for part in parts if f"{name}@{part}" not in self.values]
            each = self.model.constants[name].each
            if new and each:
                moved = Constants({**self.values, name: self.values[name] * math.exp(step)})
                slope = (math.log(self.model.seconds(moved, workload)) - plain) / step
                off += len(new) * (slope * each) ** 2
        return off


def calibrate(model: Model[W], measured: Sequence[Measured[W]]) -> Calibrated[W]:
    """Constants and anchors from measurements. The same measurements give the same result.

    Raises:
        InputError: there are no measurements.
    """
    if not measured:
        raise InputError("no measurement to calibrate with", where=None, fix="give at least one")
    seconds = np.log([row.seconds for row in measured])
    prior = _priors(model, measured)
    names = list(prior)
    start = np.array([math.log(prior[name].value) for name in names])
    spread = np.array([prior[name].spread for name in names])
    spreads = {name: level.spread for name, level in model.levels.items()}
    noise = model.noise
    scales: Mapping[str, float] = {}
    commons, asked = _asked(model, measured, names)
    logs = start

    def predicted(logs: np.ndarray) -> np.ndarray:
        values = Constants(dict(zip(names, np.exp(logs).tolist(), strict=True)))
        return np.log([model.seconds(values, row.workload) for row in measured])

    def slope(logs: np.ndarray) -> np.ndarray:
        # What hardware does to a constant multiplies it: the slope is the constant's, where it is asked for.
        here, step = predicted(logs), 1e-4
        common = {i: (predicted(logs + step * (np.arange(len(names)) == i)) - here) / step for i in set(commons)}
        stacked: np.ndarray = np.stack([common[i] for i in commons], axis=1) * asked
        return stacked

    for _ in range(2):
        half = linalg.cholesky(_covariance(model, measured, spreads, noise, scales), lower=True)

        def errors(logs: np.ndarray, half: np.ndarray = half) -> np.ndarray:
            white = linalg.solve_triangular(half, seconds - predicted(logs), lower=True)
            return np.concatenate([white, (logs - start) / spread])

        def slopes(logs: np.ndarray, half: np.ndarray = half) -> np.ndarray:
            return np.concatenate([-linalg.solve_triangular(half, slope(logs), lower=True), np.diag(1 / spread)])

        fitted = optimize.least_squares(errors, logs, jac=slopes, max_nfev=8, x_scale=spread, ftol=1e-3, xtol=1e-3)
        logs = fitted.x
        off = seconds - predicted(logs)
        spreads, noise, scales = _spreads(model, measured, off)
    found = dict(zip(names, np.exp(logs).tolist(), strict=True))
    own = asked.astype(bool) & np.array(["@" in name for name in names])
    fixed = _covariance(model, measured, spreads, noise, scales)
    tails = _tails(model, measured, fixed, slope(logs) * spread, own, off, (logs - start) / spread)
    return _anchored(model, measured, found, spreads, noise, scales, tails)


def _asked(model: Model[W], measured: Sequence[Measured[W]], names: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """For each constant the index of the common one that it belongs to, and 1 where a measurement asks for it."""
    commons = [names.index(name.partition("@")[0]) for name in names]
    asked = np.ones((len(measured), len(names)))
    for i, row in enumerate(measured):
        wanted = {f"{name}@{part}" for name, parts in model.names(row.workload).items() for part in parts}
        asked[i] = [1.0 if "@" not in name or name in wanted else 0.0 for name in names]
    return commons, asked


def _anchored(
    model: Model[W],
    measured: Sequence[Measured[W]],
    values: Mapping[str, float],
    spreads: Mapping[str, float],
    noise: float,
    scales: Mapping[str, float],
    tails: Mapping[str, tuple[float, ...]],
) -> Calibrated[W]:
    off = np.log([row.seconds / model.seconds(Constants(values), row.workload) for row in measured])
    inverse = linalg.inv(_covariance(model, measured, spreads, noise, scales))
    return Calibrated(model, values, spreads, noise, scales, tuple(measured), inverse @ off, inverse, tails)


def facts(kind: str, found: Calibrated[W]) -> list[dict[str, str]]:
    """A calibration as rows of ``facts/efficiencies.csv``, each with what it was known to be before."""
    model = found.model
    found_rows = []
    for name, value in found.values.items():
        plain, _, part = name.partition("@")
        known = Constant(1.0, model.constants[plain].each) if part else model.constants[plain]
        found_rows.append((name, value, known.value, known.spread))
    found_rows += [
        (f"spread of {name}", value, model.levels[name].spread, 0.0) for name, value in found.spreads.items()
    ]
    found_rows.append(("noise", found.noise, model.noise, 0.0))
    found_rows += [(f"scale of {like}", value, 1.0, _SCALES) for like, value in found.scales.items()]
    for like, points in found.tails.items():
        found_rows += [
            (f"tail {name} {like}".strip(), tail, _Z90, 0.0) for name, tail in zip(model.apart, points, strict=True)
        ]
    source = f"calibration of the {len(found.anchors)} exact rows of {kind}.csv"
    return [
        {"kind": kind, "constant": n, "value": f"{v:.4g}", "before": f"{b:.4g}", "before_spread": f"{s:.2g}"}
        | {"source": source}
        for n, v, b, s in found_rows
    ]


def restore(kind: str, model: Model[W], measured: Sequence[Measured[W]]) -> Calibrated[W]:
    """The calibration that the package ships, with its measurements as anchors: no constant is searched for."""
    known = {row["constant"]: float(row["value"]) for row in rows("efficiencies") if row["kind"] == kind}
    spreads = {name: known.pop(f"spread of {name}") for name in model.levels}
    scales = {name.removeprefix("scale of "): known.pop(name) for name in list(known) if name.startswith("scale of ")}
    tails: dict[str, list[float]] = {}
    for group in model.apart:
        for name in [name for name in known if name.startswith(f"tail {group}")]:
            tails.setdefault(name.removeprefix(f"tail {group}").strip(), []).append(known.pop(name))
    noise = known.pop("noise")
    held = {like: tuple(points) for like, points in tails.items()}
    return _anchored(model, measured, known, spreads, noise, scales, held)


def _priors(model: Model[W], measured: Sequence[Measured[W]]) -> dict[str, Constant]:
    priors = dict(model.constants)
    for row in measured:
        for name, parts in model.names(row.workload).items():
            for part in parts:
                priors.setdefault(f"{name}@{part}", Constant(1.0, model.constants[name].each))
    return priors


def _kernel(
    spreads: Mapping[str, float], levels: Mapping[str, Level], left: Sequence[Measured[W]], right: Sequence[Measured[W]]
) -> np.ndarray:
    total = np.zeros((len(left), len(right)))
    a, b = np.array([row.at for row in left]), np.array([row.at for row in right])
    near = np.exp(-0.5 * ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))
    for name, level in levels.items():
        one = np.array([row.groups[name] for row in left])
        two = np.array([row.groups[name] for row in right])
        total += spreads[name] ** 2 * (one[:, None] == two[None, :]) * (near if level.near else 1.0)
    return total


def _scaled(model: Model[W], scales: Mapping[str, float], measured: Sequence[Measured[W]]) -> np.ndarray:
    return np.array([scales.get(row.groups[model.like], 1.0) for row in measured])


def _covariance(
    model: Model[W],
    measured: Sequence[Measured[W]],
    spreads: Mapping[str, float],
    noise: float,
    scales: Mapping[str, float],
) -> np.ndarray:
    """Of the errors of all measurements."""
    size = _scaled(model, scales, measured)
    covariance = _kernel(spreads, model.levels, measured, measured) + noise**2 * np.eye(len(measured))
    scaled: np.ndarray = covariance * np.outer(size, size)
    return scaled


def _spreads(
    model: Model[W], measured: Sequence[Measured[W]], off: np.ndarray
) -> tuple[dict[str, float], float, dict[str, float]]:
    """How much each level explains, and how large errors of each ``like`` are beside others, most likely given the
    errors and what was known."""
    names = list(model.levels)
    likes = sorted({row.groups[model.like] for row in measured})
    parts = [_kernel({n: float(n == name) for n in names}, model.levels, measured, measured) for name in names]
    parts.append(np.eye(len(measured)))
    start = np.log([*(model.levels[name].spread for name in names), model.noise, *(1.0 for _ in likes)])
    held = np.array([_LEVELS] * len(parts) + [_SCALES] * len(likes))
    member = np.array([[float(row.groups[model.like] == like) for row in measured] for like in likes])

    def unlikely(logs: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative logarithm of the likelihood, and its slopes (Rasmussen and Williams, 5.9)."""
        variances, sizes = np.exp(2 * logs[: len(parts)]), np.exp(member.T @ logs[len(parts) :])
        covariance = sum(v * part for v, part in zip(variances, parts, strict=True))
        half = linalg.cholesky(covariance, lower=True)
        inverse = linalg.cho_solve((half, True), np.eye(len(off)))
        even = off / sizes
        white = inverse @ even
        apart = (logs - start) / held
        value = 0.5 * even @ white + np.log(np.diag(half)).sum() + np.log(sizes).sum() + 0.5 * apart @ apart
        slopes = [v * ((inverse * part).sum() - white @ part @ white) for v, part in zip(variances, parts, strict=True)]
        slopes += list(member.sum(axis=1) - member @ (white * even))
        return float(value), np.array(slopes) + apart / held

    found = np.exp(optimize.minimize(unlikely, start, jac=True, method="L-BFGS-B", options={"maxiter": 20}).x)
    spreads = dict(zip(names, found.tolist(), strict=False))
    return spreads, max(_LEAST, float(found[len(names)])), dict(zip(likes, found[len(parts) :].tolist(), strict=True))


def _tails(
    model: Model[W], measured: Sequence[Measured[W]], fixed: np.ndarray, slopes: np.ndarray, own: np.ndarray,
    off: np.ndarray, moved: np.ndarray,
) -> dict[str, tuple[float, ...]]:  # fmt: skip
    """Errors are not normal: the 90 % point of those that measurements have when all of their group are left out.

    ``slopes``: of the logarithm of each measurement, for a spread of each constant; ``moved``: by how many of those
    spreads the measurements moved each. With both the constants are found again without the group, to first order.
    ``own``: whether a constant is what a hardware does that the measurement ran on. Where only the group did, it is new
    to whoever has not seen the group, and an estimate tells what it may do.
    """
    free = linalg.inv(fixed + slopes @ slopes.T)
    weights, inverse = free @ (off + slopes @ moved), linalg.inv(fixed)
    likes = [row.groups[model.like] for row in measured]
    found: dict[str, tuple[float, ...]] = {}
    errors = [_left_out(name, measured, inverse, free, weights, slopes, own) for name in model.apart]
    both = [[f"{row.groups[g]} {row.groups[model.like]}" for row in measured] for g in model.apart]
    every = [_mean_square(errors[i], names, 1.0) for i, names in enumerate(both)]
    for like in ("", *sorted(set(likes))):
        alike = [i for i, name in enumerate(likes) if like in ("", name)]
        points = [
            _point(errors[i][alike], [measured[j].groups[name] for j in alike], every[i])
            for i, name in enumerate(model.apart)
        ]
        found[like] = tuple(points)
    return found


def _point(errors: np.ndarray, names: Sequence[str], every: float) -> float:
    """The 90 % point of errors, in the spreads that estimates tell, with all of one name left out at a time.

    A name counts as the root of its measurements: one of a hundred is neither a hundred names nor like one of two.
    Few names have no 90 % point: the mean of their squares does, held near ``every``, that of all the kind.
    """
    members = {name: names.count(name) for name in set(names)}
    if len(members) >= _ENOUGH:
        return _ninth(errors, np.array([members[name] ** -0.5 for name in names]))
    return _Z90 * math.sqrt(_mean_square(errors, names, every))


def _mean_square(errors: np.ndarray, names: Sequence[str], known: float) -> float:
    """Of the errors of names, each by the root of its measurements, with one more of middling weight that errs as was
    known. One that errs by more than twice as much as it tells counts as twice: among so few it would decide alone."""
    members = {name: [i for i, other in enumerate(names) if other == name] for name in sorted(set(names))}
    squares = np.array([min(float(np.mean(errors[inside] ** 2)), 4.0) for inside in members.values()])
    roots = np.sqrt([len(inside) for inside in members.values()])
    one = float(np.mean(roots))
    return (one * known + float(roots @ squares)) / (one + float(roots.sum()))


def _left_out(
    group: str, measured: Sequence[Measured[W]], inverse: np.ndarray, free: np.ndarray, weights: np.ndarray,
    slopes: np.ndarray, own: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Errors of each measurement by the others without those of its group, in the spreads that an estimate tells.

    Source: Rasmussen and Williams (2006), 5.12, for blocks.
    """
    members: dict[str, list[int]] = {}
    for i, row in enumerate(measured):
        members.setdefault(row.groups[group], []).append(i)
    found = np.zeros(len(measured))
    for inside in members.values():
        block = np.ix_(inside, inside)
        new = ~np.delete(own, inside, axis=0).any(axis=0)
        strange = ((slopes[inside] * (own[inside] & new)) ** 2).sum(axis=1)
        told = np.sqrt(np.diag(linalg.inv(inverse[block])) + strange)
        found[inside] = np.abs(linalg.solve(free[block], weights[inside], assume_a="pos")) / told
    return found


def _ninth(errors: np.ndarray, weights: np.ndarray) -> float:
    """What nine of ten errors do not exceed, one more than there are being counted (split conformal)."""
    order = np.argsort(errors)
    total = np.cumsum(weights[order])
    wanted = 0.9 * total[-1] * (len(errors) + 1) / len(errors)
    return float(errors[order[min(int(np.searchsorted(total, wanted)), len(errors) - 1)]])
