"""scikit-learn and LightGBM as their users log them: autologging, models stored, loaded, registered, released."""

import lightgbm
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow
from mlflow import MlflowClient

client = MlflowClient()
X, y = make_classification(200, 6, random_state=1)
columns = [f"f{i}" for i in range(6)]
NEEDS = {"pip_requirements": ["mlflow"]}  # said, because finding out takes seconds for each model
frame = pd.DataFrame(X, columns=columns)


def sklearn_autolog() -> None:
    """A fit logs params, metrics, the data set and the model; a search logs its children."""
    mlflow.set_experiment("sklearn")
    mlflow.sklearn.autolog(log_datasets=True, silent=True)
    with mlflow.start_run() as run:
        LogisticRegression(C=0.5).fit(frame, y)
    logged = client.get_run(run.info.run_id)
    assert logged.data.params["C"] == "0.5"
    assert logged.data.metrics["training_accuracy_score"] > 0.5
    assert logged.inputs.dataset_inputs
    assert logged.outputs.model_outputs
    assert {f.path for f in client.list_artifacts(run.info.run_id)} >= {"estimator.html"}
    model = mlflow.sklearn.load_model(f"models:/{logged.outputs.model_outputs[0].model_id}")
    assert model.predict(frame).shape == (200,)

    mlflow.sklearn.autolog(log_models=False, silent=True)
    with mlflow.start_run() as run:
        GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2
        ).fit(frame, y)
    children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    assert len(children) == 2
    mlflow.sklearn.autolog(disable=True)


def lightgbm_autolog() -> None:
    """Training logs params, a metric for each round, importances and the booster."""
    mlflow.set_experiment("lightgbm")
    mlflow.lightgbm.autolog(silent=True)
    with mlflow.start_run() as run:
        data = lightgbm.Dataset(frame, y, free_raw_data=False)
        params = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1}
        lightgbm.train(params, data, 10, valid_sets=[data], valid_names=["train"])
    logged = client.get_run(run.info.run_id)
    assert logged.data.params["num_leaves"] == "4"
    assert len(client.get_metric_history(run.info.run_id, "train-binary_logloss")) == 10
    assert {"feature_importance_gain.json", "feature_importance_split.json"} <= {
        f.path for f in client.list_artifacts(run.info.run_id)
    }
    model = mlflow.lightgbm.load_model(f"models:/{logged.outputs.model_outputs[0].model_id}")
    assert model.predict(frame).shape == (200,)
    mlflow.lightgbm.autolog(disable=True)


class Adds(mlflow.pyfunc.PythonModel):
    """A model of the user's own."""

    def predict(self, context, model_input, params=None):
        """Rows, summed."""
        return model_input.sum(axis=1)


def models() -> None:
    """Stored with signature and example, loaded again by run, by model, as a function; registered; released."""
    mlflow.set_experiment("models")
    fitted = LogisticRegression().fit(frame, y)
    booster = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=4, verbose=-1, n_jobs=1).fit(frame, y)
    signature = infer_signature(frame, fitted.predict(frame))
    with mlflow.start_run() as run:
        one = mlflow.sklearn.log_model(
            fitted, name="linear", signature=signature, input_example=frame[:2], registered_model_name="linear", **NEEDS
        )
        two = mlflow.lightgbm.log_model(booster, name="trees", signature=signature, **NEEDS)
        three = mlflow.pyfunc.log_model(name="adds", python_model=Adds(), **NEEDS)
    assert (mlflow.sklearn.load_model(one.model_uri).predict(frame) == fitted.predict(frame)).all()
    assert (mlflow.lightgbm.load_model(two.model_uri).predict(frame) == booster.predict(frame)).all()
    assert np.allclose(mlflow.pyfunc.load_model(three.model_uri).predict(frame), frame.sum(axis=1))
    assert (mlflow.pyfunc.load_model("models:/linear/1").predict(frame) == fitted.predict(frame)).all()
    assert mlflow.models.get_model_info("models:/linear/1").signature == signature
    assert client.get_model_version("linear", "1").run_id == run.info.run_id

    version = mlflow.register_model(two.model_uri, "trees", tags={"team": "a"})
    client.set_registered_model_alias("trees", "candidate", version.version)
    assert client.get_model_version_by_alias("trees", "candidate").version == version.version
    assert (mlflow.lightgbm.load_model("models:/trees@candidate").predict(frame) == booster.predict(frame)).all()
    assert (mlflow.pyfunc.load_model("models:/trees/latest").predict(frame) == booster.predict(frame)).all()
    found = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
    assert {model.name for model in found} == {"linear", "trees", "adds"}
    assert {model.status.name for model in found} == {"READY"}


sklearn_autolog()
lightgbm_autolog()
models()
