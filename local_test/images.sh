#!/usr/bin/env bash
#
# The images of a tree, for the scripts beside this one.
#
# Usage: source local_test/images.sh

# Prints the first image for validation of the tree $1 or, without such, the first for training.
first_image() {
    local channel image
    for channel in "$1/input/data/validation" "$1/input/data/training"; do
        [[ -d $channel ]] || continue
        # As training does, by the name's end, and without what desktops leave behind.
        image=$(find "$channel" \( -name '.?*' -o -name __MACOSX \) -prune -o -type f \
            \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.webp' \
            -o -iname '*.gif' -o -iname '*.bmp' \) -print | sort | sed -n 1p)
        if [[ -n $image ]]; then
            printf '%s\n' "$image"
            return
        fi
    done
}

# Prints the content type for the suffix of the file $1.
content_type_of() {
    # Not ${1,,}: macOS has Bash 3.2.
    case $(tr '[:upper:]' '[:lower:]' <<<"$1") in
        *.jpg | *.jpeg) echo image/jpeg ;;
        *.png) echo image/png ;;
        *.webp) echo image/webp ;;
        *.npy) echo application/x-npy ;;
        *.json) echo application/json ;;
        *.jsonl) echo application/jsonlines ;;
        # The server then looks at the first bytes.
        *) echo application/octet-stream ;;
    esac
}
