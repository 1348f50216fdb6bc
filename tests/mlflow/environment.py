"""The environment that holds the MLflow package: its interpreter, and programs run by it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parent / "clients"

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MPLBACKEND": "agg",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request that fails once has failed: retries would hide it
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PYTHONWARNINGS": "ignore",
}


def python(name: str = "mlflow") -> Path:
    """The interpreter of an environment that ``make`` made beside ours: MLflow's, PyTorch's, that of others' tools."""
    path = Path(sys.prefix) / name / "bin" / "python"
    if not path.exists():
        pytest.fail(f"{path} is not there; make it: make .venv/.{name}")
    return path


def needs(package: str) -> None:
    """Say how to make the environment anew if it was made before it had this package."""
    if subprocess.run([str(python()), "-c", f"import {package}"], capture_output=True).returncode:
        pytest.fail(f"{python()} has no {package}; make it anew: make .venv/.mlflow")


def variables(**settings: str) -> dict[str, str]:
    """What a process in that environment sees: nothing of ours, nothing of MLflow's but what is given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BEDPLATE_", "MLFLOW_", "PYTHON", "PYTEST_", "COVERAGE"))
    }
    return {**kept, **QUIET, **settings}


def run(script: str, *arguments: str, folder: Path, name: str = "mlflow", timeout: float = 110, **settings: str) -> str:
    """Run a program of ``clients/`` to its end in ``folder``, and return what it printed.

    Raises:
        AssertionError: it ended with an error; the text is what it said.
    """
    done = subprocess.run(
        [str(python(name)), str(CLIENTS / script), *arguments],
        cwd=folder,
        env=variables(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{script} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout
