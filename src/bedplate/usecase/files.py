"""The files that a use case names: contracts, sources, functions of ``pipeline.py``. Nothing is imported or run."""

import ast
import importlib.util
from pathlib import Path

from bedplate.usecase.convert import Reading
from bedplate.usecase.problems import Keys, listing, nearest
from bedplate.usecase.types import Source


def check(reading: Reading, folder: Path) -> None:
    """Note every file that is named and not there, and every feature that nothing defines."""
    data = reading.root.at(("data",))
    for name in data.entries if data is not None else ():
        _contract(reading, folder, ("data", name, "contract"))
        source = reading.get("data", name, "source")
        if isinstance(source, Source):
            _source(reading, folder, ("data", name, "source"), source)
    rows = reading.root.at(("governance", "rows"))
    for name in rows.entries if rows is not None and rows.kind == "mapping" else ():
        _row_policies(reading, folder, ("governance", "rows", name))
    _features(reading, folder)
    _described(reading, folder)
    _models(reading, folder)
    _functions(reading, folder)


def source_file(source: Source, folder: Path) -> Path | None:
    """The file or folder a source stands for, in ``folder`` or in its package; None if it is not there."""
    root = package_folder(source.package) if source.package else folder
    if root is None or not source.path:
        return None
    path = root / source.path
    return path if _is_file(path) or (_is_folder(path) and source.kind != "sql") else None


def is_local(source: Source) -> bool:
    """Whether its rows lie in files of this machine."""
    return bool(source.path) and "://" not in source.path


