#!/usr/bin/env bash
#
# Build both container images and push them to Amazon ECR in the format that SageMaker accepts:
# one platform, Docker manifest schema 2, no attestations. The tag is the commit, and is immutable.
#
# Usage: ./push.sh [--dry-run] [--region REGION] [--prefix PREFIX] [--platform PLATFORM]
#                  [--cpu | --gpu] [train] [serve]
#   --dry-run          print the commands, and run none of them
#   --region REGION    default: AWS_REGION, AWS_DEFAULT_REGION, or the AWS CLI's region
#   --prefix PREFIX    repositories are PREFIX-train and PREFIX-serve (default: image-classifier)
#   --platform PLATFORM
#                      linux/amd64 (default), or linux/arm64 for endpoints on Graviton processors;
#                      the tag for the latter is COMMIT-arm64
#   --cpu, --gpu       device of the serving container image (default: --cpu); the tag for GPUs is
#                      COMMIT-gpu, see docs/how-to/gpu.md
#   train, serve       only one container image (default: both)
# Needs: git, docker with buildx, the AWS CLI (v2) and credentials. docs/how-to/deploy.md lists the
#        permissions.
# Reads: ECR_REGISTRY, a registry instead of the account's, for tests on this machine;
#        AWS_ENDPOINT_URL, another address of AWS's APIs; TORCH_INDEX_URL and MLFLOW, see
#        Dockerfile.train.
# Writes: images.json, the pushed container images by digest; images-arm64.json for linux/arm64.
#
# Runs in bash 3.2 too, which is macOS's: there no function that must stop at a failure may run in
# $(...), which loses `set -e`, and no empty array may be expanded.

set -euo pipefail
cd "$(dirname "$0")"

dry_run=no
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-}}
prefix="image-classifier"
platform=linux/amd64
device=cpu
logged_in=no
images=()

# Expire untagged container images.
LIFECYCLE='{"rules":[{"rulePriority":1,"description":"untagged images","selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}'
SCHEMA_2=application/vnd.docker.distribution.manifest.v2+json

say() { printf 'push.sh: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Run a command. Then `answer` is its output; if it failed, `problem` is the last line of its errors.
attempt() {
    local status=0
    "$@" 2>&1 >"$scratch/answer" | tee "$scratch/errors" >&"${errors_to:-3}" || status=$?
    answer=$(cat "$scratch/answer")
    problem=
    ((status)) || return 0
    problem=$(sed '/^[[:space:]]*$/d' "$scratch/errors" | tail -n 1)
    [[ -n $problem ]] || problem="exit status $status"
    return "$status"
}

# Print a command and attempt it; a dry run only prints.
try() {
    local shown
    printf -v shown ' %q' "$@"
    printf '+%s\n' "$shown" >&2
    answer='' problem=''
    [[ $dry_run == yes ]] || attempt "$@"
}

# Print a command and run it, or end with its reason; a dry run only prints.
call() { try "$@" || die "$1 $2 $3 failed: $problem"; }

# The errors of attempted commands, which are read from the file.
exec 3>/dev/null

read_arguments() {
    while (($#)); do
        case $1 in
            --dry-run) dry_run=yes ;;
            --region | --prefix | --platform)
                (($# > 1)) || die "$1 needs a value"
                case $1 in
                    --region) region=$2 ;;
                    --prefix) prefix=$2 ;;
                    --platform) platform=$2 ;;
                esac
                shift
                ;;
            --cpu | --gpu) device=${1#--} ;;
            train | serve) images+=("$1") ;;
            -h | --help) usage && exit ;;
            *) die "unknown argument $1; ./push.sh --help lists them" ;;
        esac
        shift
    done
    ((${#images[@]})) || images=(train serve)
    [[ $platform == linux/amd64 || $platform == linux/arm64 ]] ||
        die "--platform $platform: SageMaker has linux/amd64 and linux/arm64"
    [[ $prefix =~ ^[a-z0-9]+(([._]|__|-+|/)[a-z0-9]+)*$ ]] ||
        die "--prefix $prefix: ECR accepts lower case letters, digits and single . _ - / between them"
}

check_requirements() {
    local program
    for program in git docker aws; do
        command -v "$program" >/dev/null || die "$program is not installed"
    done
    attempt docker buildx version ||
        die "docker has no buildx: install docker-buildx-plugin; docker buildx version failed: $problem"
    if [[ -z $region ]]; then
        attempt aws configure get region || answer=
        region=$answer
        [[ -n $region ]] || die "no region: set --region or AWS_REGION, or run \`aws configure\`; \
aws configure get region failed: $problem"
    fi
    # The tag must identify the content of the container image.
    attempt git status --porcelain -- container requirements 'Dockerfile.*' ||
        die "git status failed: $problem"
    [[ -z $answer ]] ||
        die "container/, requirements/ or a Dockerfile differ from the commit: commit first"
    attempt git rev-parse HEAD || die "git rev-parse failed: $problem"
    commit=$answer
    tag=${commit:0:12}
    aws_options=(--region "$region" --output text)
    [[ -z ${AWS_ENDPOINT_URL:-} ]] || aws_options+=(--endpoint-url "$AWS_ENDPOINT_URL")
}

# Set `uri` to that of repository $1, which is created if it is missing.
find_repository() {
    if try aws ecr describe-repositories --repository-names "$1" \
        --query 'repositories[0].repositoryUri' "${aws_options[@]}" && [[ $dry_run == no ]]; then
        uri=$answer
    elif [[ $dry_run == yes || $problem == *RepositoryNotFoundException* ]]; then
        call aws ecr create-repository --repository-name "$1" \
            --image-tag-mutability IMMUTABLE --image-scanning-configuration scanOnPush=true \
            --query repository.repositoryUri "${aws_options[@]}"
        uri=$answer
        call aws ecr put-lifecycle-policy --repository-name "$1" \
            --lifecycle-policy-text "$LIFECYCLE" "${aws_options[@]}"
    else
        die "ECR did not return the repository $1: $problem"
    fi
    [[ $dry_run == no ]] || uri=ACCOUNT.dkr.ecr.$region.amazonaws.com/$1
    [[ -z ${ECR_REGISTRY:-} ]] || uri=$ECR_REGISTRY/$1
}

log_in() {
    logged_in=yes
    [[ $dry_run == yes ]] || say "no access with the existing credentials: $problem"
    call aws ecr get-login-password "${aws_options[@]}"
    # Standard input keeps the password out of the process list.
    call docker login "$1" --username AWS --password-stdin <<<"$answer"
}

# Set `found` to digest and media type of container image $1 in the registry, or to nothing.
find_image() {
    local inspect=(docker buildx imagetools inspect "$1"
        --format '{{print .Manifest.Digest " " .Manifest.MediaType}}')
    # A credential helper or an earlier login may already give access.
    if ! try "${inspect[@]}" && lacks_access ||
        [[ $dry_run == yes && $logged_in == no ]]; then
        log_in "${1%%/*}"
        try "${inspect[@]}" || true
    fi
    [[ -z $problem || $problem == *": not found"* ]] ||
        die "docker buildx imagetools failed: $problem"
    found=$answer
}

# Return whether a login may solve the last problem.
lacks_access() {
    case $problem in
        *uthori* | *[Dd]enied* | *orbidden* | *redential* | *"basic auth"*) [[ $logged_in == no ]] ;;
        *) return 1 ;;
    esac
}

