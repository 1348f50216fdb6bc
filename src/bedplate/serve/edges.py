"""The further protocols of a replica over HTTP, beside the Open Inference Protocol: all on the one route table."""

from collections.abc import Iterator

from bedplate.http import Limits, Route
from bedplate.serve.handlers import Inference
from bedplate.serve.invocations import Invocations
from bedplate.serve.typed import Typed


def routes(inference: Inference) -> Iterator[Route]:
    """What the model of ``inference`` can be asked by."""
    spec = inference.spec
    infer = Limits(body=spec.max_body, depth=spec.max_depth, receipt=spec.receipt)
    none = Limits(body=0, depth=1, receipt=spec.receipt)
    yield from Typed(inference).routes(infer)
    yield from Invocations(inference).routes(none, infer)
