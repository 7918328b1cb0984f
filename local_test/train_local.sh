#!/usr/bin/env bash
#
# Run one training job on test_dir, laid out as SageMaker lays out /opt/ml.
# The first run prepares test_dir with sample pictures and settings; later runs keep what is there.
#
# Usage: local_test/train_local.sh [IMAGE]     without IMAGE as a plain process, without containers
# Needs: docker, or the repository's .venv (`make setup`).
# Ctrl-C stops the job as SageMaker would, with a checkpoint from which the next run continues.
# After a job that came to its end the next run starts anew.

set -euo pipefail
cd "$(dirname "$0")"

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

train_in_container() {
    local image=$1 name="image-classifier-train-$$"
    docker info >/dev/null 2>&1 ||
        die "no docker engine here: leave IMAGE out to train as a plain process"
    docker image inspect "$image" >/dev/null 2>&1 ||
        die "no image $image here;" \
            "\`docker compose build\` makes image-classifier-train and image-classifier-serve"
    # As in docker-compose.yml: the image's Python runs what lies in this folder.
    docker run --rm --network none \
        --volume "$PWD:/opt/prepare/local_test:ro" --volume "$PWD/test_dir:/opt/ml" \
        --workdir /opt/prepare --env SAGEMAKER_BASE_DIR=/opt/ml \
        --entrypoint python "$image" -m local_test prepare >/dev/null

    exec docker run --rm --network none --name "$name" --stop-timeout 120 \
        --volume "$PWD/test_dir:/opt/ml" --env TRAINING_JOB_NAME="$name" "$image" train
}

if (($# > 0)); then
    train_in_container "$1"
fi
cd ..
[[ -x .venv/bin/python ]] || die "no .venv: run \`make setup\`, or name an image"
.venv/bin/python -m local_test prepare >/dev/null
exec .venv/bin/python -m local_test train
