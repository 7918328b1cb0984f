#!/usr/bin/env bash
#
# Train on the images in test_dir (drawn hands at first), then serve the model in the background.
# Uses Docker Compose if Docker is running, else two processes.
#
# Usage: make up    or local_test/up.sh
# Needs: docker with Compose v2, or make and Python 3.11.
# Reads: PORT, the server's port on this machine (default 8080).
#        BIND_ADDRESS, the address to listen on (default 127.0.0.1; 0.0.0.0 for other machines).
#        IMAGE_CLASSIFIER_LOCAL, containers or processes.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=local_test/engine.sh
source local_test/engine.sh
# shellcheck source=local_test/images.sh
source local_test/images.sh

# Run a service to its end. SIGTERM or Ctrl-C stops the container, which has time to save the model:
# `docker compose run` would end and leave it running.
run_service() {
    local container=image-classifier-$1-$$
    # In the background, because bash handles signals only between foreground commands.
    docker compose run --rm --no-deps --name "$container" "$1" <&0 &
    # shellcheck disable=SC2064  # the name of now
    trap "docker stop $container >/dev/null || true; wait; exit 143" TERM INT
    wait $!
    trap - TERM INT
}

up_with_compose() {
    # Outside of a Git checkout, the provenance of models has `unknown`.
    CODE_VERSION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    export CODE_VERSION
    docker compose build
    # A training that fails must leave no server of an earlier model.
    docker compose rm --stop --force serve
    stop_process
    mkdir -p local_test/test_dir
    # `run` shows the log and returns the exit code.
    run_service prepare
    run_service train
    # Without `train`, which has run.
    docker compose up --detach --wait --no-deps serve ||
        { docker compose logs --tail 20 serve && return 1; }
}

up_with_processes() {
    make --no-print-directory setup
    .venv/bin/python -m image_classifier.platform prepare --new-job
    .venv/bin/python -m image_classifier.platform train
    .venv/bin/python -m image_classifier.platform serve
}

# The class is the folder in the channel or, in a flat channel, the end of the file name.
class_of() {
    local within=${1#*/input/data/*/} name=${1##*_}
    if [[ $within == */* ]]; then echo "${within%%/*}"; else echo "${name%%.*}"; fi
}

print_example() {
    local image
    image=$(first_image local_test/test_dir)
    printf '\nThe server is up. The class of this image is %s:\n\n' "$(class_of "$image")"
    printf "  curl --data-binary @%q -H 'Content-Type: %s' localhost:%s/invocations\n\n" \
        "$image" "$(media_type_of "$image")" "${PORT:-8080}"
    printf 'Or drop an image on http://localhost:%s/ in a browser.\n\n' "${PORT:-8080}"
    echo "Stop it with: make down"
}

if [[ ${IMAGE_CLASSIFIER_LOCAL:-} == processes ]]; then
    up_with_processes
elif has_engine; then
    up_with_compose
elif [[ ${IMAGE_CLASSIFIER_LOCAL:-} == containers ]]; then
    die "no Docker engine: start it, or unset IMAGE_CLASSIFIER_LOCAL"
else
    up_with_processes
fi
print_example
