"""What the owner of a home carries out: each operation authenticates, asks policy, then acts and records."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bedplate import ids, usecase
from bedplate.app import flow
from bedplate.app.owner_socket import Listener, Request
from bedplate.app.stage import Context
from bedplate.app.system import System
from bedplate.errors import AuthenticationError, DeniedError, InputError, NotFoundError
from bedplate.identity import Principal
from bedplate.records import Event
from bedplate.settings import Home, Settings

Emit = Callable[[Event], None]


def local_token(home: Home) -> str:
    """The local administrator's key, which the CLI uses without asking.

    Raises:
        AuthenticationError: it is not there or may not be read.
    """
    path = home.keys / "admin.key"
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AuthenticationError(
            "the local administrator key cannot be read", where=str(path), fix="run as the user who owns the home"
        ) from error


class OwnedHome:
    """An owner at work: its system, and the socket over which other commands reach it."""

    def __init__(self, settings: Settings) -> None:
        self.system = System(settings)
        self.stopping = threading.Event()
        try:
            self._listener = Listener(self.system.home.socket, self._on_request)
        except BaseException:
            self.system.close()
            raise

    def __enter__(self) -> "OwnedHome":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what others asked for, then give the home back."""
        self._listener.close()
        self.system.close()

    def local_token(self) -> str:
        """The key of who started this process."""
        return local_token(self.system.home)

    def _on_request(self, request: Request, emit: Emit) -> Any:
        return self.carry_out(request.operation, request.arguments, request.token, emit)

    def carry_out(self, operation: str, arguments: dict[str, Any], token: str, emit: Emit) -> Any:
        """Do one operation for the holder of ``token``.

        Raises:
            AuthenticationError: the key is not valid.
            DeniedError: policy does not allow it.
            NotFoundError: there is no such operation.
        """
        method = _OPERATIONS.get(operation)
        if method is None:
            raise NotFoundError(f"there is no operation {operation!r}", fix=f"use one of {', '.join(_OPERATIONS)}")
        principal = self.system.identity.authenticate(token)
        return method(self, principal, emit, **arguments)
