"""Measuring a candidate before it is released: what one answer takes, from named arrays to named arrays."""

import gc
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl

from bedplate import bundle
from bedplate import online as onlines
from bedplate.app import access
from bedplate.app.stage import Context
from bedplate.app.stages import data
from bedplate.bundle import Manifest
from bedplate.errors import InputError
from bedplate.records import FeatureSet, TrainResult
from bedplate.release.gates import Latency
from bedplate.serve import predictors
from bedplate.stats import intervals

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS = 400
"""Answers that a round times at least; enough for an interval around the 99th percentile."""
ROUND_REQUESTS, ROUND_SECONDS = 2000, 2.0
"""A quick candidate is asked more often: up to so many times, while a round is younger than this."""
ROUNDS, MORE_ROUNDS = 3, 9
"""The quietest counts, for other programs of the machine can slow an answer and never quicken it. More rounds follow
only while the quietest is over the limit."""
WARM_UP = 20

_DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32, "BYTES": object, "BOOL": bool}


def latency(context: Context, training: TrainResult, files: dict[str, bytes], folder: Path, *, limit: float) -> Latency:
    """The p99 of one answer, with real inputs and online features, in this process and without HTTP.

    ``limit`` in milliseconds: where the answers keep it, fewer rounds are enough.
    """
    manifest = Manifest(
        tenant="candidate",
        name=context.use_case.name,
        version=1,
        workload=training.workload,
        signature=training.signature,
        data=training.inputs,
        code_digest=training.code_digest,
        environment_digest=training.environment_digest,
        training=context.output("train").digest,
        gates=context.output("train").digest,
        created=context.output("train").created,
    )
    digest = bundle.write(folder, files, manifest)
    written = bundle.folder.complete(files, manifest)
    predictor = predictors.load(bundle.path_of(folder, digest), written)
    online = onlines.open(folder / "online")
    try:
        moment = data.cut(context)
        if moment is not None:
            fill(context, online, moment)
        requests = [_arrays(training, inputs) for inputs in sample(context, training, REQUESTS)]
        with threadpoolctl.threadpool_limits(1), _nothing_to_collect():  # as a replica runs
            return _quietest(lambda inputs: predictor.predict(inputs, online), requests, limit)
    finally:
        online.close()


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """The collector leaves alone what this process holds: a replica holds none of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _quietest(ask: Callable[[Any], object], requests: list[Any], limit: float) -> Latency:
    """The round with the least p99, of the first few or of more while none of them keeps ``limit``."""
    beside = _Fixed(ask, requests)
    rounds: list[Latency] = []
    for number in range(ROUNDS + MORE_ROUNDS):
        if number >= ROUNDS and min(latency.p99.high for latency in rounds) <= limit:
            break
        rounds.append(_round(ask, requests, beside))
    return min(rounds, key=lambda latency: latency.p99.high)


def _round(ask: Callable[[Any], object], requests: list[Any], beside: "_Fixed") -> Latency:
    """Answers and fixed work in turn, so that both meet the same machine."""
    answers: list[float] = []
    fixed: list[float] = []
    end = time.perf_counter() + ROUND_SECONDS
    for inputs in itertools.islice(itertools.cycle(requests), ROUND_REQUESTS):
        started = time.perf_counter()
        if len(answers) >= REQUESTS and started >= end:
            break
        ask(inputs)
        answered = time.perf_counter()
        beside.work()
        answers.append((answered - started) * 1e3)
        fixed.append((time.perf_counter() - answered) * 1e3)
    stalls = intervals.quantile(np.array(fixed), 0.99).high - float(np.median(fixed))
    return Latency(p99=intervals.quantile(np.array(answers), 0.99), stalls=stalls)


class _Fixed:
    """Work that takes as long as an answer usually does and is the same each time: what it varies, the machine does."""

    def __init__(self, ask: Callable[[Any], object], requests: list[Any]) -> None:
        took = []
        for inputs in itertools.islice(itertools.cycle(requests), 2 * WARM_UP):
            started = time.perf_counter()
            ask(inputs)
            took.append(time.perf_counter() - started)
        usual = float(np.median(took[WARM_UP:]))
        self._block = bytes(1 << 16)
        self._blocks = 1
        while self._seconds() < usual:
            self._blocks *= 2
        self._blocks = max(1, round(self._blocks * usual / self._seconds()))

    def _seconds(self) -> float:
        def once() -> float:
            started = time.perf_counter()
            self.work()
            return time.perf_counter() - started

        return min(once() for _ in range(3))

    def work(self) -> None:
        for _ in range(self._blocks):
            hashlib.sha256(self._block)


def fill(context: Context, online: "onlines.Online", moment: datetime, made: FeatureSet | None = None) -> None:
    """Make the online features those of ``moment``, and nothing else."""
    from bedplate.features import materialise

    materialise(online, data.feature_tables(context, moment, made), moment)


def sample(context: Context, training: TrainResult, size: int) -> list[dict[str, Any]]:
    """Real requests, as Open Inference Protocol inputs by name: entities or rows of the data, spread evenly."""
    if training.signature.predictor == "recommender":
        moment = data.cut(context)
        if moment is None:
            raise InputError("a recommender needs features", where="features", fix="declare views in pipeline.py")
        return [request(training, entity) for entity in spread(entities(context, training, moment), size)]
    return spread(rows(context, training), size)


def subjects(
    context: Context, training: TrainResult, moment: datetime, made: FeatureSet | None = None
) -> "tuple[str, pa.Table]":
    """The entity column that requests name, and the feature table keyed by it alone, at a moment.

    Raises:
        InputError: no feature view describes the entity that the model is asked about.
    """
    wanted = (training.signature.inputs[0].name,)
    for declared, table in data.feature_tables(context, moment, made).values():
        if declared.entity == wanted:
            return wanted[0], table
    raise InputError(
        f"no feature view describes {wanted[0]}, which requests name",
        where="features",
        fix="declare one in pipeline.py",
    )


def entities(context: Context, training: TrainResult, moment: datetime, made: FeatureSet | None = None) -> list[int]:
    """The subjects that have features at a moment, sorted."""
    column, table = subjects(context, training, moment, made)
    return sorted(table[column].to_pylist())


def request(training: TrainResult, entity: int) -> dict[str, Any]:
    """The inputs that ask about one entity."""
    return {training.signature.inputs[0].name: [entity]}


def asked(
    context: Context, training: TrainResult, begin: datetime, end: datetime, made: FeatureSet | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The requests of a stretch of time, each under a name: a recommender's subjects, or the rows of that time."""
    if training.signature.predictor == "recommender":
        return [(str(entity), request(training, entity)) for entity in entities(context, training, begin, made)]
    return [(str(i), row) for i, row in enumerate(rows(context, training, (begin, end)))]


