"""The shape of the product: imports point down, third parties stay where they belong, ``import bedplate`` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "bedplate"
FILES = sorted(SOURCE.rglob("*.py"))

CONFINED = {
    "alembic": {"store"},
    "cedarpy": {"policy"},
    "cyclonedx": {"bundle"},
    "dbos": {"workflow"},
    "deltalake": {"data"},
    "duckdb": {"data", "features"},
    "faiss": {"serve", "train"},
    "implicit": {"train"},
    "lightgbm": {"train"},
    "lmdb": {"online"},
    "model_signing": {"bundle"},
    "obstore": {"blobs", "data"},
    "onnxmltools": {"train"},
    "onnxruntime": {"serve", "compute", "train"},
    "opentelemetry": {"observe"},
    "ray": {"compute"},
    "rich": {"cli"},
    "sklearn": {"train", "stats"},
    "sqlalchemy": {"data", "store", "workflow"},
    "tokenizers": {"serve"},
    "typer": {"cli"},
}
"""Which packages may import a third party: what is not listed for it may not."""
HEAVY = {
    "alembic", "cryptography", "dbos", "deltalake", "duckdb", "httpx", "lightgbm", "numpy",
    "onnxruntime", "pandas", "pyarrow", "rich", "scipy", "sklearn", "sqlalchemy", "typer",
}  # fmt: skip


def imports(source: str) -> set[str]:
    """Every module that ``source`` imports, at any depth, ``TYPE_CHECKING`` included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def strays(package: str, source: str) -> set[str]:
    """Third parties that ``package`` may not import, and does."""
    roots = {name.partition(".")[0] for name in imports(source)}
    return {root for root in roots if package not in CONFINED.get(root, {package})}


def test_imports_point_down_the_table():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_third_parties_stay_where_they_belong():
    found = {}
    for path in FILES:
        package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        # A copy of the database is taken by the code that copies the rest of the home.
        if stray := strays(package, path.read_text()) - ({"sqlalchemy"} if path.name == "backup.py" else set()):
            found[str(path.relative_to(SOURCE))] = stray

    assert found == {}


def test_a_stray_import_is_seen():
    assert strays("plan", "def f():\n    from sqlalchemy.sql import select") == {"sqlalchemy"}
    assert strays("store", "import sqlalchemy as sa") == set()


def test_nothing_inside_imports_the_root():
    """It would make every module depend on all that the public API shows. Subpackages are no root."""
    public = {path.stem for path in SOURCE.glob("*.py")} | {path.name for path in SOURCE.iterdir() if path.is_dir()}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "bedplate":
                assert {alias.name for alias in node.names} <= public, path
            if isinstance(node, ast.Import) and path.parent != SOURCE:
                assert "bedplate" not in {alias.name for alias in node.names}, path


MIGRATIONS = SOURCE / "store" / "migrations" / "versions"


@pytest.mark.parametrize(
    "path", [p for p in FILES if MIGRATIONS not in p.parents], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_files_and_functions_stay_readable(path):
    source = path.read_text()
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}

    assert source.count("\n") <= 600
    assert {name: lines for name, lines in long.items() if lines > 100} == {}


def test_the_control_plane_starts_without_statistics():
    """SciPy is a seventh of the time to the first answer."""
    code = "import sys, bedplate.app.control; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_bedplate_is_light():
    code = (
        f"import sys, bedplate; heavy = {HEAVY!r} & sys.modules.keys(); sys.exit(f'loaded {{heavy}}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
