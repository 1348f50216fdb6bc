"""The registry over HTTP, at a real control plane: MLflow's API, and our own for what that has no words for."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from bedplate import ids
from bedplate.app import workspaces
from bedplate.release import line
from tests import plane
from tests.bundle import test_onnx

BASE = "/api/2.0/mlflow"
OURS = "/api/v1/models"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("registry") / "home") as running:
        yield running


@pytest.fixture
def client(served):
    with signed_in(served, served.key) as made:
        yield made


def signed_in(served, key):
    return httpx.Client(base_url=served.address, headers={"authorization": f"Bearer {key}"}, timeout=60)


def somebody(served, *groups, service=False):
    """A client of somebody new in these groups."""
    who = served.identity.add_principal("service" if service else "user", ids.new_id("usr"), groups, actor="system")
    return signed_in(served, served.identity.create_key(who.id, label="test", actor="system"))


@pytest.fixture
def name():
    return ids.new_id("mod")


@pytest.fixture
def model(client, name):
    """The name of a registered model without versions."""
    assert client.post(f"{BASE}/registered-models/create", json={"name": name}).status_code == 200
    return name


def register(client, name, source="s3://bucket/model", **more):
    answer = client.post(f"{BASE}/model-versions/create", json={"name": name, "source": source, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["model_version"]


def logged(client, files, **described):
    """A run with a model among its artifacts; returns the run's id."""
    run = client.post(f"{BASE}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    text = yaml.safe_dump(described).encode()
    for path, data in {"MLmodel": text, **files}.items():
        address = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/{path}"
        assert client.put(address, content=data).status_code == 200
    return run


def onnx_run(client):
    flavors = {"python_function": {"loader_module": "mlflow.onnx"}, "onnx": {"data": "model.onnx", "code": None}}
    return logged(client, {"model.onnx": test_onnx.model().SerializeToString()}, flavors=flavors)


def pickled_run(client):
    from sklearn.linear_model import LogisticRegression

    flavors = {
        "python_function": {"loader_module": "mlflow.sklearn"},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle", "code": None},
    }
    fitted = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.5]], [0, 0, 1, 1])
    return logged(client, {"model.pkl": pickle.dumps(fitted)}, flavors=flavors)


def transition(client, name, number, stage, **more):
    body = {"name": name, "version": str(number), "stage": stage, **more}
    return client.post(f"{BASE}/model-versions/transition-stage", json=body)


def problem(answer):
    return answer.status_code, answer.json()["error_code"]


# -------------------------------------------------------------------------------------------------------- MLflow's API


@pytest.mark.parametrize("prefix", ["/api/2.0", "/api/3.0", "/ajax-api/2.0", "/ajax-api/3.0"])
def test_each_operation_answers_under_each_prefix(client, name, prefix):
    made = client.post(f"{prefix}/mlflow/registered-models/create", json={"name": name + prefix.replace("/", "-")})

    assert made.status_code == 200
    assert client.get(f"{prefix}/mlflow/registered-models/search").status_code == 200


def test_a_refused_request_says_why_and_leaves_its_entry(client, model):
    register(client, model)

    answer = transition(client, model, 1, "Production")

    assert problem(answer) == (403, "PERMISSION_DENIED")
    assert "nobody knows what is in them" in answer.json()["message"]
    newest = client.get("/api/v1/audit?limit=1").json()["entries"][0]
    assert (newest["action"], newest["decision"]) == ("release.request", "deny")
    assert f"ledger entry {newest['index']}" in answer.json()["message"]
    assert (
        client.get(f"{BASE}/model-versions/get?name={model}&version=1").json()["model_version"]["current_stage"]
        == "None"
    )


