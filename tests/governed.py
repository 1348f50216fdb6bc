"""A use case whose governance is in force in a home, as its check would have left it."""

from bedplate.app import access
from bedplate.app.system import System
from bedplate.ids import Digest, digest_bytes, digest_of
from bedplate.records import Governance


def govern(system: System, name: str, governance: Governance) -> None:
    """Have ``governance`` count for the tables of the use case ``name``, which is made if it is not there."""
    with system.store.transaction() as tx:
        fact = tx.facts.put(access.GOVERNANCE, name, governance)
        latest = tx.stages.latest(name, "check")
        if latest is None:
            objective = tx.facts.put("objective", name, {"statement": "s", "file": "usecase.yaml", "line": 1})
            tx.use_cases.put(name, folder="/", file="f", file_digest=digest_bytes(b"f"), objective=objective.digest)
        output: Digest = objective.digest if latest is None else latest.output
        inputs = {access.GOVERNANCE: fact.digest}
        tx.stages.finish(name, "check", digest_of(inputs), inputs, output, 0.1)
