"""An owner whose lease is short, so that a test can outwait it: started by test_shared_database.

Arguments: seconds of the lease, then ``run FOLDER`` or ``up``. Prints ``<stage> <state>`` for each event, or ``ready``.
"""

import sys

from bedplate import settings
from bedplate.app import control, owned
from bedplate.app.read_models import UpInfo
from bedplate.errors import BedplateError
from bedplate.records import Event


def told(event: Event) -> None:
    """Print an event."""
    sys.stdout.write(f"{event.stage} {event.state}\n")
    sys.stdout.flush()


def ready(info: UpInfo) -> None:
    """Print where it serves."""
    sys.stdout.write(f"ready {info.address}\n")
    sys.stdout.flush()


def main() -> int:
    """Do it."""
    seconds, operation = float(sys.argv[1]), sys.argv[2]
    loaded = settings.load()
    try:
        if operation == "up":
            control.serve_forever(loaded, ready, lease_seconds=seconds)
        else:
            with owned.open_home(loaded, lease_seconds=seconds) as owner:
                owner.carry_out("run", {"path": sys.argv[3]}, owner.local_token(), told)
    except BedplateError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


sys.exit(main())
