"""Sixteen writers at once, each with a run of its own and all with one run in common: no error, and nothing is lost."""

import sys
from concurrent.futures import ThreadPoolExecutor

from mlflow.entities import Metric, Param

from mlflow import MlflowClient

WRITERS, ROUNDS = 16, int(sys.argv[1])


def write(number: int, experiment: str, common: str) -> str:
    """Everything a training script writes, many times."""
    client = MlflowClient()
    run: str = client.create_run(experiment, run_name=f"writer {number}").info.run_id
    for step in range(ROUNDS):
        client.log_metric(run, "loss", 1 / (step + 1), step=step)
        client.log_metric(common, f"loss {number}", step, step=step)
        client.log_batch(
            run, metrics=[Metric("many", i, 1000, step * 10 + i) for i in range(10)], params=[Param(f"p{step}", "x")]
        )
        client.set_tag(run, "step", str(step))
    client.log_text(run, f"writer {number}", "note.txt")
    client.set_terminated(run)
    return run


def main() -> None:
    """Write, then count."""
    client = MlflowClient()
    experiment = client.create_experiment("many")
    common = client.create_run(experiment, run_name="common").info.run_id
    with ThreadPoolExecutor(WRITERS) as pool:
        runs = list(pool.map(lambda number: write(number, experiment, common), range(WRITERS)))
    for number, run in enumerate(runs):
        assert len(client.get_metric_history(run, "loss")) == ROUNDS
        assert len(client.get_metric_history(run, "many")) == ROUNDS * 10
        assert len(client.get_metric_history(common, f"loss {number}")) == ROUNDS
        kept = client.get_run(run)
        assert (kept.info.status, kept.data.tags["step"], len(kept.data.params)) == (
            "FINISHED",
            str(ROUNDS - 1),
            ROUNDS,
        )
    assert len(client.search_runs([experiment])) == WRITERS + 1


main()
