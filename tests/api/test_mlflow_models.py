"""Logged models, inputs and outputs over MLflow's API, on a running control plane."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bedplate.app.site import Site
from bedplate.tracking import appends
from tests import plane
from tests.plane import Plane

API = "/api/2.0/mlflow"
NO_MODEL = "m-" + "0" * 32
DATA = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane with another workspace, ``red``."""
    with plane.running(tmp_path_factory.mktemp("models") / "home") as running:
        with running.store.transaction() as tx:
            tx.workspaces.add("red")
        yield running


@pytest.fixture
def client(served: Plane) -> Iterator[httpx.Client]:
    """A client with the administrator's key."""
    with httpx.Client(base_url=served.address, headers={"authorization": f"Bearer {served.key}"}) as made:
        yield made


@pytest.fixture
def experiment(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A new experiment."""
    return str(post(client, "experiments/create", name=request.node.name)["experiment_id"])


@pytest.fixture
def run(client: httpx.Client, experiment: str) -> str:
    """A new run in it."""
    return str(post(client, "runs/create", experiment_id=experiment)["run"]["info"]["run_id"])


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    """What a call answers that succeeds."""
    answer = client.post(f"{API}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def create(client: httpx.Client, experiment: str, **more: Any) -> str:
    """A new model, by its id."""
    return str(post(client, "logged-models", experiment_id=experiment, **more)["model"]["info"]["model_id"])


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error_code"]


def test_a_model_is_answered_as_mlflow_does(client: httpx.Client, experiment: str, run: str) -> None:
    """Every field in its place, times as numbers, what is empty left out; a bare one has empty texts."""
    tags, params = [{"key": "t", "value": "é"}], [{"key": "p", "value": ""}]
    made = post(
        client, "logged-models", experiment_id=experiment, name="m", model_type="tree", source_run_id=run,
        params=params, tags=tags,
    )["model"]  # fmt: skip
    model = made["info"]["model_id"]
    log = {"run_id": run, "key": "acc", "timestamp": 5, "model_id": model}
    post(client, "runs/log-metric", **log, value="NaN", dataset_name="d", dataset_digest="1")
    post(client, "runs/log-batch", run_id=run, metrics=[{**log, "value": 0.5, "step": 7}])
    client.patch(f"{API}/logged-models/{model}", json={"model_id": model, "status": "LOGGED_MODEL_READY"})
    answer = client.get(f"{API}/logged-models/{model}").json()["model"]

    created = made["info"]["creation_timestamp_ms"]
    assert isinstance(created, int)
    assert answer["info"].pop("last_updated_timestamp_ms") >= created
    assert answer == {
        "info": {
            "model_id": model,
            "experiment_id": experiment,
            "name": "m",
            "creation_timestamp_ms": created,
            "artifact_uri": f"mlflow-artifacts:/{experiment}/models/{model}/artifacts",
            "status": "LOGGED_MODEL_READY",
            "model_type": "tree",
            "source_run_id": run,
            "tags": tags,
        },
        "data": {
            "params": params,
            "metrics": [
                {
                    "key": "acc", "value": "NaN", "timestamp": 5, "step": 0, "dataset_name": "d",
                    "dataset_digest": "1", "model_id": model, "run_id": run,
                },
                {"key": "acc", "value": 0.5, "timestamp": 5, "step": 7, "model_id": model, "run_id": run},
            ],
        },
    }  # fmt: skip
    bare = post(client, "logged-models", experiment_id=experiment)["model"]
    assert (bare["info"]["model_type"], bare["info"]["source_run_id"], bare["data"]) == ("", "", {})
    assert bare["info"]["status"] == "LOGGED_MODEL_PENDING"
    assert "tags" not in bare["info"]


def test_the_life_of_a_model(client: httpx.Client, experiment: str) -> None:
    """Tags, params, deletion: each answers nothing, and what was deleted is shown to who asks for it."""
    model = create(client, experiment, name="m")
    where = f"{API}/logged-models/{model}"
    calls = [
        client.patch(f"{where}/tags", json={"tags": [{"key": "a", "value": "1"}, {"key": "b/c d", "value": "2"}]}),
        client.delete(f"{where}/tags/b/c%20d"),
        client.post(f"{where}/params", json={"model_id": model, "params": [{"key": "p", "value": "1"}]}),
        client.delete(where),
        client.delete(where),
    ]
    assert [(answer.status_code, answer.json()) for answer in calls] == [(200, {})] * 5
    assert refused(client.get(where)) == (404, "RESOURCE_DOES_NOT_EXIST")
    shown = client.get(f"/ajax-api/2.0/mlflow/logged-models/{model}", params={"allow_deleted": "true"}).json()["model"]
    assert (shown["info"]["tags"], shown["data"]) == (
        [{"key": "a", "value": "1"}],
        {"params": [{"key": "p", "value": "1"}]},
    )


def test_errors_have_the_codes_of_mlflow(client: httpx.Client, experiment: str, run: str) -> None:
    """Status and code for everything that a caller can get wrong."""
    model = create(client, experiment, params=[{"key": "p", "value": "1"}])
    where = f"{API}/logged-models/{model}"
    post(client, "runs/outputs", run_id=run, models=[{"model_id": model}])
    missing, invalid, bad = (404, "RESOURCE_DOES_NOT_EXIST"), (400, "INVALID_PARAMETER_VALUE"), (400, "BAD_REQUEST")
    metric = {"run_id": run, "key": "a", "value": 1, "timestamp": 1}

    def send(method: str, path: str, body: Any) -> tuple[int, str]:
        return refused(client.request(method, path if path.startswith("/") else f"{API}/{path}", json=body))

    for expected, method, path, body in (
        (invalid, "POST", "logged-models", {}),
        (invalid, "POST", "logged-models", {"experiment_id": experiment, "name": "a/b"}),
        (invalid, "POST", "logged-models", {"experiment_id": experiment, "name": 5}),
        (missing, "POST", "logged-models", {"experiment_id": "424242"}),
        (bad, "POST", "logged-models", {"experiment_id": experiment, "tags": [{"key": "a"}, {"key": "a"}]}),
        (missing, "GET", f"logged-models/{NO_MODEL}", None),
        (missing, "PATCH", f"logged-models/{NO_MODEL}", {"model_id": NO_MODEL, "status": 2}),
        (invalid, "PATCH", where, {"status": 2}),
        (invalid, "PATCH", where, {"model_id": model}),
        (invalid, "PATCH", where, {"model_id": model, "status": "DONE"}),
        (invalid, "PATCH", where, {"model_id": NO_MODEL, "status": 2}),
        (bad, "POST", f"{where}/params", {"model_id": model, "params": [{"key": "p", "value": "1"}]}),
        (invalid, "POST", f"{where}/params", {"params": []}),
        (missing, "DELETE", f"{where}/tags/none", None),
        (invalid, "POST", "logged-models/search", {}),
        (invalid, "POST", "logged-models/search", {"experiment_ids": [experiment], "filter": "name ="}),
        (invalid, "POST", "logged-models/search", {"experiment_ids": [experiment], "order_by": [{}]}),
        (invalid, "POST", "logged-models/search", {"experiment_ids": [experiment], "page_token": "x"}),
        (bad, "POST", "runs/log-metric", {**metric, "model_id": NO_MODEL}),
        (invalid, "POST", "runs/log-metric", {**metric, "model_id": model, "dataset_name": "d"}),
        (bad, "POST", "runs/log-batch", {"run_id": run, "metrics": [{**metric, "model_id": NO_MODEL}]}),
        (invalid, "POST", "runs/log-inputs", {}),
        (invalid, "POST", "runs/log-inputs", {"run_id": "a/b"}),
        (missing, "POST", "runs/log-inputs", {"run_id": "0" * 32}),
        (invalid, "POST", "runs/log-inputs", {"run_id": run, "datasets": [{"dataset": {"name": "x" * 501}}]}),
        (bad, "POST", "runs/outputs", {"run_id": run, "models": [{"model_id": model, "step": 1}]}),
        (invalid, "POST", "runs/outputs", {"run_id": run}),
        (invalid, "POST", "runs/log-model", {"run_id": run, "model_json": "{"}),
        (invalid, "POST", "experiments/search-datasets", {}),
        (missing, "GET", f"logged-models/{NO_MODEL}/artifacts/directories", None),
        (invalid, "GET", f"{where}/artifacts/directories?artifact_directory_path=../x", None),
        (bad, "GET", f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files", None),
        (missing, "GET", f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files?artifact_file_path=x", None),
    ):
        assert send(method, path, body) == expected, (method, path, body)


def test_pages_of_a_search(client: httpx.Client, experiment: str) -> None:
    """Fifty unless asked for otherwise, and the token is no part of the last page."""
    names = [f"m{number:02}" for number in range(51)]
    for name in names:
        create(client, experiment, name=name)
    query: dict[str, Any] = {"experiment_ids": [experiment], "order_by": [{"field_name": "name"}]}
    first = post(client, "logged-models/search", **query)
    second = post(client, "logged-models/search", **query, page_token=first["next_page_token"])

    assert [model["info"]["name"] for model in first["models"] + second["models"]] == names
    assert len(first["models"]) == 50
    assert "next_page_token" not in second
    assert len(post(client, "logged-models/search", **query, max_results=0)["models"]) == 51
    assert post(client, "logged-models/search", experiment_ids=[]) == {}


def test_what_a_run_read_used_and_made_is_part_of_it(client: httpx.Client, experiment: str, run: str) -> None:
    """All of it in runs/get; a search leaves out the models that were used, as MLflow's does."""
    bare = post(client, "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    dataset = {"tags": [{"key": "mlflow.data.context", "value": "train"}], "dataset": {**DATA, "profile": "{}"}}
    assert post(client, "runs/log-inputs", run_id=run, datasets=[dataset], models=[{"model_id": "m-2"}]) == {}
    assert post(client, "runs/outputs", run_id=run, models=[{"model_id": "m-1", "step": "3"}]) == {}

    whole, nothing = (client.get(f"{API}/runs/get", params={"run_id": name}).json()["run"] for name in (run, bare))
    found = {each["info"]["run_id"]: each for each in post(client, "runs/search", experiment_ids=[experiment])["runs"]}
    outputs = {"model_outputs": [{"model_id": "m-1", "step": 3}]}
    assert whole["inputs"] == {"dataset_inputs": [dataset], "model_inputs": [{"model_id": "m-2"}]}
    assert (whole["outputs"], nothing["inputs"], nothing["outputs"]) == (outputs, {}, {})
    assert (found[run]["inputs"], found[run]["outputs"]) == ({"dataset_inputs": [dataset]}, outputs)
    assert (found[bare]["inputs"], found[bare]["outputs"]) == ({}, {})
    summaries = {"dataset_summaries": [{"experiment_id": experiment, "name": "d", "digest": "1", "context": "train"}]}
    for path in ("/ajax-api/2.0/mlflow/", "/api/2.0mlflow/"):
        answer = client.post(f"{path}experiments/search-datasets", json={"experiment_ids": [experiment]})
        assert answer.json() == summaries


def test_a_large_dataset_is_taken(client: httpx.Client, run: str) -> None:
    """Of more than a megabyte, which is the limit of other calls."""
    profile = "x" * (1 << 21)
    post(client, "runs/log-inputs", run_id=run, datasets=[{"dataset": {**DATA, "profile": profile}}])

    answer = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]
    assert answer["inputs"]["dataset_inputs"][0]["dataset"]["profile"] == profile


def test_a_model_of_former_days_becomes_a_tag(client: httpx.Client, run: str) -> None:
    """Added to the list of its run."""
    text = '{"artifact_path": "m", "flavors": {"f": {}}, "utc_time_created": "now", "run_id": "x"}'
    for _ in range(2):
        assert post(client, "runs/log-model", run_id=run, model_json=text) == {}
    data = client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["data"]
    listed = {tag["key"]: tag["value"] for tag in data["tags"]}["mlflow.log-model.history"]

    assert listed.count('"artifact_path": "m"') == 2


def test_files_of_a_model(client: httpx.Client, experiment: str) -> None:
    """Listed by folder, and handed over."""
    model = create(client, experiment)
    base = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model}/artifacts"
    for name in ("MLmodel", "code/x.py"):
        assert client.put(f"{base}/{name}", content=name.encode()).status_code == 200
    where = f"mlflow/logged-models/{model}/artifacts"
    top = client.get(f"/api/2.0/{where}/directories").json()
    below = client.get(f"/api/2.0/{where}/directories", params={"artifact_directory_path": "code"}).json()
    file = client.get(f"/ajax-api/2.0/{where}/files", params={"artifact_file_path": "code/x.py"})

    assert top["root_uri"] == f"mlflow-artifacts:/{experiment}/models/{model}/artifacts"
    assert top["files"] == [
        {"path": "MLmodel", "is_dir": False, "file_size": 7},
        {"path": "code", "is_dir": True},
    ]
    assert below["files"] == [{"path": "code/x.py", "is_dir": False, "file_size": 9}]
    assert file.content == b"code/x.py"
    client.delete(f"{API}/logged-models/{model}")
    assert refused(client.get(f"/api/2.0/{where}/directories")) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_another_workspace_sees_nothing_of_it(served: Plane, client: httpx.Client, experiment: str, run: str) -> None:
    """Every call about a model or a run of workspace default answers there as if there were none."""
    model = create(client, experiment, name="secret")
    with httpx.Client(base_url=served.address, headers={**client.headers, "x-mlflow-workspace": "red"}) as red:
        where = f"{API}/logged-models/{model}"
        for answer in (
            red.get(where),
            red.patch(where, json={"model_id": model, "status": 2}),
            red.delete(where),
            red.patch(f"{where}/tags", json={"tags": [{"key": "a", "value": "b"}]}),
            red.delete(f"{where}/tags/a"),
            red.post(f"{where}/params", json={"model_id": model, "params": [{"key": "a", "value": "b"}]}),
            red.get(f"{where}/artifacts/directories"),
            red.get(f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files", params={"artifact_file_path": "a"}),
            red.post(f"{API}/logged-models", json={"experiment_id": experiment}),
            red.post(f"{API}/runs/log-inputs", json={"run_id": run, "datasets": [{"dataset": DATA}]}),
            red.post(f"{API}/runs/outputs", json={"run_id": run, "models": [{"model_id": model}]}),
        ):
            assert refused(answer) == (404, "RESOURCE_DOES_NOT_EXIST"), answer.request.url
        for path in ("logged-models/search", "experiments/search-datasets"):
            assert post(red, path, experiment_ids=[experiment]) == {}
    shown = client.get(where).json()["model"]
    assert (shown["info"]["status"], shown["data"]) == ("LOGGED_MODEL_PENDING", {})


def test_nothing_is_reached_without_a_key(served: Plane) -> None:
    """Every route of logged models and inputs asks who it is."""
    with httpx.Client(base_url=served.address) as anonymous:
        for method, path in (
            ("GET", f"logged-models/{NO_MODEL}"),
            ("POST", "logged-models"),
            ("POST", "logged-models/search"),
            ("POST", "runs/log-inputs"),
            ("POST", "runs/outputs"),
            ("POST", "runs/log-model"),
            ("POST", "experiments/search-datasets"),
        ):
            assert refused(anonymous.request(method, f"{API}/{path}")) == (401, "UNAUTHENTICATED")


def test_what_was_appended_is_verified(served: Plane, client: httpx.Client, run: str) -> None:
    """The chain over everything that the tests of this file logged holds."""
    post(client, "runs/log-inputs", run_id=run, datasets=[{"dataset": DATA}])
    site: Site = served.site
    with site.store.read() as tx:
        assert appends.verify(tx) == []
