"""What serves reports to nobody."""

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import sys
import numpy as np
from bedplate.serve.sessions import open_session, run
session = open_session(open(sys.argv[1], "rb").read())
run(session, [session.get_outputs()[0].name], {session.get_inputs()[0].name: np.ones((1, 3), np.float32)})
"""


def test_the_runtime_of_models_leaves_no_id_of_this_machine(tmp_path: Path) -> None:
    """With telemetry, it is written into the cache of whoever runs it."""
    from tests.serve.support import network

    home, model = tmp_path / "home", tmp_path / "model.onnx"
    home.mkdir()
    model.write_bytes(network(4))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", RUN, str(model)], env=environ | {"HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []
