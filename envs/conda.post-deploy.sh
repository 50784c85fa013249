#!/usr/bin/env bash
# Run by Snakemake in the environment that it has made from conda.yaml, from the project's folder.
set -euo pipefail
python -m pip install --require-hashes -r envs/requirements.lock
python -m pip install --no-deps --no-build-isolation -e . -e workflow/plugins
