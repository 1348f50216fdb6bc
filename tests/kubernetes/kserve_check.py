"""Holds InferenceServices (a JSON list on standard input) against KServe's own classes; prints what does not fit.

Run with an interpreter that has the ``kserve`` package; it knows nothing of ours.
"""

import json
import re
import sys
from typing import Any

import kserve

from kubernetes import client

_PLAIN = {
    "str": str,
    "int": int,
    "bool": bool,
    "object": object,
    "float": (int, float),
    "dict(str, str)": dict,
    "Dict[str, str]": dict,
}


def problems(value: Any, kind: str, where: str) -> list[str]:
    """What of ``value`` is not as the class ``kind`` says."""
    if kind in _PLAIN:
        good = isinstance(value, _PLAIN[kind]) and not (kind == "int" and isinstance(value, bool))
        return [] if good else [f"{where}: {value!r} is no {kind}"]
    if match := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [found for i, item in enumerate(value) for found in problems(item, match[1], f"{where}[{i}]")]
    if match := re.fullmatch(r"[Dd]ict[(\[]str, (.*)[)\]]", kind):
        if not isinstance(value, dict):
            return [f"{where}: not an object"]
        return [found for key, item in value.items() for found in problems(item, match[1], f"{where}.{key}")]
    described = getattr(kserve, kind, None) or getattr(client, kind, None)
    if described is None:
        return [f"{where}: {kind} is not known here"]
    if not isinstance(value, dict):
        return [] if kind in ("V1IntOrString", "IntstrIntOrString") else [f"{where}: not an object"]
    names = {name: attribute for attribute, name in described.attribute_map.items()}
    found = []
    for key, item in value.items():
        if key not in names:
            found.append(f"{where}.{key}: {kind} has no such field")
        else:
            found += problems(item, described.openapi_types[names[key]], f"{where}.{key}")
    return found


if __name__ == "__main__":
    told = [problems(made, "V1beta1InferenceService", "service") for made in json.load(sys.stdin)]
    json.dump(told, sys.stdout)
