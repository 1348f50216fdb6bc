"""What the file says of a workload's size, and what one request costs a processor, stage by stage.

Work is counted from sizes, time comes from the probe's rates.
"""

from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.plan.types import (
    ChatSize,
    DataFacts,
    EmbeddingSize,
    ImageSize,
    ImageTrainingSize,
    LanguageTrainingSize,
    ModelFacts,
    ModelProbe,
    PipelineSize,
    Probe,
    RecommenderSize,
    Requests,
    ScoringSize,
    Served,
    Size,
    StageTime,
    TabularSize,
)
from bedplate.records import Estimate
from bedplate.usecase.types import UseCase

NETWORK_SECONDS = 0.5e-3
"""One way and back between machines of one region. Assumed; the load run of a release measures it."""
_RUNTIME_BYTES = 260e6
"""Interpreter, server, ONNX Runtime and NumPy of one replica. Assumed until a replica was measured."""
_RECORD_BYTES = 350
"""One prediction in the columnar log after compression, before its feature values. Assumed."""
_FEATURE_BYTES = 4
_LOOKUP_US = 3.0
"""One read of the online store, with decoding. Measured: 1.7 us the read."""
_AUTH_US = 60.0
"""HTTP, authentication and the cached decision of one request. Assumed: small Python servers take 50 to 200 us."""
_GATHER_US = 8.0
"""One feature column built for all candidates of a request: a few NumPy calls."""
_SPREAD = 2.0
"""Work counted from sizes is right within this factor each way, until a run was timed."""
_MEASURED = 1.3
"""A model that was timed by itself takes up to so many times that between the other work of a server."""


def size_of(case: UseCase, facts: DataFacts | None = None) -> Size:
    """What one request or one run works on, from the file; ``train.parameters`` overrides what is assumed.

    Raises:
        InputError: the model that the file names was not counted, or lacks what its kind needs.
    """
    w = case.workload
    given = case.train.parameters

    def number(name: str, default: int) -> int:
        value = given.get(name, default)
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else default

    features, trees, depth = number("features", 30), number("trees", 200), number("depth", 6)
    model = facts.model if facts else None
    if model is not None and model.digest is None and w.kind in ("recommender", "tabular"):
        raise _unfit(w.kind, "the ONNX file that answers a request, or none")
    graph, digest = (model.graph, model.digest) if model is not None else (None, None)
    if w.kind == "recommender":
        return RecommenderSize(
            catalogue=w.catalogue or 0,
            users=w.users or 0,
            factors=number("factors", 64),
            candidates=number("candidates", 200),
            features=features,
            trees=trees,
            depth=depth,
            graph=graph,
            digest=digest,
        )
    if w.kind == "tabular":
        return TabularSize(features=features, trees=trees, depth=depth, graph=graph, digest=digest)
    if w.kind == "batch_scoring":
        return ScoringSize(rows=w.rows or 0, features=features, trees=trees, depth=depth)
    if w.kind == "data_pipeline":
        return PipelineSize(size=(w.bytes or 0) * w.epochs, record=w.record or 1, seconds=w.cpu or 0.0)
    return _with_model(case, model)


def _with_model(case: UseCase, model: ModelFacts | None) -> Size:
    w = case.workload
    if model is None:
        raise InputError(
            "the model was not counted",
            where="workload.model",
            fix="name a file that describes it, or a published model",
        )
    if w.kind in ("image_training", "image_inference"):
        graph = model.graph
        if graph is None:
            raise _unfit(w.kind, "an ONNX file, a torch module or a published image model")
        if w.kind == "image_inference":
            return ImageSize(name=model.name, graph=graph, precisions=w.precision or ("fp16",), digest=model.digest)
        return ImageTrainingSize(
            name=model.name, graph=graph, images=w.images or 0, epochs=w.epochs, batch=w.batch or 256,
            precisions=w.precision or ("fp16",),
        )  # fmt: skip
    counted = model.transformer
    if counted is None:
        raise _unfit(w.kind, "the config.json of a transformer, or its ONNX file with the config.json beside it")
    if w.kind == "embedding":
        return EmbeddingSize(
            name=model.name, model=counted, tokens=w.tokens_in or 0, precisions=w.precision or ("bf16",),
            graph=model.graph, digest=model.digest,
        )  # fmt: skip
    if w.kind == "llm_inference":
        return ChatSize(
            name=model.name, model=counted, tokens_in=w.tokens_in or 0, tokens_out=w.tokens_out or 0, cached=w.cached,
            precisions=w.precision or ("bf16",),
        )  # fmt: skip
    return LanguageTrainingSize(
        model=counted, name=model.name, tokens=w.tokens or 0, sequence=w.sequence or 0, batch=w.batch or 0,
        precisions=w.precision or ("bf16",),
    )  # fmt: skip


def _unfit(kind: str, wanted: str) -> InputError:
    return InputError(f"a {kind} workload is counted from another model", where="workload.model", fix=f"name {wanted}")


