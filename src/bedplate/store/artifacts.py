"""Artifacts under their names, uploads in parts, and content that nothing names any more.

Whoever gives content a name here takes it off the condemned, whoever takes a name away condemns what it named, in the
same transaction: so what is condemned was without a name for that long.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import ConflictError, NotFoundError
from bedplate.ids import Digest
from bedplate.store.registry_schema import model_versions
from bedplate.store.schema import artifacts, condemned, facts, upload_parts, uploads
from bedplate.store.sql import PerDialect, Repository, Row, Upsert, fields, insert, param

_workspace, _folder, _name = param("workspace_"), param("folder_"), param("name_")
_digest, _now, _id = param("digest_"), param("now_"), param("id_")
_digests: sa.BindParameter[Any] = sa.bindparam("digests_", expanding=True)

_ONE = sa.and_(artifacts.c.workspace == _workspace, artifacts.c.folder == _folder, artifacts.c.name == _name)
_BELOW = sa.and_(
    artifacts.c.workspace == _workspace, artifacts.c.folder >= param("start_"), artifacts.c.folder < param("end_")
)
_GET = sa.select(artifacts).where(_ONE)
_LOCK = _GET.with_for_update()
_LOCK_IF_FREE = _GET.with_for_update(skip_locked=True)
# Held by whoever puts something into a folder, so that it is not removed meanwhile. SQLite has one writer anyway.
_ENTER = _GET.with_for_update(read=True, key_share=True)
_LIST = (
    sa.select(artifacts)
    .where(artifacts.c.workspace == _workspace, artifacts.c.folder == _folder, artifacts.c.name > param("after_"))
    .order_by(artifacts.c.name)
    .limit(param("limit_"))
)
_FILES = sa.and_(_BELOW, artifacts.c.digest.is_not(None))
_WALK = sa.select(artifacts).where(_FILES).order_by(artifacts.c.folder, artifacts.c.name)
_SUM = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(artifacts.c.size), 0)).where(_FILES)
_LOCK_FOLDERS = sa.select(artifacts.c.name).where(_BELOW, artifacts.c.digest.is_(None)).with_for_update()
_ADD = Upsert(artifacts)
_REPLACE = sa.update(artifacts).where(_ONE).values(digest=_digest, size=param("size_"), created=_now, by=param("by_"))
_WITHIN = sa.select(artifacts.c.name).where(artifacts.c.workspace == _workspace, artifacts.c.folder == _folder).limit(1)
_REMOVE = sa.delete(artifacts).where(_ONE)
_REMOVE_BELOW = sa.delete(artifacts).where(_BELOW)

_BEGIN = sa.insert(uploads)
_UPLOAD = sa.select(uploads).where(uploads.c.id == _id, uploads.c.workspace == _workspace)
_LOCK_UPLOAD = _UPLOAD.with_for_update()
_TOUCH = sa.update(uploads).where(uploads.c.id == _id).values(touched=_now)
_FINISH = (
    sa.update(uploads)
    .where(uploads.c.id == _id, uploads.c.digest.is_(None))
    .values(digest=_digest, receipt=param("receipt_"), touched=_now)
)
_DROP = sa.delete(uploads).where(uploads.c.id == _id)
_STALE = (
    sa.select(uploads).where(uploads.c.touched < param("before_")).order_by(uploads.c.touched).limit(param("limit_"))
)
_PARTS = sa.select(upload_parts).where(upload_parts.c.upload == _id).order_by(upload_parts.c.number)
_PART = sa.select(upload_parts.c.digest).where(upload_parts.c.upload == _id, upload_parts.c.number == param("number_"))
_PUT_PART = Upsert(upload_parts, update=("digest", "size"))
_DROP_PARTS = sa.delete(upload_parts).where(upload_parts.c.upload == _id)

_CONDEMN = Upsert(condemned, update=("since",))
_CONDEMN_NEW = Upsert(condemned)
_PARDON = sa.delete(condemned).where(condemned.c.digest == _digest)
_CONDEMNED = sa.select(condemned.c.since).where(condemned.c.digest == _digest)
_LOCK_CONDEMNED = _CONDEMNED.with_for_update()
_KNOWN = sa.select(condemned.c.digest).where(condemned.c.digest.in_(_digests))
_DUE = (
    sa.select(condemned.c.digest)
    .where(condemned.c.since <= param("before_"), condemned.c.digest > param("after_"))
    .order_by(condemned.c.digest)
    .limit(param("limit_"))
)
_NAMED = (
    sa.select(artifacts.c.digest)
    .where(artifacts.c.digest.in_(_digests))
    .union(sa.select(upload_parts.c.digest).where(upload_parts.c.digest.in_(_digests)))
)
_TEXTS = (
    facts.c.body,
    model_versions.c.findings,
    model_versions.c.content,
    model_versions.c.onnx,
    model_versions.c.evidence,
)
"""Columns whose text names content by digest somewhere within it."""
_MENTION = re.compile(r"sha256:[0-9a-f]{64}")


def _condemn_all(column: sa.ColumnElement[str | None], *where: sa.ColumnElement[bool]) -> PerDialect[Any]:
    """Condemn what a query of digests gives."""
    query = sa.select(column, _now).where(*where).distinct()

    def made(dialect: sa.Dialect) -> Any:
        statement = insert(dialect, condemned).from_select(("digest", "since"), query)
        return statement.on_conflict_do_update(
            index_elements=[condemned.c.digest], set_={"since": statement.excluded["since"]}
        )

    return PerDialect(made)


_CONDEMN_BELOW = _condemn_all(artifacts.c.digest, _FILES)
_CONDEMN_PARTS = _condemn_all(upload_parts.c.digest, upload_parts.c.upload == _id)


class ArtifactRow(msgspec.Struct, frozen=True, kw_only=True):
    """One name. ``folder`` is empty or ends in a slash; ``digest`` is None if the name is that of a folder."""

    workspace: str
    folder: str
    name: str
    digest: Digest | None
    size: int
    created: int
    by: str

    @property
    def path(self) -> str:
        """The whole name, without a slash at either end."""
        return f"{self.folder}{self.name}"


class UploadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One upload in parts. ``touched`` is when a part last came; ``digest`` is None until it is complete, and then
    what it became, ``receipt`` being the digest of the list of parts that it was made of.
    """

    id: str
    workspace: str
    path: str
    by: str
    created: int
    touched: int
    digest: Digest | None = None
    receipt: Digest | None = None


