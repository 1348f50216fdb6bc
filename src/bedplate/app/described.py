"""The model that a use case names, counted for the planner, which reads no files itself."""

from pathlib import Path

import msgspec

from bedplate import ids
from bedplate.errors import InputError
from bedplate.plan import accelerators, counts, graphs, images, programs
from bedplate.plan.types import ModelFacts
from bedplate.usecase import Loaded
from bedplate.usecase.problems import nearest

_EXPORT_SECONDS = 600.0
"""What exporting a module may take; large ones are better saved once, as a program."""


def model(loaded: Loaded) -> ModelFacts | None:
    """The model that the file describes, counted: a config.json, an ONNX graph, a torch module, or a published one.

    A saved program is read here without running anything of it; a ``.py`` file runs in a limited process, which hands
    back no more than the graph of its module.

    Raises:
        InputError: it cannot be read or counted, nothing of that name was published, or no function is marked.
        UserCodeError: a ``.py`` file cannot be loaded, or its function fails.
    """
    text = loaded.use_case.workload.model
    if text is None:
        return None
    path = loaded.folder / text
    where = f"{loaded.path}, line {loaded.line('workload', 'model')}"
    if path.suffix == ".json":
        return _configured(path, where)
    if path.suffix == ".onnx":
        beside = path.with_name("config.json")  # as exporters of transformers write it
        text_model = loaded.use_case.workload.kind == "embedding" and beside.is_file()
        facts = _configured(beside, where) if text_model else ModelFacts(name="yours")
        return msgspec.structs.replace(facts, graph=_graph(path, where), digest=ids.digest_file(path))
    if path.suffix == ".pt2":
        return ModelFacts(name="yours", graph=_program(path, where))
    if path.suffix == ".py":
        return ModelFacts(name="yours", graph=_module(path, loaded, where))
    if text in accelerators.models():
        return ModelFacts(name=text, transformer=accelerators.models()[text])
    graph = images.published().get(text)
    if graph is None:
        known = sorted([*accelerators.models(), *images.published()])
        near = nearest(text, known)
        raise InputError(
            f"no measurement of a model {text[:60]!r} was published",
            where=where,
            fix=(f"did you mean {near!r}? Else " if near else "")
            + "describe it: a config.json, an ONNX file or a program of torch.export here",
        )
    return ModelFacts(name=text, graph=graph)


def _configured(path: Path, where: str) -> ModelFacts:
    try:
        config = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path.name} cannot be read: {error}", where=where, fix="name a config.json") from None
    if not isinstance(config, dict):
        raise InputError(f"{path.name} describes no model", where=where, fix="name a config.json")
    counted = counts.from_config(config, path.name)
    same = (name for name, known in accelerators.models().items() if known == counted)
    return ModelFacts(name=next(same, "yours"), transformer=counted)


def _graph(path: Path, where: str) -> graphs.GraphCount:
    import onnx  # slow to import, and few plans have a graph
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        loaded = onnx.load(path, load_external_data=False)
    except (OSError, ValueError, DecodeError) as error:
        raise InputError(f"{path.name} is no ONNX graph: {error}"[:200], where=where, fix="export it again") from None
    given = [item for item in loaded.graph.input if item.name not in {i.name for i in loaded.graph.initializer}]
    shapes = {i.name: [d.dim_value or (1 if at == 0 else 0) for at, d in enumerate(i.type.tensor_type.shape.dim)]
              for i in given}  # fmt: skip
    return graphs.count(loaded, shapes)


def _program(path: Path, where: str) -> graphs.GraphCount:
    try:
        with path.open("rb") as archive:
            text = programs.description(archive, path.name)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error}", where=where, fix="save the program here") from None
    return programs.count(text, path.name)


def _module(path: Path, loaded: Loaded, where: str) -> graphs.GraphCount:
    from bedplate.compute import sandbox

    high = loaded.use_case.risk.level == "high"
    declared = sandbox.describe(path, require_isolation=high)
    marked = [one.name for one in declared if one.kind == "network"]
    if len(marked) != 1:
        raise InputError(
            f"{path.name} marks {len(marked)} functions with @network",
            where=where,
            fix="mark the one that returns the module and an input for it",
        )
    reply = sandbox.call(
        f"pipeline:{marked[0]}",
        pipeline=path,
        resources=loaded.use_case.train.resources,
        require_isolation=high,
        limit=sandbox.Limit(_EXPORT_SECONDS),
    )
    return programs.count(reply.files.get(programs.GRAPH, b""), path.name)
