"""Searching the registry, and that prompts, which ride on it, stay out of it."""

from tests.mlflow.corpus.registry import MODEL, VERSION, make, version
from tests.mlflow.steps import differs, get, post

_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
_MINE = "name LIKE 'find %'"

_FILTERS = (
    "name = 'find alpha'",
    "name != 'find alpha' and name LIKE 'find %'",
    "name LIKE 'find b%'",
    "name ILIKE 'FIND B%'",
    "name LIKE 'find %' AND tags.group = 'odd'",
    "tags.group = 'odd' and name LIKE 'find %'",
    "tags.group != 'odd' and name LIKE 'find %'",
    "tags.group LIKE 'o%' and name LIKE 'find %'",
    "tags.group ILIKE 'O%' and name LIKE 'find %'",
    "tag.group = 'even' and name LIKE 'find %'",
    "tags.`group` = 'even' and name LIKE 'find %'",
    "tags.never = 'x'",
    "name = 'nobody'",
    "name = ''",
    "tags.`mlflow.prompt.is_prompt` = 'true' and name LIKE 'find %'",
    "tags.`mlflow.prompt.is_prompt` = 'false' and name LIKE 'find %'",
    "tags.`mlflow.prompt.is_prompt` != 'true' and name LIKE 'find %'",
)
_BAD_FILTERS = (
    "name",
    "name > 'a'",
    "name = 5",
    "name = a",
    "name IN ('a', 'b')",
    "unknown = 'x'",
    "description = 'x'",
    "creation_timestamp > 5",
    "params.a = 'x'",
    "metrics.a > 5",
    "name = 'a' or name = 'b'",
    "name = 'a'; drop table x",
    "tags.a > 'x'",
)
_ORDERS = (["name"], ["name DESC"], ["name ASC"], ["timestamp", "name"], ["last_updated_timestamp DESC", "name"], ["name asc", "timestamp desc"])
_BAD_ORDERS = (["nothing"], ["name sideways"], ["creation_timestamp"], ["version_number"], ["name; drop table x"], ["name name"])

MODELS = (
    *(make(f"find {name}", tags=[{"key": "group", "value": ("even", "odd")[i % 2]}]) for i, name in enumerate(("alpha", "Beta", "beta 2", "gamma_x", "delta"))),
    make("find prompt", tags=[_PROMPT]),
    make("find not prompt", tags=[{"key": "mlflow.prompt.is_prompt", "value": "false"}]),
    get(MODEL + "get", {"name": "find prompt"}),
    *(get(MODEL + "search", {"filter": text, "max_results": 50}) for text in (*_FILTERS, *_BAD_FILTERS)),
    *(get(MODEL + "search", {"filter": _MINE, "order_by": order}) for order in (*_ORDERS, *_BAD_ORDERS)),
    get(MODEL + "search", {"filter": _MINE, "max_results": 2}, keep={"page": "next_page_token"}),
    get(MODEL + "search", {"filter": _MINE, "max_results": 2, "page_token": "$page"}, keep={"page": "next_page_token"}),
    get(MODEL + "search", {"filter": _MINE, "max_results": 2, "page_token": "$page"}),
    get(MODEL + "search", {"filter": _MINE, "page_token": "not a token"}),
    *(get(MODEL + "search", {"filter": _MINE, "max_results": count}) for count in ("1000", "1001", "x")),
    *(differs(get(MODEL + "search", {"filter": _MINE, "max_results": count}), "strict-types") for count in ("0", "-1")),
    differs(get(MODEL + "search", {"filter": "name = 'a' and"}), "strict-filters"),
    post(MODEL + "search", {"filter": _MINE}),
)

_VERSION_FILTERS = (
    "name = 'hold a'",
    "name LIKE 'hold %'",
    "name ILIKE 'HOLD %'",
    "name != 'hold a' and name LIKE 'hold %'",
    "name = 'hold a' and version_number = 1",
    "name = 'hold a' and version_number > 1",
    "name = 'hold a' and version_number >= 1",
    "name = 'hold a' and version_number < 2",
    "name = 'hold a' and version_number <= 1",
    "name = 'hold a' and version_number != 1",
    "run_id = '$r'",
    "run_id IN ('$r')",
    "run_id IN ('$r', 'x')",
    "run_id = 'nobody'",
    "source_path = 'mlflow-artifacts:/$e/$r/artifacts/model'",
    "source_path LIKE 'mlflow-artifacts:/$e/%'",
    "tags.colour = 'red' and name LIKE 'hold %'",
    "tags.colour != 'red' and name LIKE 'hold %'",
    "tags.colour LIKE 'r%' and name LIKE 'hold %'",
    "tags.colour ILIKE 'R%' and name LIKE 'hold %'",
    "tags.`mlflow.prompt.is_prompt` = 'true'",
    "name = 'nobody'",
)
_VERSION_BAD_FILTERS = (
    "version_number = 'x'",
    "version_number LIKE '1'",
    "version = '1'",
    "name > 'x'",
    "name = 5",
    "name IN ('x')",
    "run_id != 'x' and name LIKE 'hold %'",
    "run_id LIKE 'x'",
    "run_id IN ()",
    "run_id IN (5)",
    "source_path > 'x'",
    "stage = 'Staging'",
    "unknown = 'x'",
    "name = 'a' or name = 'b'",
    "metrics.a > 5",
)
_VERSION_ORDERS = (
    ["name", "version_number"],
    ["name DESC", "version_number DESC"],
    ["version_number DESC", "name"],
    ["version_number ASC", "name DESC"],
    ["creation_timestamp", "name", "version_number"],
    ["last_updated_timestamp DESC"],
)
_HOLD = "name LIKE 'hold %'"

VERSIONS = (
    post("experiments/create", {"name": "registry search"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "source"}, keep={"r": "run.info.run_id"}),
    make("hold a"),
    make("hold b"),
    make("hold prompt", tags=[_PROMPT]),
    version("hold a", tags=[{"key": "colour", "value": "red"}]),
    version("hold b", tags=[{"key": "colour", "value": "Red"}]),
    version("hold a", tags=[{"key": "colour", "value": "blue"}]),
    version("hold b"),
    post(VERSION + "create", {"name": "hold prompt", "source": "prompt", "tags": [_PROMPT, {"key": "mlflow.prompt.text", "value": "Say {{x}}"}]}),
    *(get(VERSION + "search", {"filter": text, "order_by": ["name", "version_number"]}) for text in (*_VERSION_FILTERS, *_VERSION_BAD_FILTERS)),
    *(get(VERSION + "search", {"filter": _HOLD, "order_by": order}) for order in _VERSION_ORDERS),
    *(get(VERSION + "search", {"filter": _HOLD, "order_by": order}) for order in (["nothing"], ["version"], ["name sideways"], ["run_id"])),
    get(VERSION + "search", {"filter": _HOLD, "max_results": 3, "order_by": ["name", "version_number"]}, keep={"page": "next_page_token"}),
    get(VERSION + "search", {"filter": _HOLD, "max_results": 3, "order_by": ["name", "version_number"], "page_token": "$page"}),
    get(VERSION + "search", {"filter": _HOLD, "page_token": "not a token"}),
    *(get(VERSION + "search", {"filter": _HOLD, "max_results": count, "order_by": ["name", "version_number"]}) for count in ("200000", "200001", "0", "-1", "x")),
    post(VERSION + "search", {"filter": _HOLD}),
)

CONVERSATIONS = {"registered model search": MODELS, "model version search": VERSIONS}
