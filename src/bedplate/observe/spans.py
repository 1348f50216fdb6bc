"""From logged predictions to OpenTelemetry spans, sent to a collector: beside the request path, never in it.

A prediction whose caller sent a sampled W3C trace becomes one server span and children for what was measured in it. Ids
are made of the prediction's, so that a segment that is shipped twice gives the same spans. Values that were asked or
answered are in no span: a collector is no place for what policy protects.
"""

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from bedplate import clock
from bedplate.egress import Broker, allow
from bedplate.errors import BedplateError, UnavailableError
from bedplate.records import Prediction

_log = logging.getLogger(__name__)
BATCH = 512
"""Spans in one call."""
MOST = 20_000
"""Spans that wait; more are dropped and counted."""
_AGAIN = (429, 502, 503, 504)
_TRIES = 5
_NANOSECONDS = 1e6  # in a millisecond

INTERNAL = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""A collector is named by who runs the home, and usually stands in the same network."""


class Item(msgspec.Struct, frozen=True):
    """A span, and the endpoint and use case that it belongs to."""

    endpoint: str
    use_case: str
    span: Span


def of(prediction: Prediction) -> Iterator[Item]:
    """The spans of a prediction: none if its caller traces nothing, or did not sample this trace."""
    trace = prediction.trace
    if trace is None or not int(trace.parent[53:55], 16) & 1:
        return
    end = int(clock.parse(prediction.time).timestamp() * 1e6) * 1000
    start = end - int(prediction.latency_ms * _NANOSECONDS)
    server = _id(prediction.id, "server")

    def made(name: str, begin: int, ends: int, **more: Any) -> Item:
        span = Span(
            trace_id=bytes.fromhex(trace.parent[3:35]),
            trace_state=trace.state,
            name=name,
            start_time_unix_nano=begin,
            end_time_unix_nano=ends,
            **more,
        )
        return Item(prediction.endpoint, prediction.use_case, span)

    attributes = {
        "bedplate.prediction": prediction.id,
        "bedplate.bundle": prediction.bundle,
        "bedplate.request": prediction.request_id,
        "enduser.id": prediction.principal,
    }
    if prediction.exposure is not None:
        attributes["bedplate.rollout"] = prediction.exposure.rollout
    yield made(
        f"predict {prediction.endpoint}",
        start,
        end,
        span_id=server,
        parent_span_id=bytes.fromhex(trace.parent[36:52]),
        kind=Span.SPAN_KIND_SERVER,
        attributes=_attributes(attributes),
    )
    begin = start
    parts = (("receive", trace.receive_ms), ("queue", trace.queue_ms), ("model", trace.model_ms))
    for parent, first, named in (
        (server, start, parts),
        (_id(prediction.id, "model"), start + _long(trace.receive_ms + trace.queue_ms), trace.steps_ms.items()),
    ):
        begin = first
        for name, took in named:
            if parent != server and name in trace.starts_ms:
                begin = min(end, first + _long(trace.starts_ms[name]))
            ends = min(end, begin + _long(took))
            span = _id(prediction.id, name if parent == server else f"step {name}")
            yield made(name, begin, ends, span_id=span, parent_span_id=parent, kind=Span.SPAN_KIND_INTERNAL)
            begin = ends


def request(items: Sequence[Item]) -> bytes:
    """An OTLP export of spans, by endpoint."""
    groups: dict[tuple[str, str], list[Span]] = {}
    for item in items:
        groups.setdefault((item.endpoint, item.use_case), []).append(item.span)
    scope = InstrumentationScope(name="bedplate")
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=_attributes({"service.name": endpoint, "service.namespace": use_case})),
                scope_spans=[ScopeSpans(scope=scope, spans=spans)],
            )
            for (endpoint, use_case), spans in groups.items()
        ]
    )
    data: bytes = message.SerializeToString()
    return data


class Exporter:
    """Sends spans to a collector from a thread of its own. ``pause`` is how many seconds it waits before a second try.

    ``sent`` and ``dropped`` count spans: dropped is what found no room, what the collector refused, and what could not
    be delivered in five tries.

    Raises:
        InputError: ``address`` is no origin such as ``http://127.0.0.1:4318``.
    """

    def __init__(self, address: str, *, pause: float = 1.0, most: int = MOST) -> None:
        self._broker = Broker([allow(address, networks=INTERNAL)])
        self._url = f"{address.rstrip('/')}/v1/traces"
        self._pause = pause
        self._waiting: queue.Queue[Item] = queue.Queue(most)
        self._closing = threading.Event()
        self.sent = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def take(self, predictions: Iterable[Prediction]) -> None:
        """Have the spans of these predictions sent; returns at once."""
        for prediction in predictions:
            for item in of(prediction):
                try:
                    self._waiting.put_nowait(item)
                except queue.Full:
                    self.dropped += 1

    def close(self) -> None:
        """Send what waits, in one try, and end."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            items = []
            with contextlib.suppress(queue.Empty):
                items.append(self._waiting.get(timeout=0.2))
                while len(items) < BATCH:
                    items.append(self._waiting.get_nowait())
            if items:
                self._deliver(items)

    def _deliver(self, items: list[Item]) -> None:
        body, problem = request(items), ""
        for number in range(_TRIES):
            try:
                answer = self._broker.request(
                    "POST", self._url, headers={"content-type": "application/x-protobuf"}, body=body
                )
            except UnavailableError as error:
                problem, wait = error.message, 0.0
            except BedplateError as error:
                problem = str(error)
                break
            else:
                if 200 <= answer.status < 300:
                    self._accepted(items, answer.body)
                    return
                problem, wait = f"the collector answered {answer.status}", _retry_after(answer.header("retry-after"))
                if answer.status not in _AGAIN:
                    break
            if self._closing.wait(max(wait, self._pause * 2**number)):
                break
        self.dropped += len(items)
        _log.warning("%d spans were dropped: %s", len(items), problem)

    def _accepted(self, items: list[Item], body: bytes) -> None:
        rejected = 0
        with contextlib.suppress(Exception):  # what a collector adds to its "yes" changes nothing if it is unreadable
            rejected = ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
        rejected = min(max(0, rejected), len(items))
        self.sent += len(items) - rejected
        self.dropped += rejected


def _long(milliseconds: float) -> int:
    return int(milliseconds * _NANOSECONDS)


def _id(prediction: str, part: str) -> bytes:
    return hashlib.blake2b(f"{prediction} {part}".encode(), digest_size=8).digest()


def _attributes(values: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in values.items() if value]


def _retry_after(text: str | None) -> float:
    return min(30.0, float(text)) if text is not None and text.isascii() and text.isdigit() else 0.0
