"""What Delta's log says of the version of a table that is open: its columns, its data files, its digest."""

import hashlib

import pyarrow as pa
from deltalake import DeltaTable

from bedplate.data.arrow import table_schema
from bedplate.data.parquet import DataFile
from bedplate.errors import IntegrityError
from bedplate.ids import Digest, digest_of


def application(key: str) -> str:
    """The application id under which Delta's log remembers that a write with ``key`` happened."""
    return f"bedplate/{hashlib.sha256(key.encode()).hexdigest()}"


def digest_in(path: str) -> str:
    """The SHA-256 that stands in the name of a data file."""
    return path.removesuffix(".parquet").rpartition("-")[2]


def arrow_schema(delta: DeltaTable) -> pa.Schema:
    """The columns of the version that is open."""
    return table_schema(pa.schema(delta.schema().to_arrow()))


def files_of(delta: DeltaTable) -> list[DataFile]:
    """The data files of the version that is open, in the order they were written.

    Raises:
        IntegrityError: somebody else wrote one.
    """
    actions = pa.table(delta.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"]).to_pylist()
    files = [
        DataFile(row["path"], digest_in(row["path"]), row["size_bytes"], row["num_records"] or 0) for row in actions
    ]
    for file in files:
        if len(file.sha256) != 64:
            raise IntegrityError(
                f"file {file.path} was not written by Bedplate", where=delta.table_uri, fix="ingest the rows instead"
            )
    return sorted(files, key=lambda file: file.path)


def version_digest(schema: pa.Schema, files: list[DataFile]) -> Digest:
    """The digest of a version: of its columns and of what its files hold, not of where they lie."""
    columns = [[field.name, str(field.type)] for field in schema]
    return digest_of({"columns": columns, "files": sorted([file.sha256, file.rows] for file in files)})