def test_a_safe_model_becomes_production_by_its_approvers(client, served, model):
    """Nobody is named: no. An administrator names a group: one of it asks, and it is."""
    run = onnx_run(client)
    version = register(client, model, f"runs:/{run}/model", run_id=run)
    assert "tags" not in version
    assert "bedplate models approvers" in transition(client, model, 1, "Production").json()["message"]

    named = client.put(f"{OURS}/{model}/approvers", json={"environment": "production", "rule": "1 of [risk]"})
    assert named.status_code == 200, named.text
    with somebody(served, "risk", "engineers") as approver:
        moved = transition(approver, model, 1, "Production")
        pointed = approver.post(
            f"{BASE}/registered-models/alias", json={"name": model, "alias": "champion", "version": "1"}
        )

    assert moved.json()["model_version"]["current_stage"] == "Production"
    assert pointed.status_code == 200
    shown = client.get(f"{OURS}/{model}").json()
    assert shown["approvers"] == {"production": "1 of [risk]"}
    assert shown["versions"][0]["safety"] == "safe"
    assert [a["reason"] for a in shown["versions"][0]["approvals"]] == ["asked for the release"] * 2
    assert client.get(f"{OURS}/{model}/live").json()["version"] == 1
    assert client.get(f"{OURS}/{model}/live?alias=champion").json()["version"] == 1
    assert client.get(f"{OURS}/{model}/live?at=2020-01-01").status_code == 404


def test_only_administrators_name_approvers(served, client, model):
    with somebody(served, "engineers") as engineer:
        answer = engineer.put(f"{OURS}/{model}/approvers", json={"environment": "production", "rule": "engineers"})
        tag = engineer.post(
            f"{BASE}/registered-models/set-tag",
            json={"name": model, "key": "bedplate.approvers.production", "value": "engineers"},
        )

    assert answer.status_code == 403
    assert problem(tag) == (403, "PERMISSION_DENIED")


def test_files_of_a_version_in_use_stay_as_they_are(client, model):
    """Neither replaced, nor added to, nor removed, by any name; once nobody uses it they can go."""
    run = onnx_run(client)
    register(client, model, f"runs:/{run}/model", run_id=run)
    at = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts"
    assert client.put(f"{at}/model/notes.md", content=b"before").status_code == 200
    client.delete(f"{at}/model/notes.md")
    assert transition(client, model, 1, "Staging").status_code == 200

    for answer in (
        client.put(f"{at}/model/model.onnx", content=b"other"),
        client.put(f"{at}/model/new/file", content=b"other"),
        client.delete(f"{at}/model/model.onnx"),
        client.delete(f"{at}/model"),
        client.delete(at),
    ):
        assert problem(answer) == (400, "INVALID_STATE"), answer.text
    assert client.put(f"{at}/elsewhere", content=b"fine").status_code == 200

    transition(client, model, 1, "Archived")
    assert client.delete(f"{at}/model/model.onnx").status_code == 200


def test_files_that_changed_are_found_out(client, served, model):
    run = onnx_run(client)
    register(client, model, f"runs:/{run}/model", run_id=run)
    client.put(f"{OURS}/{model}/approvers", json={"environment": "production", "rule": "risk"})
    client.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/model.onnx", content=b"other")

    with somebody(served, "risk", "engineers") as approver:
        assert "changed after it was registered" in transition(approver, model, 1, "Production").json()["message"]


