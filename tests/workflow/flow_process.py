"""A process that runs a small workflow and can be told where to die: started by test_engine.

Arguments: location, folder of effects, workflow id, number of steps, ``<step>:<moment>`` to die at or ``-``.
Each step appends its name to the file ``effects`` before its result is recorded, and answers with a counter, so that a
step that ran again would be seen in both.
"""

import os
import signal
import sys
from pathlib import Path

from bedplate import ids
from bedplate.records import Event
from bedplate.workflow import Engine, Step


def main() -> None:
    """Run it and print the results as JSON."""
    location, folder, workflow_id, count, death = sys.argv[1:]
    effects = Path(folder) / "effects"

    def die(moment: str) -> None:
        if death == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(number: int) -> Step:
        def run() -> dict[str, object]:
            die(f"{number}:before")
            with effects.open("a") as file:
                file.write(f"{number}\n")
            die(f"{number}:after")
            return {"step": number, "pid": os.getpid()}

        return Step(f"step-{number}", run)

    def on_event(event: Event) -> None:
        if event.state == "started":
            die(f"{event.stage.removeprefix('step-')}:recorded-previous")

    with Engine(location) as engine:
        results = engine.execute(workflow_id, [step(i) for i in range(int(count))], on_event)
        die("end")
    sys.stdout.write(ids.canonical(results).decode())


main()
