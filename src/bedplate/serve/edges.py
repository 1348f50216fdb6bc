"""The further protocols of a replica over HTTP, beside the Open Inference Protocol: all on the one route table."""

from collections.abc import Iterator

from bedplate.bundle import Manifest
from bedplate.http import Limits, Route
from bedplate.serve import openai
from bedplate.serve.handlers import Inference
from bedplate.serve.invocations import Invocations
from bedplate.serve.predictors import Predictor, Streams
from bedplate.serve.streaming import Generate
from bedplate.serve.typed import Typed


def routes(inference: Inference, predictor: Predictor, manifest: Manifest) -> Iterator[Route]:
    """What the model of ``inference`` can be asked by; ``predictor`` and ``manifest`` are that model's."""
    spec = inference.spec
    infer = Limits(body=spec.max_body, depth=spec.max_depth, receipt=spec.receipt)
    none = Limits(body=0, depth=1, receipt=spec.receipt)
    yields = isinstance(predictor, Streams)
    yield from Typed(inference, yields=yields).routes(infer)
    yield from Invocations(inference).routes(none, infer)
    if openai.embeds(inference.signature):
        yield from openai.Embeddings(inference, predictor, manifest).routes(none, infer)
    if yields:
        yield from Generate(inference).routes(infer)