def test_files_that_come_later_are_looked_at_when_it_matters(client, served, model):
    """The client registers first and uploads then: a request looks again."""
    run = client.post(f"{BASE}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    register(client, model, f"runs:/{run}/model", run_id=run)
    client.put(f"{OURS}/{model}/approvers", json={"environment": "production", "rule": "risk"})
    with somebody(served, "risk", "engineers") as approver:
        assert "cannot be read" in transition(approver, model, 1, "Production").json()["message"]
        at = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model"
        flavors = {"python_function": {"loader_module": "mlflow.onnx"}, "onnx": {"data": "model.onnx"}}
        client.put(f"{at}/MLmodel", content=yaml.safe_dump({"flavors": flavors}).encode())
        client.put(f"{at}/model.onnx", content=test_onnx.model().SerializeToString())

        assert transition(approver, model, 1, "Production").status_code == 200


@pytest.mark.slow
def test_a_pickle_is_marked_converted_and_then_released(client, served, model):
    run = pickled_run(client)
    version = register(client, model, f"runs:/{run}/model", run_id=run)
    assert {"key": "bedplate.safety", "value": "unsafe"} in version["tags"]
    client.put(f"{OURS}/{model}/approvers", json={"environment": "production", "rule": "risk"})
    with somebody(served, "risk", "engineers") as approver:
        assert "bedplate models convert" in transition(approver, model, 1, "Production").json()["message"]

        made = approver.post(f"{OURS}/{model}/versions/1/convert")

        assert made.status_code == 200, made.text
        assert made.json()["compared"]["agree"] == 1.0
        assert transition(approver, model, 1, "Production").status_code == 200
    shown = client.get(f"{OURS}/{model}").json()["versions"][0]
    assert shown["onnx"] == made.json()["onnx"]
    fact = client.get(f"/api/v1/evidence/{shown['evidence']}").json()
    assert fact["kind"] == "conversion"
    assert served.contents.get(shown["onnx"])


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("/etc/passwd", {}),
        ("file:///etc/passwd", {}),
        ("C:\\models", {}),
        ("http://169.254.169.254/latest", {}),
        ("mlflow-artifacts://other/0/x", {}),
        ("mlflow-artifacts:/0/other/artifacts/model", {"run_id": "$run"}),
        ("mlflow-artifacts:/0/$run/artifacts/../../other", {"run_id": "$run"}),
        ("mlflow-artifacts:/0/$run/artifacts/%2e%2e/%2e%2e/other", {"run_id": "$run"}),
        ("mlflow-artifacts:/0/$run/artifacts/%252e%252e/x", {"run_id": "$run"}),
        ("mlflow-artifacts:/0/$run/artifactsx/model", {"run_id": "$run"}),
        ("runs:/$run/model", {}),
        ("runs:/$run/model", {"run_id": "0123456789abcdef0123456789abcdef"}),
        ("runs:/$run/../x", {"run_id": "$run"}),
        ("models:/m-0123456789abcdef0123456789abcdef", {"model_id": "m-0123456789abcdef0123456789abcdef"}),
        ("models:/a/b/c", {}),
        ("s3://bucket/a/../b", {}),
        ("s3://bucket/a\nb", {}),
        ("x" * 3000, {}),
    ],
)
def test_a_source_that_leads_elsewhere_is_refused(client, model, source, more):
    run = client.post(f"{BASE}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    body = json.loads(json.dumps({"name": model, "source": source, **more}).replace("$run", run))

    answer = client.post(f"{BASE}/model-versions/create", json=body)

    assert problem(answer) == (400, "INVALID_PARAMETER_VALUE")


def test_workspaces_do_not_reach_each_other(client, served, model):
    """The same name is another model, and what is not in the workspace is not there."""
    system = served.site.system
    other = ids.new_id("w").replace("_", "-")
    workspaces.create(system, served.identity.authenticate(served.key), other, shared=True)
    there = {"x-mlflow-workspace": other}
    register(client, model)

    for method, path, body in (
        ("GET", f"registered-models/get?name={model}", None),
        ("GET", f"model-versions/get?name={model}&version=1", None),
        ("POST", "model-versions/transition-stage", {"name": model, "version": "1", "stage": "Archived"}),
        ("POST", "registered-models/alias", {"name": model, "alias": "blue", "version": "1"}),
        ("POST", "model-versions/create", {"name": model, "source": "s3://a/b"}),
        ("DELETE", "registered-models/delete", {"name": model}),
        ("POST", "registered-models/set-tag", {"name": model, "key": "a", "value": "b"}),
    ):
        answer = client.request(method, f"{BASE}/{path}", json=body, headers=there)
        assert problem(answer) == (404, "RESOURCE_DOES_NOT_EXIST"), path
    assert client.get(f"{BASE}/registered-models/search", headers=there).json() == {}
    assert client.get(f"{BASE}/model-versions/search", headers=there).json() == {}
    assert client.get(f"{OURS}/{model}/history", headers=there).status_code == 404
    assert client.get(f"{OURS}/{model}/live", headers=there).status_code == 404
    run = onnx_run(client)
    client.post(f"{BASE}/registered-models/create", json={"name": model}, headers=there)
    body = {"name": model, "source": f"mlflow-artifacts:/0/{run}/artifacts/model", "run_id": run}
    assert problem(client.post(f"{BASE}/model-versions/create", json=body, headers=there))[0] == 400


def test_who_may_not_write_changes_nothing(served, client, model):
    register(client, model)
    with somebody(served, "viewers") as viewer:
        for method, path, body in (
            ("POST", "registered-models/create", {"name": "x"}),
            ("POST", "registered-models/rename", {"name": model, "new_name": "y"}),
            ("DELETE", "registered-models/delete", {"name": model}),
            ("DELETE", "model-versions/delete", {"name": model, "version": "1"}),
            ("POST", "registered-models/alias", {"name": model, "alias": "blue", "version": "1"}),
            ("POST", "model-versions/transition-stage", {"name": model, "version": "1", "stage": "Archived"}),
        ):
            assert problem(viewer.request(method, f"{BASE}/{path}", json=body)) == (403, "PERMISSION_DENIED"), path
        assert viewer.get(f"{BASE}/registered-models/get?name={model}").status_code == 200
        assert viewer.put(f"{OURS}/{model}/aliases/blue", json={"version": 1}).status_code == 403
        assert viewer.post(f"{OURS}/{model}/versions/1/convert").status_code == 403


def test_a_page_goes_on_where_the_last_one_ended_whatever_happens_between(client, model):
    for _ in range(5):
        register(client, model)
    query = {"filter": f"name = '{model}'", "order_by": "version_number ASC", "max_results": 2}
    first = client.get(f"{BASE}/model-versions/search", params=query).json()
    client.request("DELETE", f"{BASE}/model-versions/delete", json={"name": model, "version": "1"})

    second = client.get(
        f"{BASE}/model-versions/search", params={**query, "page_token": first["next_page_token"]}
    ).json()
    last = client.get(f"{BASE}/model-versions/search", params={**query, "page_token": second["next_page_token"]}).json()
    other = client.get(f"{BASE}/model-versions/search", params={"page_token": first["next_page_token"]})

    numbers = [[v["version"] for v in page["model_versions"]] for page in (first, second, last)]
    assert numbers == [["1", "2"], ["3", "4"], ["5"]]
    assert "next_page_token" not in last
    assert problem(other) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "text",
    ["name = 'x' OR 1=1", "name = 'a'; DROP TABLE model_versions", "tags.`x` = '' UNION SELECT", "1=1", "name = '"],
)
def test_a_filter_is_no_statement(client, text):
    for noun in ("registered-models", "model-versions"):
        answer = client.get(f"{BASE}/{noun}/search", params={"filter": text})
        assert problem(answer) == (400, "INVALID_PARAMETER_VALUE")