class PartRow(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an upload."""

    upload: str
    number: int
    digest: Digest
    size: int


class Artifacts(Repository):
    """``tx.artifacts``."""

    def find(self, workspace: str, path: str) -> ArtifactRow | None:
        """The file or folder of this name, if there is one."""
        return _artifact(self._execute(_GET, **_key(workspace, path)).first())

    def list(self, workspace: str, folder: str, *, after: str = "", limit: int = 1000) -> list[ArtifactRow]:
        """What lies in a folder (without a slash at its end), by name, from the first name behind ``after`` on."""
        values = {"workspace_": workspace, "folder_": _inside(folder), "after_": after, "limit_": limit}
        return [_row(row) for row in self._execute(_LIST, **values)]

    def walk(self, workspace: str, folder: str) -> Iterator[ArtifactRow]:
        """Every file below a folder, by folder and name."""
        for row in self._execute(_WALK, **_range(workspace, folder)):
            yield _row(row)

    def expect(self, workspace: str, path: str) -> None:
        """Accept a name for content.

        Raises:
            ConflictError: the name is that of a folder, or a name above it is that of a file.
        """
        row = self.find(workspace, path)
        if row is not None and row.digest is None:
            raise _is_folder(path)
        above = path.split("/")[:-1]
        for depth in range(len(above), 0, -1):
            folder = self.find(workspace, "/".join(above[:depth]))
            if folder is not None and folder.digest is not None:
                raise _is_file(folder.path)

    def put(self, workspace: str, path: str, digest: Digest, size: int, *, by: str) -> ArtifactRow | None:
        """Give content a name, and the folders above it if they are not there; returns what had the name before.

        Raises:
            ConflictError: the name is that of a folder, or a name above it is that of a file.
        """
        self._make_folders(workspace, path, by)
        key, now = _key(workspace, path), clock.milliseconds()
        Condemned(self._connection).pardon(digest)
        while True:
            before = _artifact(self._execute(_LOCK, **key).first())
            if before is not None and before.digest is None:
                raise _is_folder(path)
            if before is not None:
                self._execute(_REPLACE, **key, digest_=digest, size_=size, now_=now, by_=by)
                if before.digest is not None and before.digest != digest:
                    Condemned(self._connection).condemn([before.digest])
                return before
            # Another transaction may give the name at this moment: then it is there at the second look.
            if self._add(key, digest, size, now, by):
                return None

    def measure(self, workspace: str, path: str) -> tuple[int, int]:
        """How many files and bytes a name stands for: one file, or all those below a folder.

        Raises:
            NotFoundError: there is no such name.
        """
        row = self.find(workspace, path)
        if row is None:
            raise _missing(path)
        if row.digest is not None:
            return 1, row.size
        files, size = tuple(self._execute(_SUM, **_range(workspace, path)).one())
        return int(files), int(size)

    def remove(self, workspace: str, path: str) -> tuple[int, int]:
        """Take a name away, or a folder with all that is below it; returns how many files and bytes they named.

        Folders above it that are empty then go too.

        Raises:
            NotFoundError: there is no such name.
        """
        key, below = _key(workspace, path), _range(workspace, path)
        row = _artifact(self._execute(_LOCK, **key).first())
        if row is None:
            raise _missing(path)
        if row.digest is None:
            self._execute(_LOCK_FOLDERS, **below).all()
        files, size = self.measure(workspace, path)
        if row.digest is None:
            now = clock.milliseconds()
            self._execute(_CONDEMN_BELOW.on(self._connection), **below, now_=now)
            self._execute(_REMOVE_BELOW, **below)
        else:
            Condemned(self._connection).condemn([row.digest])
        self._execute(_REMOVE, **key)
        self._prune(workspace, path)
        return files, size

    def _prune(self, workspace: str, path: str) -> None:
        while "/" in path:
            path = path.rpartition("/")[0]
            key = _key(workspace, path)
            if self._execute(_LOCK_IF_FREE, **key).first() is None:
                return  # somebody is putting something into it
            if self._execute(_WITHIN, workspace_=workspace, folder_=f"{path}/").first() is not None:
                return
            self._execute(_REMOVE, **key)

    def _make_folders(self, workspace: str, path: str, by: str) -> None:
        above = path.split("/")[:-1]
        missing: list[str] = []
        for depth in range(len(above), 0, -1):
            folder = "/".join(above[:depth])
            if self._enter(workspace, folder):
                break
            missing.append(folder)
        now = clock.milliseconds()
        for folder in reversed(missing):
            self._add(_key(workspace, folder), None, 0, now, by)
            self._enter(workspace, folder)  # somebody may have given the name to a file at this moment

    def _enter(self, workspace: str, folder: str) -> bool:
        row = self._execute(_ENTER, **_key(workspace, folder)).first()
        if row is not None and row.digest is not None:
            raise ConflictError(
                f"{folder} is a file, not a folder", fix="choose another name, or delete the file first"
            )
        return row is not None

    def _add(self, key: dict[str, str], digest: Digest | None, size: int, now: int, by: str) -> bool:
        values = {name.rstrip("_"): value for name, value in key.items()}
        values |= {"digest": digest, "size": size, "created": now, "by": by}  # type: ignore[dict-item]
        return bool(self._execute(_ADD.on(self._connection), **values).rowcount == 1)


class Uploads(Repository):
    """``tx.uploads``."""

    def begin(self, workspace: str, path: str, *, by: str) -> UploadRow:
        """Begin an upload; its id is made here."""
        now = clock.milliseconds()
        row = UploadRow(id=ids.new_id("upl"), workspace=workspace, path=path, by=by, created=now, touched=now)
        self._execute(_BEGIN, **msgspec.structs.asdict(row))
        return row

    def get(self, workspace: str, upload: str, *, lock: bool = False) -> UploadRow:
        """The upload of this id. ``lock`` keeps others from changing it until the commit.

        Raises:
            NotFoundError: the workspace has none.
        """
        row = self._execute(_LOCK_UPLOAD if lock else _UPLOAD, id_=upload, workspace_=workspace).first()
        if row is None:
            raise NotFoundError(
                f"No upload {upload}", fix="begin it anew: it was completed, aborted or left for too long"
            )
        return msgspec.convert(fields(row), UploadRow)

    def parts(self, upload: str) -> list[PartRow]:
        """The parts that are here, by number."""
        return [msgspec.convert(fields(row), PartRow) for row in self._execute(_PARTS, id_=upload)]

    def put_part(self, upload: str, number: int, digest: Digest, size: int) -> None:
        """Keep a part of an upload; the same number again replaces it."""
        names = Condemned(self._connection)
        before = self._execute(_PART, id_=upload, number_=number).scalar()
        names.pardon(digest)
        if before is not None and before != digest:
            names.condemn([Digest(before)])
        self._execute(_PUT_PART.on(self._connection), upload=upload, number=number, digest=digest, size=size)
        self._execute(_TOUCH, id_=upload, now_=clock.milliseconds())

    def finish(self, upload: str, digest: Digest, receipt: Digest) -> None:
        """Note what an upload became, and forget its parts."""
        self._forget_parts(upload)
        self._execute(_FINISH, id_=upload, digest_=digest, receipt_=receipt, now_=clock.milliseconds())

    def drop(self, upload: str) -> None:
        """Forget an upload and its parts."""
        self._forget_parts(upload)
        self._execute(_DROP, id_=upload)

    def stale(self, before: int, limit: int = 100) -> list[UploadRow]:
        """Uploads that nothing came for since ``before``, completed ones too, the oldest first."""
        rows = self._execute(_STALE, before_=before, limit_=limit)
        return [msgspec.convert(fields(row), UploadRow) for row in rows]

    def _forget_parts(self, upload: str) -> None:
        self._execute(_CONDEMN_PARTS.on(self._connection), id_=upload, now_=clock.milliseconds())
        self._execute(_DROP_PARTS, id_=upload)


class Condemned(Repository):
    """``tx.condemned``."""

    def condemn(self, digests: Iterable[Digest], *, again: bool = True) -> None:
        """Note that content has no name from now on; with ``again`` also what is condemned already."""
        statement, now = (_CONDEMN if again else _CONDEMN_NEW).on(self._connection), clock.milliseconds()
        for digest in digests:
            self._execute(statement, digest=digest, since=now)

    def pardon(self, digest: Digest) -> bool:
        """Note that content has a name, or will have one soon; whether it was condemned."""
        return bool(self._execute(_PARDON, digest_=digest).rowcount == 1)

    def since(self, digest: Digest, *, lock: bool = False) -> int | None:
        """Since when content is condemned, None if it is not. ``lock`` lets nobody pardon it until the commit."""
        since = self._execute(_LOCK_CONDEMNED if lock else _CONDEMNED, digest_=digest).scalar()
        return None if since is None else int(since)

    def due(self, before: int, *, after: str = "", limit: int = 500) -> list[Digest]:
        """What is condemned since ``before`` or longer, by digest, from the first one behind ``after`` on."""
        rows = self._execute(_DUE, before_=before, after_=after, limit_=limit).scalars()
        return [Digest(digest) for digest in rows]

    def known(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those that are condemned already."""
        return {Digest(digest) for digest in self._execute(_KNOWN, digests_=list(digests)).scalars()}

    def named(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those that an artifact or a part of an upload names."""
        return {Digest(digest) for digest in self._execute(_NAMED, digests_=list(digests)).scalars()}

    def mentioned(self) -> set[Digest]:
        """Every digest that stands anywhere in a text of evidence: what it names, and more."""
        found: set[Digest] = set()
        for column in _TEXTS:
            texts = self._connection.execute(sa.select(column).execution_options(yield_per=200)).scalars()
            for text in texts:
                found.update(Digest(digest) for digest in _MENTION.findall(text or ""))
        return found


def _missing(path: str) -> NotFoundError:
    return NotFoundError(f"there is no artifact {path!r}")


def _is_folder(path: str) -> ConflictError:
    return ConflictError(f"{path} is a folder", fix="choose another name, or delete the folder first")


def _is_file(path: str) -> ConflictError:
    return ConflictError(f"{path} is a file, not a folder", fix="choose another name, or delete the file first")


def _key(workspace: str, path: str) -> dict[str, str]:
    folder, slash, name = path.rpartition("/")
    return {"workspace_": workspace, "folder_": folder + slash, "name_": name}


def _inside(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _range(workspace: str, folder: str) -> dict[str, str]:
    # "0" follows "/" by code point, so this is every folder whose name begins with the folder's own and a slash.
    return {"workspace_": workspace, "start_": f"{folder}/", "end_": f"{folder}0"}


def _artifact(row: Row | None) -> ArtifactRow | None:
    return None if row is None else _row(row)


def _row(row: Row) -> ArtifactRow:
    return msgspec.convert(fields(row), ArtifactRow)
