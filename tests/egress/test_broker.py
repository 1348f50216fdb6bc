"""Outbound calls to a real server on this machine that behaves as badly as the test asks."""

import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bedplate.egress import Broker, Limits, allow
from bedplate.errors import BedplateError, DeniedError, InputError, IntegrityError, UnavailableError

LOOPBACK = ("127.0.0.0/8",)
NAME = "service.test"  # RFC 6761: no resolver but the test's knows it


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        getattr(self, self.path.partition("?")[0].strip("/").replace("-", "_") or "echo")()

    do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815  the names that the standard library looks for

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def echo(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        told = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        self.answer(200, json.dumps(told).encode(), **{"X-Many": "1"})

    def wrong(self) -> None:
        self.answer(503, b"the secret of the other side")

    def redirect(self) -> None:
        self.answer(302, Location=self.path.partition("?")[2])

    def around(self) -> None:
        self.answer(302, Location="/around")

    def silent(self) -> None:
        self.rfile.read(1)  # until the other side hangs up

    def trickle(self) -> None:
        """One byte at a time: no single read ever takes long."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(2000):
            self.wfile.write(b".")
            time.sleep(0.05)

    def trickle_head(self) -> None:
        for _ in range(2000):
            self.wfile.write(b"H")
            time.sleep(0.05)

    def promised(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    def until_close(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000)

    def cut(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    def cut_chunk(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")

    def garbage(self) -> None:
        self.close_connection = True
        self.wfile.write(b"\x00\xff no protocol\r\n\r\n")

    def headers_without_end(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"x: y\r\n")


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None:
        """The broker hangs up on it: that is what is tested."""


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running() as port:
        yield port


class Names:
    """A resolver that gives one list of addresses after the other, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def broker(port: int, names: Names | None = None, *, networks: tuple[str, ...] = LOOPBACK, **limits: Any) -> Broker:
    return Broker(
        [allow(f"http://{NAME}:{port}", networks=networks)],
        limits=Limits(**{"total": 5.0, "body": 4096, **limits}),
        resolve=names or Names(["127.0.0.1"]),
    )


def url(port: int, path: str = "/") -> str:
    return f"http://{NAME}:{port}{path}"


def test_an_allowed_call_is_made(port: int) -> None:
    answer = broker(port).request("POST", url(port, "/echo?a=b"), headers={"X-Key": "k"}, body=b"hello")

    told = json.loads(answer.body)
    assert (told["method"], told["path"], told["body"]) == ("POST", "/echo?a=b", "hello")
    assert told["headers"]["Host"] == f"{NAME}:{port}"
    assert told["headers"]["X-Key"] == "k"
    assert told["headers"]["Accept-Encoding"] == "identity"
    assert (answer.status, answer.address, answer.header("X-MANY")) == (200, "127.0.0.1", "1")
    assert answer.header("none") is None


def test_other_methods_and_statuses_are_answers_too(port: int) -> None:
    assert broker(port).request("HEAD", url(port)).body == b""
    assert json.loads(broker(port).request("DELETE", url(port)).body)["method"] == "DELETE"
    assert json.loads(broker(port).request("POST", url(port)).body)["headers"]["Content-Length"] == "0"
    assert broker(port).request("GET", url(port, "/wrong")).status == 503


def test_scheme_host_and_port_must_all_be_on_the_list(port: int) -> None:
    names = Names(["127.0.0.1"])
    caller = broker(port, names)

    for other in (
        f"https://{NAME}:{port}/",
        f"http://other.test:{port}/",
        f"http://sub.{NAME}:{port}/",
        f"http://{NAME}/",
        f"http://127.0.0.1:{port}/",
    ):
        with pytest.raises(DeniedError, match="not on the list"):
            caller.request("GET", other)
    assert names.asked == 0


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"], ["::1"], ["1.1.1.1", "127.0.0.1"]]
)
def test_a_name_that_stands_for_an_inner_address_is_refused(port: int, addresses: list[str]) -> None:
    with pytest.raises(DeniedError, match="no public address"):
        broker(port, Names(addresses), networks=()).request("GET", url(port))


def test_a_name_is_resolved_once_and_its_address_kept(port: int) -> None:
    """A name that changes what it stands for between check and use, or between redirects, changes nothing."""
    names = Names(["127.0.0.1"], ["127.0.0.2"], ["10.0.0.1"])

    answer = broker(port, names).request("GET", url(port, "/redirect?/redirect?/echo"))

    assert (answer.status, answer.address, answer.url) == (200, "127.0.0.1", url(port, "/echo"))
    assert names.asked == 1


def test_a_name_that_was_good_is_checked_again_at_the_next_call(port: int) -> None:
    caller = broker(port, Names(["127.0.0.1"], ["10.0.0.1"]))
    assert caller.request("GET", url(port)).status == 200
    with pytest.raises(DeniedError):
        caller.request("GET", url(port))


def test_an_address_that_does_not_listen_is_followed_by_the_next(port: int) -> None:
    assert broker(port, Names(["127.0.0.2", "127.0.0.1"])).request("GET", url(port)).address == "127.0.0.1"