def test_quotes_in_names_and_filters_are_text(client, name):
    odd = f"{name} 'x' \" ; -- % ☃"
    assert client.post(f"{BASE}/registered-models/create", json={"name": odd}).status_code == 200

    quoted = odd.replace("'", "''")
    found = client.get(f"{BASE}/registered-models/search", params={"filter": f"name = '{quoted}'"})

    assert [each["name"] for each in found.json()["registered_models"]] == [odd]


# ------------------------------------------------------------------------------------------------------------- our own


def test_the_versions_of_a_use_case_come_with_their_evidence(served, client):
    """Bundle, data, gates, signature and run, from the facts of the flow."""
    with served.store.transaction() as tx:
        gates = tx.facts.latest("retail-personalisation", "gates") or next(
            tx.facts.latest(row.name, "gates") for row in tx.use_cases.list()
        )
        use_case = gates.use_case
        who = served.identity.authenticate(served.key)
        number = line.allot(served.ledger, tx, who, use_case, gates.digest)
        bundle = next(f for f in tx.facts.children(gates.digest) if f.kind == "bundle")
        line.bind(served.ledger, tx, who, use_case, number, bundle.body["digest"])

    version = client.get(f"{OURS}/{use_case}").json()["versions"][0]
    over_mlflow = client.get(f"{BASE}/model-versions/get?name={use_case}&version={number}").json()["model_version"]

    assert version["bundle"] == bundle.body["digest"]
    assert version["signature"] == bundle.body["signature_digest"]
    assert version["gates"]["results"]
    assert version["data"]
    assert version["run"]
    assert over_mlflow["source"] == f"bundle:/{bundle.body['digest']}"
    gone = client.request("DELETE", f"{BASE}/model-versions/delete", json={"name": use_case, "version": str(number)})
    assert problem(gone) == (400, "INVALID_STATE")


