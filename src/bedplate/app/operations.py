"""What a person or a program can ask of Bedplate: one method each, the same for CLI, Python and pages.

Reading the state needs nobody's leave. What changes it happens in the one owner process of the home: here, if no owner
runs, or there, over the owner's socket.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from bedplate import settings as settings_module
from bedplate import usecase
from bedplate.app import erasure_noun, feature_noun, model_noun, nouns, owned, owner_socket, table_noun
from bedplate.app.exports.launch import LaunchExport, Tool
from bedplate.app.owner_socket import Request
from bedplate.app.profile_models import ProfileReport
from bedplate.app.read_models import (
    AuditReport,
    BackupReport,
    CheckReport,
    DecisionReport,
    GcReport,
    InitReport,
    LoadReport,
    LoadTarget,
    PlanReport,
    RestoreReport,
    RunSummary,
    ScoreReport,
    Status,
    StopReport,
    Trace,
    UpInfo,
)
from bedplate.app.serving_models import KubernetesExport
from bedplate.app.table_reports import ContractDiffReport, ContractTestReport, PromiseReport
from bedplate.errors import HomeError, UnavailableError
from bedplate.plan.bought import Imported
from bedplate.plan.types import Probe
from bedplate.records import Event
from bedplate.settings import Home, Settings
from bedplate.workflow.owner import HeldError

if TYPE_CHECKING:
    from bedplate.app.asking import Question
    from bedplate.plan.compare import Comparison
    from bedplate.plan.portfolio import Portfolio

T = TypeVar("T")
OnEvent = Callable[[Event], None]

_PATIENCE = 10.0
"""Seconds in which an owner that is starting or ending gets to open its socket or give up its lock."""


def _quiet(event: Event) -> None:
    """Show no progress."""


class Bedplate:
    """Everything Bedplate can do on one home. ``users``, ``keys``, ``workspaces`` and ``policies`` let a team share it;
    ``models`` is the registry, ``tables`` the data, ``features`` what is made of it, ``rollouts`` lets releases in,
    ``quotas`` bounds what is asked, ``erasure`` takes a person out.

    Every method returns a struct of :mod:`bedplate.app.read_models` and raises only :class:`BedplateError`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else settings_module.load()
        self.home = Home(self.settings.home)
        self.users = nouns.Users(self._effect)
        self.keys = nouns.Keys(self._effect)
        self.workspaces = nouns.Workspaces(self._effect)
        self.policies = nouns.Policies(self._effect, self.home.root)
        self.rollouts = nouns.Rollouts(self._effect)
        self.quotas = nouns.Quotas(self._effect)
        self.models = model_noun.Models(self._effect, self.settings)
        self.tables = table_noun.Tables(self._effect)
        self.features = feature_noun.Features(self._effect)
        self.erasure = erasure_noun.Erasure(self._effect)

    # ------------------------------------------------------------------------------------------------- the file alone

    def check(self, path: str | Path) -> CheckReport:
        """Read and check a use case: every problem at once, as a UseCaseError, or what was found."""
        from bedplate.app import checking

        return checking.check(Path(path), self.settings)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of ``usecase.yaml``, for editors."""
        from bedplate.usecase.schema import schema

        return schema()

    def init(self, folder: str | Path, name: str | None = None) -> InitReport:
        """Write a commented starter that runs as it is."""
        from bedplate.usecase.starter import starter

        target = Path(folder).absolute()
        chosen = name or target.name
        files = starter(target, chosen)
        return InitReport(name=chosen, folder=str(target), files=tuple(str(f) for f in files))

    def contract_test(self, path: str | Path) -> ContractTestReport:
        """Hold the data of a use case against its contracts without keeping a row."""
        from bedplate.app import checking

        return checking.contract_test(Path(path), self.settings)

    def contract_infer(self, source: str | Path, *, name: str | None = None) -> str:
        """A first contract for a file of rows (``.parquet``, ``.csv``, ``.json``), which its rows keep."""
        from bedplate.app import checking

        return checking.contract_infer(Path(source), self.settings, name)

    # ---------------------------------------------------------------------------------------------------- reading

    def plan(self, path: str | Path) -> PlanReport:
        """Requirements, infrastructure options and what a run would do. Changes nothing."""
        from bedplate.app import planning

        return planning.preview(self.settings, usecase.load(Path(path)))

    def plan_page(self, path: str | Path) -> str:
        """The plan of a use case as one HTML page for whoever decides on it. Changes nothing."""
        from bedplate.app import plan_page, planning

        loaded = usecase.load(Path(path))
        measured = planning.probe(self.home, keep=False)
        return plan_page.page(planning.derive(loaded, measured, self.settings, planning.known(self.settings))[1])

    def what_if(self, path: str | Path, asked: Sequence[str]) -> "Comparison":
        """The plan of a use case beside what it would be with other values in its file. Changes nothing.

        ``asked`` are ``PATH=VALUE``, such as ``throughput.peak=2000/s``.

        Raises:
            InputError: a path does not exist, or a value is not allowed there.
        """
        from bedplate.app import planning

        return planning.compare(self.settings, usecase.load(Path(path)), asked)

    def plan_all(self, folder: str | Path, budget: str = "") -> "Portfolio":
        """What to fund of the use cases in a folder's folders, with a budget a month or the sum of theirs.

        Raises:
            InputError: there is none, or the budget is no amount.
        """
        from bedplate.app import planning

        return planning.together(self.settings, Path(folder), budget)

    def questions(self, path: str | Path) -> "tuple[Question, ...]":
        """What a use case leaves open or contradicts, as questions in plain words. Changes nothing."""
        from bedplate.app import asking, planning

        return asking.questions(Path(path), planning.probe(self.home, keep=False), self.settings)

    def answer(self, path: str | Path, question: "Question", value: str) -> None:
        """Write an answer into ``usecase.yaml``; its comments and order stay.

        Raises:
            InputError: it is not allowed there; the file stays as it was.
        """
        from bedplate.app import asking

        asking.answer(Path(path), question, value)

    def probe(
        self, model: str | Path | None = None, *, shapes: Sequence[str] = (), on_event: OnEvent = _quiet
    ) -> Probe:
        """Measure this machine anew, in seconds, and keep it as what plans scale from.

        ``model`` is an ONNX file to be timed as well; ``shapes`` (``NAME=1x3x224x224``) fills in its open dimensions.

        Raises:
            InputError: the model cannot be read, opened or fed.
        """
        from bedplate.app import planning

        found = planning.measure_anew(self.home, Path(model) if model is not None else None, shapes, on_event)
        return self._effect("keep_probe", Probe, measured=msgspec.to_builtins(found))

    def import_prices(
        self, sources: Sequence[str | Path], *, form: str, provider: str | None = None, date: str | None = None
    ) -> tuple[Imported, ...]:
        """Keep prices of a provider's list, or of machines of your own, as those that plans are made from.

        ``form``: ``aws``, ``azure``, ``gcp``, ``skypilot`` (of a ``provider``) or ``own``; ``date``: the day they were
        fetched, where the list names none.

        Raises:
            InputError: a file is not of that form, or holds nothing that can be used.
        """
        from bedplate.app import pricing

        brought = pricing.read([Path(source) for source in sources], form, provider, date)
        return self._effect("keep_prices", tuple[Imported, ...], brought=msgspec.to_builtins(brought))

    def profile(
        self,
        target: str,
        *,
        shapes: Sequence[str] = (),
        rows: int = 1,
        rate: float | None = None,
        seconds: float = 6.0,
        on_event: OnEvent = _quiet,
    ) -> ProfileReport:
        """Find what holds an ONNX file, a Python program (``.py``), a training or a served endpoint back.

        ``rows`` is the size of a call of a model and ``shapes`` fills in its open dimensions; ``rate`` is the load on
        an endpoint, by default the peak of its use case. A training, named by its run (``run_...``), is done again and
        watched; its reads are recorded, nothing else is changed.

        Raises:
            InputError: the file cannot be read, opened or fed.
            NotFoundError: there is no such run or endpoint.
            UnavailableError: it is not served now.
            UserCodeError: the program or the training failed, or did too little to be seen.
        """
        from bedplate.app import planning, profiling

        if target.startswith("run_"):
            return self._effect("profile_training", ProfileReport, on_event, run=target, seconds=seconds)
        probe = planning.probe(self.home, keep=False)
        if target.endswith(".onnx"):
            return profiling.model(Path(target), probe, shapes, rows, seconds, on_event)
        if target.endswith(".py"):
            return profiling.program(Path(target), seconds, probe, on_event)

        def load(rate: float | None) -> LoadReport:
            return self.load(target, rate=rate, seconds=max(2.0, seconds / 2), on_event=on_event)

        return profiling.endpoint(target, load, probe, rate, on_event)

    def contract_diff(self, path: str | Path) -> ContractDiffReport:
        """What the contracts of a use case change against those in force, for whom that breaks, and what it hits."""
        return self._effect("diff_contracts", ContractDiffReport, path=str(Path(path).absolute()))

    def contract_sla(self, path: str | Path) -> PromiseReport:
        """Whether the newest tables of a use case are as fresh and complete as its contracts promise."""
        return self._effect("check_promises", PromiseReport, path=str(Path(path).absolute()))

    def status(self) -> Status:
        """What this home is doing now; a running owner is asked, because only it sees its endpoints."""
        from bedplate.app import queries
        from bedplate.workflow import owner

        if owner.current(self.home) is not None:
            try:
                request = Request(operation="status", arguments={}, token=owned.local_token(self.home))
                return msgspec.json.decode(owner_socket.ask(self.home.socket, request, _quiet), type=Status)
            except (HomeError, UnavailableError):
                pass  # it is starting or ending: what is written down is all there is
        return queries.status(self.settings)

    def audit_verify(self, checkpoint: str | Path | None = None) -> AuditReport:
        """Verify the whole ledger offline, against a checkpoint kept elsewhere if one is given."""
        from bedplate.app import auditing

        return auditing.verify(self.settings, Path(checkpoint) if checkpoint is not None else None)

    # ---------------------------------------------------------------------------------------------------- changing

    def run(self, path: str | Path, only: str | None = None, on_event: OnEvent = _quiet) -> RunSummary:
        """Carry a use case through every stage that is not finished for its present inputs.

        Raises:
            UseCaseError: the file has problems.
            GateError: never; a refusing gate is part of the summary.
            BedplateError: a stage failed; run again to carry on.
        """
        loaded = usecase.load(Path(path))  # a broken file is refused before anything is opened
        return self._effect("run", RunSummary, on_event, path=str(loaded.path), only=only)

    def trace(self, prediction_id: str, purpose: str | None = None) -> Trace:
        """Walk from a prediction, or from the digest of a scoring, to the objective, checking every digest on the way.

        The prediction is read for the ``purpose`` of its use case unless you name another one.

        Raises:
            DeniedError: policy does not let you see it for that purpose.
            NotFoundError: no use case has a prediction of that id.
        """
        return self._effect("trace", Trace, prediction_id=prediction_id, purpose=purpose)

    def load(
        self,
        endpoint: str,
        *,
        rate: float | None = None,
        seconds: float = 10.0,
        connections: int = 32,
        body: str | Path | None = None,
        on_event: OnEvent = _quiet,
    ) -> LoadReport:
        """Send requests to a served endpoint at a rate, and hold what its clients see against its requirement.

        Requests are due at fixed times, by default as many as the use case expects at its peak. They are made of logged
        predictions, or are the one in the file ``body``, and are logged as replayed: monitoring leaves them out.

        Raises:
            InputError: nothing was predicted yet, or ``body`` is no JSON object.
            NotFoundError: there is no such endpoint.
            UnavailableError: it is not served now, or answered nothing.
        """
        from bedplate.app import load_target

        bodies = (load_target.read_body(Path(body)),) if body is not None else None
        target = self._effect("load_target", LoadTarget, endpoint=endpoint, logged=bodies is None)
        return load_target.run(
            target,
            bodies or target.bodies,
            rate=rate or target.peak,
            seconds=seconds,
            connections=connections,
            key=owned.local_token(self.home),
            on_event=on_event,
        )

    def export_kubernetes(
        self,
        endpoint: str,
        *,
        form: Literal["deployment", "kserve"] = "deployment",
        image: str = "",
        namespace: str = "default",
        gateway: str = "",
        hosts: Sequence[str] = (),
    ) -> KubernetesExport:
        """An endpoint as Kubernetes objects: a deployment with all around it, or KServe's object.

        ``image`` is the repository of its images (default: the endpoint's name), one tag for each bundle; ``gateway``
        is the Gateway that routes ``hosts`` to it.
        """
        return self._effect(
            "export_kubernetes",
            KubernetesExport,
            endpoint=endpoint,
            form=form,
            image=image,
            namespace=namespace,
            gateway=gateway,
            hosts=tuple(hosts),
        )

    def export_launch(
        self,
        use_case: str,
        tool: Tool,
        *,
        option: str = "",
        image: str = "",
        namespace: str = "default",
    ) -> LaunchExport:
        """The option that the latest plan chose, or ``option`` by its name there, as the file of a tool.

        ``image`` and ``namespace`` are for KubeRay.
        """
        return self._effect(
            "export_launch",
            LaunchExport,
            use_case=use_case,
            tool=tool,
            option=option,
            image=image,
            namespace=namespace,
        )

    def score(
        self,
        endpoint: str,
        table: str,
        *,
        to: str,
        purpose: str | None = None,
        columns: Sequence[str] = (),
        keep: Sequence[str] = (),
        on_event: OnEvent = _quiet,
    ) -> ScoreReport:
        """Score the newest version of a table with the release that an endpoint serves, into a new table or not at all.

        Rows are read under policy for the ``purpose`` of the use case, unless another one is given. ``columns`` are
        what the model takes, if they are not called as its inputs; ``keep`` are columns to carry along. The same
        scoring of the same version is done once.

        Raises:
            DeniedError: policy does not let you ask the endpoint, or read the table.
            InputError: the table does not fit the model.
            NotFoundError: there is no such endpoint or table.
        """
        return self._effect(
            "score", ScoreReport, on_event, endpoint=endpoint, table=table, to=to, purpose=purpose,
            columns=tuple(columns), keep=tuple(keep),
        )  # fmt: skip

    def approve(self, use_case: str, environment: str, reason: str) -> DecisionReport:
        """Say, as yourself, that the latest bundle may go into an environment."""
        return self._effect("approve", DecisionReport, use_case=use_case, environment=environment, reason=reason)

    def refuse(self, use_case: str, environment: str, reason: str) -> DecisionReport:
        """Say, as yourself, that the latest bundle may not go into an environment."""
        return self._effect("refuse", DecisionReport, use_case=use_case, environment=environment, reason=reason)

    def waive(self, use_case: str, gate: str, reason: str) -> DecisionReport:
        """Let results of a gate through, in ``dev``, that have too little evidence. Your name stays on it."""
        return self._effect("waive", DecisionReport, use_case=use_case, gate=gate, reason=reason)

    def login_link(self) -> str:
        """A link that lets one browser in, once, within a minute."""
        return self._effect("login_link", str)

    def backup(self, destination: str | Path, region: str = "") -> BackupReport:
        """Write a consistent, verified copy of the home, also while it is in use.

        ``region`` is where ``destination`` lies, which every use case with residency asks for.
        """
        return self._effect("backup", BackupReport, destination=str(Path(destination).absolute()), region=region)

    def gc(self, older_than: str = "30 d", *, dry_run: bool = False) -> GcReport:
        """Delete for good what was deleted so long ago, and content that nothing names; a dry run only says what."""
        return self._effect("gc", GcReport, older_than=older_than, dry_run=dry_run)

    def restore(self, source: str | Path, home: str | Path | None = None) -> RestoreReport:
        """Make a home from a backup, after checking every digest in it."""
        from bedplate.app import backup

        target = Path(home).expanduser().absolute() if home is not None else self.home.root
        return backup.restore(Path(source), target, self.settings)

    # --------------------------------------------------------------------------------------------------- running

    def up_detached(self) -> UpInfo:
        """Start ``bedplate up`` in the background, or find it running; returns once it answers."""
        from bedplate.app import control

        return control.up_detached(self.settings, lambda: self._effect("up_info", UpInfo))

    def serve_forever(self, on_ready: Callable[[UpInfo], None]) -> None:
        """Own the home and serve API, pages and endpoints until told to stop."""
        from bedplate.app import control

        control.serve_forever(self.settings, on_ready)

    def stop(self) -> StopReport:
        """End the owner of the home, its endpoints and pages; what is under way ends at a safe point."""
        from bedplate.app import control

        return control.stop(self.settings)

    def _effect(self, operation: str, kind: type[T], on_event: OnEvent = _quiet, **arguments: Any) -> T:
        """Carry out a change as the owner, or have the owner carry it out."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with owned.open_home(self.settings) as owner:
                    result = owner.carry_out(operation, arguments, owner.local_token(), on_event)
                    return msgspec.convert(result, kind)
            except HeldError:
                # Without its key the owner is still making the home: that is waited for as its socket is.
                made = owned.key_path(self.home).exists()
                if not made and time.monotonic() > deadline:
                    raise
            if made:
                try:
                    request = Request(operation=operation, arguments=arguments, token=owned.local_token(self.home))
                    return msgspec.json.decode(owner_socket.ask(self.home.socket, request, on_event), type=kind)
                except HomeError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.1)
