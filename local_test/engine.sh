#!/usr/bin/env bash
#
# Refusals, and the Docker engine, for the scripts beside this one.
#
# Usage: source local_test/engine.sh

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

has_engine() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

# Ends the script unless there are an engine and the image $1 in it.
require_image() {
    docker info >/dev/null 2>&1 ||
        die "no docker engine here: leave IMAGE out for a plain process"
    docker image inspect "$1" >/dev/null 2>&1 ||
        die "no image $1 here;" \
            "\`docker compose build\` makes image-classifier-train and image-classifier-serve"
}
