#!/usr/bin/env bash
#
# Serve the model in test_dir/model, read-only as on SageMaker.
#
# Usage: local_test/serve_local.sh IMAGE    in a container, until Ctrl-C
#        local_test/serve_local.sh          as a process in the background, until `make down`
# Needs: docker, or the repository's .venv (`make setup`).
# Reads: PORT, the port on this machine (default 8080).
#        BIND_ADDRESS, the address to listen on (default 127.0.0.1; 0.0.0.0 for other machines).

set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=local_test/engine.sh
source ./engine.sh

if (($# > 0)); then
    require_image "$1"
    [[ -d test_dir/model ]] || die "no model in test_dir/model: run train_local.sh first"
    [[ ! -e test_dir/output/failure ]] ||
        die "the last training failed, see test_dir/output/failure: fix it, and train again"
    exec docker run --rm --env SAGEMAKER_CLASSIFIER_PAGE=true \
        --publish "${BIND_ADDRESS:-127.0.0.1}:${PORT:-8080}:8080" \
        --volume "$PWD/test_dir/model:/opt/ml/model:ro" "$1" serve
fi
cd ..
[[ -x .venv/bin/python ]] || die "no .venv: run \`make setup\`, or give a container image"
exec .venv/bin/python -m image_classifier.platform serve
