"""PyTorch and Lightning as their users log them: autologging, the logger of Lightning, models stored and loaded."""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlflow
from mlflow import MlflowClient

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.manual_seed(1)
torch.set_num_threads(1)
client = MlflowClient()
X = torch.randn(64, 4)
y = X.sum(dim=1, keepdim=True)
NEEDS = {"pip_requirements": ["torch"]}  # said, because finding out takes seconds for each model


class Line(lightning.LightningModule):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 1})
        self.layer = nn.Linear(4, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Predictions."""
        return self.layer(rows)

    def training_step(self, batch: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
        """The loss of a batch, logged."""
        rows, target = batch
        loss = nn.functional.mse_loss(self(rows), target)
        self.log("train_loss", loss, on_epoch=True, on_step=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(logger: object) -> None:
    """Three rounds."""
    data = DataLoader(TensorDataset(X, y), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        accelerator="cpu",
    )
    trainer.fit(Line(), data)


def plain() -> None:
    """A loop by hand; the model by log_model, loaded three ways, registered."""
    mlflow.set_experiment("torch")
    model = nn.Linear(4, 1)
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    with mlflow.start_run() as run:
        mlflow.log_params({"lr": 0.1})
        for step in range(20):
            descent.zero_grad()
            loss = nn.functional.mse_loss(model(X), y)
            loss.backward()
            descent.step()
            mlflow.log_metric("loss", loss.item(), step=step)
        traced = mlflow.pytorch.log_model(model, name="traced", input_example=X.numpy(), **NEEDS)
        info = mlflow.pytorch.log_model(
            model, name="line", serialization_format="pickle", registered_model_name="line", **NEEDS
        )
        mlflow.pytorch.log_state_dict(model.state_dict(), "state")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert len(history) == 20
    assert history[-1].value < history[0].value
    assert torch.allclose(mlflow.pytorch.load_model(traced.model_uri)(X), model(X))
    assert torch.equal(mlflow.pytorch.load_model(info.model_uri)(X), model(X))
    assert torch.equal(mlflow.pytorch.load_model("models:/line/1")(X), model(X))
    assert mlflow.pyfunc.load_model(info.model_uri).predict(X.numpy()).shape == (64, 1)
    state = mlflow.pytorch.load_state_dict(f"runs:/{run.info.run_id}/state")
    assert set(state) == {"weight", "bias"}


def lightning_autolog() -> None:
    """Autologging of Lightning's trainer: params, metrics, a summary, the model."""
    mlflow.set_experiment("lightning autolog")
    mlflow.pytorch.autolog(silent=True)
    with mlflow.start_run() as run:
        fit(False)
    mlflow.pytorch.autolog(disable=True)
    logged = client.get_run(run.info.run_id)
    assert logged.data.params["optimizer_name"] == "SGD"
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 3
    assert {"model_summary.txt"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged.outputs.model_outputs
    model = mlflow.pytorch.load_model(f"models:/{logged.outputs.model_outputs[0].model_id}")
    assert model(X).shape == (64, 1)


def lightning_logger() -> None:
    """Lightning's own logger, with checkpoints as artifacts."""
    logger = MLFlowLogger("lightning logger", tracking_uri=mlflow.get_tracking_uri(), log_model=True)
    fit(logger)
    run = client.get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["width"] == "1"
    assert len(client.get_metric_history(logger.run_id, "train_loss_step")) == 12
    assert client.list_artifacts(logger.run_id)


plain()
lightning_autolog()
lightning_logger()
