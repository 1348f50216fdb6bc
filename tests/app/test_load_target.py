"""What a load run says about a requirement, and the requests that are made of logged predictions."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.app import load_page, load_target
from bedplate.app.read_models import LoadReport, LoadTarget
from bedplate.errors import InputError
from bedplate.records import Estimate, LoadMoment, LoadTest, ModelSignature, TensorSpec

TARGET = LoadTarget(endpoint="e", url="http://127.0.0.1:1", limit_p99_ms=10.0, peak=100.0)


def ran(low: float, high: float, *, failed: int = 0, unsent: int = 0, lag: float = 0.0) -> LoadTest:
    """A run of 1,000 requests with this interval of its p99."""
    p99 = Estimate(value=low, low=low, high=high, level=0.95, n=1000, method="order statistics")
    return LoadTest(
        requests=1000, failed=failed, seconds=10.0, rate=100.0, connections=8, p50_ms=1.0, p90_ms=2.0, p99=p99,
        limit_p99_ms=10.0, met=failed == 0 and high <= 10, unsent=unsent, lag_p99_ms=lag,
    )  # fmt: skip


def told(test: LoadTest, rate: float = 100.0) -> LoadReport:
    return load_target.report(TARGET, test, rate=rate, requests=3)


@pytest.mark.parametrize(
    ("report", "verdict", "word"),
    [
        (told(ran(8, 10)), "met", "none failed"),
        (told(ran(8, 10.1)), "open", "run longer"),
        (told(ran(8, math.inf)), "open", "run longer"),
        (told(ran(8, 9), rate=99), "open", "at its peak"),
        (told(ran(10.1, 12)), "missed", "above 10 ms"),
        (told(ran(8, 9, failed=1)), "missed", "1 of 1,000 requests failed"),
        (told(ran(8, 9, unsent=1)), "missed", "no free connection"),
        (told(ran(11, 12, failed=2), rate=1), "missed", "above 10 ms"),
    ],
)
def test_the_verdict_is_certain_or_open(report: LoadReport, verdict: str, word: str) -> None:
    assert report.verdict == verdict
    assert any(word in text for text in report.because)
    assert report.failures.low <= report.test.failed / 1000 <= report.failures.high


@pytest.mark.parametrize(("lag", "warned"), [(0.5, False), (1.5, True)])
def test_a_client_that_was_late_is_warned_about(lag: float, warned: bool) -> None:
    assert bool(told(ran(8, 9, lag=lag)).warnings) is warned


@pytest.mark.parametrize(("ceiling", "warned"), [(None, False), (1000.0, False), (120.0, True)])
def test_a_client_near_what_it_can_send_is_warned_about(ceiling: float | None, warned: bool) -> None:
    report = load_target.report(TARGET, ran(8, 9), rate=100.0, requests=3, ceiling=ceiling)
    assert bool(report.warnings) is warned
    assert report.ceiling == ceiling


def test_a_run_becomes_a_page_that_needs_nothing_else() -> None:
    test = msgspec.structs.replace(
        ran(8, 9),
        percentiles=((0.0, 1.0), (0.5, 1.5), (0.99, 8.0), (0.999, 9.5), (1.0, 12.0)),
        intervals=((0.5, ran(1, 2).p99), (0.999, ran(9, math.inf).p99)),
        over_time=tuple(LoadMoment(at=float(at), requests=100, p50_ms=1.0 + at, p99_ms=8.0) for at in range(10)),
    )
    target = msgspec.structs.replace(TARGET, endpoint="<b>&")
    text = load_page.page(load_target.report(target, test, rate=100.0, requests=3, ceiling=5000.0))
    found = ElementTree.fromstring(text.replace("<!doctype html>", "").replace('charset="utf-8">', 'charset="utf-8"/>')
                                   .replace("initial-scale=1\">", "initial-scale=1\"/>"))  # fmt: skip
    words = " ".join(found.itertext())
    for word in ("<b>&", "MET: p99 within 10 ms", "5,000/s", "[9.00, ∞] ms", "limit of the p99: 10 ms", "99.9 %"):
        assert word in words
    curves = [line.get("points", "").split() for line in found.iter("polyline")]
    assert [len(points) for points in curves] == [10, 10, 5]
    xs, ys = zip(*(map(float, point.split(",")) for point in curves[2]), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)  # up is slower
    assert not re.search(r"(src|href)=|url\(|<script", text)


@given(rows=st.integers(1, 5), columns=st.integers(1, 4), flat=st.booleans())
def test_logged_values_become_the_request_they_came_from(rows: int, columns: int, flat: bool) -> None:
    values = np.arange(rows * columns, dtype=float).reshape(rows, columns)
    spec = TensorSpec(name="X", datatype="FP32", shape=(-1, columns))
    signature = ModelSignature(predictor="onnx", inputs=(spec,), outputs=())

    body = load_target.body_of(signature, {"X": (values.ravel() if flat else values).tolist()})

    assert body["parameters"] == {"replayed": True}
    assert body["inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": [rows, columns], "data": values.ravel().tolist()}
    ]


def test_logged_values_that_fit_no_shape_are_refused() -> None:
    spec = TensorSpec(name="X", datatype="FP32", shape=(-1, 3))
    signature = ModelSignature(predictor="onnx", inputs=(spec,), outputs=())

    with pytest.raises(InputError, match="shape"):
        load_target.body_of(signature, {"X": [1.0, 2.0]})


def test_a_body_is_sent_as_replayed_with_its_other_parameters(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(msgspec.json.encode({"inputs": [], "parameters": {"a": 1}}))

    assert load_target.read_body(path) == {"inputs": [], "parameters": {"a": 1, "replayed": True}}


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_body_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "body.json"
    path.write_text(text)

    with pytest.raises(InputError, match="cannot be used"):
        load_target.read_body(path)
    with pytest.raises(InputError, match="cannot be used"):
        load_target.read_body(tmp_path / "none.json")
