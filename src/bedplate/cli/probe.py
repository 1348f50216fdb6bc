"""``probe``: what this machine does, measured in seconds; plans scale from it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import moment, size

if TYPE_CHECKING:
    from bedplate.plan.types import Probe

ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Shape of an input, as NAME=1x3x224x224; may be repeated.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("probe")(probe)


def probe(
    model: Annotated[
        Path | None, typer.Option("--model", help="An ONNX file to be timed as well.", show_default=False)
    ] = None,
    shape: ShapeOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine and keep it as what plans scale from: products, memory, disk, requests, your model."""
    from bedplate.cli.progress import progress

    with progress(sys.stderr) as on_event:
        found = connect(home).probe(model, shapes=shape or (), on_event=on_event)
    emit(found, as_json=as_json, text=_lines)


def _lines(found: "Probe") -> Iterator[str]:
    clock = f", {found.clock_ghz:.2f} GHz" if found.clock_ghz else ""
    yield f"{found.cpu}, {found.cores} cores{clock}, {size(found.memory)} of memory"
    sizes = ", ".join(f"{rate.rows}: {rate.gflops:.1f}" for rate in found.matmul_sizes)
    yield f"products   {sizes} GFLOP/s on one core, {found.matmul_all_gflops or 0:.1f} on all"
    yield f"memory     {found.copy_gbps:.1f} GB/s copied by one core, {found.copy_all_gbps or 0:.1f} by all"
    yield (
        f"disk       {found.disk_write_gbps or 0:.2f} GB/s written and synced, {found.disk_read_gbps or 0:.2f} read; "
        f"{found.fsync_ms:.2f} ms a sync"
    )
    yield f"requests   {found.request_us:.1f} us to decode one and encode its answer"
    if found.onnx_call_us is not None:
        yield f"models     {found.onnx_call_us:.1f} us a call of ONNX Runtime, {found.onnx_tree_ns or 0:.1f} ns a tree"
    for model in found.models:
        times = ", ".join(f"{time.rows}: {time.seconds * 1e3:.3f}" for time in model.times)
        yield f"{model.name:<10} ms by rows of a call: {times}"
    for device in found.accelerators:
        rates = ", ".join(f"{kind} {rate:.1f}" for kind, rate in device.matmul_tflops.items())
        yield f"{device.name}: {rates} TFLOP/s, {device.upload_gbps:.1f} GB/s to it ({device.framework})"
    if not found.accelerators:
        yield "no accelerator that PyTorch, CuPy or ONNX Runtime can use"
    if found.doubtful:
        yield f"others took {found.crowded:.0%} of the processors meanwhile: measure again when it is quieter"
    yield f"measured in {found.seconds:.1f} s on {moment(found.made)}; plans scale from this"
