"""Features and training of the retail use case. Every function here can be called and tested by itself."""

from bedplate import pipeline
from bedplate.compute.task import Result, Task

TRANSACTIONS = {"transactions": "transaction_timestamp"}
# A promotion is known from the first day of its week on; week 2 of the data began on Monday 2017-01-02.
PROMOTIONS = {"promotions": {"column": "week", "first": "2016-12-26", "days": 7}}


@pipeline.feature_view(entity="household_id", inputs=("transactions",), time=TRANSACTIONS)
def household_recent() -> str:
    """How lately, how often and how much a household buys, and how much of it at a discount."""
    return """
    with lines as (
        select *, date_diff('minute', transaction_timestamp, $as_of) / 1440.0 as age from transactions
    ), baskets as (
        select household_id, basket_id, min(age) as age from lines group by all
    ), visits as (
        select household_id,
            count(*) as baskets,
            min(age) as days_since_visit,
            max(age) as tenure_days,
            count(*) filter (age < 28) as baskets_28d,
            sum(pow(2, -age / 14)) as baskets_decayed_14,
            sum(pow(2, -age / 45)) as baskets_decayed_45,
            sum(pow(2, -age / 150)) as baskets_decayed_150
        from baskets group by household_id
    )
    select v.*,
        count(*) filter (l.age < 28) as lines_28d,
        count(distinct l.product_id) as products,
        sum(l.sales_value) as spend,
        sum(l.sales_value) filter (l.age < 28) as spend_28d,
        sum(l.retail_disc) / nullif(sum(l.sales_value + l.retail_disc), 0) as discount_share,
        (sum(l.coupon_disc) + sum(l.coupon_match_disc)) / nullif(sum(l.sales_value), 0) as coupon_share
    from visits v join lines l using (household_id)
    group by all
    """


@pipeline.feature_view(
    entity="product_id", inputs=("transactions", "products"), time={**TRANSACTIONS, "products": None}
)
def product_popularity() -> str:
    """How many baskets a product is in, of late and over the year, how often it is bought again, and what it is."""
    return """
    with bought as (
        select household_id, product_id, basket_id,
            date_diff('minute', min(transaction_timestamp), $as_of) / 1440.0 as age,
            sum(sales_value) as value, sum(greatest(quantity, 1)) as quantity
        from transactions group by all
    ), paired as (
        select household_id, product_id, count(*) as times, (max(age) - min(age)) / nullif(count(*) - 1, 0) as gap
        from bought group by all
    ), again as (
        select product_id, avg((times > 1)::int) as repeat_rate, avg(times) as times_each, avg(gap) as typical_gap
        from paired group by product_id
    )
    select b.product_id,
        ('0x' || left(md5(coalesce(any_value(p.product_type), '')), 6))::integer as type,
        ('0x' || left(md5(coalesce(any_value(p.product_category), '')), 6))::integer as category,
        count(*) filter (age < 7) as sold_7d,
        count(*) filter (age < 28) as sold_28d,
        count(*) as sold,
        sum(pow(2, -age / 14)) as sold_decayed_14,
        sum(pow(2, -age / 45)) as sold_decayed_45,
        count(distinct household_id) as buyers,
        any_value(a.repeat_rate) as repeat_rate,
        any_value(a.times_each) as times_each,
        any_value(a.typical_gap) as typical_gap,
        sum(value) / sum(b.quantity) as usual_price,
        (sum(value) filter (age < 14) / sum(b.quantity) filter (age < 14)) / nullif(sum(value) / sum(b.quantity), 0)
            as price_level
    from bought b join again a using (product_id) left join products p using (product_id)
    group by b.product_id
    """


