#!/usr/bin/env bash
#
# Send one file to the server on this machine and print its answer.
#
# Usage: local_test/predict.sh [FILE [CONTENT_TYPE]]
#        FILE          defaults to the first image for validation, else training, in test_dir
#        CONTENT_TYPE  defaults to that of FILE's suffix
# Needs: curl 7.76 or later, and a server (`make up` or serve_local.sh).
# Reads: PORT, the server's port (default 8080).

set -euo pipefail
# FILE is relative to the caller's folder: no `cd` here.
here=$(dirname "$0")
# shellcheck source=local_test/engine.sh
source "$here/engine.sh"
# shellcheck source=local_test/images.sh
source "$here/images.sh"

file=${1:-}
if [[ -z $file ]]; then
    file=$(first_image "$here/test_dir")
    [[ -n $file ]] ||
        die "no image in $here/test_dir; which file? usage: predict.sh FILE [CONTENT_TYPE]"
    printf 'asking about %s\n' "$file" >&2
fi
[[ -f $file ]] || die "no file $file"

curl_exit=0
curl --silent --show-error --fail-with-body --noproxy localhost \
    --header "Content-Type: ${2:-$(content_type_of "$file")}" --data-binary "@$file" \
    "http://localhost:${PORT:-8080}/invocations" || curl_exit=$?
case $curl_exit in
    0) echo ;;
    # An answer, but an error: it is printed and has the reason.
    22) echo && exit 1 ;;
    # Refused, or accepted and closed by an engine in whose container nothing listens yet.
    7 | 52 | 56) die "the request failed; is the server up? (\`make up\`)" ;;
    *) die "the request failed" ;;
esac
