"""What one request costs, by kind of workload: work counted from sizes, time from the probe's rates.

A kind without a model is refused: a number that nobody calibrated would be a guess.
"""

from bedplate.errors import InputError
from bedplate.plan.types import Probe, RecommenderSize, StageTime, TabularSize
from bedplate.records import Estimate
from bedplate.usecase.types import UseCase

Size = RecommenderSize | TabularSize

NETWORK_SECONDS = 0.5e-3
"""One way and back between machines of one region. Assumed; the load run of a release measures it."""
_RUNTIME_BYTES = 260e6
"""Interpreter, server, ONNX Runtime and NumPy of one replica. Assumed until a replica was measured."""
_LOOKUP_US = 3.0
"""One read of the online store, with decoding. Measured: 1.7 us the read."""
_AUTH_US = 60.0
"""HTTP, authentication and the cached decision of one request. Assumed: small Python servers take 50 to 200 us."""
_GATHER_US = 8.0
"""One feature column built for all candidates of a request: a few NumPy calls."""
_SPREAD = 2.0
"""Work counted from sizes is right within this factor each way, until a run was timed."""


def size_of(case: UseCase) -> Size:
    """What one request works on, from the file; ``train.parameters`` overrides what is assumed.

    Raises:
        InputError: no model for this kind of workload.
    """
    given = case.train.parameters

    def number(name: str, default: int) -> int:
        value = given.get(name, default)
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else default

    if case.workload.kind == "recommender":
        return RecommenderSize(
            catalogue=case.workload.catalogue or 0,
            users=case.workload.users or 0,
            factors=number("factors", 64),
            candidates=number("candidates", 200),
            features=number("features", 30),
            trees=number("trees", 200),
            depth=number("depth", 6),
        )
    if case.workload.kind == "tabular":
        return TabularSize(features=number("features", 30), trees=number("trees", 200), depth=number("depth", 6))
    raise InputError(
        f"there is no workload model for {case.workload.kind!r}",
        where="workload.kind",
        fix="measure one replica with a load run and give its service time; recommender and tabular are modelled",
    )


def weights(size: Size) -> dict[str, float]:
    """How the time for work is shared between the stages of a request."""
    if isinstance(size, RecommenderSize):
        return {"auth and decode": 1, "features": 2, "retrieval": 4, "ranking": 9, "encode": 1, "log": 1}
    return {"auth and decode": 2, "features": 2, "scoring": 4, "encode": 1, "log": 1}


def memory(size: Size) -> float:
    """Bytes of one replica: runtime, model, what it keeps of the catalogue."""
    trees = size.trees * 2.0**size.depth * 60
    if isinstance(size, RecommenderSize):
        factors = 4.0 * size.factors * (size.catalogue + size.users)
        return _RUNTIME_BYTES + 2 * factors + trees + 4.0 * size.features * size.catalogue
    return _RUNTIME_BYTES + trees


def answer_bytes(size: Size) -> int:
    """Bytes of one answer as JSON with its headers."""
    return 1200 if isinstance(size, RecommenderSize) else 500


def training_core_seconds(size: Size, rows: int) -> float:
    """Seconds of one core for one training, from published per-row costs; right within a factor of four.

    Trees: 2 ns per row, feature and tree. Factors: 15 sweeps of 2 x rows x factors^2 operations at 5 GFLOP/s.
    """
    seconds = 2e-9 * rows * size.features * size.trees
    if isinstance(size, RecommenderSize):
        seconds += 15 * 2 * rows * size.factors**2 / 5e9
    return seconds


def stages(size: Size, probe: Probe) -> tuple[StageTime, ...]:
    """The time of each stage of one request on the machine that the probe measured."""
    return _recommender(size, probe) if isinstance(size, RecommenderSize) else _tabular(size, probe)


def _recommender(size: RecommenderSize, probe: Probe) -> tuple[StageTime, ...]:
    scoring = 4e-9 * size.catalogue * size.factors / probe.score_gbps
    solving = (size.factors**3 + 2.0 * size.candidates * size.factors**2) / (probe.matmul_gflops * 1e9)
    retrieval = scoring + solving + probe.select_ns * 1e-9 * size.catalogue
    what = f"{size.catalogue:,} products x {size.factors} factors scored, the best picked"
    return (
        _stage("auth and decode", probe.request_us * 0.6e-6 + _AUTH_US * 1e-6, "probe: decode of a request", 1.5),
        _stage(
            "features",
            (_LOOKUP_US * 3 + _GATHER_US * size.features + 1e-3 * size.candidates * size.features) * 1e-6,
            f"the household and its history read, {size.candidates} x {size.features} values gathered",
        ),
        # products that nobody bought have no factors: the low end takes a quarter of the catalogue
        StageTime(
            stage="retrieval",
            time=Estimate(
                value=retrieval, low=retrieval / 4, high=retrieval * 1.4, method="counted from sizes and probe"
            ),
            why=f"probe: {what}",
        ),
        _trees("ranking", size.candidates, size.trees, size.depth, probe),
        _stage("encode", probe.request_us * 0.4e-6, "probe: encode of an answer", 1.5),
        _stage("log", 5e-6, "one buffered record; flushed by another thread"),
    )


def _tabular(size: TabularSize, probe: Probe) -> tuple[StageTime, ...]:
    return (
        _stage("auth and decode", probe.request_us * 0.6e-6 + _AUTH_US * 1e-6, "probe: decode of a request", 1.5),
        _stage("features", _LOOKUP_US * 1e-6, "one lookup of the entity"),
        _trees("scoring", 1, size.trees, size.depth, probe),
        _stage("encode", probe.request_us * 0.4e-6, "probe: encode of an answer", 1.5),
        _stage("log", 5e-6, "one buffered record; flushed by another thread"),
    )


def _trees(stage: str, rows: int, trees: int, depth: int, probe: Probe) -> StageTime:
    """Trees through ONNX Runtime, scaled from the probe; without it 2 to 20 ns a level, cold caches included."""
    levels = rows * trees * depth
    what = f"{rows} x {trees} trees of depth {depth}"
    if probe.onnx_tree_ns is not None and probe.onnx_call_us is not None:
        return _stage(stage, probe.onnx_call_us * 1e-6 + levels * probe.onnx_tree_ns / 6 * 1e-9, f"probe: {what}", 1.6)
    call = 10e-6
    return StageTime(
        stage=stage,
        time=Estimate(
            value=call + levels * 6e-9, low=call + levels * 2e-9, high=call + levels * 20e-9, method="counted"
        ),
        why=f"not measured here: {what} at 2 to 20 ns a level",
    )


def _stage(stage: str, seconds: float, why: str, spread: float = _SPREAD) -> StageTime:
    estimate = Estimate(
        value=seconds, low=seconds / spread, high=seconds * spread, method="counted from sizes and probe"
    )
    return StageTime(stage=stage, time=estimate, why=why)
