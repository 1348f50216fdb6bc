"""What the package may not contain, told from its syntax tree. :mod:`tests.test_security_gate` runs it."""

import ast
from collections.abc import Iterator

FORBIDDEN_MODULES = {"pickle", "cPickle", "joblib", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "os.spawnl", "os.spawnv", "subprocess.getoutput", "subprocess.getstatusoutput",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp",
}  # fmt: skip
UNSAFE_LOADERS = {"Loader", "UnsafeLoader", "FullLoader", "CLoader"}
EXTRACTS = {"extractall", "unpack_archive"}
SQL_CALLS = {"execute", "executemany", "executescript", "exec_driver_sql", "sql", "text", "query"}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
MAY_READ_ENVIRONMENT = {"settings.py"}
MAY_PRINT = ("cli/",)
MAY_UNPICKLE = {"train/conversion.py"}
"""Runs in a limited process, and refuses to run anywhere else."""


def findings(source: str, file: str = "module.py") -> Iterator[str]:
    """Each forbidden thing in ``source``, as ``file:line: what``. ``file`` is relative to the package."""
    tree = ast.parse(source)
    names = _aliases(tree)
    for node in ast.walk(tree):
        for what in _of_node(node, names, file):
            yield f"{file}:{getattr(node, 'lineno', 0)}: {what}"


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: ``sp`` for ``subprocess``, ``load`` for ``yaml.load``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""


def _of_node(node: ast.AST, names: dict[str, str], file: str) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        found = FORBIDDEN_MODULES & {module.partition(".")[0] for module in modules}
        if found and file not in MAY_UNPICKLE:
            yield f"imports {', '.join(sorted(found))}, which runs code when it loads"
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = _dotted(node, names)
        if name in ENVIRONMENT and file not in MAY_READ_ENVIRONMENT:
            yield "reads the environment; only settings.py does"
        if name.partition(".")[0] == "yaml" and name.rpartition(".")[2] in UNSAFE_LOADERS:
            yield f"uses {name}, which builds any object"
    if isinstance(node, ast.Call):
        yield from _of_call(node, names, file)


def _of_call(node: ast.Call, names: dict[str, str], file: str) -> Iterator[str]:
    name = _dotted(node.func, names)
    last = node.func.attr if isinstance(node.func, ast.Attribute) else name.rpartition(".")[2]
    if isinstance(node.func, ast.Name) and name in FORBIDDEN_BUILTINS:
        yield f"calls {name}()"
    if name in FORBIDDEN_CALLS:
        yield f"calls {name}()"
    if name == "print" and not file.startswith(MAY_PRINT):
        yield "prints outside cli"
    if last in EXTRACTS:
        yield f"calls {last}(), which writes wherever an archive says"
    for keyword in node.keywords:
        truth = not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
        runs = keyword.arg == "shell" and name.startswith("subprocess.")
        if (runs or keyword.arg == "allow_pickle") and truth:
            yield f"passes {keyword.arg}={ast.unparse(keyword.value)}"
    if last in SQL_CALLS and node.args and _is_built(node.args[0]):
        yield f"builds the SQL that it gives to {last}()"


def _is_built(node: ast.expr) -> bool:
    """Whether text is put together from parts that are not constants."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(value, ast.FormattedValue) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        parts = list(_parts(node))
        text = any(isinstance(getattr(part, "value", None), str) or isinstance(part, ast.JoinedStr) for part in parts)
        return text and any(_is_built(part) or not isinstance(part, ast.Constant | ast.JoinedStr) for part in parts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        text = isinstance(node.func.value, ast.Constant | ast.JoinedStr)
        return node.func.attr in ("format", "format_map") or (node.func.attr == "join" and text)
    return False


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """The operands of a sum, however deep."""
    if isinstance(node, ast.BinOp):
        yield from _parts(node.left)
        yield from _parts(node.right)
    else:
        yield node
