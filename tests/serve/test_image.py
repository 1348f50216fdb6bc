"""The packages of the image: all that a replica may import, each at the version that everything else is tested with."""

import json
import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PROGRAM = """
import importlib, importlib.metadata, json, pkgutil, sys
import bedplate.serve, onnxruntime
for module in pkgutil.walk_packages(bedplate.serve.__path__, "bedplate.serve."):
    importlib.import_module(module.name)
tops = {name.partition(".")[0] for name in sys.modules}
found = importlib.metadata.packages_distributions()
print(json.dumps(sorted({name for top in tops for name in found.get(top, ())})))
"""
_BESIDE = {"bedplate", "setuptools"}
"""Ours, and what the path hook of the environment that tests run in loads."""


def pins(name: str) -> set[str]:
    """``name==version`` of each package of a file."""
    text = (REQUIREMENTS / name).read_text("utf-8")
    return {f"{found[1].lower().replace('_', '-')}=={found[2]}" for found in re.finditer(r"(?m)^(\S+?)==(\S+)", text)}


def test_an_image_has_what_a_replica_imports_and_pins_it_alike() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    imported = {name.lower().replace("_", "-") for name in json.loads(done.stdout.splitlines()[-1])} - _BESIDE
    held = {pin.partition("==")[0] for pin in pins("replica.txt")}
    assert "uvloop" in imported
    assert imported - held == set()
    assert pins("replica.txt") - pins("demo.txt") == set()
