"""A client's trace goes on through a real replica, its log and the sink, to a collector that decodes what it gets."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider

from bedplate.data.tables import Tables
from bedplate.errors import InputError
from bedplate.ids import digest_bytes
from bedplate.journal import Writer, segments
from bedplate.journal.predictions import Encoder
from bedplate.observe import ship
from bedplate.observe.spans import Exporter, of
from bedplate.records import Prediction, TraceContext
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import World, body, client, eventually

INFER = "/v2/models/linear/infer"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes OTLP over HTTP as a collector does; ``answers`` are given first, then it agrees to everything."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.answers: list[tuple[int, bytes]] = []
        self.calls = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                outer.calls += 1
                status, answer = outer.answers.pop(0) if outer.answers else (200, b"")
                if status == 200:
                    assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                    outer.requests.append(ExportTraceServiceRequest.FromString(data))
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[Any]:
        """Every span that came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def prediction(number: int = 0, parent: str | None = PARENT) -> Prediction:
    """One that was logged."""
    nothing = digest_bytes(b"")
    return Prediction(
        id=f"pred_{number}", request_id="", time="2026-01-01T00:00:01.000000Z", use_case="demo", endpoint="linear",
        bundle=nothing, evidence=nothing, principal="u1", decision="callers", entity="", inputs={"X": [41.5]},
        features={}, outputs={"Y": [41.5]}, latency_ms=10.0,
        trace=None if parent is None else TraceContext(parent=parent, receive_ms=1.0, queue_ms=2.0, model_ms=4.0),
    )  # fmt: skip


def test_a_clients_trace_goes_on_to_the_collector(tmp_path: Path, collector: Collector) -> None:
    world = World(tmp_path / "home")
    tracer = TracerProvider().get_tracer("a client")
    with Supervisor(world.home) as supervisor:
        with client(supervisor.start(world.spec(mode="durable"))) as http, tracer.start_as_current_span("ask") as ours:
            headers: dict[str, str] = {}
            inject(headers)
            asked = http.post(INFER, json=body(), headers={**headers, "tracestate": "vendor=1"})
            http.post(INFER, json=body())
            http.post(INFER, json=body(), headers={"traceparent": "not one"})
        supervisor.seal("linear")
        eventually(lambda: segments(world.home.journal, sealed_only=True))
    tables = Tables(tmp_path / "tables")
    with Exporter(collector.address) as exporter:
        report = ship(world.home.journal, tables, "demo/predictions", on_predictions=exporter.take)
    assert (report.rows, exporter.sent, exporter.dropped) == (3, 4, 0)

    context = ours.get_span_context()
    server, *parts = collector.spans()
    assert trace.format_trace_id(context.trace_id) == server.trace_id.hex()
    assert trace.format_span_id(context.span_id) == server.parent_span_id.hex()
    assert (server.name, server.kind, server.trace_state) == ("predict linear", 2, "vendor=1")
    assert {a.key: a.value.string_value for a in server.attributes}["bedplate.prediction"] == (
        asked.headers["x-prediction-id"]
    )
    assert [part.name for part in parts] == ["receive", "queue", "model"]
    assert {part.parent_span_id for part in parts} == {server.span_id}
    assert len({server.span_id, *(part.span_id for part in parts)}) == 4
    edges = [server.start_time_unix_nano, *(part.end_time_unix_nano for part in parts), server.end_time_unix_nano]
    assert edges == sorted(edges)
    assert server.start_time_unix_nano >= ours.start_time - 1_000_000  # type: ignore[attr-defined]
    (resource,) = collector.requests[0].resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes} == {
        "service.name": "linear",
        "service.namespace": "demo",
    }


