#!/usr/bin/env bash
#
# Send one file to the server on this machine and print the class of each image in it.
#
# Usage: local_test/predict.sh [--json] [FILE [CONTENT_TYPE]]
#        --json        print the server's response instead
#        FILE          default: the first validation image, else training image, in test_dir
#        CONTENT_TYPE  default: by the suffix of FILE
# Needs: curl 7.76 or later, and a server (`make up` or serve_local.sh). Without Python it prints
#        the response.
# Reads: PORT, the server's port (default 8080).

set -euo pipefail
# No `cd`, because FILE is relative to the current folder.
here=$(dirname "$0")
# shellcheck source=local_test/engine.sh
source "$here/engine.sh"
# shellcheck source=local_test/images.sh
source "$here/images.sh"

is_json=no
if [[ ${1:-} == --json ]]; then
    is_json=yes
    shift
fi
file=${1:-}
if [[ -z $file ]]; then
    file=$(first_image "$here/test_dir")
    [[ -n $file ]] ||
        die "no image in $here/test_dir: give one, predict.sh FILE [CONTENT_TYPE]"
    printf 'sending %s\n' "$file" >&2
fi
[[ -f $file ]] || die "no file $file"

# Prints the classes in the response $1, or else the response.
show() {
    local python
    for python in .venv/bin/python python3; do
        [[ $is_json == no ]] || break
        if (cd "$here/.." && "$python" -m image_classifier.platform.predictions "$file") \
            <<<"$1" 2>/dev/null; then
            return
        fi
    done
    printf '%s\n' "$1"
}

curl_exit=0
response=$(curl --silent --show-error --fail-with-body --noproxy localhost \
    --header "Content-Type: ${2:-$(media_type_of "$file")}" --data-binary "@$file" \
    "http://localhost:${PORT:-8080}/invocations") || curl_exit=$?
case $curl_exit in
    0) show "$response" ;;
    # The server responded with an error.
    22) printf '%s\n' "$response" && exit 1 ;;
    # Refused, or closed by Docker while the server in the container does not listen yet.
    7 | 52 | 56) die "the request failed; is the server up? (\`make up\`)" ;;
    *) die "the request failed" ;;
esac
