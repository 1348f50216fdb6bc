"""Networks with published counts, written with PyTorch: ``python -m tests.plan.networks`` saves their graphs anew.

What is kept is the JSON of each graph alone, without weights and without what torch says of source lines.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bedplate.plan import programs

FOLDER = Path(__file__).with_name("programs")


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *unit(inside, width, 1), nn.ReLU(), *unit(width, width, 3, stride), nn.ReLU(), *unit(width, 4 * width, 1)
        )
        same = stride == 1 and inside == 4 * width
        self.short = nn.Identity() if same else nn.Sequential(*unit(inside, 4 * width, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def unit(inside: int, out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)


def resnet50() -> tuple[Any, ...]:
    parts: list[nn.Module] = [*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            parts.append(Bottleneck(inside, width, first if block == 0 else 1))
            inside = 4 * width
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    return network, torch.zeros(1, 3, 224, 224)


def encoder(layers: int, *, before: bool) -> nn.Module:
    """Transformer layers of the base size; ``before``: they normalise what comes in instead of what goes out."""
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, norm_first=before, activation="gelu")
    last = nn.LayerNorm(768) if before else None
    return nn.TransformerEncoder(layer, layers, norm=last, enable_nested_tensor=False)


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 16, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, 768))
        self.places = nn.Parameter(torch.zeros(1, 197, 768))
        self.encoder = encoder(12, before=True)
        self.head = nn.Linear(768, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(x.shape[0], -1, -1), patches], 1) + self.places
        return self.head(self.encoder(tokens)[:, 0])


def vit_b_16() -> tuple[Any, ...]:
    return Vision(), torch.zeros(2, 3, 224, 224)


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(30522, 768), nn.Embedding(2, 768)
        self.places = nn.Embedding(512, 768)
        self.norm = nn.LayerNorm(768)
        self.encoder = encoder(12, before=False)
        self.pooler = nn.Linear(768, 768)

    def forward(self, words: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        places = self.places(torch.arange(words.shape[1], device=words.device))
        found = self.encoder(self.norm(self.words(words) + self.types(types) + places))
        return torch.tanh(self.pooler(found[:, 0]))


def bert_base() -> tuple[Any, ...]:
    tokens = torch.zeros(2, 128, dtype=torch.long)
    return Bert(), tokens, tokens


NETWORKS = {"resnet50": resnet50, "vit_b_16": vit_b_16, "bert_base": bert_base}
"""Each gives a module and its inputs. The last two take any number of rows."""


def exported(name: str) -> bytes:
    """The graph of a network as torch writes it."""
    with torch.device("meta"):
        module, *example = NETWORKS[name]()
    rows = torch.export.Dim("rows", min=1)
    shapes = None if name == "resnet50" else tuple({0: rows} for _ in example)
    archive = io.BytesIO()
    torch.export.save(torch.export.export(module.eval(), tuple(example), dynamic_shapes=shapes), archive)
    return programs.description(archive)


def main() -> None:
    for name in NETWORKS:
        found = json.loads(exported(name))
        module = found["graph_module"]
        for node in module["graph"]["nodes"]:
            node["metadata"] = {}
        module["module_call_graph"] = []
        with zipfile.ZipFile(FOLDER / f"{name}.pt2", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            entry = zipfile.ZipInfo(f"{name}/models/model.json")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps(found))


if __name__ == "__main__":
    main()
