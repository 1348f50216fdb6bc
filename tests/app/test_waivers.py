"""A waiver written in the file asks policy like one given by command: the file is no way around it."""

from types import SimpleNamespace

import pytest

from bedplate.app.stages import release
from bedplate.app.system import System
from bedplate.errors import DeniedError
from bedplate.settings import load
from bedplate.usecase.types import WaiverSection

NAME = "late-invoices"


@pytest.fixture
def system(tmp_path):
    with System(load({"BEDPLATE_HOME": str(tmp_path / "home")})) as opened:
        yield opened


def context_of(system, principal):
    """As much of a run at its gates as recording waivers looks at."""
    waiver = WaiverSection(gate="fairness", by="ana.silva", reason="too few people to say")
    use_case = SimpleNamespace(
        name=NAME, release=SimpleNamespace(waivers=(waiver,)), governance=SimpleNamespace(purpose="personalisation")
    )
    return SimpleNamespace(
        system=system,
        use_case=use_case,
        principal=principal,
        actor=principal.name,
        output=lambda stage: SimpleNamespace(digest="sha256:" + "0" * 64),
    )


def waivers_of(system):
    with system.store.read() as tx:
        return [(row.gate, row.by) for row in tx.waivers.list(NAME)]


def test_an_administrator_puts_the_file_s_waiver_in_the_ledger_once(system):
    context = context_of(system, system.identity.authenticate(system.token))

    release._record_waivers(context)
    release._record_waivers(context)

    assert waivers_of(system) == [("fairness", "ana.silva")]


def test_who_may_run_but_not_waive_cannot_do_it_through_the_file(system):
    administrator = system.identity.authenticate(system.token)
    engineer = system.identity.add_principal("user", "eva", ["engineers"], actor=administrator.id)
    key = system.identity.create_key(getattr(engineer, "id", engineer), actor=administrator.id)

    with pytest.raises(DeniedError, match="waive"):
        release._record_waivers(context_of(system, system.identity.authenticate(key)))

    assert waivers_of(system) == []
