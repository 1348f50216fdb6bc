"""What users of MLflow run every day, by the stock client, against Bedplate."""

from pathlib import Path

import pytest

from tests.mlflow import environment
from tests.mlflow.conftest import Bedplate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "script",
    ["learners.py", "files.py", "studies.py"],
    ids=["models of two libraries", "files and data sets", "studies and runs"],
)
def test_what_users_log_is_there_again(bedplate: Bedplate, tmp_path: Path, script: str):
    environment.run(script, folder=tmp_path, timeout=200, **bedplate.settings())


@pytest.mark.long
def test_sixteen_writers_at_once_lose_nothing(bedplate: Bedplate, tmp_path: Path):
    environment.run("many.py", "10", folder=tmp_path, timeout=200, **bedplate.settings())


def test_a_key_logs_in_as_a_token_and_as_a_password(bedplate: Bedplate, tmp_path: Path):
    environment.run("logins.py", "administrator", bedplate.key, folder=tmp_path, MLFLOW_TRACKING_URI=bedplate.address)