@pipeline.feature_view(entity="product_id", inputs=("promotions",), time=PROMOTIONS)
def product_promotion() -> str:
    """In how many stores a product is on display or in the mailer in the newest week known, and usually."""
    return """
    with newest as (select max(week) as week from promotions),
    weekly as (
        select product_id, week,
            count(*) filter (display_location <> '0') as display, count(*) filter (mailer_location <> '0') as mailer
        from promotions group by all
    )
    select product_id,
        coalesce(sum(display) filter (w.week = n.week), 0) as display_now,
        coalesce(sum(mailer) filter (w.week = n.week), 0) as mailer_now,
        sum(display) / any_value(n.week) as display_usual,
        sum(mailer) / any_value(n.week) as mailer_usual
    from weekly w cross join newest n
    group by product_id
    """


@pipeline.feature_view(entity=("household_id", "product_id"), inputs=("transactions",), time=TRANSACTIONS)
def household_product() -> str:
    """What a household bought before: how often, when last, at which rhythm; the 200 products that weigh most."""
    return """
    with bought as (
        select household_id, product_id, basket_id,
            date_diff('minute', min(transaction_timestamp), $as_of) / 1440.0 as age,
            sum(quantity) as quantity, sum(sales_value) as value, sum(retail_disc) as discount
        from transactions group by all
    ), spaced as (
        select *, lag(age) over (partition by household_id, product_id order by age desc) - age as gap from bought
    )
    select household_id, product_id,
        count(*) as times,
        min(age) as days_since_last,
        max(age) as days_since_first,
        sum(pow(2, -age / 14)) as decayed_14,
        sum(pow(2, -age / 45)) as decayed_45,
        sum(pow(2, -age / 150)) as decayed_150,
        avg(gap) as gap_mean,
        stddev_pop(gap) as gap_spread,
        count(*) filter (age < 28) as times_28d,
        count(*) filter (age >= 28 and age < 56) as times_56d,
        avg(quantity) as quantity,
        sum(value) / sum(greatest(quantity, 1)) as price_paid,
        sum(discount) / nullif(sum(value + discount), 0) as discount_paid
    from spaced
    group by household_id, product_id
    qualify row_number() over (partition by household_id order by decayed_150 desc, product_id) <= 200
    """


# Chosen on the four weeks before the test weeks (`recommender.validate`), never on the test weeks.
RECIPE = {
    "people": "demographics",
    "people_slices": ["age", "income"],
    "views": {
        "household": "household_recent",
        "pairs": "household_product",
        "products": ["product_popularity", "product_promotion"],
    },
    "weight": "decayed_45",
    "count": "times",
    "last": "days_since_last",
    "groups": ["type", "category"],
    "derived": [
        {"name": "due", "left": "days_since_last", "right": "gap_mean"},
        {"name": "overdue_days", "left": "days_since_last", "right": "gap_mean", "by": "difference"},
        {"name": "due_typical", "left": "days_since_last", "right": "typical_gap"},
        {"name": "share_of_baskets", "left": "times", "right": "baskets"},
        {"name": "share_of_baskets_14", "left": "decayed_14", "right": "baskets_decayed_14"},
        {"name": "share_of_baskets_45", "left": "decayed_45", "right": "baskets_decayed_45"},
        {"name": "share_of_baskets_150", "left": "decayed_150", "right": "baskets_decayed_150"},
        {"name": "share_of_type", "left": "decayed_45", "right": "type_weight"},
        {"name": "sales_trend", "left": "sold_7d", "right": "sold_28d"},
        {"name": "display_lift", "left": "display_now", "right": "display_usual"},
        {"name": "mailer_lift", "left": "mailer_now", "right": "mailer_usual"},
    ],
    "ranker": {
        "rounds": 200,
        "negatives": 0.25,
        "lightgbm": {"num_leaves": 63, "learning_rate": 0.08, "min_data_in_leaf": 100, "feature_fraction": 0.6},
    },
}


@pipeline.train(
    inputs={
        "transactions": ("household_id", "product_id", "basket_id", "transaction_timestamp"),
        "demographics": ("household_id", "age", "income"),
    }
)
def train(task: Task) -> Result:
    """The two-stage recommender of the recipe."""
    from bedplate.train import recommender  # heavy: only the training process pays for it

    return recommender.train(
        Task(tables=task.tables, parameters=RECIPE | task.parameters, seed=task.seed, progress=task.progress)
    )
