"""The model that a use case names, counted for the planner, which reads no files itself."""

from pathlib import Path

import msgspec

from bedplate.errors import InputError
from bedplate.plan import accelerators, counts, graphs, images
from bedplate.plan.types import ModelFacts
from bedplate.usecase import Loaded
from bedplate.usecase.problems import nearest


def model(loaded: Loaded) -> ModelFacts | None:
    """The model that the file describes, counted: a config.json, an ONNX graph, or one that was published.

    Raises:
        InputError: it cannot be read or counted, or nothing of that name was published.
    """
    text = loaded.use_case.workload.model
    if text is None:
        return None
    path = loaded.folder / text
    where = f"{loaded.path}, line {loaded.line('workload', 'model')}"
    if path.suffix == ".json":
        try:
            config = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{text} cannot be read: {error}", where=where, fix="name a config.json") from None
        if not isinstance(config, dict):
            raise InputError(f"{text} describes no model", where=where, fix="name a config.json")
        counted = counts.from_config(config, text)
        same = (name for name, known in accelerators.models().items() if known == counted)
        return ModelFacts(name=next(same, "yours"), transformer=counted)
    if path.suffix == ".onnx":
        return ModelFacts(name="yours", graph=_graph(path, where))
    if text in accelerators.models():
        return ModelFacts(name=text, transformer=accelerators.models()[text])
    graph = images.published().get(text)
    if graph is None:
        known = sorted([*accelerators.models(), *images.published()])
        near = nearest(text, known)
        raise InputError(
            f"no measurement of a model {text[:60]!r} was published",
            where=where,
            fix=(f"did you mean {near!r}? Else " if near else "") + "describe it: a config.json or an ONNX file here",
        )
    return ModelFacts(name=text, graph=graph)


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
