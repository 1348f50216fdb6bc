"""What is in the files of a model that somebody else's library saved, told without loading any of it.

MLflow's ``MLmodel`` file names the flavours of a model. Whether they can be loaded by a process that holds keys is
decided here on an allow-list and by content: every file must be of a format that runs no code
(:mod:`bedplate.bundle.formats`) or plain text beside it, and no flavour may bring code of its own. What is not known to
be harmless is unsafe. Saying what a refused file probably is serves the reader of the message, never the decision.
"""

import contextlib
import mmap
import pickletools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

import msgspec
import yaml

from bedplate.bundle.formats import identify
from bedplate.errors import InputError
from bedplate.ids import Digest, digest_of

MLMODEL = "MLmodel"
MLMODEL_LIMIT = 1 << 20
FILES = 2000
"""Files that a model may have; one with more is not looked through, so it is unsafe."""
_TEXT_LIMIT = 16 << 20
_EVENTS, _DEPTH = 50_000, 64
_BLOCK = 1 << 20

Safety = Literal["safe", "unsafe", "unknown"]
Converter = Literal["sklearn", "lightgbm", "xgboost", "pytorch"]

CONVERTERS: tuple[Converter, ...] = ("sklearn", "lightgbm", "xgboost", "pytorch")
"""Flavours that a converter to ONNX exists for."""
_LOADERS = frozenset(
    f"mlflow.{name}"
    for name in ("catboost", "lightgbm", "onnx", "paddle", "prophet", "pytorch", "sklearn", "spacy", "statsmodels",
                 "tensorflow", "transformers", "xgboost")
)  # fmt: skip
"""Loaders that read the files of their flavour and nothing else. ``mlflow.pyfunc.model`` runs whatever was pickled."""
_HARMLESS = frozenset({"onnx", "lightgbm", "xgboost", "python_function"})
"""Flavours that can be had without a file that runs code; the files decide."""
_PLAIN = frozenset(
    {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta", "LICENSE", "README.md"}
)
_TEXTS = frozenset({".csv", ".json", ".md", ".rst", ".txt", ".yaml", ".yml"})
_STARTS = ("pickled_model", "data", "model_data")
"""Keys of a flavour that name the file or folder that it is loaded from."""
_PROGRAMS = frozenset({".py", ".pyc", ".pyd", ".so", ".sh", ".dll", ".dylib", ".ipynb"})


class File(Protocol):
    """One stored file."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    @property
    def digest(self) -> Digest:
        """The digest of its bytes."""
        ...

    def pieces(self) -> Iterable[bytes]:
        """Its bytes, from the first to the last, checked against the digest."""
        ...


Files = Mapping[str, File]
"""The files of a model, by path below the model's folder."""
OpenFiles = Callable[[str], Files | None]
"""The files at the location of a version; None where they cannot be read from here."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. ``reasons`` say why it is unsafe or unknown; ``files`` maps paths to what they are.

    ``content`` is the digest of all paths with the digests of their bytes: the same model again has the same.
    ``converter`` names what could make ONNX of it, and ``data`` the path that it would start from.
    """

    safety: Safety
    flavors: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    files: dict[str, str] = {}
    content: Digest
    converter: Converter | None = None
    data: str = ""
    form: str = ""
    model_class: str = ""
    signature: dict[str, Any] = {}
    example: str = ""


def inspect(files: Files) -> Findings:
    """Look at every file of a model. Nothing of it is loaded or run.

    Raises:
        StorageError: a file cannot be read.
    """
    content = content_of({path: file.digest for path, file in files.items()})
    if len(files) > FILES:
        reason = f"it has {len(files):,} files, and {FILES:,} are looked through"
        return Findings(safety="unsafe", reasons=(reason,), content=content)
    if MLMODEL not in files:
        reason = f"it has no file {MLMODEL}, so nothing says what it is" if files else "there is no file yet"
        return Findings(safety="unknown" if not files else "unsafe", reasons=(reason,), content=content)
    try:
        described = read_mlmodel(read(files, MLMODEL, MLMODEL_LIMIT))
    except InputError as error:
        return Findings(safety="unsafe", reasons=(error.message,), content=content)
    flavors: dict[str, dict[str, Any]] = described["flavors"]
    reasons = [reason for name, flavor in sorted(flavors.items()) for reason in _of_flavor(name, flavor)]
    starts = {text for flavor in flavors.values() for key in _STARTS if (text := _first_text(flavor, key))}
    kinds: dict[str, str] = {}
    for path, file in sorted(files.items()):
        kinds[path], refused = _of_file(path, file, named=path in starts)
        if refused:
            reasons.append(refused)
    if not reasons and not any(kind not in ("text", "nothing") for kind in kinds.values()):
        reasons.append("no file of it is a model of a format that is loaded here")
    converter = next((name for name in CONVERTERS if name in flavors), None)
    start = flavors[converter] if converter is not None else {}
    return Findings(
        safety="unsafe" if reasons else "safe",
        flavors=tuple(sorted(flavors)),
        reasons=tuple(reasons),
        files=kinds,
        content=content,
        converter=converter,
        data=_first_text(start, *_STARTS),
        form=_first_text(start, "serialization_format", "model_format"),
        model_class=_first_text(start, "model_class"),
        signature=_signature(described),
        example=_example(described),
    )


def content_of(digests: Mapping[str, Digest]) -> Digest:
    """The digest of a folder: of the paths of its files and the digests of their bytes."""
    return digest_of(dict(digests))


def read_mlmodel(data: bytes | None) -> dict[str, Any]:
    """An ``MLmodel`` file; None for one that is too large to be read. The key ``flavors`` is there and well formed.

    It is bounded before anything is made of it.

    Raises:
        InputError: it is too large, nested too deep, or not what MLflow writes.
    """
    if data is None:
        raise InputError(f"{MLMODEL} is larger than {MLMODEL_LIMIT >> 20} MiB", where=MLMODEL)
    try:
        text = data.decode("utf-8")
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if count > _EVENTS or depth > _DEPTH:
                raise InputError(f"{MLMODEL} holds more than a model's description", where=MLMODEL)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{MLMODEL} cannot be read: {type(error).__name__}", where=MLMODEL) from error
    flavors = value.get("flavors") if isinstance(value, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise InputError(f"{MLMODEL} names no flavor", where=MLMODEL)
    if not all(isinstance(name, str) and isinstance(flavor, dict) for name, flavor in flavors.items()):
        raise InputError(f"{MLMODEL} names a flavor that is none", where=MLMODEL)
    known: dict[str, Any] = value
    return known


def _first_text(flavor: Mapping[str, Any], *keys: str) -> str:
    return next((value for key in keys if isinstance(value := flavor.get(key), str)), "")


def _signature(described: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs, outputs and parameters, which MLflow writes as JSON inside the YAML. What cannot be read is left out."""
    found = {}
    given = described.get("signature")
    for part in ("inputs", "outputs", "params"):
        text = given.get(part) if isinstance(given, dict) else None
        if isinstance(text, str):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                found[part] = msgspec.json.decode(text)
    return found


def _example(described: Mapping[str, Any]) -> str:
    info = described.get("saved_input_example_info")
    path = info.get("artifact_path") if isinstance(info, dict) else None
    return path if isinstance(path, str) else ""


# ------------------------------------------------------------------------------------------------------------- flavours


def _of_flavor(name: str, flavor: Mapping[str, Any]) -> Iterator[str]:
    """Why loading this flavour would run code."""
    for key in ("code", "model_code_path", "python_model", "code_paths"):
        if flavor.get(key) is not None:
            yield f"flavor {name} brings code of its own ({key})"
    if name == "python_function":
        loader = flavor.get("loader_module")
        if not isinstance(loader, str) or loader not in _LOADERS:
            yield f"flavor {name} is loaded by {loader!r}, which runs what the model brings"
    elif name not in _HARMLESS:
        yield f"flavor {name} is loaded by building Python objects"


# ---------------------------------------------------------------------------------------------------------------- files


def _of_file(path: str, file: File, *, named: bool) -> tuple[str, str]:
    """What a file is, and why it is not safe; empty if it is. ``named``: a flavour says that the model is in it."""
    name = PurePosixPath(path)
    if name.suffix.lower() in _PROGRAMS:
        return "program", f"{path} is a program"
    if file.size == 0:
        return "nothing", ""
    with viewed(file) as view:
        plain = not named and (name.name in _PLAIN or name.suffix.lower() in _TEXTS)
        if plain and len(view) <= _TEXT_LIMIT and _is_text(view):
            if _is_pickle(view):
                return "pickle", f"{path} is a pickle written as text, which runs code when loaded"
            return "text", ""
        try:
            return identify(path, view), ""
        except InputError as error:
            if _seems_pickled(view):
                return "pickle", f"{path} holds a pickle, which runs code when loaded"
            return "unknown", error.message


@contextlib.contextmanager
def viewed(file: File) -> Iterator[memoryview]:
    """The bytes of a file without holding them in memory: mapped, from a copy that is gone when the block ends."""
    with tempfile.TemporaryFile(prefix="bedplate-") as copy:
        for piece in file.pieces():
            copy.write(piece)
        copy.flush()
        with (
            contextlib.closing(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)) as mapped,
            memoryview(mapped) as view,
        ):
            yield view


def _is_text(view: memoryview) -> bool:
    try:
        return "\x00" not in str(view, "utf-8")
    except UnicodeDecodeError:
        return False


_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_WRAPPED = re.compile(rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|\x78[\x01\x5e\x9c\xda]|ZF")
_INSIDE = re.compile(rb"data\.pkl|\.pickle|archive/data|\x80[\x02-\x05][\x95c}\](KX\x8c]")
_LOOKED_AT = 64 << 20
_OPCODES = 1_000_000
_CALLS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2",
                    "EXT4", "PERSID", "BINPERSID"})  # fmt: skip


def _is_pickle(view: memoryview) -> bool:
    """Whether a text is a pickle that does more than hold plain values. Its opcodes are read, never followed."""
    if _PICKLE.match(view):
        return True
    calls = False
    try:
        for count, (opcode, _argument, _position) in enumerate(pickletools.genops(bytes(view))):
            calls = calls or opcode.name in _CALLS
            if opcode.name == "STOP" or count > _OPCODES:
                return calls
    except Exception:  # noqa: BLE001  whatever is wrong with it: no unpickler would get through it either
        return False
    return False


def _seems_pickled(view: memoryview) -> bool:
    """Whether a refused file probably is a pickle, or an archive or a compressed file around one."""
    if _WRAPPED.match(view):
        return _INSIDE.search(view, 0, min(len(view), _LOOKED_AT)) is not None
    return _PICKLE.match(view) is not None or (len(view) <= _TEXT_LIMIT and _is_pickle(view))


def read(files: Files, path: str, most: int) -> bytes | None:
    """The bytes of a file, if it is there and not larger than ``most``."""
    file = files.get(path)
    return None if file is None or file.size > most else b"".join(file.pieces())
