"""The error tree: every error a user can meet says what is wrong, where, and what to do.

BedplateError                 base; never raised itself
├── InputError                what the user wrote or named is wrong (exit 2, HTTP 400)
│   ├── UseCaseError          usecase.yaml: carries every problem found, each with line and column
│   ├── ContractError         a data contract is wrong, or data does not match it
│   └── NotFoundError         a named thing does not exist (HTTP 404)
├── AuthenticationError       no valid key, session or link (HTTP 401)
├── DeniedError               policy does not allow it (HTTP 403)
├── QuotaError                more was asked for than one may ask; carries when to ask again (HTTP 429)
├── ConflictError             it exists already, or somebody changed it meanwhile (HTTP 409)
│   ├── StateError            it does not go together with the state that something is in
│   └── UnfitError            one thing of it is given twice, is there with another value, or names what is not there
├── GateError                 a release gate refused (exit 3, HTTP 422)
├── IntegrityError            a digest, signature or ledger proof does not match (HTTP 500)
├── UserCodeError             code from pipeline.py raised, was killed or was refused
├── HomeError                 the home folder is missing, foreign, of another version, or owned by another process
├── StorageError              disk full, I/O error, object store refused (HTTP 507)
├── UnavailableError          a server or network is not there now; trying again may help (HTTP 503)
│   ├── DeadlineError         there was no answer in the time that the request or the endpoint allows (HTTP 504)
│   └── FencedError           another owner has taken the database over: this one writes nothing any more
├── InternalError             a fault of ours: the log holds more under the id that it names (HTTP 500)
└── MissingExtraError         an optional dependency is not installed; carries the install line
"""

from typing import Any, ClassVar


class BedplateError(Exception):
    """Base of all errors a user can meet.

    ``message`` says what is wrong, ``where`` names the file, line, table or address, ``fix`` says what to do.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.fix:
            parts.append(f"Fix: {self.fix}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are not pickled by Exception; errors cross process boundaries in test workers.
        return (_rebuild, (type(self), self.message, self.where, self.fix), self.__dict__)

    def to_dict(self) -> dict[str, object]:
        """The JSON form that CLI ``--json`` and every HTTP edge answer."""
        return {"error": self.code, "message": self.message, "where": self.where, "fix": self.fix}


def _rebuild(cls: type[BedplateError], message: str, where: str | None, fix: str | None) -> BedplateError:
    error = cls.__new__(cls)
    BedplateError.__init__(error, message, where=where, fix=fix)
    return error


class InputError(BedplateError):
    """What the user wrote or named is wrong."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class UseCaseError(InputError):
    """``usecase.yaml`` cannot be used; ``problems`` lists everything found, in file order."""

    code = "invalid_use_case"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        problems: tuple[object, ...] = (),
    ) -> None:
        super().__init__(message, where=where, fix=fix)
        self.problems = problems

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "problems": list(self.problems)}


class ContractError(InputError):
    """A data contract is wrong, or data does not match it."""

    code = "contract_violation"


class NotFoundError(InputError):
    """A named thing does not exist."""

    code = "not_found"
    http_status = 404


class AuthenticationError(BedplateError):
    """No valid key, session or link was presented."""

    code = "unauthenticated"
    http_status = 401


class DeniedError(BedplateError):
    """Policy does not allow it."""

    code = "denied"
    http_status = 403


class QuotaError(BedplateError):
    """More was asked for than one may ask.

    ``window`` is what it was too much for (``rate``, ``day`` or ``month``), ``quota`` how much it allows in so many
    ``seconds``; ``retry`` is in how many seconds it allows more.
    """

    code = "quota"
    http_status = 429

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        window: str = "rate",
        quota: int = 0,
        seconds: int = 1,
        retry: float = 1.0,
    ) -> None:
        super().__init__(message, where=where, fix=fix)
        self.window, self.quota, self.seconds, self.retry = window, quota, seconds, retry


class ConflictError(BedplateError):
    """It exists already, or somebody changed it meanwhile."""

    code = "conflict"
    http_status = 409


class StateError(ConflictError):
    """What was asked for does not go together with the state that something is in."""

    code = "invalid_state"


class UnfitError(ConflictError):
    """One thing of it is given twice, is there with another value already, or names what is not there."""

    code = "unfit"
    http_status = 400


class GateError(BedplateError):
    """A release gate refused the candidate."""

    code = "gate_refused"
    exit_code = 3
    http_status = 422


class IntegrityError(BedplateError):
    """A digest, signature or ledger proof does not match what it should protect."""

    code = "integrity"
    exit_code = 4


class UserCodeError(BedplateError):
    """Code from ``pipeline.py`` raised, was killed, or tried what it may not do."""

    code = "user_code"


class HomeError(BedplateError):
    """The home folder is missing, foreign, of another version, or owned by another process."""

    code = "home"


class StorageError(BedplateError):
    """The disk is full, an I/O error occurred, or an object store refused."""

    code = "storage"
    http_status = 507


class UnavailableError(BedplateError):
    """A server or network is not there now; trying again may help."""

    code = "unavailable"
    http_status = 503


class DeadlineError(UnavailableError):
    """There was no answer in the time that the request or the endpoint allows."""

    code = "deadline"
    http_status = 504


class FencedError(UnavailableError):
    """Another owner has taken the database over, so this one may not write any more."""

    code = "fenced"


class MissingExtraError(BedplateError):
    """An optional dependency is not installed: no fault of ours, and none of the request."""

    code = "missing_extra"
    http_status = 409


class InternalError(BedplateError):
    """A fault of ours. The text names an id under which the log holds what it was."""

    code = "internal"


def of_dict(told: dict[str, Any]) -> BedplateError:
    """The error that another process said as :meth:`BedplateError.to_dict`; one of no known kind may be tried again."""
    kinds = {
        kind.code: kind
        for kind in globals().values()
        if isinstance(kind, type) and issubclass(kind, BedplateError) and kind is not BedplateError
    }
    kind = kinds.get(str(told.get("error")), UnavailableError)
    return kind(str(told.get("message")), where=told.get("where"), fix=told.get("fix"))
