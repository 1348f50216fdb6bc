"""JSON for everything that DBOS keeps: by default it would pickle."""

import json
from typing import Any

from bedplate import errors, ids
from bedplate.errors import BedplateError, UserCodeError

_ERROR = "$error"


class JsonSerializer:
    """The serialiser that DBOS is given. Exceptions become data, and errors of ours again when read."""

    def name(self) -> str:
        """The name that DBOS writes beside each value."""
        return "bedplate_json"

    def serialize(self, data: Any) -> str:
        """The JSON text of a value."""
        if isinstance(data, BedplateError):
            fields = {"message": data.message, "where": data.where, "fix": data.fix}
            return json.dumps({_ERROR: type(data).__name__, **fields})
        if isinstance(data, BaseException):
            return json.dumps({_ERROR: type(data).__name__, "message": str(data), "where": None, "fix": None})
        return ids.canonical(data).decode()

    def deserialize(self, serialized_data: str) -> Any:
        """The value of a JSON text."""
        value = json.loads(serialized_data)
        if not (isinstance(value, dict) and _ERROR in value):
            return value
        kind = getattr(errors, value[_ERROR], None)
        if isinstance(kind, type) and issubclass(kind, BedplateError):
            return kind(value["message"], where=value["where"], fix=value["fix"])
        return UserCodeError(f"{value[_ERROR]}: {value['message']}")
