"""Running a home: API, pages and endpoints in one owner process, in the foreground or detached."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import clock, files
from bedplate.app import access, actuals, endpoints, features, owned, owner_socket, rollout_steps, upkeep
from bedplate.app import home as homes
from bedplate.app.owner_socket import Request
from bedplate.app.read_models import StopReport, UpInfo
from bedplate.app.site import Site
from bedplate.errors import BedplateError, HomeError, UnavailableError
from bedplate.extensions import plugins
from bedplate.records import Event
from bedplate.settings import Home, Settings, child_environment
from bedplate.workflow import lease as leases
from bedplate.workflow import owner as owners

if TYPE_CHECKING:
    from bedplate.observe.spans import Exporter

_START = 60.0
"""Seconds in which a detached owner must answer."""
_STOP = 60.0
_SHIP_EVERY = 30.0
_COLLECT_EVERY = 6 * 3600.0
_COLLECT_AFTER = (20_000, 20, 50)
"""So many objects, and younger generations, make the collector look: one call of a client brings thousands of rows."""


def _quiet(event: Event) -> None:
    """Show no progress."""


def serve_forever(
    settings: Settings, on_ready: Callable[[UpInfo], None], *, lease_seconds: float = leases.SECONDS
) -> None:
    """Own the home, bring its endpoints back, serve API and pages until a signal or ``bedplate stop``.

    Raises:
        HeldError: another process owns the home.
        LeasedError: the owner of another home holds the database.
        FencedError: another owner has taken the database over meanwhile.
        UnavailableError: the port is taken.
    """
    with owned.open_home(settings, lease_seconds=lease_seconds) as home:
        previous = {
            number: signal.signal(number, lambda *_: home.stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)
        }
        address = home.system.home.run / "address"
        thresholds = gc.get_threshold()
        exporter = home.system.spans = _exporter(settings)  # an address that is none is told before anything is served
        plane = plugins("bedplate.control_plane")[0](
            Site(home.system, home.carry_out, lambda: endpoints.live(home.system))
        )
        watching: rollout_steps.Watcher | None = None
        keeping: upkeep.Upkeep | None = None
        try:
            files.write(address, plane.address.encode())
            home.system.serving = True
            for problem in endpoints.restore(home.system):
                sys.stderr.write(f"{problem}\n")
            watching = rollout_steps.Watcher(home.system)
            keeping = upkeep.Upkeep(home.system)
            on_ready(UpInfo(address=plane.address, link=home.link(), pid=os.getpid()))
            gc.freeze()  # what serves stays: the collector need not walk it again and again
            gc.set_threshold(*_COLLECT_AFTER)
            gc.enable()
            _until_stopped(home)
            home.system.check_owner()
        finally:
            for looking in (watching, keeping):
                if looking is not None:
                    looking.close()
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            address.unlink(missing_ok=True)
            plane.stop()
            home.system.spans = None
            if exporter is not None:
                exporter.close()
            for number, handler in previous.items():
                signal.signal(number, handler)


def _exporter(settings: Settings) -> "Exporter | None":
    if not settings.traces:
        return None
    from bedplate.observe.spans import Exporter  # protocol buffers: not for a home that traces nothing

    return Exporter(settings.traces)


def _until_stopped(home: owned.OwnedHome) -> None:
    """Wait; meanwhile ship what replicas logged, seal what runs logged and sign what the ledger took in.

    From time to time content that nothing names goes, and uploads that nobody carries on. Each day of serving is held
    against its plan once it is over.
    """
    collected, days = clock.monotonic(), actuals.Days()
    while not home.stopping.wait(_SHIP_EVERY):
        try:
            if clock.monotonic() - collected >= _COLLECT_EVERY:
                collected = clock.monotonic()
                home.system.uploads.forget()
                home.system.contents.collect()
            ship_all(home)
            days.look(home.system)
            home.system.appends.seal_if_due()
            home.system.ledger.checkpoint()
        except BedplateError as error:
            sys.stderr.write(f"{error}\n")


def ship_all(home: owned.OwnedHome) -> None:
    """Move sealed predictions of every endpoint into their tables, one ledger entry for each segment; and put what was
    read of its features by key into the ledger."""
    system = home.system
    with system.store.read() as tx:
        rows = tx.endpoints.list()
    if not rows:
        return
    from bedplate.observe.ship import ship  # tables take a hundred megabytes: not for a home that serves no model

    for row in rows:
        folder, table = endpoints.journal_of(system, row.name), access.predictions_table(row.use_case)
        with system.lock(row.use_case):
            traced = system.spans.take if system.spans is not None else None
            ship(folder, system.tables, table, on_segment=endpoints.recorder(system), on_predictions=traced)
            features.record_reads(system, row.name)


def up_detached(settings: Settings, info: Callable[[], UpInfo]) -> UpInfo:
    """Start the owner in the background, or find it running; returns once it answers.

    Raises:
        HomeError: the folder cannot be a home.
        UnavailableError: it ended at its start (its log says why) or did not answer in time.
    """
    home = Home(settings.home)
    if owners.current(home) is not None and (home.run / "address").exists():
        return info()
    homes.create_or_open(home)  # a folder that cannot be a home is refused here, before a log is put into it
    log = home.logs / "up.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bedplate", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=True,
            cwd="/",
            env=child_environment(settings),
        )
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if (home.run / "address").exists():
            try:
                return info()
            except (HomeError, UnavailableError):
                pass  # between writing the address and opening the socket
        if process.poll() is not None:
            raise UnavailableError("`bedplate up` ended at its start", where=str(log), fix=_last_lines(log))
        time.sleep(0.05)
    raise UnavailableError("`bedplate up` did not answer in time", where=str(log), fix=_last_lines(log))


def _last_lines(log: Path) -> str:
    text = log.read_text("utf-8", errors="replace")
    return " ".join(text.strip().splitlines()[-3:]) or "see the log"


def stop(settings: Settings) -> StopReport:
    """Ask the owner to end, and wait until it has.

    Raises:
        UnavailableError: it did not end in time.
    """
    home = Home(settings.home)
    holder = owners.current(home)
    if holder is None:
        return StopReport(pid=None)
    request = Request(operation="stop", arguments={}, token=owned.local_token(home))
    report = msgspec.json.decode(owner_socket.ask(home.socket, request, _quiet), type=StopReport)
    deadline = time.monotonic() + _STOP
    while owners.current(home) is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"process {holder.pid} is still ending what it began", fix="wait, then look again: bedplate status"
            )
        time.sleep(0.05)
    return report
