#!/usr/bin/env bash
#
# Serve the model in test_dir/model, read-only as on SageMaker.
#
# Usage: local_test/serve_local.sh IMAGE    in a container, until Ctrl-C
#        local_test/serve_local.sh          as a plain process in the background, until `make down`
# Needs: docker, or the repository's .venv (`make setup`).
# Reads: PORT, the port on this machine (default 8080).

set -euo pipefail
cd "$(dirname "$0")"

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

if (($# > 0)); then
    docker info >/dev/null 2>&1 ||
        die "no docker engine here: leave IMAGE out to serve as a plain process"
    docker image inspect "$1" >/dev/null 2>&1 ||
        die "no image $1 here;" \
            "\`docker compose build\` makes image-classifier-train and image-classifier-serve"
    [[ -d test_dir/model ]] || die "no model in test_dir/model: run train_local.sh first"
    exec docker run --rm --publish "${PORT:-8080}:8080" \
        --volume "$PWD/test_dir/model:/opt/ml/model:ro" "$1" serve
fi
cd ..
[[ -x .venv/bin/python ]] || die "no .venv: run \`make setup\`, or name an image"
exec .venv/bin/python -m local_test serve
