"""Who may come in: the key as a token, as a password, and what the client is told when it has none.

usage: logins.py NAME KEY
"""

import os
import sys

from mlflow.exceptions import MlflowException

from mlflow import MlflowClient

NAME, KEY = sys.argv[1:]
ALMOST = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def attempt(*values: str | None) -> str:
    """What a search of experiments gives with these variables."""
    for name, value in zip(NAMES, values, strict=True):
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        return f"{error.error_code} {error.get_http_status_code()}"
    return "in"


assert attempt(NAME, KEY, None) == "in"
assert attempt(None, None, KEY) == "in"
for wrong in (
    (None, None, None),
    (NAME, "wrong", None),
    (None, None, "wrong"),
    (NAME, ALMOST, None),
    ("", "", None),
):
    assert attempt(*wrong) in ("UNAUTHENTICATED 401", "INTERNAL_ERROR 500"), (wrong, attempt(*wrong))
