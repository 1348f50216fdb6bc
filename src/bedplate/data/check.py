"""One pass of one source through one contract: which rows keep it, and why the others are set aside."""

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import convert, duck, sources
from bedplate.data.arrow import mixes_zones
from bedplate.data.deidentify import SafeHarbor
from bedplate.data.deidentify_files import AsRead
from bedplate.data.incremental import Standing
from bedplate.data.model import Contract, KeyRule, Model, ReferenceRule, RowRule, SetRule, metric_checks
from bedplate.data.parsing import pictures
from bedplate.data.parsing.values import Numbers
from bedplate.data.rules import broken
from bedplate.errors import BedplateError, ContractError, InputError, UserCodeError
from bedplate.records import RuleOutcome

Related = Callable[[str, tuple[str, ...]], Any]
"""The named columns of another table, as Arrow."""
Clean = Callable[[pa.RecordBatch], pa.Table]
"""A ``@dataset`` function: one batch in, as many cleaned rows out."""


class OnProgress(Protocol):
    """Told how many rows are read, how many there are where that is known, and how many bytes they have decoded."""

    def __call__(self, done: int, total: int | None, size: int) -> object: ...


class Check:
    """One pass of one source through one contract."""

    def __init__(
        self,
        contract: Contract,
        dataset: str,
        source: sources.Opened,
        on_progress: OnProgress | None,
        clean: Clean | None,
        *,
        sql: duck.Engine,
        keep: bool = True,
        sensitive: Collection[str] = (),
        standing: Standing | None = None,
        related: "Related | None" = None,
        safe: SafeHarbor | AsRead | None = None,
        gone: Collection[str] = (),
    ) -> None:
        """``keep``: the rows are wanted, not only what the rules say of them. ``standing``: what is there before.

        ``related`` gives the columns of another table that this one refers to; without it that is not looked at.
        ``safe``: neither what is kept nor what is set aside may identify anybody. ``gone`` are columns that the source
        has as pseudonyms. ``sql`` answers every query of this pass; it stays open as long.
        """
        self.contract = contract
        self.model: Model = contract.model(dataset)
        self.source = source
        self.clean = clean
        self.safe = safe
        self.sql = sql
        named = [column.name for column in self.model.columns]
        typed = source.typed
        more = source.open_ended or self.model.more_columns
        with self._quoting_nothing():
            given = source.columns(named)
            convert.compare(self.model, given, contract.path, source.label, typed=typed, more=more)
        if source.kind == "dicom":
            pictures.check_personal(self.model, contract.path, gone)
        self.known = None if self.model.more_columns else named
        self.schema = convert.schema(self.model, given, None if standing is None else standing.schema)
        if typed and clean is None and not keep:
            judged = self.model.judged()
            fields = [f for f in self.schema if f.name in judged or convert.may_lose(given.field(f.name).type, f.type)]
            self.schema = pa.schema(fields or [self.schema.field(0)])
        self.names = self.schema.names
        self.sensitive = set(sensitive).intersection(self.names)
        self.total = source.total()
        self.on_progress = on_progress
        self.standing = standing
        self.read = self.accepted = self.rejected = self.size = 0
        self.failed: dict[str, int] = {}
        self.measured: dict[str, float] = {}
        self._found: dict[str, RuleOutcome] = {}
        self._zones: dict[str, set[bool]] = {}
        self._unread: BedplateError | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._duplicates = {rule.id: self._duplicate_rows(rule.columns) for rule in self.model.keys}
        self._orphans = {} if related is None else {
            rule.id: self._orphan_rows(rule, related) for rule in self.model.references
        }  # fmt: skip
        there = None if standing is None else standing.there(self._keys(standing.keys.columns, landed=True), sql)
        self._there = np.array([], dtype=np.int64) if there is None else there
        self._aside = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this pass, if this goes well

    @contextmanager
    def _quoting_nothing(self) -> Iterator[None]:
        """What is wrong with a source may quote a row of it, and errors are kept."""
        try:
            yield
        except (ContractError, InputError):
            if self.safe is None:
                raise
            raise ContractError(
                f"{self.source.label} cannot be read under its contract, and what is wrong may quote a row",
                where=self.contract.path,
                fix="bedplate contract test says it",
            ) from None

    def _items(self, names: Sequence[str]) -> Iterator[sources.Chunk | sources.BadLine]:
        try:
            with self._quoting_nothing():
                yield from self.source.read(names, self.known)
        except BedplateError as error:
            self._unread = error
            raise

    @property
    def held(self) -> int:
        """How many rows the table will have."""
        return self.accepted + (0 if self.standing is None else self.standing.rows)

    def close(self) -> None:
        """Give back the scratch file."""
        self._aside.close()

    # -------------------------------------------------------------------------------------------------------- rows

    def accepted_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows that keep the contract; the others are set aside on the way."""
        position = 0
        for item in self._items(self.names):
            if isinstance(item, sources.BadLine):
                self._bad_line(item)
                continue
            table = self._accept(item, position)
            position += item.table.num_rows
            if self.on_progress is not None:
                self.size += item.table.nbytes
                self.on_progress(self.read, self.total, self.size)
            yield from table.to_batches()

    def drain(self) -> None:
        """Judge all rows and keep none."""
        for _ in self.accepted_batches():
            pass

    def _accept(self, chunk: sources.Chunk, position: int) -> pa.Table:
        raw = self._cleaned(chunk)
        self._look_at_zones(raw)
        values, misfits = convert.convert(raw, self.schema, self.model, self.sql)
        reject = np.zeros(len(chunk.rows), dtype=bool)
        over, late, why_late = np.zeros_like(reject), np.zeros_like(reject), ""
        if self.standing is not None:
            over, late, why_late = self.standing.judge(values, _among(self._there, position, len(reject)))
        reasons: list[tuple[str, tuple[str, ...], str, np.ndarray]] = []

        def judge(rule: str, columns: tuple[str, ...], severity: str, message: str, mask: np.ndarray) -> None:
            mask = mask & ~over  # what is passed over is not judged
            count = int(np.count_nonzero(mask))
            self.failed[rule] = self.failed.get(rule, 0) + count
            if count and severity != "info":
                reject[mask] = True
                reasons.append((rule, columns, message, mask))

        for column, mask in misfits.items():
            kind = next(found.logical_type for found in self.model.columns if found.name == column)
            judge(f"{column}.logicalType", (column,), "warning", f"{column} cannot be read as {kind}", mask)
        for rule in self.model.rows:
            found = broken(rule, _single(values.column(rule.column)))
            if found is None:
                self.failed.setdefault(rule.id, 0)
                continue
            mask = _numpy(found)
            if rule.column in misfits:
                mask &= ~misfits[rule.column]  # a value of the wrong type is one fault, not also a missing value
            judge(rule.id, (rule.column,), rule.severity, rule.message, mask)
        named: tuple[KeyRule | ReferenceRule, ...] = (*self.model.keys, *self.model.references)
        for key in named:
            places = self._duplicates[key.id] if isinstance(key, KeyRule) else self._orphans.get(key.id)
            if places is not None and len(places):
                judge(key.id, key.columns, key.severity, key.message, _among(places, position, len(reject)))
            else:
                self.failed.setdefault(key.id, 0)
        if late.any():
            assert self.standing is not None
            judge("late", (self.standing.column,), "warning", why_late, late)
        self._measure(values)
        self.read += len(reject)
        if self.safe is not None:
            raw = values = self.safe.of(values)
        if reasons:
            self._put_aside(chunk.file, chunk.rows, raw, reject, reasons)
        if reject.any() or over.any():
            values = values.filter(pa.array(~(reject | over)))
        self.accepted += values.num_rows
        return values

    def _cleaned(self, chunk: sources.Chunk) -> pa.Table:
        if self.clean is None:
            return chunk.table
        batch = convert.plain(chunk.table).combine_chunks().to_batches()[0]
        table = self.clean(batch)
        if not isinstance(table, pa.Table) or table.num_rows != batch.num_rows or table.column_names != self.names:
            raise UserCodeError(
                "the @dataset function must give one row for each it gets, with the contract's columns in order",
                where=self.model.name,
                fix="mark rows that are wrong by a rule in the contract instead of dropping them",
            )
        return table

    def _look_at_zones(self, raw: pa.Table) -> None:
        """Refuse times of which some name a zone and others none, where the contract does not say what those are."""
        for name, seen in convert.zones(raw, self.model).items():
            known = self._zones.setdefault(name, {True} if self.schema.field(name).type == convert.MOMENT else set())
            known |= seen
            if len(known) > 1:
                raise ContractError(
                    f"some times in {name} name a zone and others, in the source or in the table, do not",
                    where=self.contract.path,
                    fix=f"say of {name} logicalTypeOptions: {{timezone: true, defaultTimezone: ...}}",
                )

    def _bad_line(self, line: sources.BadLine) -> None:
        self.read += 1
        self.failed["row"] = self.failed.get("row", 0) + 1
        empty = pa.table({name: pa.array([None], pa.string()) for name in self.names})
        mask = np.ones(1, dtype=bool)
        quoted = self.safe is not None and line.reason not in self.safe.reasons
        told = "cannot be read" if quoted else line.reason
        reason = ("row", (), f"the row {told}", mask)
        self._put_aside(line.file, np.array([line.row]), empty, mask, [reason], text=line.text)

    def _put_aside(
        self,
        file: str,
        rows: Numbers,
        raw: pa.Table,
        reject: np.ndarray,
        reasons: list[tuple[str, tuple[str, ...], str, np.ndarray]],
        text: str | None = None,
    ) -> None:
        if self.safe is not None:
            file, text = "", None  # a file may be named after somebody
        places = np.flatnonzero(reject)
        kept = raw.take(pa.array(places))
        numbers = rows.start + places if isinstance(rows, range) else rows[places]
        # Rows that break the same rules share their reasons, and there are few such groups.
        kinds, group = np.unique(np.stack([r[3][places] for r in reasons]), axis=1, return_inverse=True)
        found = [[reason for reason, holds in zip(reasons, kind, strict=True) if holds] for kind in kinds.T]
        of_row = pa.array(group.reshape(-1))

        def each(values: list[Any], kind: pa.DataType) -> pa.Array:
            return pa.array(values, kind).take(of_row)

        names = pa.list_(pa.string())
        table = pa.table(
            {
                "_source_file": pa.array([file] * len(places), pa.string()),
                "_source_row": pa.array(numbers, pa.int64()),
                "_rules": each([[r[0] for r in row] for row in found], names),
                "_columns": each([sorted({c for r in row for c in r[1]}) for row in found], names),
                "_reasons": each(["; ".join(r[2] for r in row) for row in found], pa.string()),
                "_text": pa.array([text] * len(places), pa.string()),
                **{name: convert.text(kept.column(name)) for name in self.names},
            }
        )
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._aside, table.schema)
        self._writer.write_table(table)
        self.rejected += len(places)

    def set_aside(self) -> pa.RecordBatchReader:
        """The rejected rows, with file, row number, rules, columns and reasons. Call it once, after all rows."""
        if self._writer is None:
            return pa.RecordBatchReader.from_batches(pa.schema([("_source_file", pa.string())]), [])
        self._writer.close()
        self._aside.seek(0)
        return pa.ipc.open_stream(self._aside)

    # -------------------------------------------------------------------------------------------------- sets of rows

    def _duplicate_rows(self, columns: tuple[str, ...]) -> np.ndarray:
        """Positions of rows whose ``columns`` already stood in an earlier row. Reads the source's key columns only."""
        landed = self.safe is not None and self.safe.tells_apart(columns)
        listed = ", ".join(duck.quote(column) for column in columns)
        known = " AND ".join(f"{duck.quote(column)} IS NOT NULL" for column in columns)
        again = f"SELECT {listed}, min(_position) AS _first FROM source WHERE {known} GROUP BY ALL HAVING count(*) > 1"  # noqa: S608  identifiers are quoted
        with self.sql.connect({"source": self._keys(columns, landed=landed)}) as connection:
            try:
                repeated: Any = connection.sql(again).to_arrow_table()
            except duckdb.Error:
                if self._unread is not None:
                    raise self._unread from None  # the engine shows it as a failure of its own
                raise
        if repeated.num_rows == 0:
            return np.array([], dtype=np.int64)
        query = f"SELECT _position FROM source JOIN repeated USING ({listed}) WHERE _position > _first ORDER BY 1"  # noqa: S608  identifiers are quoted
        with self.sql.connect({"source": self._keys(columns, landed=landed), "repeated": repeated}) as connection:
            found = connection.execute(query).fetchnumpy()
        return np.asarray(found["_position"], dtype=np.int64)

    def _orphan_rows(self, rule: ReferenceRule, related: "Related") -> np.ndarray:
        """Positions of rows whose ``columns`` stand in no row of the table that they refer to."""
        if rule.table != self.model.name:
            views = {"held": related(rule.table, rule.to)}
        else:  # rows may refer to each other, and to those that are there
            before = None if self.standing is None else self.standing.columns(rule.to)
            views = {"held": self._keys(rule.to, landed=True), **({} if before is None else {"before": before})}
        there, own = next(iter(views.values())).schema, self.schema
        if any(
            mixes_zones(own.field(column).type, there.field(to).type)
            for column, to in zip(rule.columns, rule.to, strict=True)
        ):
            raise ContractError(
                f"the rule {rule.id} compares moments with times that name no zone", where=self.contract.path,
                fix="say timezone in the logicalTypeOptions of both columns",
            )  # fmt: skip
        pairs = [(duck.quote(column), duck.quote(to)) for column, to in zip(rule.columns, rule.to, strict=True)]
        same = " AND ".join(f"source.{column} = held.{to}" for column, to in pairs)
        known = " AND ".join(f"source.{column} IS NOT NULL" for column, _ in pairs)
        listed = ", ".join(to for _, to in pairs)
        there = " UNION ALL ".join(f"SELECT {listed} FROM {view}" for view in views)  # noqa: S608  quoted
        query = f"SELECT _position FROM source ANTI JOIN ({there}) held ON {same} WHERE {known} ORDER BY 1"  # noqa: S608
        with self.sql.connect({"source": self._keys(rule.columns, landed=True), **views}) as connection:
            try:
                found = connection.execute(query).fetchnumpy()
            except duckdb.Error as error:
                raise ContractError(
                    f"the rule {rule.id} cannot be checked: {duck.what_failed(error)}", where=self.contract.path,
                    fix="give both columns the same logicalType",
                ) from None  # fmt: skip
        return np.asarray(found["_position"], dtype=np.int64)

    def _keys(self, columns: tuple[str, ...], *, landed: bool) -> pa.RecordBatchReader:
        """Some columns of the source, and the position of each row; ``landed``: with the values that land."""
        schema = pa.schema([self.schema.field(column) for column in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            position = 0
            for item in self._items(columns if self.clean is None else self.names):
                if isinstance(item, sources.BadLine):
                    continue
                values, _ = convert.convert(self._cleaned(item).select(list(columns)), schema, self.model, self.sql)
                numbers = pa.array(np.arange(position, position + values.num_rows))
                position += values.num_rows
                values = convert.plain(values)
                if landed and self.safe is not None:
                    values = self.safe.of(values)
                yield from values.append_column("_position", numbers).to_batches()

        return pa.RecordBatchReader.from_batches(schema.append(pa.field("_position", pa.int64())), batches())

    def _measure(self, values: pa.Table) -> None:
        for rule in self.model.sets:
            if rule.metric not in ("nullValues", "missingValues", "invalidValues"):
                continue
            column = _single(values.column(rule.columns[0]))
            for check, limit in metric_checks(rule.metric, rule.arguments):
                row = RowRule(
                    id=rule.id,
                    column=rule.columns[0],
                    check=check,
                    limit=limit,
                    severity="info",
                    dimension="",
                    message="",
                )
                found = broken(row, column)
                count = 0 if found is None else int(np.count_nonzero(_numpy(found)))
                self.measured[rule.id] = self.measured.get(rule.id, 0) + count

    def finish(self, views: dict[str, Any]) -> None:
        """Measure the rules about all rows together, once every row is judged."""
        for rule in self.model.sets:
            value = self._value(rule, views)
            holds = rule.holds(value)
            told = not holds and (rule.metric != "sql" or not self.sensitive)  # SQL may measure one row's value
            message = (
                f"{rule.message} (found {value if isinstance(value, str) else f'{value:g}'})" if told else rule.message
            )
            self._found[rule.id] = RuleOutcome(
                rule=rule.id,
                column=rule.columns[0] if rule.columns else None,
                severity=rule.severity,
                failed=0 if holds else 1,
                message=message,
                dimension=rule.dimension,
            )

    def _value(self, rule: SetRule, views: dict[str, Any]) -> float | str:
        if rule.metric == "rowCount":
            value: float = self.held
        elif rule.metric == "sql":
            return _sql(rule, views, self.contract.path, self.sql)
        elif rule.metric == "duplicateValues":
            value = len(self._duplicate_rows(rule.columns))
        else:
            value = self.measured.get(rule.id, 0)
        return 100 * value / max(1, self.read) if rule.percent else value

    # ------------------------------------------------------------------------------------------------------ outcomes

    def outcomes(self) -> tuple[RuleOutcome, ...]:
        """What every rule found, the broken ones first."""
        found = list(self._found.values())
        references = [rule for rule in self.model.references if rule.id in self._orphans]
        rules: tuple[RowRule | KeyRule | ReferenceRule, ...] = (*self.model.rows, *self.model.keys, *references)
        found += [
            RuleOutcome(
                rule=rule.id,
                column=rule.column if isinstance(rule, RowRule) else ", ".join(rule.columns),
                severity=rule.severity,
                failed=self.failed.get(rule.id, 0),
                message=rule.message,
                dimension=rule.dimension,
            )
            for rule in rules
        ]
        known = {outcome.rule for outcome in found}
        for rule_id, failed in self.failed.items():
            if rule_id not in known and failed:
                column = rule_id.removesuffix(".logicalType") if rule_id not in ("row", "late") else None
                said = {"row": "the text is no row", "late": "rows came in later than they may"}
                message = said.get(rule_id, f"{column} has values of another type")
                found.append(
                    RuleOutcome(
                        rule=rule_id,
                        column=column,
                        severity="warning",
                        failed=failed,
                        message=message,
                        dimension="conformity",
                    )
                )
        order = {"error": 0, "warning": 1, "info": 2}
        return tuple(sorted(found, key=lambda outcome: (outcome.failed == 0, order[outcome.severity], outcome.rule)))

    def stop_if_broken(self, quarantine: str | None) -> None:
        """Raise if a rule of severity ``error`` is broken, or nothing is left."""
        aside = f" {self.rejected} rows are in table {quarantine} with their reasons." if quarantine else ""
        broken_rules = [outcome for outcome in self.outcomes() if outcome.failed and outcome.severity == "error"]
        if broken_rules:
            listed = "; ".join(
                f"{outcome.message}" + (f", {outcome.failed} rows" if outcome.rule not in self._found else "")
                for outcome in broken_rules
            )
            raise ContractError(
                f"{self.model.name} breaks its contract: {listed}.{aside}",
                where=self.contract.path,
                fix="correct the data, or change the rule's severity if the rows may be left out",
            )
        if self.held == 0 and not self.model.may_be_empty:
            what = "the source holds no rows" if self.read == 0 else f"all {self.read} rows break the contract"
            raise ContractError(
                f"{self.model.name} would be empty: {what}.{aside}",
                where=self.source.label,
                fix="correct the source, or allow it with a rowCount rule in the contract",
            )


def columns_of(source: sources.Opened, model: Model, columns: tuple[str, ...], sql: duck.Engine) -> pa.Table:
    """Some columns of a source, as its contract types them."""
    whole = convert.schema(model, source.columns([column.name for column in model.columns]))
    schema = pa.schema([whole.field(column) for column in columns if column in whole.names])
    found = [
        convert.plain(convert.convert(item.table, schema, model, sql)[0])
        for item in source.read(schema.names)
        if not isinstance(item, sources.BadLine)
    ]
    return pa.concat_tables(found) if found else schema.empty_table()


def _sql(rule: SetRule, views: dict[str, Any], where: str, sql: duck.Engine) -> float | str:
    query = rule.query
    query = re.sub(r"\$?\{(object|table)\}", lambda _: duck.quote("accepted"), query)
    if rule.columns:
        query = re.sub(r"\$?\{(property|column)\}", lambda _: duck.quote(rule.columns[0]), query)
    with sql.connect(views) as connection:
        row = duck.first_row(connection, query, where=f"{where}, rule {rule.id}")
    value = None if not row else row[0]
    if isinstance(rule.limit, str) and value is not None:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            given = "nothing" if value is None else type(value).__name__
            raise ContractError(
                f"the sql rule {rule.id} gave {given}, not a number", where=where, fix="select one number"
            ) from None
    return value


def _among(places: np.ndarray, first: int, count: int) -> np.ndarray:
    """Which of ``count`` positions from ``first`` on are among ``places``, which rise."""
    begin, end = np.searchsorted(places, (first, first + count))
    found = np.zeros(count, dtype=bool)
    found[places[begin:end] - first] = True
    return found


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numpy(mask: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
