"""The command ``bedplate``: its commands, its exit codes, and the one place where errors become text.

Exit codes: 0 done; 1 something failed; 2 the input or the command line is wrong; 3 a release gate refused; 4 a digest
or proof does not match; 70 a fault in Bedplate itself; 130 stopped with Ctrl-C.
Modules that `--help` does without are imported where they are used: it must answer within 0.3 s.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from bedplate.cli import (
    audit,
    completion,
    contract,
    erasure,
    export,
    features,
    home,
    key,
    load,
    models,
    plan,
    policy,
    prices,
    probe,
    profile,
    quota,
    release,
    rollout,
    run,
    score,
    server,
    session,
    table,
    trace,
    usecase,
    user,
    workspace,
)
from bedplate.cli.options import PLAIN, HomeOption
from bedplate.cli.output import show_error, to_json
from bedplate.errors import BedplateError, StorageError

TEAM = (user, key, workspace, policy)
"""The nouns that let several people use one home."""

app = typer.Typer(
    name="bedplate",
    help="Carry an AI use case from its file to a served, watched, explained model, with evidence at every step.",
    epilog="Start with: bedplate init my-use-case && bedplate run my-use-case",
    **PLAIN,
)
for module in (
    usecase,
    plan,
    prices,
    probe,
    profile,
    run,
    server,
    trace,
    audit,
    load,
    score,
    release,
    rollout,
    quota,
    models,
    table,
    contract,
    features,
    erasure,
    export,
    home,
    completion,
    *TEAM,
):
    module.register(app)


@app.callback()
def _root(home: HomeOption = None) -> None:
    session.use_home(home)


@app.command("version")
def version(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Print the version of Bedplate and of the home format."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from bedplate import settings

    try:
        number = installed("bedplate")
    except PackageNotFoundError:
        number = "unknown"
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        typer.echo(to_json({"bedplate": number, "home_format": settings.FORMAT, "python": python}))
    else:
        typer.echo(f"bedplate {number} (home format {settings.FORMAT}, Python {python})")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(execute(given))


def execute(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing but text reaches the user."""
    as_json = "--json" in arguments
    try:
        code = app(args=list(arguments), prog_name="bedplate", standalone_mode=False)
        sys.stdout.flush()
    except BedplateError as error:
        show_error(error, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        # A wrong command line. What it says is made when it is shown: a missing argument has no message of its own.
        show = getattr(error, "show", None)
        show() if show else typer.echo(error.message, err=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\nStopped. What finished is kept; the same command carries on.", err=True)
        return 130
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        show_error(_storage_error(error), as_json=as_json)
        return 1
    except Exception as error:  # noqa: BLE001 the edge of the program: a fault of ours becomes text and a file
        return _fault(error)
    return code if isinstance(code, int) else 0


def _reader_left() -> int:
    # The interpreter flushes stdout once more at exit; give it somewhere to write.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _storage_error(error: OSError) -> StorageError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(
        error.strerror or str(error),
        where=str(error.filename) if error.filename else None,
        fix="free some space and run the same command again" if full else "check that the path exists and is yours",
    )


def _fault(error: Exception) -> int:
    """Say that Bedplate itself failed, and keep the traceback in a file instead of on the screen."""
    import tempfile
    import traceback

    typer.echo(f"Error: a fault in Bedplate: {type(error).__name__}: {error}", err=True)
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix="bedplate-fault-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
        typer.echo(f"Where: {name}", err=True)
    typer.echo("Fix:   run the same command again; if it stays, report it with that file", err=True)
    return 70
