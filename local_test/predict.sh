#!/usr/bin/env bash
#
# Send one file to the server on this machine and print its answer.
#
# Usage: local_test/predict.sh FILE [CONTENT_TYPE]    CONTENT_TYPE defaults to what FILE's name says
# Needs: curl 7.76 or later, and a server (`make up` or serve_local.sh).
# Reads: PORT, the server's port (default 8080).

set -euo pipefail

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

content_type_of() {
    case $1 in
        *.jpg | *.jpeg | *.JPG | *.JPEG) echo image/jpeg ;;
        *.png | *.PNG) echo image/png ;;
        *.npy) echo application/x-npy ;;
        *.json) echo application/json ;;
        # The server then looks at the first bytes.
        *) echo application/octet-stream ;;
    esac
}

(($# > 0)) || die "which file? usage: predict.sh FILE [CONTENT_TYPE]"
[[ -f $1 ]] || die "no file $1"
content_type=${2:-$(content_type_of "$1")}
curl --silent --show-error --fail-with-body --noproxy localhost \
    --header "Content-Type: $content_type" --data-binary "@$1" \
    "http://localhost:${PORT:-8080}/invocations" ||
    die "the request failed; is the server up? (\`make up\`)"
echo
