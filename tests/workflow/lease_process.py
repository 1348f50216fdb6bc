"""A process that holds the lease and writes to the ledger as fast as it can: started by test_lease.

Arguments: database, folder with the file ``key`` of the ledger, name of the holder, seconds of the lease. Each
acknowledged entry is printed as ``<token> <index>``; what ends the process is printed as ``ended: <kind of error>``.
"""

import sys
from pathlib import Path

from bedplate import ledger, store
from bedplate.errors import BedplateError, FencedError, UnavailableError
from bedplate.workflow.lease import NAME, Lease


def main() -> None:
    """Write until it may not."""
    database, folder, holder, seconds = sys.argv[1:]
    opened = store.open(database, wait=10)
    try:
        with Lease(opened, holder, float(seconds)):
            signer = ledger.Signer.load(Path(folder, "key"))
            entries = ledger.Ledger(opened, Path(folder, "ledger"), signer)
            with opened.read() as tx:
                held = tx.leases.get(NAME)
                assert held is not None
            while True:
                try:
                    with opened.transaction() as tx:
                        index = entries.record(tx, actor=f"{held.token}", action="test", resource=holder)
                except FencedError:
                    raise
                except UnavailableError:
                    continue  # it stood still in the middle of a transaction, which the server has undone: once more
                sys.stdout.write(f"{held.token} {index}\n")
                sys.stdout.flush()
    except BedplateError as error:
        sys.stdout.write(f"ended: {type(error).__name__}: {error.message}\n")


main()
