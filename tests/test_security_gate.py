"""No code that runs data, in the whole package; and proof that the gate sees what it should."""

from pathlib import Path

import pytest

from tests.security_gate import findings

SOURCE = Path(__file__).parents[1] / "src" / "bedplate"
ALLOWED: dict[str, str] = {
    "__init__.py: reads the environment; only settings.py does": "writes it, before a library is loaded that reads it",
    "serve/inside.py: reads the environment; only settings.py does": "the process of user code has no settings",
}
"""Findings that are right as they are, by ``file: what``, each with its reason."""


def test_the_package_holds_nothing_forbidden():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        for finding in findings(path.read_text(), file):
            what = finding.split(": ", 1)[1]
            if f"{file}: {what}" not in ALLOWED:
                found.append(finding)

    assert found == []


PLANTED = [
    "import pickle",
    "from pickle import loads",
    "import joblib as harmless",
    "def f():\n    import cloudpickle.cloudpickle",
    "from marshal import loads as parse",
    "import shelve",
    "import yaml\nyaml.load(text)",
    "from yaml import load\nload(text)",
    "import yaml as y\ny.unsafe_load(text)",
    "import yaml\nyaml.load_all(text, Loader=yaml.FullLoader)",
    "eval(text)",
    "exec(text)",
    "compile(text, 'x', 'exec')",
    "__import__(name)",
    "import os\nos.system('ls')",
    "from os import popen\npopen('ls')",
    "import subprocess\nsubprocess.run('ls', shell=True)",
    "from subprocess import run as go\ngo(c, shell=flag)",
    "import numpy as np\nnp.load(path, allow_pickle=True)",
    "db.execute(f'select * from {table}')",
    "db.execute('select * from ' + table)",
    "db.execute('select %s' % name)",
    "db.sql('select {}'.format(name))",
    "text('select ' + 'a' + name)",
    "db.execute(' '.join(parts))",
    "archive.extractall(folder)",
    "import shutil\nshutil.unpack_archive(a, b)",
    "import tempfile\ntempfile.mktemp()",
    "import os\nos.environ['A']",
    "from os import environ\nenviron.get('A')",
    "import os as o\no.getenv('A')",
    "print('x')",
]


@pytest.mark.parametrize("source", PLANTED)
def test_the_gate_can_fail(source):
    assert list(findings(source))


CLEAN = [
    "import json\njson.loads(text)",
    "import yaml\nyaml.safe_load(text)",
    "import re\nre.compile(text)",
    "import subprocess\nsubprocess.run(['ls'])",
    "import subprocess\nsubprocess.run(['ls'], shell=False)",
    "db.execute('select * from t where a = ?', [a])",
    "db.execute('select *' ' from t')",
    "db.execute(QUERY, a=1)",
    "spec.loader.exec_module(module)",
]


@pytest.mark.parametrize("source", CLEAN)
def test_the_gate_leaves_ordinary_code_alone(source):
    assert list(findings(source)) == []


def test_only_the_converter_may_unpickle():
    assert not list(findings("import joblib", "train/conversion.py"))
    assert list(findings("import joblib", "train/run.py"))


def test_settings_may_read_the_environment_and_cli_may_print():
    assert not list(findings("import os\nos.environ", "settings.py"))
    assert not list(findings("print(1)", "cli/output.py"))