def package_folder(package: str) -> Path | None:
    """The folder of an installed Python package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        return None
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def _contract(reading: Reading, folder: Path, keys: Keys) -> None:
    _below(reading, folder, keys, "a contract", "*.odcs.yaml", "an Open Data Contract Standard file, *.odcs.yaml")


def _row_policies(reading: Reading, folder: Path, keys: Keys) -> None:
    data = reading.root.at(("data",))
    names = list(data.entries) if data is not None else []
    if keys[-1] not in names:
        reading.note(
            keys,
            f"{str(keys[-1])[:60]!r} is not a data set of this file",
            allowed=listing(names) or "a data set",
            suggestion=nearest(str(keys[-1]), names),
            found=str(keys[-1])[:60],
        )
    _below(reading, folder, keys, "a file of row policies", "*.cedar", "a file of Cedar policies, *.cedar")


def _below(reading: Reading, folder: Path, keys: Keys, what: str, like: str, allowed: str) -> None:
    """Note a path that leaves the folder of the use case, or at which there is no file."""
    text = reading.get(*keys)
    if not isinstance(text, str):
        return
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        reading.note(keys, f"{what} lies in the folder of the use case", allowed="a path below this folder")
    elif not _is_file(folder / path):
        found = sorted(p.relative_to(folder).as_posix() for p in folder.glob(f"**/{like}") if p.is_file())
        reading.note(
            keys,
            f"there is no file {text[:80]!r}",
            allowed=listing(found[:8]) or allowed,
            suggestion=nearest(text, found),
        )


def _source(reading: Reading, folder: Path, keys: Keys, source: Source) -> None:
    if not _complete(reading, keys, source) or not is_local(source):
        return
    if source.package and package_folder(source.package) is None:
        reading.note(
            (*keys, "package"),
            f"package {source.package[:60]!r} is not installed",
            allowed="an installed Python package",
        )
        return
    if source.package and (Path(source.path).is_absolute() or ".." in Path(source.path).parts):
        reading.note((*keys, "path"), "this path leaves the package", allowed="a path inside the package")
        return
    if source_file(source, folder) is None:
        reading.note(
            (*keys, "path"),
            f"there is no file {source.path[:80]!r}",
            allowed="an existing file",
            suggestion=_similar(source.path, package_folder(source.package) if source.package else folder),
        )


def _complete(reading: Reading, keys: Keys, source: Source) -> bool:
    """Note what this kind of source lacks, and what it has no use for."""
    wants = {"sql": {"query"}, "rows": {"connection"}}.get(source.kind, {"path"})
    either = {"path", "connection"} if source.kind == "sql" else set()
    given = {name for name in ("path", "package", "connection", "query") if getattr(source, name)}
    allowed = wants | either | ({"package"} if "path" in wants and "://" not in source.path else set())
    for name in sorted(wants - given):
        reading.note(keys, f"a source of kind {source.kind} needs {name!r}", allowed=listing(sorted(wants)), found="")
    for name in sorted(given - allowed):
        text = f"{name!r} has no meaning for this source"
        reading.note((*keys, name), text, allowed=listing(sorted(allowed)))
    if either and len(given & either) != 1:
        reading.note(keys, "a source of kind sql has a path or a connection", allowed="one of them", found="")
    return wants <= given <= allowed and (not either or len(given & either) == 1)


def _similar(path: str, root: Path | None) -> str | None:
    """The name beside a missing file that is most like it."""
    wanted = Path(path)
    try:
        names = [entry.name for entry in (root / wanted).parent.iterdir()] if root is not None else []
    except (OSError, ValueError):
        return None
    near = nearest(wanted.name, names)
    return str(wanted.with_name(near)) if near else None


def _features(reading: Reading, folder: Path) -> None:
    node = reading.root.at(("features",))
    names = [child.text for child in node.items] if node is not None and node.kind == "sequence" else []
    in_sql = sorted(path.stem for path in (folder / "features").glob("*.sql") if path.is_file())
    marked: list[str] | None = []
    if set(names) - set(in_sql) or (folder / "pipeline.py").is_file():
        marked = _marked(reading, folder, ("features",), "feature_view") if names else []
    if marked is None:
        return
    views = [*marked, *in_sql]
    for i, name in enumerate(names):
        if name not in views:
            reading.note(
                ("features", i),
                f"no feature view {name[:60]!r} is in pipeline.py or features/",
                allowed=listing(views) or "a function marked @feature_view, or a file of SQL",
                suggestion=nearest(name, views),
            )
        elif name in marked and name in in_sql:
            twice = f"both pipeline.py and features/{name}.sql define {name!r}"
            reading.note(("features", i), twice, allowed="one of them")
        elif name in names[:i]:
            reading.note(("features", i), f"feature view {name!r} stands twice", allowed="each feature view once")


def _described(reading: Reading, folder: Path) -> None:
    """A model that is described by a file lies in the folder; any other name is one that the planner must know."""
    text = reading.get("workload", "model")
    if isinstance(text, str) and Path(text).suffix in (".json", ".onnx", ".pt2", ".py"):
        what = "a config.json, an ONNX file, a program of torch.export or a .py file"
        _below(reading, folder, ("workload", "model"), "a model", f"*{Path(text).suffix}", what)


def _models(reading: Reading, folder: Path) -> None:
    """Models lie in the folder, each under a name that no other has."""
    names: list[str] = []
    for i, text in enumerate(reading.get("train", "models") or ()):
        keys: Keys = ("train", "models", i)
        path = Path(text)
        if path.is_absolute() or ".." in path.parts:
            reading.note(keys, "a model lies in the folder of the use case", allowed="a path below this folder")
        elif not _is_file(folder / path):
            found = sorted(p.relative_to(folder).as_posix() for p in folder.glob("**/*.onnx") if p.is_file())
            near = nearest(text, found)
            reading.note(
                keys, f"there is no file {text[:80]!r}", allowed=listing(found[:8]) or "an ONNX file", suggestion=near
            )
        elif path.name in names:
            reading.note(keys, f"there are two models {path.name!r}", allowed="each name once")
        names.append(path.name)


def _functions(reading: Reading, folder: Path) -> None:
    """The functions that steps of a graph name are marked in ``pipeline.py``."""
    steps = reading.root.at(("graph", "steps"))
    for name in steps.entries if steps is not None and steps.kind == "mapping" else ():
        keys: Keys = ("graph", "steps", name, "function")
        wanted = reading.get(*keys)
        if not isinstance(wanted, str):
            continue
        marked = _marked(reading, folder, keys, "predictor")
        if marked is not None and wanted not in marked:
            reading.note(
                keys,
                f"pipeline.py defines no predictor {wanted[:60]!r}",
                allowed=listing(marked) or "a function marked @predictor",
                suggestion=nearest(wanted, marked),
            )


def _marked(reading: Reading, folder: Path, keys: Keys, kind: str) -> list[str] | None:
    """The functions of ``pipeline.py`` with a mark, which is not run; None, and a note, where it cannot be read."""
    path = folder / "pipeline.py"
    if not path.is_file():
        reading.note(
            keys, f"{keys[0]} names functions but there is no pipeline.py", allowed="pipeline.py beside this file"
        )
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reading.note(keys, f"pipeline.py{line} is not Python: {error!s}"[:120], allowed="a module that parses")
        return None
    return [f.name for f in tree.body if isinstance(f, ast.FunctionDef) and _has_mark(f, kind)]


def _has_mark(function: ast.FunctionDef, kind: str) -> bool:
    targets = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(
        (isinstance(t, ast.Name) and t.id == kind) or (isinstance(t, ast.Attribute) and t.attr == kind) for t in targets
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False
