"""Uploads in parts. They are played against a server that keeps artifacts in S3, as MLflow has them nowhere else.

A part goes to the address that the upload was answered with, as the client sends it: with the headers that came with
the address, and no key.
"""

from typing import Any

from tests.mlflow.corpus.artifacts import MULTIPART, OCTETS, PROXY
from tests.mlflow.steps import Step, delete, differs, get, post, put

_FOLDER = "/$e/$r/artifacts"
_OUTSIDE = ("..", "../x", "a/../../x", "%2e%2e/x")
_UPLOAD = {"u": "upload_id", "url1": "credentials.0.url", "h1": "credentials.0.headers"}
_SECOND = {"url2": "credentials.1.url", "h2": "credentials.1.headers"}
_PART = 5 * 1024 * 1024
"""The least that S3 takes for a part that is not the last."""


def create(folder: str = _FOLDER, **options: Any) -> Step:
    """Begin an upload."""
    return post(f"{MULTIPART}/create{folder}", {"path": "/home/ana/big.bin", "num_parts": 2}, **options)


def part(number: int, content: bytes, keep: str = "") -> Step:
    """Send a part as the client does."""
    return put(f"$url{number}", content, headers=((f"$h{number}", ""),), keep={keep: "@etag"} if keep else {})


def complete(*parts: tuple[int, str], folder: str = _FOLDER, **more: Any) -> Step:
    """Complete the upload with these parts."""
    named = [{"part_number": number, "etag": etag, "url": "$url1"} for number, etag in parts]
    body = {"path": "/home/ana/big.bin", "upload_id": "$u", "parts": named, **more}
    return post(f"{MULTIPART}/complete{folder}", {name: value for name, value in body.items() if value is not None})


def abort(folder: str = _FOLDER, **more: Any) -> Step:
    """Give the upload up."""
    body = {"path": "/home/ana/big.bin", "upload_id": "$u", **more}
    return post(f"{MULTIPART}/abort{folder}", {name: value for name, value in body.items() if value is not None})


UPLOADS = (
    post("experiments/create", {"name": "uploads"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "uploads"}, keep={"r": "run.info.run_id"}),
    put(PROXY + _FOLDER + "/small.txt", b"small", headers=OCTETS),
    # begun, sent, completed, read
    create(keep={**_UPLOAD, **_SECOND}),
    get("artifacts/list", {"run_id": "$r"}),
    part(2, b"the end", keep="t2"),
    part(1, b"z" * _PART, keep="t1"),
    get(PROXY + _FOLDER + "/big.bin"),
    complete((1, "$t1"), (2, "$t2")),
    get("artifacts/list", {"run_id": "$r"}),
    get(PROXY + _FOLDER + "/big.bin"),
    # the same name again: a part is sent twice, only one is named, and what was there is replaced
    create(keep={**_UPLOAD, **_SECOND}),
    part(1, b"broke off"),
    part(1, b"again", keep="t1"),
    complete((1, "$t1")),
    get(PROXY + _FOLDER + "/big.bin"),
    # in a folder below, and of one part
    post(f"{MULTIPART}/create{_FOLDER}/deep/er", {"path": "one.bin", "num_parts": 1}, keep=_UPLOAD),
    part(1, b"one", keep="t1"),
    complete((1, "$t1"), folder=f"{_FOLDER}/deep/er", path="one.bin"),
    get(PROXY + _FOLDER + "/deep/er/one.bin"),
    get("artifacts/list", {"run_id": "$r", "path": "deep/er"}),
    # given up
    create(keep={**_UPLOAD, **_SECOND}),
    part(1, b"never", keep="t1"),
    abort(),
    part(2, b"too late"),
    complete((1, "$t1")),
    differs(abort(), "given-up-twice", 404, "RESOURCE_DOES_NOT_EXIST"),
    get(PROXY + _FOLDER + "/big.bin"),
    # parts that are not those that were sent
    create(keep={**_UPLOAD, **_SECOND}),
    part(1, b"y" * _PART, keep="t1"),
    part(2, b"end", keep="t2"),
    complete((1, '"0123456789abcdef0123456789abcdef"')),
    complete((2, "$t2"), (1, "$t1")),
    complete((1, "$t1"), (3, "$t2")),
    complete(),
    complete((1, "$t1"), upload_id="nobody"),
    complete((1, "$t1"), upload_id=""),
    complete((1, "$t1"), upload_id=None),
    complete((1, "$t1"), path=None),
    complete((1, "$t1"), path=""),
    complete((1, "$t1"), path="/home/ana/other.bin"),
    complete((1, "$t1"), parts=None),
    complete((1, "$t1"), parts="x"),
    complete((1, "$t1"), parts=[1]),
    complete((1, "$t1"), parts=[{"part_number": "one", "etag": "$t1"}]),
    complete((1, "$t1"), parts=[{"etag": "$t1"}]),
    complete((1, "$t1"), folder=_FOLDER + "/elsewhere"),
    complete((1, "$t1"), (2, "$t2")),
    complete((1, "$t1"), (2, "$t2")),
    # calls that are not as they must be
    post(f"{MULTIPART}/create{_FOLDER}", {"num_parts": 1}),
    post(f"{MULTIPART}/create{_FOLDER}", {"path": "", "num_parts": 1}),
    post(f"{MULTIPART}/create{_FOLDER}", {"path": 7, "num_parts": 1}),
    post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": "two"}),
    post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": [1]}),
    post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": "1"}),
    differs(post(f"{MULTIPART}/create{_FOLDER}", {"path": "x"}), "numbers-of-parts"),
    differs(post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": 0}), "numbers-of-parts"),
    differs(post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": -1}), "numbers-of-parts"),
    differs(post(f"{MULTIPART}/create{_FOLDER}", {"path": "x", "num_parts": 10_001}), "numbers-of-parts"),
    post(f"{MULTIPART}/create{_FOLDER}", raw=b"{", headers=(("content-type", "application/json"),)),
    get(f"{MULTIPART}/create{_FOLDER}"),
    *(create(f"/$e/$r/artifacts/{path}") for path in _OUTSIDE),
    differs(create(f"{_FOLDER}//etc"), "strict-paths"),
    *(complete((1, "$t1"), folder=f"/$e/$r/artifacts/{path}") for path in _OUTSIDE),
    *(abort(f"/$e/$r/artifacts/{path}") for path in _OUTSIDE),
    abort(upload_id="nobody"),
    abort(upload_id=None),
    abort(path=None),
    delete(PROXY + _FOLDER + "/big.bin"),
    get("artifacts/list", {"run_id": "$r"}),
)  # fmt: skip

CONVERSATIONS = {"uploads": UPLOADS}
