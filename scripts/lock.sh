#!/bin/sh
# Pin every dependency with hashes, for all supported Pythons, naming no registry.
set -eu
uv=$1
compile() { "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate --override requirements/overrides.in "$@"; }
compile pyproject.toml requirements/build.in --extra demo -o requirements/demo.txt
compile pyproject.toml requirements/build.in --extra demo --group dev -c requirements/demo.txt -o requirements/test.txt
echo uv | compile - -o requirements/uv.txt
