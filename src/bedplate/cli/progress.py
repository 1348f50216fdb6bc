"""Progress of a run: live bars on a terminal, plain lines everywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from bedplate.app.read_models import STAGES
from bedplate.records import Event
from bedplate.words import seconds

OnEvent = Callable[[Event], None]


@contextmanager
def progress(stream: TextIO) -> Iterator[OnEvent]:
    """A function that shows each event on ``stream``."""
    if stream.isatty():
        with _live(stream) as on_event:
            yield on_event
    else:
        yield lambda event: _plain(stream, event)


def event_line(event: Event) -> str:
    """``[ 3/13] ingest   transactions 1,469,307 rows  4.1 s``."""
    place = f"{STAGES.index(event.stage) + 1:>2}/{len(STAGES)}" if event.stage in STAGES else "     "
    words = {"skipped": "unchanged: ", "failed": "FAILED: ", "waiting": "waiting: "}.get(event.state, "")
    took = f"  {seconds(event.seconds)}" if event.seconds is not None else ""
    return f"[{place}] {event.stage:<9} {words}{event.message}{took}"


def _plain(stream: TextIO, event: Event) -> None:
    # Counting up is for terminals: a log keeps what began, what ended, and messages without a count.
    if event.state == "started" or (event.state == "progress" and event.done is not None):
        return
    stream.write(event_line(event) + "\n")
    stream.flush()


@contextmanager
def _live(stream: TextIO) -> Iterator[OnEvent]:
    # Imported here: Rich takes 0.2 s, and only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(file=stream, highlight=False),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def on_event(event: Event) -> None:
        text = f"{event.stage:<9} {event.message}"
        if event.state in ("started", "progress"):
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(text, total=event.total)
            bars.update(tasks[event.stage], description=text, completed=event.done, total=event.total)
            return
        if event.stage in tasks:
            bars.remove_task(tasks.pop(event.stage))
        bars.console.print(event_line(event), markup=False, highlight=False)

    with bars:
        yield on_event
