#!/usr/bin/env bash
#
# Stop what `make up` started, containers or processes. Images and model stay in test_dir.
#
# Usage: make down    or local_test/down.sh

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=local_test/engine.sh
source local_test/engine.sh

if has_engine; then
    docker compose down
fi
stop_process
