"""PyTorch and Lightning against Bedplate: `make clients`, because their environment is more than a gigabyte."""

from pathlib import Path

import pytest

from tests.mlflow import environment
from tests.mlflow.conftest import Bedplate


@pytest.mark.torch
def test_what_torch_and_lightning_log_is_there_again(bedplate: Bedplate, tmp_path: Path):
    environment.run("torches.py", folder=tmp_path, name="torch", timeout=500, **bedplate.settings())
