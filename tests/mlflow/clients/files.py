"""Files, tables, figures and data sets of a run; a large file in parts."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

import mlflow
from mlflow import MlflowClient

client = MlflowClient()
mlflow.set_experiment("files")


def folders() -> None:
    """A folder goes up and comes back the same, empty files and odd names included."""
    source = Path("source")
    (source / "deep" / "er").mkdir(parents=True)
    contents = {
        "a.txt": b"a",
        "deep/b.bin": bytes(range(256)),
        "deep/er/c": b"",
        "deep/sp ace ☃.txt": b"x",
        "deep/(1), [2] & '3'.txt": b"%",
    }
    for name, data in contents.items():
        (source / name).write_bytes(data)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(source), "up")
        mlflow.log_artifact(str(source / "a.txt"))
        mlflow.log_artifact(str(source / "a.txt"), "twice/down")
    there = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="up", dst_path="back"))
    assert {str(p.relative_to(there)): p.read_bytes() for p in there.rglob("*") if p.is_file()} == contents
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/a.txt") == "a"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["a.txt", "twice", "up"]
    assert [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run.info.run_id, "up/deep")][:2] == [
        ("up/deep/(1), [2] & '3'.txt", False, 1),
        ("up/deep/b.bin", False, 256),
    ]
    listed = mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="up")
    assert [f.path for f in listed] == ["up/a.txt", "up/deep"]
    try:
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="never", dst_path="none")
    except (MlflowException, OSError):
        pass
    else:
        raise AssertionError("a file that was never there came down")


def documents() -> None:
    """What the client makes into files by itself."""
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    with mlflow.start_run() as run:
        mlflow.log_text("text", "t/text.txt")
        mlflow.log_dict({"a": [1, 2]}, "d.json")
        mlflow.log_dict({"a": [1, 2]}, "d.yaml")
        mlflow.log_figure(figure, "figure.png")
        mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), "image.png")
        mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), key="seen", step=1)
        mlflow.log_table({"q": ["a"], "n": [1]}, "table.json")
        mlflow.log_table(pd.DataFrame({"q": ["b"], "n": [2]}), "table.json")
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/d.json") == {"a": [1, 2]}
    assert mlflow.artifacts.load_image(f"runs:/{run.info.run_id}/figure.png").size[0] > 100
    table = mlflow.load_table("table.json", run_ids=[run.info.run_id])
    assert table["q"].tolist() == ["a", "b"]


def datasets() -> None:
    """Data sets with their digest, schema and profile."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with mlflow.start_run() as run:
        mlflow.log_input(mlflow.data.from_pandas(frame, name="frame", source="x.csv"), context="training")
        mlflow.log_input(mlflow.data.from_numpy(np.arange(4.0), name="array"), context="testing", tags={"more": "1"})
    inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert {i.dataset.name for i in inputs} == {"frame", "array"}
    assert mlflow.data.get_source(next(i for i in inputs if i.dataset.name == "frame")).uri == "x.csv"
    found = mlflow.search_runs(filter_string="dataset.name = 'frame' and dataset.context = 'training'")
    assert found.run_id.tolist() == [run.info.run_id]


def parts() -> None:
    """A file above the client's size for one request."""
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "true"
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "true"
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(5 << 20)
    os.environ["MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE"] = str(5 << 20)
    data = np.random.default_rng(1).bytes(12 << 20)
    Path("large.bin").write_bytes(data)
    with mlflow.start_run() as run:
        mlflow.log_artifact("large.bin", "large")
    assert [f.file_size for f in client.list_artifacts(run.info.run_id, "large")] == [12 << 20]
    back = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="large/large.bin", dst_path="parts"
    )
    assert Path(back).read_bytes() == data


folders()
documents()
datasets()
parts()