build_and_push() {
    local options=(--platform "$platform" --provenance=false --sbom=false)
    options+=(--build-arg "CODE_VERSION=$commit")
    [[ -z ${TORCH_INDEX_URL:-} ]] || options+=(--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL")
    [[ -z ${MLFLOW:-} ]] || options+=(--build-arg "MLFLOW=$MLFLOW")
    [[ $1 == train ]] || options+=(--build-arg "DEVICE=$device")
    # Takes minutes: show what it reports.
    errors_to=2 call docker buildx build "${options[@]}" --file "Dockerfile.$1" \
        --output "type=image,name=$2,oci-mediatypes=false,push=true" .
}

# Set `pushed` to container image $1 by its digest; build and push it to the repository $2 if it is
# missing.
push() {
    local image=$2:$tag
    [[ $platform == linux/amd64 ]] || image+=-${platform#linux/}
    [[ $1 == train || $device == cpu ]] || image+=-$device
    find_image "$image"
    if [[ -n $found ]]; then
        say "$image is already pushed"
    else
        build_and_push "$1" "$image"
        find_image "$image"
        [[ -n $found || $dry_run == yes ]] || die "$image is not in the registry after its push"
    fi
    [[ $dry_run == no ]] || found="sha256:DIGEST $SCHEMA_2"
    [[ ${found#* } == "$SCHEMA_2" ]] ||
        die "$image is ${found#* }, which SageMaker rejects; the builder ignored oci-mediatypes=false"
    pushed=$2@${found%% *}
}

write_images() {
    local entry file=images.json
    [[ $platform == linux/amd64 ]] || file=images-${platform#linux/}.json
    {
        printf '{"region": "%s", "tag": "%s"' "$region" "$tag"
        for entry in "$@"; do
            printf ', "%s": "%s"' "${entry%% *}" "${entry#* }"
        done
        printf '}\n'
    } >"$file"
}

read_arguments "$@"
check_requirements
uris=()
# Missing permissions are reported before the first build.
for image in "${images[@]}"; do
    find_repository "$prefix-$image"
    uris+=("$uri")
done
results=()
for index in "${!images[@]}"; do
    push "${images[index]}" "${uris[index]}"
    results+=("${images[index]} $pushed")
done
printf '%s\n' "${results[@]}"
[[ $dry_run == yes ]] || write_images "${results[@]}"
