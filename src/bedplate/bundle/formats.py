"""The formats that a trusted process loads, told by content and never by name. What is not listed is refused.

None of them runs code when loaded: ONNX without external data or foreign operators, safetensors, Arrow IPC without
pickled types, LightGBM's text, and JSON (which is also how XGBoost saves).

A bundle whose loader is a limited process (:data:`bedplate.bundle.manifest.LIMITED`) may hold ``pipeline.py`` and
programs of ``torch.export`` as well: they do run code, and nothing but such a process opens them.
"""

import re

import msgspec

from bedplate.bundle import onnx, safetensors
from bedplate.bundle.manifest import Format
from bedplate.errors import InputError

FILE_LIMIT = 2 << 30
"""Bytes in one file; protobuf ends there too."""
BUNDLE_LIMIT = 16 << 30
"""Bytes in one bundle."""
PIPELINE = "pipeline.py"
"""The one name of code in a bundle: text has nothing in its content that tells it from other text."""
_JSON_LIMIT = 512 << 20
_ZIP = b"PK\x03\x04"

_ARROW_FILE, _ARROW_STREAM = b"ARROW1\0\0", b"\xff\xff\xff\xff"
_PICKLED_TYPE = re.compile(rb"arrow\.py_extension_type")
_LIGHTGBM = re.compile(rb"tree\nversion=v\d+\n")
_JSON_START = re.compile(rb"[ \t\r\n]*[{\[]")
# Only to say what a refused file probably is; refusal never depends on it.
_KNOWN = (
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle, which runs code when loaded"),
    (re.compile(rb"PK\x03\x04"), "a zip archive, as torch.save, numpy.savez and Keras write it"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array file; write safetensors or Arrow"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd|BZh|\xfd7zXZ"), "a compressed file"),
    (re.compile(rb"\x7fELF|MZ|#!"), "a program"),
)


def identify(name: str, data: bytes | memoryview, *, limited: bool = False) -> Format:
    """The format of a file's content; ``name`` only words the error. ``limited``: of a bundle that may hold code.

    Raises:
        InputError: it is of no format on the list, or holds something that could run code.
    """
    view = memoryview(data)
    if len(view) > FILE_LIMIT:
        raise _refused(name, f"is {len(view) >> 20} MiB; a file may have {FILE_LIMIT >> 20}")
    head = bytes(view[:64])
    try:
        if limited and name == PIPELINE:
            _check_text(view)
            return "python"
        if limited and head.startswith(_ZIP):
            return "torch-export"
        if head.startswith((_ARROW_FILE, _ARROW_STREAM)):
            _check_arrow(view)
            return "arrow"
        if _LIGHTGBM.match(head):
            _check_text(view)
            return "lightgbm"
        if safetensors.looks_like(view):
            safetensors.check(view)
            return "safetensors"
        if _JSON_START.match(head):
            _check_json(view)
            return "json"
        if guess := next((meaning for pattern, meaning in _KNOWN if pattern.match(head)), None):
            raise _refused(name, f"is {guess}")
        onnx.check(view)
    except ValueError as error:
        raise _refused(name, f"is of no format that is loaded: {error}") from error
    return "onnx"


def _refused(name: str, reason: str) -> InputError:
    return InputError(
        f"{name} {reason}", where=name, fix="release ONNX, safetensors, Arrow, JSON or LightGBM text, which run no code"
    )


# ---------------------------------------------------------------------------------------------------------------- Arrow


def _check_arrow(view: memoryview) -> None:
    """Arrow IPC, file or stream. Rows are not read; schemas may not name a type that old readers unpickle."""
    if bytes(view[:8]) == _ARROW_FILE and bytes(view[-6:]) != b"ARROW1":
        raise ValueError("the Arrow file breaks off")
    if _PICKLED_TYPE.search(view):
        raise ValueError("it holds a pickled extension type")


# ----------------------------------------------------------------------------------------------------------------- text


def _check_json(view: memoryview) -> None:
    if len(view) > _JSON_LIMIT:
        raise ValueError(f"JSON may have {_JSON_LIMIT >> 20} MiB")
    try:
        msgspec.json.decode(view)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


def _check_text(view: memoryview) -> None:
    try:
        str(view, "utf-8")
    except UnicodeDecodeError:
        raise ValueError("the text is not UTF-8") from None
