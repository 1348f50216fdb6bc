"""Every address that ``mlflow server`` answers, with its methods, as one JSON document.

usage: endpoints.py FILE
"""

import json
import sys
from pathlib import Path

from mlflow.server import app

rules = {(str(rule.rule), method) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}
Path(sys.argv[1]).write_text(json.dumps(sorted(rules)))
