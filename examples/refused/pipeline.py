"""Coupon response from demographics: an honest model that is not good enough."""

from bedplate import pipeline
from bedplate.compute.task import Result, Task

DEMOGRAPHICS = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")


@pipeline.train(
    inputs={
        "campaigns": None,
        "coupon_redemptions": ("household_id", "campaign_id"),
        "demographics": ("household_id", *DEMOGRAPHICS),
    }
)
def train(task: Task) -> Result:
    """One row for each household that a campaign was sent to: did it redeem any of the campaign's coupons?"""
    import pyarrow as pa  # heavy: only the training process pays for it

    from bedplate.train import tabular

    redeemed = {(row["household_id"], row["campaign_id"]) for row in task.tables["coupon_redemptions"].to_pylist()}
    people = {row["household_id"]: row for row in task.tables["demographics"].to_pylist()}
    rows = [
        {name: people.get(sent["household_id"], {}).get(name) for name in DEMOGRAPHICS}
        | {"redeemed": "yes" if (sent["household_id"], sent["campaign_id"]) in redeemed else "no"}
        for sent in task.tables["campaigns"].to_pylist()
    ]
    table = pa.Table.from_pylist(rows)
    return tabular.train(
        Task(tables={"responses": table}, parameters=task.parameters, seed=task.seed, progress=task.progress)
    )
