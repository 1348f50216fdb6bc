"""Bring a source in under its contract: every row read is either accepted or set aside with its reasons, and adds up.

One pass streams the source through the contract's rules into staged table files; rules about all rows together are
measured on what was accepted; only then does anything become a version. ``severity`` decides: ``error`` sets the row
aside and stops the run, ``warning`` sets it aside and goes on, ``info`` counts it and keeps it.
"""

import secrets
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from bedplate.data import contracts, deidentify, deidentify_files, duck, sources
from bedplate.data.check import Check, Clean, OnProgress, Related, columns_of
from bedplate.data.incremental import PRIMARY, Standing, set_aside
from bedplate.data.model import Contract
from bedplate.data.parsing.profile import Profile
from bedplate.data.sources.databases import Window
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, InputError, NotFoundError
from bedplate.identifiers import PROFILE
from bedplate.records import IngestResult, RuleOutcome, TableVersion
from bedplate.usecase.types import DataSet


def table_name(use_case: str, dataset: str) -> str:
    """The name of the table that a data set is kept in."""
    return f"{use_case}.{dataset}"


def ingest(
    tables: Tables,
    *,
    use_case: str,
    dataset: str,
    spec: DataSet,
    folder: Path,
    key: str,
    on_progress: OnProgress | None = None,
    clean: Clean | None = None,
    sensitive: Collection[str] = (),
    reach: sources.Reach | None = None,
    window: Window | None = None,
    pseudonyms: bytes | None = None,
    safe_harbor: bool = True,
) -> IngestResult:
    """Bring one data set in, as a new version of its table. With the same ``key`` again, the same versions.

    One that comes in batch by batch is added to, and knows its rows by their primary key instead of ``key``; ``window``
    brings in those of a range, however late they are.

    With a key of ``pseudonyms`` the rows are de-identified before they land, as ``safe_harbor`` has it and as the data
    set says: :mod:`bedplate.data.deidentify`, :mod:`bedplate.data.deidentify_files`.

    Of a table with ``sensitive`` columns it is not told what SQL measured, only whether its rule holds.

    Raises:
        ContractError: the contract is wrong, the source has other columns or types, a rule of severity ``error`` is
            broken, or no row is left and the contract does not allow that. The table has then no new version; rows set
            aside by row rules are kept in the quarantine table.
        NotFoundError: the source does not exist.
        DeniedError: ``reach`` wants sources parsed in isolation, and the kernel cannot.
        UserCodeError: ``clean`` raised, or gave another number of rows.
        StorageError: the disk is full.
    """
    contract = contracts.load(folder / spec.contract)
    name = table_name(use_case, dataset)
    standing, how = None, _Safe()
    if spec.deidentify is not None and pseudonyms is None:
        raise ContractError(f"{dataset} is to be de-identified, and there is no key of pseudonyms", where=contract.path)
    if pseudonyms is not None:
        how = _safe(contract, dataset, spec, pseudonyms, safe_harbor=safe_harbor)
    if spec.incremental is not None:
        model = contract.model(dataset)
        standing = Standing(tables, name, model, spec.incremental, contract.path, window)
    with ExitStack() as stack:
        asked = None if standing is None else standing.since()
        source = stack.enter_context(
            sources.opened(spec.source, folder, reach, asked, dataset=dataset, profile=how.profile)
        )
        check = Check(
            contract, dataset, source, on_progress, clean, sql=stack.enter_context(duck.engine()),
            sensitive=sensitive, standing=standing, related=related_in(tables, use_case, contract.path),
            safe=how.rows, gone=how.gone,
        )  # fmt: skip
        stack.callback(check.close)
        rows = check.accepted_batches()
        rows = rows if standing is None else standing.with_held(rows, check.schema)
        staged = stack.enter_context(tables.stage(name, rows, check.schema))
        if check.held or check.model.may_be_empty:
            check.finish({"accepted": staged.dataset()} if check.model.has_sql else {})
        quarantine = _put_in_quarantine(tables, f"{name}.quarantine", check, key)
        check.stop_if_broken(None if quarantine is None else quarantine.name)
        if standing is None:
            table = staged.commit(mode="overwrite", key=f"{key}/rows")
        else:
            table = standing.commit(staged, check.accepted)
        return IngestResult(
            dataset=dataset,
            table=table,
            quarantine=quarantine,
            contract=contract.id,
            contract_digest=contract.digest,
            source=source.label,
            source_digest=source.digest(),
            read=check.read,
            accepted=check.accepted,
            rejected=check.rejected,
            outcomes=check.outcomes(),
            known=0 if standing is None else standing.known,
            late=0 if standing is None else standing.late,
            outside=0 if standing is None else standing.outside,
            unconfined=source.unconfined,
            deidentified=how.said,
        )


class _Safe(NamedTuple):
    """How one data set is de-identified; not at all, by default."""

    profile: Profile | None = None
    rows: deidentify.SafeHarbor | deidentify_files.AsRead | None = None
    gone: Collection[str] = ()
    said: str = ""