def test_aliases_compare_and_set(client, model):
    for _ in range(2):
        register(client, model)
    at = f"{OURS}/{model}/aliases/blue"

    assert client.put(at, json={"version": 1, "expected": None}).json()["version"] == 1
    assert client.put(at, json={"version": 2, "expected": None}).status_code == 409
    assert client.put(at, json={"version": 2, "expected": 1}).json()["version"] == 2
    assert client.delete(at, params={"expected": 1}).status_code == 409
    assert client.delete(at, params={"expected": 2}).json()["version"] is None
    assert client.put(at, json={"version": 9}).status_code == 404
    assert client.put(at, json={"version": 0}).status_code == 400
    assert client.put(at, json={"version": 1, "x": 1}).status_code == 400


def test_of_many_at_once_one_compare_and_set_wins(client, served, model):
    for _ in range(8):
        register(client, model)
    client.put(f"{OURS}/{model}/aliases/blue", json={"version": 1})

    def move(number):
        with signed_in(served, served.key) as own:
            return own.put(f"{OURS}/{model}/aliases/blue", json={"version": number, "expected": 1}).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(move, range(1, 9)))

    assert answers.count(200) <= 2  # version 1 onto itself, and the one that was first
    assert set(answers) <= {200, 409}


def test_stages_compare_and_set(client, model):
    register(client, model)
    at = f"{OURS}/{model}/versions/1/stage"

    assert client.put(at, json={"stage": "Staging", "expected": "Archived"}).status_code == 409
    assert client.put(at, json={"stage": "Staging", "expected": "None"}).json()["stages"] == {"Staging": 1}
    assert client.put(at, json={"stage": "Production"}).status_code == 403


def test_the_history_is_told_page_by_page_and_for_ever(client, model):
    register(client, model)
    for alias in ("a", "b", "c"):
        client.put(f"{OURS}/{model}/aliases/{alias}", json={"version": 1})
    client.request("DELETE", f"{BASE}/registered-models/delete", json={"name": model})

    lines = client.get(f"{OURS}/{model}/history").json()["lines"]

    assert [line["kind"] for line in lines] == [
        "model-deleted", "deleted", *["alias-removed"] * 3, *["alias-set"] * 3, "created", "model-created",
    ]  # fmt: skip
    assert all(line["by"] == "administrator" and line["entry"] is not None for line in lines)
    earlier = client.get(f"{OURS}/{model}/history", params={"before": lines[4]["seq"]}).json()["lines"]
    assert earlier == lines[5:]
    at = lines[5]["time"]
    assert client.get(f"{OURS}/{model}/live", params={"at": at, "alias": "c"}).json()["version"] == 1
    assert client.get(f"{OURS}/{model}/live").status_code == 404


@pytest.mark.parametrize("at", ["yesterday", "", "9" * 30, "2026-13-01"])
def test_a_moment_must_be_one(client, model, at):
    assert client.get(f"{OURS}/{model}/live", params={"at": at}).status_code == 400
    assert client.get(f"{OURS}/{model}/live", params={"alias": "a", "stage": "Staging"}).status_code == 400
