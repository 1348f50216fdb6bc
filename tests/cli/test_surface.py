"""The command line as users know it: a change here is a change of a promise, so it must be made twice."""

import os
import subprocess
import sys

import pytest

from bedplate.cli.root import execute
from bedplate.cli.surface import commands

SURFACE = """
access diff PATH --home --json
access explain WHO TABLE --home --json --purpose
approve USE_CASE --environment --home --json --reason
audit verify --checkpoint --home --json
backup DESTINATION --home --json --region
check PATH --home --json
completion SHELL
contract diff PATH --home --json
contract infer FILE --home --name --out
contract sla PATH --home --json
contract test PATH --home --json
erasure expire USE_CASE --home --json
erasure hold USE_CASE --home --json --reason
erasure lift USE_CASE --home --json --reason
erasure subject USE_CASE SUBJECT --home --json --reason
export kuberay USE_CASE --home --image --json --namespace --option --out
export kubernetes ENDPOINT --as --gateway --home --host --image --json --namespace --out
export ray USE_CASE --home --json --option --out
export skypilot USE_CASE --home --json --option --out
export terraform USE_CASE --home --json --option --out
features get USE_CASE VIEW KEY... --home --json --purpose
features list --home --json
features materialize USE_CASE [VIEW]... --as-of --from --home --json --to
features show USE_CASE VIEW --home --json
features skew USE_CASE --home --json --limit --sample --since
gc --dry-run --home --json --older-than
init FOLDER --home --json --name
key create NAME --expires --home --json --label
key list NAME --home --json
key revoke ID --home --json
load ENDPOINT --body --connections --duration --home --json --out --rate
login --home --json
models alias NAME ALIAS VERSION --delete --expected --home --json --workspace
models approvers NAME RULE --environment --home --json --workspace
models convert NAME VERSION --home --json --workspace
models history NAME --before --home --json --version --workspace
models list --after --home --json --workspace
models live NAME --alias --at --environment --home --json --stage --workspace
models show NAME --home --json --workspace
plan PATH --all --ask --budget --home --json --page --what-if
policy add FILE --home --json --replace
policy check FILE --home --json
policy list --home --json
policy remove ID --home --json
policy test --action --environment --gates-passed --home --json --principal --purpose --resource
prices import FILE --date --from --home --json --provider
probe --home --json --model --shape
profile TARGET --duration --home --json --out --rate --rows --shape
quota list ENDPOINT --home --json
quota remove ENDPOINT NAME --group --home --json
quota set ENDPOINT NAME --burst --day --group --home --json --month --rate
refuse USE_CASE --environment --home --json --reason
restore SOURCE HOME --json
rollout freeze ENDPOINT --home --json
rollout resume ENDPOINT --home --json
rollout roll-back ENDPOINT --home --json --reason
rollout start ENDPOINT --home --json
rollout status ENDPOINT --home --json
run PATH --home --json --only
schema
score ENDPOINT TABLE --column --home --json --keep --purpose --to
status --home --json
stop --home --json
table backfill PATH DATASET --from --home --json --to
table compact NAME --home --json
table history NAME --home --json --limit
table list --home --json
table read NAME --as-of --column --home --json --limit --purpose --version
table replay PATH DATASET --home --json
table restore NAME VERSION --home --json
table scrub NAME --home --json
table show NAME --home --json
trace PREDICTION_ID --home --json --purpose
up --detach --home --json
user add NAME --group --home --json --service
user disable NAME --home --json
user groups NAME GROUP --home --json
user list --home --json
version --json
waive USE_CASE GATE --home --json --reason
workspace create NAME --description --home --json --reader --shared --writer
workspace delete NAME --home --json
workspace list --home --json
workspace update NAME --description --home --json --no-readers --no-writers --reader --shared --writer
""".strip().splitlines()


def test_the_surface_is_what_we_promised():
    found = sorted(
        " ".join([command.name, *command.arguments, *sorted(option.name for option in command.options)])
        for command in commands()
    )

    assert found == SURFACE


def test_every_command_and_option_has_help():
    for command in commands():
        assert command.help, command.name
        assert all(option.help for option in command.options), command.name


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("trace", "argument 'PREDICTION_ID'"),
        ("user add", "argument 'NAME'"),
        ("models alias churn", "argument 'ALIAS'"),
        ("waive retail", "argument 'GATE'"),
        ("quota set retail", "argument 'NAME'"),
        ("models live", "argument 'NAME'"),
    ],
)
def test_what_is_missing_on_the_command_line_is_named(capsys, given, missing):
    assert execute(given.split()) == 2

    assert f"Missing {missing}" in capsys.readouterr().err


def test_help_loads_next_to_nothing():
    """It answers at once because of what it does without: how long it takes depends on the machine too."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom bedplate.cli.root import execute\nexecute(['--help'])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr.split()

    ours = {name for name in loaded if name.startswith("bedplate.")} - {"bedplate.errors", "bedplate.words"}
    assert {name for name in ours if not name.startswith("bedplate.cli")} == set()
    theirs = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"bedplate"}
    assert theirs <= {"typer", "annotated_doc", "shellingham"}
    assert not {"asyncio", "email", "http", "json", "logging", "ssl", "sqlite3", "unittest"} & set(loaded)


def test_a_reader_that_leaves_is_no_fault():
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "bedplate", "completion", "bash"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)

    assert (result.returncode, result.stderr) == (1, b"")