def _safe(contract: Contract, dataset: str, spec: DataSet, key: bytes, *, safe_harbor: bool) -> _Safe:
    deidentifiable(contract, dataset, spec, safe_harbor=safe_harbor)
    model = contract.model(dataset)
    said = method(spec, safe_harbor=safe_harbor)
    if spec.deidentify is None:
        return _Safe(rows=deidentify.SafeHarbor(model, key) if said else None, said=said)
    profile = deidentify_files.profile(spec, key, safe_harbor=safe_harbor)
    return _Safe(profile, deidentify_files.AsRead(), deidentify_files.gone(spec, model), said)


def method(spec: DataSet, *, safe_harbor: bool) -> str:
    """How a data set is de-identified, in words that are kept; empty where it is not."""
    found = [PROFILE] if safe_harbor else []
    return "; ".join(found if spec.deidentify is None else [*found, deidentify_files.said(spec)])


def deidentifiable(contract: Contract, dataset: str, spec: DataSet, *, safe_harbor: bool) -> None:
    """Refuse a data set that cannot be de-identified, if it is to be.

    Raises:
        ContractError: its contract does not say what each column is, or it needs identifiers as they came.
    """
    if spec.deidentify is not None:
        if spec.incremental is not None:
            raise ContractError(
                f"{dataset} comes in batch by batch, and its rows are known by what de-identification takes out",
                where=contract.path,
                fix=f"leave out data.{dataset}.incremental, or de-identify the source before",
            )
        deidentify_files.check(contract, contract.model(dataset), spec, safe_harbor=safe_harbor)
        return
    if not safe_harbor:
        return
    if spec.source.kind in ("images", "dicom"):
        raise ContractError(
            f"{dataset} holds pictures, and does not say how those are de-identified",
            where=f"data.{dataset}",
            fix=f"write data.{dataset}.deidentify: its profile and options",
        )
    model = contract.model(dataset)
    found_by = set() if spec.subject is None else {spec.subject}
    if spec.incremental is not None:
        found_by |= {column for rule in model.keys if rule.id == PRIMARY for column in rule.columns}
    deidentify.check(contract, model, found_by, () if spec.incremental is None else (spec.incremental.watermark,))


def related_in(tables: Tables, use_case: str, where: str) -> Related:
    """Looks into the tables of the other data sets of a use case, as they are now."""

    def related(name: str, columns: tuple[str, ...]) -> pa.RecordBatchReader:
        try:
            return tables.scan(tables.current(table_name(use_case, name)), list(columns))
        except NotFoundError:
            raise ContractError(
                f"the contract refers to {name}, which has not come in", where=where,
                fix=f"name a data set of the use case, and write {name} before this one",
            ) from None  # fmt: skip
        except InputError as error:
            raise ContractError(
                f"the contract refers to {name}: {error.message}", where=where, fix=error.fix
            ) from error

    return related


def _put_in_quarantine(tables: Tables, name: str, check: "Check", key: str) -> TableVersion | None:
    if not check.rejected:
        return None
    if check.standing is not None:
        return set_aside(tables, name, check.set_aside(), check.sql)
    return tables.write(name, check.set_aside(), mode="overwrite", key=f"{key}/quarantine")


def test(
    contract: Contract,
    dataset: str,
    spec: DataSet,
    folder: Path,
    reach: sources.Reach | None = None,  # noqa: PT028  it is no test of pytest's
    others: Mapping[str, tuple[Contract, DataSet]] | None = None,  # noqa: PT028
) -> tuple[RuleOutcome, ...]:
    """What every rule of the contract finds in the source, writing nothing. Raises as :func:`ingest`, but for rules.

    ``others`` are the data sets of the use case, for what refers to them: their sources are looked into.
    """
    has_sql = contract.model(dataset).has_sql
    with ExitStack() as stack:
        key = secrets.token_bytes(32)  # pseudonyms are judged as well, and nothing of them is kept
        how = _Safe()
        if spec.deidentify is not None:
            how = _safe(contract, dataset, spec, key, safe_harbor=False)
        source = stack.enter_context(sources.opened(spec.source, folder, reach, dataset=dataset, profile=how.profile))
        related = _related_sources(others or {}, folder, reach, contract.path, key)
        sql = stack.enter_context(duck.engine())
        check = Check(
            contract, dataset, source, None, None, sql=sql, keep=has_sql, related=related, safe=how.rows, gone=how.gone
        )
        stack.callback(check.close)
        if has_sql:
            # SQL may look at the rows more than once: they lie on the disk meanwhile, however many there are.
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bedplate-test-"))
            staged = stack.enter_context(Tables(scratch).stage("accepted", check.accepted_batches(), check.schema))
            check.finish({"accepted": staged.dataset()})
        else:
            check.drain()
            check.finish({})
        return check.outcomes()


def _related_sources(
    others: Mapping[str, tuple[Contract, DataSet]], folder: Path, reach: sources.Reach | None, where: str, key: bytes
) -> Related:
    def related(name: str, columns: tuple[str, ...]) -> pa.Table:
        if name not in others:
            raise ContractError(f"the contract refers to {name}, which is no data set", where=where, fix="name one")
        contract, spec = others[name]
        profile = deidentify_files.profile(spec, key, safe_harbor=False)
        with (
            sources.opened(spec.source, folder, reach, dataset=name, profile=profile) as source,
            duck.engine() as sql,
        ):
            return columns_of(source, contract.model(name), columns, sql)

    return related
