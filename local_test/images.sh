#!/usr/bin/env bash
#
# Functions for the scripts in this folder: the images of a tree.
#
# Usage: source local_test/images.sh

# Prints the first validation image of the tree $1, or else the first training image.
first_image() {
    local channel image
    for channel in "$1/input/data/validation" "$1/input/data/training"; do
        [[ -d $channel ]] || continue
        # Like training: by suffix, without hidden files and folders of desktops.
        image=$(find "$channel" \( -name '.?*' -o -name __MACOSX \) -prune -o -type f \
            \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.jpe' -o -iname '*.jfif' \
            -o -iname '*.png' -o -iname '*.webp' -o -iname '*.gif' -o -iname '*.bmp' \
            -o -iname '*.tif' -o -iname '*.tiff' -o -iname '*.avif' -o -iname '*.heic' \
            -o -iname '*.heif' \) -print | sort | sed -n 1p)
        if [[ -n $image ]]; then
            printf '%s\n' "$image"
            return
        fi
    done
}

# Prints the media type of the file $1 by its suffix.
media_type_of() {
    # Not ${1,,}: macOS has Bash 3.2.
    case $(tr '[:upper:]' '[:lower:]' <<<"$1") in
        *.jpg | *.jpeg) echo image/jpeg ;;
        *.png) echo image/png ;;
        *.webp) echo image/webp ;;
        *.npy) echo application/x-npy ;;
        *.json) echo application/json ;;
        *.jsonl) echo application/jsonlines ;;
        # The server then detects the type by the first bytes.
        *) echo application/octet-stream ;;
    esac
}
