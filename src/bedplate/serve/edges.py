"""The further protocols of a replica over HTTP, beside the Open Inference Protocol: all on the one route table."""

import logging
from collections.abc import Iterator

from bedplate.bundle import Manifest
from bedplate.http import Limits, Route
from bedplate.serve import openai
from bedplate.serve.handlers import Inference
from bedplate.serve.invocations import Invocations
from bedplate.serve.predictors import Predictor, Streams
from bedplate.serve.rows import Rows, readable
from bedplate.serve.streaming import Generate
from bedplate.serve.typed import Typed

_log = logging.getLogger(__name__)


def routes(inference: Inference, predictor: Predictor, manifest: Manifest) -> Iterator[Route]:
    """What the model of ``inference`` can be asked by; ``predictor`` and ``manifest`` are that model's."""
    spec = inference.spec
    infer = Limits(body=spec.max_body, depth=spec.max_depth, receipt=spec.receipt)
    none = Limits(body=0, depth=1, receipt=spec.receipt)
    if openai.embeds(inference.signature):
        yield from openai.Embeddings(inference, predictor, manifest).routes(none, infer)
    if not readable(inference.signature):
        _log.warning("no rows are answered: a tensor has a name that JSON has to escape")
        return
    yields = isinstance(predictor, Streams)
    rows = Rows(inference.signature)
    yield from Typed(inference, rows, yields=yields).routes(infer)
    yield from Invocations(inference).routes(none, infer)
    if yields:
        yield from Generate(inference, rows).routes(infer)
