#!/usr/bin/env bash
#
# Run one training job on test_dir, which has the structure of /opt/ml.
# The first run creates test_dir with sample images; later runs keep its content.
#
# Usage: local_test/train_local.sh [IMAGE]     without IMAGE as a process
# Needs: docker, or the repository's .venv (`make setup`).
# Ctrl-C stops the job like SageMaker, with a checkpoint from which the next run continues.
# After a finished job, the next run starts from scratch.

set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=local_test/engine.sh
source ./engine.sh

train_in_container() {
    local image=$1 name="image-classifier-train-$$"
    require_image "$image"
    mkdir -p test_dir
    # Like docker-compose.yml: Python of the container image runs the code of the checkout.
    docker run --rm --network none \
        --volume "${PWD%/*}/image_classifier:/opt/program/image_classifier:ro" \
        --volume "$PWD/test_dir:/opt/ml" --env SAGEMAKER_BASE_DIR=/opt/ml --entrypoint sh "$image" \
        -c "$as_owner" -- python -m image_classifier.platform prepare --new-job >/dev/null

    exec docker run --rm --network none --name "$name" --stop-timeout 120 \
        --volume "$PWD/test_dir:/opt/ml" --env TRAINING_JOB_NAME="$name" \
        --entrypoint sh "$image" -c "$as_owner" -- python -m container.training train
}

if (($# > 0)); then
    train_in_container "$1"
fi
cd ..
[[ -x .venv/bin/python ]] || die "no .venv: run \`make setup\`, or give a container image"
.venv/bin/python -m image_classifier.platform prepare >/dev/null
exec .venv/bin/python -m image_classifier.platform train