def weights(size: Served) -> dict[str, float]:
    """How the time for work is shared between the stages of a request."""
    if isinstance(size, Requests) and size.digest is not None:
        return {"auth and decode": 1, "features": 2, "model": 9, "encode": 1, "log": 1}
    if isinstance(size, RecommenderSize):
        return {"auth and decode": 1, "features": 2, "retrieval": 4, "ranking": 9, "encode": 1, "log": 1}
    if isinstance(size, TabularSize):
        return {"auth and decode": 2, "features": 2, "scoring": 4, "encode": 1, "log": 1}
    return (
        {"auth and decode": 1, "prompt": 4, "answer": 20} if isinstance(size, ChatSize) else {"decode": 1, "model": 4}
    )


def memory(size: Requests | ImageSize | EmbeddingSize) -> float | None:
    """Bytes of one replica: runtime, model (its weights as read, and as they are computed with), and catalogue.

    None where no file says what processors would hold.
    """
    if size.graph is not None:
        counted = _RUNTIME_BYTES + 4.0 * (2 * size.graph.parameters + size.graph.activations)
        return counted + (size.trees * 2.0**size.depth * 60 if isinstance(size, Requests) else 0.0)
    if not isinstance(size, Requests):
        return None
    trees = size.trees * 2.0**size.depth * 60
    if isinstance(size, RecommenderSize):
        factors = 4.0 * size.factors * (size.catalogue + size.users)
        return _RUNTIME_BYTES + 2 * factors + trees + 4.0 * size.features * size.catalogue
    return _RUNTIME_BYTES + trees


def answer_bytes(size: Served) -> int:
    """Bytes of one answer as JSON with its headers."""
    if isinstance(size, ChatSize):
        return 400 + 250 * size.tokens_out  # streamed: each token is an event of its own
    if isinstance(size, EmbeddingSize):
        return 400 + 10 * size.model.hidden
    return 1200 if isinstance(size, RecommenderSize) else 500


def record_bytes(size: Served) -> int:
    """Bytes of one prediction in the log after compression. Assumed: four a feature, two a token of text."""
    text = size.tokens_in + size.tokens_out if isinstance(size, ChatSize) else 0
    text += size.tokens if isinstance(size, EmbeddingSize) else 0
    return _RECORD_BYTES + _FEATURE_BYTES * size.features + 2 * text


def training_core_seconds(size: Requests, rows: int) -> float:
    """Seconds of one core for one training, from published per-row costs; right within a factor of four.

    Trees: 2 ns per row, feature and tree. Factors: 15 sweeps of 2 x rows x factors^2 operations at 5 GFLOP/s.
    """
    seconds = 2e-9 * rows * size.features * size.trees
    if isinstance(size, RecommenderSize):
        seconds += 15 * 2 * rows * size.factors**2 / 5e9
    return seconds


def stages(size: Served, probe: Probe) -> tuple[StageTime, ...]:
    """The time of each stage of one request on the machine that the probe measured.

    None where processors are not known to answer it: a file that is named was not measured, or is of no trees.
    """
    model = anchor(size, probe)
    if model is not None:
        return _of_model(size, model, probe)
    if digest_of(size) is None and isinstance(size, RecommenderSize):
        return _recommender(size, probe)
    return _tabular(size, probe) if digest_of(size) is None and isinstance(size, TabularSize) else ()


def digest_of(size: Served) -> Digest | None:
    """That of the very file that answers; None where none is named."""
    return None if isinstance(size, ChatSize) else size.digest


def anchor(size: Served, probe: Probe) -> ModelProbe | None:
    """What the probe measured of the very model of a workload."""
    digest = digest_of(size)
    return next((model for model in probe.models if digest is not None and model.digest == digest), None)


def _of_model(size: Served, model: ModelProbe, probe: Probe) -> tuple[StageTime, ...]:
    """A model that was measured itself: nothing of it is counted. What is read for it beforehand is."""
    why = f"probe: {model.name} itself, measured on one thread"
    looked = (_stage("features", _LOOKUP_US * 1e-6, "one lookup of the entity"),) if isinstance(size, Requests) else ()
    return (_before(probe), *looked, _stage("model", model.times[0].seconds, why, _MEASURED), *_after(probe))


def _before(probe: Probe) -> StageTime:
    """What every request takes before its model."""
    time = probe.request_us * 0.6e-6 + _AUTH_US * 1e-6
    return _stage("auth and decode", time, "probe: decode of a request", 1.5)


def _after(probe: Probe) -> tuple[StageTime, ...]:
    """What every answer takes after its model."""
    return (
        _stage("encode", probe.request_us * 0.4e-6, "probe: encode of an answer", 1.5),
        _stage("log", 5e-6, "one buffered record; flushed by another thread"),
    )


def _recommender(size: RecommenderSize, probe: Probe) -> tuple[StageTime, ...]:
    scoring = 4e-9 * size.catalogue * size.factors / probe.score_gbps
    solving = (size.factors**3 + 2.0 * size.candidates * size.factors**2) / (probe.matmul_gflops * 1e9)
    retrieval = scoring + solving + probe.select_ns * 1e-9 * size.catalogue
    what = f"{size.catalogue:,} products x {size.factors} factors scored, the best picked"
    return (
        _before(probe),
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
        *_after(probe),
    )


def _tabular(size: TabularSize, probe: Probe) -> tuple[StageTime, ...]:
    return (
        _before(probe),
        _stage("features", _LOOKUP_US * 1e-6, "one lookup of the entity"),
        _trees("scoring", 1, size.trees, size.depth, probe),
        *_after(probe),
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
