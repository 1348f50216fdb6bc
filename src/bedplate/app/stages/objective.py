"""Load and check the file; derive requirements and choose infrastructure."""

import msgspec

from bedplate import ids
from bedplate.app import access, checking, planning
from bedplate.app.inputs import contract_digests, section
from bedplate.app.stage import Context, Evidence, Halt, Outcome, Stage
from bedplate.ids import Digest
from bedplate.plan.types import Plan
from bedplate.records import Fact, Objective
from bedplate.store import Transaction


def _check_inputs(context: Context) -> dict[str, str]:
    # The governance is named by its fact: whichever check counts now, reads made for people find it by that.
    return {
        "usecase.yaml": context.loaded.digest,
        **contract_digests(context.loaded),
        access.GOVERNANCE: access.governance_digest(context.loaded),
    }


def _check(context: Context) -> Outcome:
    use_case, loaded = context.use_case, context.loaded
    checking.sensitive(loaded)
    checking.masks(loaded)
    checking.deidentified(loaded)
    checking.row_policies(loaded)
    objective = Objective(
        name=use_case.name,
        statement=use_case.objective.statement,
        kpi=msgspec.to_builtins(use_case.objective.kpi),
        owner=msgspec.to_builtins(use_case.owner),
        purpose=use_case.governance.purpose,
        risk=use_case.risk.level,
        file=loaded.path.name,
        file_digest=loaded.digest,
        line=loaded.line("objective"),
        value=msgspec.to_builtins(use_case.objective.value) or {},
    )

    def known(tx: Transaction, facts: tuple[Fact, ...]) -> None:
        tx.use_cases.put(
            use_case.name,
            folder=str(loaded.folder),
            file=loaded.path.name,
            file_digest=loaded.digest,
            objective=facts[-1].digest,
        )

    governance = Evidence(kind=access.GOVERNANCE, body=access.governance_of(loaded))
    evidence = (governance, Evidence(kind="objective", body=objective))
    return Outcome(evidence=evidence, summary=_checked(context), apply=known)


def _checked(context: Context) -> str:
    use_case = context.use_case
    return f"{use_case.name}: {len(use_case.data)} data sets, {len(use_case.requirements.quality)} quality promises"


CHECK = Stage(
    name="check",
    title="Load and check the use case",
    needs=(),
    inputs=_check_inputs,
    run=_check,
    summarise=_checked,
    holds=False,
)


def _plan_inputs(context: Context) -> dict[str, str]:
    return {
        "objective and workload": ids.digest_of([section(context, "objective"), section(context, "workload")]),
        "requirements": ids.digest_of([section(context, "requirements"), section(context, "risk")]),
        "data": section(context, "data"),
        "serving": ids.digest_of([section(context, "serve"), section(context, "train"), section(context, "monitor")]),
        "governance": section(context, "governance"),
        "prices": planning.catalogue_digest(context.system.settings),
        "this machine": planning.probe_digest(planning.probe(context.system.home, keep=True)),
    }


def _plan(context: Context) -> Outcome:
    measured = planning.probe(context.system.home, keep=True)
    system = context.system
    requirements, plan = planning.derive(context.loaded, measured, system.settings, planning.past(system.store))
    objective = context.output("check").digest
    return Outcome(
        evidence=(
            Evidence(kind="requirements", body=requirements, parents=(objective,)),
            Evidence(kind="plan", body=plan, parents=(objective,), rests_on=(0,)),
        ),
        summary=planning.sentence(plan),
    )


def _planned(context: Context) -> str:
    return planning.sentence(context.body("plan", Plan))


def _over_budget(context: Context) -> Halt | None:
    plan = context.body("plan", Plan)
    return Halt(state="refused", reason=plan.reason) if plan.breach == "block" else None


PLAN = Stage(
    name="plan",
    title="Derive requirements and choose infrastructure",
    needs=(),
    inputs=_plan_inputs,
    run=_plan,
    summarise=_planned,
    holds=False,
    halts=_over_budget,
)


def requirements_digest(context: Context) -> Digest:
    """The fact of the requirements that the plan rests on."""
    return next(p for p in context.output("plan").parents if p != context.output("check").digest)
