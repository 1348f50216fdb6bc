"""What the database libraries raise, turned into the errors that a user can act on."""

import sqlite3

import sqlalchemy as sa

from bedplate.errors import BedplateError, ConflictError, StorageError, UnavailableError

_FULL = "free some space, then run it again: nothing was half written"
_RESTORE = "restore the last backup: bedplate restore BACKUP FOLDER"


def translate(error: sa.exc.SQLAlchemyError | sqlite3.Error, where: str) -> BedplateError:
    """The error to raise instead; the caller chains it to the original."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, sqlite3.Error):
        return _sqlite(original, where)
    if isinstance(error, sa.exc.IntegrityError):
        return ConflictError(_first_line(original), where=where, fix="read it again, then decide")
    state = getattr(original, "sqlstate", None) or ""
    if state in ("53100", "53200"):
        return StorageError("the database server is out of space", where=where, fix=_FULL)
    if state.startswith(("XX", "58")):
        return StorageError(f"the database is damaged: {_first_line(original)}", where=where, fix=_RESTORE)
    # 25P03: the server ended a session that stood still in the middle of a transaction.
    if state == "25P03" or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError):
        fix = "check that the server runs and the address is right, then try again"
        return UnavailableError(f"the database does not answer: {_first_line(original)}", where=where, fix=fix)
    return StorageError(f"the database refused: {_first_line(original)}", where=where)


def _sqlite(error: sqlite3.Error, where: str) -> BedplateError:
    # Extended codes carry the primary one in their low byte.
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError(str(error), where=where, fix="read it again, then decide")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UnavailableError("another process holds the database", where=where, fix="wait for it, then try again")
    if code == sqlite3.SQLITE_FULL:
        return StorageError("the disk is full", where=where, fix=_FULL)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(f"the database file is damaged: {error}", where=where, fix=_RESTORE)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageError(f"the database cannot be written: {error}", where=where, fix="check owner and permissions")
    if code == sqlite3.SQLITE_IOERR:
        return StorageError(f"input or output failed: {error}", where=where, fix="check the disk, and its free space")
    return StorageError(f"the database refused: {error}", where=where)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
