#!/bin/sh
# Pin every dependency with hashes, for all supported Pythons, naming no registry.
set -eu
uv=$1
compile() { "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate "$@"; }
ours() { compile --override requirements/overrides.in "$@"; }
ours pyproject.toml requirements/build.in --extra demo -o requirements/demo.txt
ours pyproject.toml requirements/build.in --extra demo --group dev -c requirements/demo.txt -o requirements/test.txt
echo uv | ours - -o requirements/uv.txt
compile requirements/mlflow.in -o requirements/mlflow.txt
compile --override requirements/torch-overrides.in requirements/torch.in -c requirements/mlflow.txt -o requirements/torch.txt
compile requirements/inference.in -o requirements/inference.txt
compile requirements/mlserver.in -o requirements/mlserver.txt
compile requirements/contracts.in -o requirements/contracts.txt
compile requirements/feast.in -o requirements/feast.txt
compile requirements/skypilot.in -o requirements/skypilot.txt
