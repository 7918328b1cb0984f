#!/bin/sh
#
# Run a program in a container as the owner of the job's folder, so that the files it writes belong
# to that user. A rootless engine and Docker Desktop map users; `stat` in the container returns the
# user that is mapped to the owner.
#
# Usage: sh as_owner.sh PROGRAM [ARGUMENT ...]    or its text with sh -c, then --, PROGRAM, ...
# Reads: SAGEMAKER_BASE_DIR, the job's folder (default /opt/ml).

job=${SAGEMAKER_BASE_DIR:-/opt/ml}
exec env HOME=/tmp USER=job setpriv --reuid="$(stat -c %u "$job")" --regid="$(stat -c %g "$job")" \
    --clear-groups "$@"