@pytest.mark.parametrize(
    "to", ["http://evil.test/", "//evil.test/", "https://{}/", "http://127.0.0.1/", "http://{}@evil.test/", "file:///a"]
)
def test_a_redirect_to_another_origin_is_not_followed(port: int, to: str) -> None:
    with pytest.raises((DeniedError, UnavailableError), match="redirects to"):
        broker(port).request("GET", url(port, "/redirect?" + to.format(f"{NAME}:{port}")))


def test_redirects_are_counted(port: int) -> None:
    with pytest.raises(UnavailableError, match="more than 2 redirects"):
        broker(port, redirects=2).request("GET", url(port, "/around"))


def test_a_redirect_of_a_change_is_an_answer(port: int) -> None:
    assert broker(port).request("POST", url(port, "/redirect?/echo"), body=b"x").status == 302


@pytest.mark.parametrize("path", ["/silent", "/trickle", "/trickle-head"])
def test_a_slow_server_is_left_at_the_deadline(port: int, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer within"):
        broker(port, total=0.4).request("GET", url(port, path))
    assert 0.3 < time.monotonic() - began < 60  # the server goes on for longer than that


def test_a_slow_resolver_is_left_at_the_deadline(port: int) -> None:
    on = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        on.wait()
        return ["127.0.0.1"]

    caller = Broker([allow(url(port), networks=LOOPBACK)], limits=Limits(total=0.2, at_once=1), resolve=slow)
    for _ in range(2):  # the second finds the first still looking, and does not add another thread
        with pytest.raises(UnavailableError):
            caller.request("GET", url(port))
    assert sum(thread.name == "egress-resolver" for thread in threading.enumerate()) <= 1
    on.set()


@pytest.mark.parametrize("path", ["/promised", "/endless", "/until-close"])
def test_an_oversized_answer_is_refused_before_it_is_held(port: int, path: str) -> None:
    with pytest.raises(DeniedError, match="larger than 4096 bytes"):
        broker(port).request("GET", url(port, path))


def test_an_answer_that_ends_with_the_connection_is_whole(port: int) -> None:
    assert broker(port, body=5000).request("GET", url(port, "/until-close")).body == b"x" * 5000


@pytest.mark.parametrize("path", ["/cut", "/cut-chunk", "/garbage", "/headers-without-end"])
def test_an_answer_that_is_broken_is_no_answer(port: int, path: str) -> None:
    with pytest.raises(UnavailableError, match="the call failed") as caught:
        broker(port).request("GET", url(port, path))
    assert "half" not in str(caught.value)


def test_what_is_not_there_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = closed.getsockname()[1]
        with pytest.raises(UnavailableError, match="takes a connection"):
            broker(free).request("GET", url(free))
        with pytest.raises(UnavailableError, match="no address"):
            broker(free, Names([])).request("GET", url(free))
        unknown = Broker([allow("http://does-not-exist.invalid")], limits=Limits(total=5.0))
        with pytest.raises(UnavailableError):
            unknown.request("GET", "http://does-not-exist.invalid/")


def test_no_more_calls_at_once_than_allowed(port: int) -> None:
    caller = broker(port, at_once=1, total=1.5)
    errors: list[BedplateError] = []

    def call() -> None:
        try:
            caller.request("GET", url(port, "/silent"))
        except BedplateError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert time.monotonic() - began < 4  # they waited side by side, none beyond its own deadline
    assert caller.request("GET", url(port)).status == 200


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("TRACE", {}),
        ("GET /x HTTP/1.1\r\n", {}),
        ("GET", {"Host": "evil.test"}),
        ("GET", {"content-length": "3"}),
        ("GET", {"Transfer-Encoding": "chunked"}),
        ("GET", {"x": "a\r\ny: b"}),
        ("GET", {"x\r\ny": "b"}),
        ("GET", {"": "b"}),
    ],
)
def test_what_would_change_the_framing_is_not_sent(port: int, method: str, headers: dict[str, str]) -> None:
    names = Names(["127.0.0.1"])
    with pytest.raises(InputError):
        broker(port, names).request(method, url(port), headers=headers)
    assert names.asked == 0


def _certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server's context with a certificate for ``name`` that is its own authority, in ``name``.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context


def test_certificates_are_checked_against_the_name_that_was_asked(tmp_path: Path) -> None:
    def call(port: int, host: str, trust: Path | None) -> int:
        tls = ssl.create_default_context(cafile=str(trust)) if trust else None
        target = allow(f"https://{host}:{port}", networks=LOOPBACK)
        caller = Broker([target], resolve=Names(["127.0.0.1"]), tls=tls, limits=Limits(total=5.0))
        return caller.request("GET", f"https://{host}:{port}/").status

    with running(_certificate(tmp_path, NAME)) as port:
        assert call(port, NAME, tmp_path / f"{NAME}.pem") == 200
        with pytest.raises(IntegrityError, match="certificate"):
            call(port, "other.test", tmp_path / f"{NAME}.pem")
        with pytest.raises(IntegrityError, match="certificate"):
            call(port, NAME, None)


def test_a_server_that_does_not_speak_tls_is_unavailable(port: int) -> None:
    target = allow(f"https://{NAME}:{port}", networks=LOOPBACK)
    with pytest.raises(UnavailableError, match="SSLError"):
        Broker([target], resolve=Names(["127.0.0.1"]), limits=Limits(total=5.0)).request(
            "GET", f"https://{NAME}:{port}/"
        )