def rows(
    context: Context, training: TrainResult, between: tuple[datetime, datetime] | None = None
) -> list[dict[str, Any]]:
    """Rows of the first data set that has every input of the signature as a column, without those that lack a value.

    ``between`` leaves those that are of a time in [begin, end), where training names the column that says when.

    Raises:
        InputError: no data set has them all.
    """
    names = [spec.name for spec in training.signature.inputs]
    time = training.parameters.get("time") if between is not None else None
    wanted = [*names, *([time] if isinstance(time, str) and time not in names else [])]
    for result in data.ingested(context).values():
        if set(wanted) <= set(context.system.tables.schema(result.table).names):
            table = access.reader(context.system, context.use_case).read(result.table, wanted).read_all()
            whole = table.drop_null()
            if between is not None and isinstance(time, str):
                whole = _of_time(whole, time, *between)
            return [{name: [row[name]] for name in names} for row in whole.to_pylist()]
    raise InputError(
        f"no data set has the columns {', '.join(names)} that the model takes",
        where="data",
        fix="name a model's inputs like the columns they come from, so that it can be tried on real rows",
    )


def _of_time(table: "pa.Table", column: str, begin: datetime, end: datetime) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, values = pa.timestamp("us", "UTC"), table[column]
    moments = (values.cast(pa.timestamp("us")) if pa.types.is_date(values.type) else values).cast(kind)
    low, high = (pa.scalar(moment, kind) for moment in (begin, end))
    return table.filter(pc.and_(pc.greater_equal(moments, low), pc.less(moments, high)))


def spread(values: list[Any], size: int) -> list[Any]:
    """At most ``size`` values at even distances."""
    step = max(1, len(values) // size)
    return values[::step][:size]


def _arrays(training: TrainResult, inputs: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for spec in training.signature.inputs:
        array = np.array(inputs[spec.name], _DTYPES.get(spec.datatype, np.float32))
        found[spec.name] = array.reshape([-1] + [1] * (len(spec.shape) - 1))
    return found
