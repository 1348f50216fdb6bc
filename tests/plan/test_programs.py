"""Torch modules counted from programs of torch.export, without torch: what ``networks`` saved, and small graphs."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bedplate.app import described
from bedplate.errors import InputError
from bedplate.plan import images, programs
from bedplate.usecase import load
from tests.plan.test_kinds import HEAD, SERVES

FOLDER = Path(__file__).with_name("programs")
NETWORK = """
import torch
from bedplate.pipeline import network

@network
def build():
    with torch.device("meta"):
        parts = torch.nn.LSTM(4, 8, batch_first=True), Out(), Last(), torch.nn.Linear(8, 3)
        return torch.nn.Sequential(*parts), torch.zeros(2, 5, 4)

class Out(torch.nn.Module):
    def forward(self, found):
        return found[0]

class Last(torch.nn.Module):
    def forward(self, found):
        return found[:, -1]
"""


def graph(path: Path) -> bytes:
    with path.open("rb") as archive:
        return programs.description(archive)


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "activations"),
    [
        ("resnet50", 25_557_032, 4.09e9, 11.11e6),  # timm: 25.56 M, 4.1 GMACs, 11.1 M
        ("vit_b_16", 86_567_656, 17.58e9, 23.9e6),  # timm: 86.57 M, 17.58 GMACs, 23.9 M
        ("bert_base", 109_482_240, 11.17e9, None),  # 22.4 GFLOP for 128 tokens: 85.1 M products each, and attention
    ],
)
def test_counts_are_those_that_were_published(
    name: str, parameters: int, macs: float, activations: float | None
) -> None:
    counted = programs.count(graph(FOLDER / f"{name}.pt2"))
    assert counted.parameters == parameters
    assert counted.macs == pytest.approx(macs, rel=0.002)
    assert activations is None or counted.activations == pytest.approx(activations, rel=0.002)


def test_a_graph_of_vision_is_counted_as_measurements_were() -> None:
    """What the planner scales from has the same counts of the same model."""
    counted, known = programs.count(graph(FOLDER / "vit_b_16.pt2")), images.published()["vit_base_patch16_224"]
    for one, other in ((getattr(counted, field), getattr(known, field)) for field in known.__struct_fields__):
        assert one == pytest.approx(other, rel=0.002)


def program(target: str, tensors: dict[str, list[Any]], *, flags: tuple[str, ...] = (), rows: Any = "x") -> bytes:
    """One step whose operands are all tensors but ``out``; ``w`` is a weight, the others are given."""
    operands = [{"name": name, "arg": {"as_tensor": {"name": name}}} for name in tensors if name != "out"]
    operands += [{"name": flag, "arg": {"as_bool": True}} for flag in flags]
    sizes = {n: {"sizes": [{"as_int": s} if isinstance(s, int) else s for s in shape]} for n, shape in tensors.items()}
    specs = [
        {"parameter": {"arg": {"name": "w"}}} if name == "w" else {"user_input": {"arg": {"as_tensor": {"name": name}}}}
        for name in tensors
        if name != "out" and name != "c"
    ]
    node = {"target": target, "inputs": operands, "outputs": [{"as_tensor": {"name": "out"}}]}
    found = {"graph": {"nodes": [node], "tensor_values": sizes}, "signature": {"input_specs": specs}}
    return json.dumps({"graph_module": found}).encode()


OPEN = {"as_expr": {"expr_str": "Symbol('s0')", "hint": {"as_int": 4}}}
ATEN = "torch.ops.aten."


@pytest.mark.parametrize(
    ("target", "tensors", "flags", "macs", "written"),
    [
        ("mm.default", {"x": [4, 8], "w": [8, 3], "out": [4, 3]}, (), 8 * 3, 3),
        ("linear.default", {"x": [OPEN, 5, 8], "w": [3, 8], "out": [OPEN, 5, 3]}, (), 5 * 8 * 3, 15),
        ("addmm.default", {"c": [3], "x": [4, 8], "w": [8, 3], "out": [4, 3]}, (), 8 * 3, 3),
        ("convolution.default", {"x": [2, 3, 9, 9], "w": [6, 3, 3, 3], "out": [2, 6, 7, 7]}, (), 49 * 6 * 27, 294),
        (
            "convolution.default",
            {"x": [2, 3, 9, 9], "w": [3, 6, 3, 3], "out": [2, 6, 11, 11]},
            ("transposed",),
            81 * 3 * 54,
            6 * 121,
        ),
        ("conv_transpose2d.input", {"x": [1, 3, 9, 9], "w": [3, 6, 3, 3], "out": [1, 6, 11, 11]}, (), 13122, 726),
        (
            "scaled_dot_product_attention.default",
            {"x": [1, 2, 7, 4], "k": [1, 2, 9, 4], "v": [1, 2, 9, 5], "out": [1, 2, 7, 5]},
            (),
            2 * 7 * 9 * (4 + 5),
            2 * 7 * (9 + 5),
        ),
        ("relu.default", {"x": [4, 8], "out": [4, 8]}, (), 0, 0),
    ],
)  # fmt: skip
def test_each_product_is_counted_for_one_sample(
    target: str, tensors: dict[str, list[Any]], flags: tuple[str, ...], macs: int, written: int
) -> None:
    counted = programs.count(program(ATEN + target, tensors, flags=flags))
    assert (counted.macs, counted.activations) == (macs, written)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (program(ATEN + "lstm.input", {"x": [1, 2], "out": [1, 2]}), "not counted"),
        (program(ATEN + "einsum.default", {"x": [1, 2], "out": [1, 2]}), "not counted"),
        (program("torch.ops.mine.fast.default", {"x": [1, 2], "out": [1, 2]}), "step of its own"),
        (program("torch.ops.higher_order.cond", {"x": [1, 2], "out": [1, 2]}), "step of its own"),
        (program(ATEN + "relu.default", {"x": [{"as_expr": {"expr_str": "s"}}], "out": [1]}), "not known"),
        (program(ATEN + "add.Tensor", {"x": [3, 2], "y": [2, 2], "out": [3, 2]}), "begin with"),
        (program(ATEN + "relu.default", {"x": [], "out": []}), "cannot be read"),
        (program(ATEN + "mm.default", {"x": [1, 2]}), "cannot be read"),
        (b"[]", "cannot be read"),
        (b"", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_what_cannot_be_counted_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        programs.count(text)


def zipped(*names: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.writestr(name, "{}")
    return archive.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 and more", zipped("data.pkl"), zipped("a/models/a.json", "a/models/b.json"),
     (FOLDER / "resnet50.pt2").read_bytes()[:-200]],
)  # fmt: skip
def test_what_is_no_program_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="program"):
        programs.description(io.BytesIO(data))
    assert programs.description(io.BytesIO(zipped("serialized_exported_program.json"))) == b"{}"


def facts_of(folder: Path, model: str) -> Any:
    (folder / "usecase.yaml").write_text(f"{HEAD}workload: {{ kind: image_inference, model: {model} }}\n{SERVES}")
    return described.model(load(folder))


def test_a_file_names_a_program_and_what_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes((FOLDER / "resnet50.pt2").read_bytes())
    assert facts_of(tmp_path, "net.pt2").graph.parameters == 25_557_032
    (tmp_path / "net.py").write_text("from bedplate.pipeline import predictor\n\n@predictor\ndef f(x):\n    return x\n")
    with pytest.raises(InputError, match="marks 0 functions with @network"):
        facts_of(tmp_path, "net.py")


@pytest.mark.torch
def test_graphs_of_networks_are_those_that_torch_makes_now() -> None:
    pytest.importorskip("torch")
    from tests.plan import networks

    for name in networks.NETWORKS:
        assert programs.count(networks.exported(name)) == programs.count(graph(FOLDER / f"{name}.pt2"))


@pytest.mark.torch
def test_a_module_is_exported_in_a_limited_process_and_counted_here(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(NETWORK.replace("LSTM(4, 8, batch_first=True), Out()", "Linear(4, 8)"))
    counted = facts_of(tmp_path, "net.py").graph
    assert (counted.parameters, counted.macs, counted.activations) == (67, 5 * 4 * 8 + 8 * 3, 5 * 8 + 3)
    (tmp_path / "net.py").write_text(NETWORK)
    with pytest.raises(InputError, match="lstm"):
        facts_of(tmp_path, "net.py")