def test_no_value_is_in_a_span_and_the_same_prediction_gives_the_same_spans() -> None:
    spans = [item.span for item in of(prediction())]
    assert [span.SerializeToString() for span in spans] == [i.span.SerializeToString() for i in of(prediction())]
    assert b"41.5" not in b"".join(span.SerializeToString() for span in spans)
    assert [(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 for span in spans] == [10, 1, 2, 4]
    assert spans[0].end_time_unix_nano == 1_767_225_601_000_000_000


def test_steps_of_a_graph_are_spans_below_the_model_s() -> None:
    """One begins where the one before it ended, within the model's; a step may be called like a part of the request."""
    one = prediction()
    assert one.trace is not None
    steps = msgspec.structs.replace(one.trace, steps_ms={"model": 1.5, "score": 2.0})
    spans = [item.span for item in of(msgspec.structs.replace(one, trace=steps))]
    model, *children = spans[3:]
    assert (model.name, [child.name for child in children]) == ("model", ["model", "score"])
    assert {child.parent_span_id for child in children} == {model.span_id}
    assert len({span.span_id for span in spans}) == 6
    edges = [model.start_time_unix_nano, *(c.start_time_unix_nano for c in children), model.end_time_unix_nano]
    assert edges == sorted(edges)
    assert children[1].start_time_unix_nano - children[0].start_time_unix_nano == 1_500_000


def test_steps_that_ran_side_by_side_begin_when_they_began() -> None:
    one = prediction()
    assert one.trace is not None
    took = msgspec.structs.replace(
        one.trace, steps_ms={"one": 1.5, "other": 1.25, "last": 1.0}, starts_ms={"one": 0.0, "other": 0.25, "last": 2.0}
    )
    spans = [item.span for item in of(msgspec.structs.replace(one, trace=took))]
    model, *children = spans[3:]
    starts = [child.start_time_unix_nano - model.start_time_unix_nano for child in children]
    assert starts == [0, 250_000, 2_000_000]
    assert [child.end_time_unix_nano - child.start_time_unix_nano for child in children] == [
        1_500_000,
        1_250_000,
        1_000_000,
    ]


@pytest.mark.parametrize("parent", [None, PARENT[:-1] + "0"])
def test_who_traces_nothing_or_did_not_sample_it_gets_no_spans(parent: str | None) -> None:
    assert not list(of(prediction(parent=parent)))


def test_a_collector_that_is_busy_is_asked_again(collector: Collector) -> None:
    collector.answers = [(503, b""), (429, b"")]
    exporter = Exporter(collector.address, pause=0.01)
    exporter.take([prediction()])
    eventually(lambda: exporter.sent == 4)
    exporter.close()
    assert (collector.calls, exporter.dropped) == (3, 0)


def test_what_a_collector_refuses_or_nobody_takes_is_counted(collector: Collector) -> None:
    partial = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=1))
    collector.answers = [(200, partial.SerializeToString()), (400, b"")]
    exporter = Exporter(collector.address, pause=0.01)
    exporter.take([prediction()])
    eventually(lambda: exporter.sent == 3)
    exporter.take([prediction(1)])
    eventually(lambda: exporter.dropped == 5)
    exporter.close()
    collector.close()
    with Exporter(collector.address, pause=0.001) as nobody:
        nobody.take([prediction()])
        eventually(lambda: nobody.dropped == 4)


def test_more_than_waits_is_dropped_and_taking_never_waits(collector: Collector) -> None:
    collector.answers = [(503, b"")] * 5
    exporter = Exporter(collector.address, pause=0.05, most=8)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda start: exporter.take([prediction(start + i) for i in range(25)]), (0, 100, 200, 300)))
    exporter.close()
    assert exporter.sent + exporter.dropped == 400
    assert exporter.dropped > 0


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError):
        Exporter("127.0.0.1:4318")
    with pytest.raises(InputError):
        Exporter("http://127.0.0.1:4318/v1/traces")


def test_the_trace_stays_with_the_prediction(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal", "durable")
    writer.submit(Encoder().record(b"{", prediction()), None)
    writer.close()
    tables = Tables(tmp_path / "tables")
    report = ship(tmp_path / "journal", tables, "t")
    assert report.table is not None
    row = next(iter(tables.scan(report.table))).to_pylist()[0]
    assert msgspec.json.decode(row["trace"])["parent"] == PARENT
