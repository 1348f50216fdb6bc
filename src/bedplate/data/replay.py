"""Rows that were set aside, brought in after the contract was corrected: each once, the others stay where they are."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import contracts, duck
from bedplate.data.check import Check
from bedplate.data.incremental import Standing, padded
from bedplate.data.ingest import related_in, table_name
from bedplate.data.parsing.values import BadLine, Chunk
from bedplate.data.sources.databases import Window
from bedplate.data.tables import Tables
from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.records import TableVersion
from bedplate.usecase.types import DataSet


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay brought in: rows ``read`` from the quarantine, ``accepted`` ones, and those ``left`` there.

    ``known`` rows stood in the table already, as after a replay that was interrupted.
    """

    dataset: str
    table: TableVersion
    quarantine: TableVersion
    contract_digest: Digest
    read: int
    accepted: int
    known: int
    left: int


def replay(
    tables: Tables, *, use_case: str, dataset: str, spec: DataSet, folder: Path, sensitive: Sequence[str] = ()
) -> Replayed:
    """Hold the rows of a quarantine against the contract as it is now; what keeps it becomes part of the table.

    The table is written first, then the quarantine: killed between the two, the same call again finds the rows in the
    table by their key, and takes them out of the quarantine alone.

    Raises:
        ContractError: the contract is wrong, or does not fit the table.
        ConflictError: somebody wrote meanwhile.
        InputError: the data set is read whole each time.
        NotFoundError: nothing was set aside.
    """
    if spec.incremental is None:
        raise InputError(
            f"{dataset} is read whole each time: its rows come in by a run, under the contract as it is then",
            where=f"data.{dataset}", fix="bedplate run",
        )  # fmt: skip
    contract = contracts.load(folder / spec.contract)
    name = table_name(use_case, dataset)
    aside = tables.current(f"{name}.quarantine")
    model = contract.model(dataset)
    standing = Standing(tables, name, model, spec.incremental, contract.path, Window())
    rows = Quarantined(tables, aside, {rule.id for rule in model.keys})
    with ExitStack() as stack:
        check = Check(
            contract, dataset, rows, None, None,  # type: ignore[arg-type]
            sql=stack.enter_context(duck.engine()), sensitive=sensitive, standing=standing,
            related=related_in(tables, use_case, contract.path),
        )  # fmt: skip
        stack.callback(check.close)
        with tables.stage(name, standing.with_held(check.accepted_batches(), check.schema), check.schema) as staged:
            table = standing.commit(staged, check.accepted)
        made = aside
        if check.accepted or standing.known:
            with tables.stage(aside.name, _left(check, rows)) as staged:
                made = staged.commit(mode="overwrite", after=aside, what="replay")
    return Replayed(
        dataset=dataset,
        table=table,
        quarantine=made,
        contract_digest=contract.digest,
        read=aside.rows,
        accepted=check.accepted,
        known=standing.known,
        left=made.rows,
    )


def _left(check: Check, rows: "Quarantined") -> pa.RecordBatchReader:
    """What stays in the quarantine: the rows that no replay can bring in, and those that break the contract again."""
    again = check.set_aside()
    schema = pa.unify_schemas([rows.schema, again.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch, stays in rows.batches():
            yield from padded([batch.filter(stays)], schema)
        yield from padded(again, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


class Quarantined:
    """The rows of a quarantine as a source, some at a time. Those whose key another row holds stay there."""

    kind, typed, open_ended = "quarantine", False, True
    unconfined = ""

    def __init__(self, tables: Tables, version: TableVersion, keys: set[str]) -> None:
        self.label, self.schema = version.name, tables.schema(version)
        self._tables, self._version, self._keys = tables, version, keys

    def batches(self) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """All rows, and which of them stay."""
        for batch in self._tables.scan(self._version):
            rules: list[list[str] | None] = batch.column("_rules").to_pylist()
            yield batch, pa.array([bool(self._keys.intersection(found or ())) for found in rules], pa.bool_())

    def columns(self, wanted: Sequence[str]) -> pa.Schema:
        """Text, whatever is asked for: a column that the rows lack is null in them."""
        return pa.schema([pa.field(name, pa.string()) for name in wanted])

    def total(self) -> int:
        """How many rows there are that may come in."""
        return sum(len(stays) - pc.sum(stays).as_py() for _, stays in self.batches() if len(stays))

    def digest(self) -> Digest:
        """That of the version."""
        return self._version.digest

    def read(self, names: Sequence[str], known: Sequence[str] | None = None) -> Iterator[Chunk | BadLine]:
        """The rows, each with the file and number that it had in its source."""
        for batch, stays in self.batches():
            yield from _chunks(batch.filter(pc.invert(stays)), names)


def _chunks(rows: pa.RecordBatch, names: Sequence[str]) -> Iterator[Chunk | BadLine]:
    start = 0
    files: list[Any] = rows.column("_source_file").to_pylist()
    lines: list[Any] = rows.column("_text").to_pylist()
    while start < len(files):
        if lines[start] is not None:
            told = rows.slice(start, 1).to_pylist()[0]
            reason = str(told["_reasons"]).removeprefix("the row ")
            yield BadLine(files[start] or "", told["_source_row"], lines[start], reason)
            start += 1
            continue
        end = start + 1
        while end < len(files) and files[end] == files[start] and lines[end] is None:
            end += 1
        part = rows.slice(start, end - start)
        columns = [
            part.column(name) if name in part.schema.names else pa.nulls(part.num_rows, pa.string()) for name in names
        ]
        numbers = np.asarray(part.column("_source_row").to_numpy())
        yield Chunk(files[start] or "", pa.table(dict(zip(names, columns, strict=True))), numbers)
        start = end
