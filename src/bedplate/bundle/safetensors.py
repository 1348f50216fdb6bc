"""The safetensors format: a JSON header that says where each tensor lies, then raw values. Nothing in it can run.

What may be in a bundle is proved by :func:`check`; :func:`read` and :func:`write` go between files and arrays.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from bedplate.errors import IntegrityError

if TYPE_CHECKING:
    import numpy.typing as npt

_HEADER_LIMIT = 100 << 20
_TENSOR_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
# Types that NumPy has; a bfloat16 is the upper half of a float32 and is read as one.
_TYPES = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


def looks_like(view: memoryview) -> bool:
    """Whether a file begins as safetensors do."""
    length = int.from_bytes(view[:8], "little")
    return len(view) > 9 and 2 <= length <= len(view) - 8 and view[8] == ord("{")


def check(view: memoryview) -> None:
    """Check that types are known and that the tensors fill the file without gap or overlap.

    Raises:
        ValueError: they do not.
    """
    _entries(view)


def read(data: bytes | memoryview, where: str) -> "dict[str, npt.NDArray[Any]]":
    """The arrays of a safetensors file, which share its memory; ``where`` words the error.

    Raises:
        IntegrityError: the file is not one, or holds a type that NumPy has not.
    """
    import numpy as np  # the package that checks bundles is loaded by commands that read none

    view = memoryview(data)
    try:
        if not looks_like(view):
            raise ValueError("it has no header")
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, tensor in _entries(view).items():
            start = 8 + int.from_bytes(view[:8], "little")
            low, high = tensor.data_offsets
            body = view[start + low : start + high]
            if tensor.dtype == "BF16":
                wide = np.frombuffer(body, "<u2").astype("<u4") << 16
                arrays[name] = wide.view("<f4").reshape(tensor.shape)
            elif tensor.dtype in _TYPES:
                arrays[name] = np.frombuffer(body, _TYPES[tensor.dtype]).reshape(tensor.shape)
            else:
                raise ValueError(f"tensor {name!r} has type {tensor.dtype}")
    except ValueError as error:  # a header that is no JSON is one too
        raise IntegrityError(f"the file is not in safetensors format: {error}", where=where) from error
    return arrays


def write(tensors: "Mapping[str, npt.NDArray[Any]]") -> bytes:
    """The safetensors file of some arrays, in their order; the same arrays give the same bytes."""
    import numpy as np  # see above

    names: dict[np.dtype[Any], str] = {np.dtype(kind): name for name, kind in _TYPES.items()}
    header: dict[str, Any] = {}
    blocks, offset = [], 0
    for name, tensor in tensors.items():
        kind = tensor.dtype.newbyteorder("<")
        block = np.ascontiguousarray(tensor, kind).tobytes()
        header[name] = {
            "dtype": names[kind],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(block)],
        }
        blocks.append(block)
        offset += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])


def _entries(view: memoryview) -> dict[str, _Tensor]:
    length = int.from_bytes(view[:8], "little")
    if length > _HEADER_LIMIT:
        raise ValueError("the header is too long")
    header = msgspec.json.decode(bytes(view[8 : 8 + length]), type=dict[str, msgspec.Raw])
    if metadata := header.pop("__metadata__", None):
        msgspec.json.decode(metadata, type=dict[str, str])
    tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in header.items()}
    position = 0
    for tensor in sorted(tensors.values(), key=lambda t: t.data_offsets):
        begin, end = tensor.data_offsets
        bits = _TENSOR_BITS.get(tensor.dtype)
        if bits is None:
            raise ValueError(f"a tensor has type {tensor.dtype!r}")
        for size in tensor.shape:
            bits *= size
        if begin != position or (end - begin) * 8 != bits:
            raise ValueError("its tensors do not fill the file as their shapes say")
        position = end
    if 8 + length + position != len(view):
        raise ValueError("its tensors do not fill the file")
    return tensors
