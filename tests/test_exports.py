"""What ``import bedplate`` offers: few names, each documented, none costing anything before it is used."""

import subprocess
import sys

import pytest

import bedplate


def test_the_public_names_are_at_most_fifteen_and_sorted():
    assert len(bedplate.__all__) <= 15
    assert list(bedplate.__all__) == sorted(bedplate.__all__)


@pytest.mark.parametrize("name", bedplate.__all__)
def test_each_public_name_loads_and_is_documented(name):
    assert getattr(bedplate, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = bedplate.nothing


def test_importing_the_package_loads_no_heavy_library():
    heavy = ("numpy", "pyarrow", "duckdb", "deltalake", "sqlalchemy", "dbos", "onnxruntime", "lightgbm", "msgspec")
    code = f"import sys, bedplate; print([m for m in {heavy!r} if m in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert found.strip() == "[]"
