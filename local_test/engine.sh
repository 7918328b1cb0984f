#!/usr/bin/env bash
#
# Functions for the scripts in this folder: errors and the Docker engine.
#
# Usage: source local_test/engine.sh

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

has_engine() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

# Stops a server that was started without Docker.
stop_process() {
    if [[ -e local_test/test_dir/serving.pid && -x .venv/bin/python ]]; then
        .venv/bin/python -m image_classifier.platform stop
    fi
}

# Exits with an error without a Docker engine or without the container image $1.
require_image() {
    docker info >/dev/null 2>&1 ||
        die "no Docker engine: omit IMAGE to run a plain process"
    docker image inspect "$1" >/dev/null 2>&1 ||
        die "no container image $1: \`docker compose build\` creates" \
            "image-classifier-train and image-classifier-serve"
}

# For `--entrypoint sh IMAGE -c "$as_owner" -- PROGRAM`: the program runs as the owner of test_dir,
# so that the files it writes belong to that user.
# shellcheck disable=SC2034
as_owner=$(<"$(dirname "${BASH_SOURCE[0]}")/../image_classifier/platform/as_owner.sh")
