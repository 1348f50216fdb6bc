"""Replaying held-out history as live traffic, window by window. It resumes where it was cut off and never doubles."""

import time
from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import msgspec

from bedplate import clock
from bedplate.errors import UnavailableError
from bedplate.ids import Digest, digest_of

CONCURRENCY = 4
ATTEMPTS = 5
PAUSE = 0.2
"""Seconds before a second try; each later one waits twice as long."""


class ReplayWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of history: what is known until ``as_of`` (RFC 3339) answers for ``inputs``, by entity.

    ``inputs`` maps an entity to the tensors of its request: name, datatype, shape, data.
    """

    as_of: str
    inputs: dict[str, list[dict[str, Any]]]


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``id`` follows from use case, bundle, entity and moment, so that sending it again can be told."""

    id: str
    entity: str
    as_of: str
    inputs: list[dict[str, Any]]

    def body(self) -> dict[str, Any]:
        """The request in the Open Inference Protocol V2, marked as replayed."""
        return {"id": self.id, "parameters": {"replayed": True, "as_of": self.as_of}, "inputs": self.inputs}


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay, oldest window first."""

    use_case: str
    bundle: Digest
    windows: tuple[ReplayWindow, ...]

    def requests(self, window: ReplayWindow) -> Iterator[ReplayRequest]:
        """The requests of one window."""
        for entity, inputs in window.inputs.items():
            name = digest_of([self.use_case, self.bundle, entity, window.as_of])[7:39]
            yield ReplayRequest(id=f"replay-{name}", entity=entity, as_of=window.as_of, inputs=inputs)

    def moments(self) -> dict[str, str]:
        """The moment that each request stands for, by request id."""
        return {request.id: window.as_of for window in self.windows for request in self.requests(window)}


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay did: ``skipped`` had been answered before."""

    windows: int
    sent: int
    skipped: int
    seconds: float


Send = Callable[[ReplayRequest], dict[str, Any]]
Progress = Callable[[str, int, int], None]


def replay(
    plan: ReplayPlan,
    send: Send,
    on_progress: Progress,
    already: Container[str],
    *,
    before_window: Callable[[str], None] | None = None,
    concurrency: int = CONCURRENCY,
    pause: float = PAUSE,
) -> ReplayReport:
    """Send every request whose id is not in ``already``, a window after the other.

    ``before_window`` gets the window's ``as_of`` and brings the online features to that moment; a window with
    nothing left to send is passed over without it. ``send`` is called from ``concurrency`` threads.

    Raises:
        UnavailableError: the endpoint did not answer after several tries. What was answered stays answered.
    """
    started, sent, skipped = clock.monotonic(), 0, 0
    total = sum(len(window.inputs) for window in plan.windows)
    for number, window in enumerate(plan.windows, start=1):
        requests = list(plan.requests(window))
        open_requests = [request for request in requests if request.id not in already]
        skipped += len(requests) - len(open_requests)
        if not open_requests:
            continue
        if before_window is not None:
            before_window(window.as_of)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="replay") as pool:
            running: deque[Future[dict[str, Any]]] = deque()
            try:
                for request in open_requests:
                    if len(running) >= 2 * concurrency:  # a short queue: a failure is seen at once, memory stays flat
                        running.popleft().result()
                        sent += 1
                    running.append(pool.submit(_persist, send, request, pause))
                while running:
                    running.popleft().result()
                    sent += 1
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        on_progress(f"window {number} of {len(plan.windows)}, as of {window.as_of}", sent + skipped, total)
    return ReplayReport(windows=len(plan.windows), sent=sent, skipped=skipped, seconds=clock.monotonic() - started)


def _persist(send: Send, request: ReplayRequest, pause: float) -> dict[str, Any]:
    for attempt in range(ATTEMPTS - 1):
        try:
            return send(request)
        except UnavailableError:
            time.sleep(pause * 2**attempt)
    return send(request)


def http_sender(client: httpx.Client, url: str, model: str, token: str) -> Send:
    """Sends replay requests to a model's endpoint over ``client`` (loopback; safe to share between threads).

    What it gives raises UnavailableError for a request that did not arrive or was answered with anything but success.
    """
    address = f"{url.rstrip('/')}/v2/models/{model}/infer"
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def send(request: ReplayRequest) -> dict[str, Any]:
        try:
            response = client.post(address, content=msgspec.json.encode(request.body()), headers=headers)
        except httpx.TransportError as error:
            raise UnavailableError(
                f"the endpoint did not answer: {type(error).__name__}", where=address, fix="see `bedplate status`"
            ) from error
        if response.status_code != 200:
            raise UnavailableError(
                f"the endpoint answered {response.status_code}: {response.text[:200]}", where=address
            )
        answer: dict[str, Any] = msgspec.json.decode(response.content)
        return answer

    return send
