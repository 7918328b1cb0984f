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

# Exits with an error without a Docker engine or without the container image $1.
require_image() {
    docker info >/dev/null 2>&1 ||
        die "no Docker engine: omit IMAGE to run a plain process"
    docker image inspect "$1" >/dev/null 2>&1 ||
        die "no container image $1: \`docker compose build\` creates" \
            "image-classifier-train and image-classifier-serve"
}
