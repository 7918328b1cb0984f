#!/usr/bin/env bash
#
# Build both container images and push them to Amazon ECR in the format that SageMaker accepts:
# linux/amd64, Docker manifest schema 2, no attestations. The tag is the commit, and is immutable.
#
# Usage: ./push.sh [--dry-run] [--region REGION] [--prefix PREFIX] [--cpu | --gpu] [train] [serve]
#   --dry-run          print the commands, and run none of them
#   --region REGION    default: AWS_REGION, AWS_DEFAULT_REGION, or the AWS CLI's region
#   --prefix PREFIX    repositories are PREFIX-train and PREFIX-serve (default: image-classifier)
#   --cpu, --gpu       device of the serving container image (default: --cpu); the tag for GPUs is
#                      COMMIT-gpu, see docs/how-to/gpu.md
#   train, serve       only one container image (default: both)
# Needs: git, docker with buildx, the AWS CLI (v2) and credentials. docs/how-to/deploy.md lists the
#        permissions.
# Reads: ECR_REGISTRY, a registry instead of the account's, for tests on this machine;
#        AWS_ENDPOINT_URL, another address of AWS's APIs; TORCH_INDEX_URL, see Dockerfile.train.
# Writes: images.json, the pushed container images by digest.

set -euo pipefail
cd "$(dirname "$0")"

dry_run=no
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-}}
prefix="image-classifier"
device=cpu
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

# Commands are printed here even if their output is redirected.
exec 3>&2

# Print a command, and run it unless this is a dry run.
call() {
    local shown
    printf -v shown ' %q' "$@"
    # In one write: both ends of a pipe print their command.
    printf '+%s\n' "$shown" >&3
    [[ $dry_run == yes ]] || "$@"
}

aws_cli() {
    local options=(--region "$region" --output text)
    [[ -z ${AWS_ENDPOINT_URL:-} ]] || options+=(--endpoint-url "$AWS_ENDPOINT_URL")
    call aws "$@" "${options[@]}"
}

read_arguments() {
    while (($#)); do
        case $1 in
            --dry-run) dry_run=yes ;;
            --region | --prefix)
                (($# > 1)) || die "$1 needs a value"
                if [[ $1 == --region ]]; then region=$2; else prefix=$2; fi
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
}

check_requirements() {
    local program
    for program in git docker aws; do
        command -v "$program" >/dev/null || die "$program is not installed"
    done
    docker buildx version >/dev/null 2>&1 || die "docker has no buildx: install docker-buildx-plugin"
    [[ -n $region ]] || region=$(aws configure get region) ||
        die "no region: set --region or AWS_REGION, or run \`aws configure\`"
    [[ $prefix =~ ^[a-z0-9]+(([._]|__|-+|/)[a-z0-9]+)*$ ]] ||
        die "--prefix $prefix: ECR accepts lower case letters, digits and single . _ - / between them"
    # The tag must identify the content of the container image.
    [[ -z $(git status --porcelain -- container requirements 'Dockerfile.*') ]] ||
        die "container/, requirements/ or a Dockerfile differ from the commit: commit first"
}

# Print the URI of repository $1; create the repository if it is missing.
repository() {
    local answer
    if answer=$(aws_cli ecr describe-repositories --repository-names "$1" \
        --query 'repositories[0].repositoryUri' 2>&1) && [[ $dry_run == no ]]; then
        :
    elif [[ $dry_run == yes || $answer == *RepositoryNotFoundException* ]]; then
        answer=$(create_repository "$1")
    else
        die "ECR did not return the repository $1: ${answer##*$'\n'}"
    fi
    [[ $dry_run == no ]] || answer=ACCOUNT.dkr.ecr.$region.amazonaws.com/$1
    [[ -z ${ECR_REGISTRY:-} ]] || answer=$ECR_REGISTRY/$1
    echo "$answer"
}

create_repository() {
    aws_cli ecr create-repository --repository-name "$1" \
        --image-tag-mutability IMMUTABLE --image-scanning-configuration scanOnPush=true \
        --query repository.repositoryUri
    aws_cli ecr put-lifecycle-policy --repository-name "$1" \
        --lifecycle-policy-text "$LIFECYCLE" >/dev/null
}

log_in() {
    # A pipe keeps the password out of the process list.
    aws_cli ecr get-login-password | call docker login --username AWS --password-stdin "$1" >&2
}

# Print digest and media type of container image $1 in the registry; nothing if it is missing.
pushed() {
    local answer
    if answer=$(call docker buildx imagetools inspect "$1" \
        --format '{{print .Manifest.Digest " " .Manifest.MediaType}}' 2>&1); then
        echo "$answer"
    elif [[ $answer != *"not found"* ]]; then
        die "the registry rejected the query for $1: ${answer##*$'\n'}"
    fi
}

build_and_push() {
    local options=(--platform linux/amd64 --provenance=false --sbom=false)
    options+=(--build-arg "CODE_VERSION=$(git rev-parse HEAD)")
    [[ -z ${TORCH_INDEX_URL:-} ]] || options+=(--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL")
    [[ $1 == train ]] || options+=(--build-arg "DEVICE=$device")
    call docker buildx build "${options[@]}" --file "Dockerfile.$1" \
        --output "type=image,name=$2,oci-mediatypes=false,push=true" . >&2
}

# Print container image $1 by its digest; build and push it to the repository $2 if it is missing.
push() {
    local image=$2:$tag found
    [[ $1 == train || $device == cpu ]] || image+=-$device
    found=$(pushed "$image")
    if [[ -n $found ]]; then
        say "$image is already pushed"
    else
        build_and_push "$1" "$image"
        found=$(pushed "$image")
    fi
    [[ $dry_run == no ]] || found="sha256:DIGEST $SCHEMA_2"
    [[ ${found#* } == "$SCHEMA_2" ]] ||
        die "$image is ${found#* }, which SageMaker rejects; the builder ignored oci-mediatypes=false"
    echo "$2@${found%% *}"
}

write_images() {
    local entry
    {
        printf '{"region": "%s", "tag": "%s"' "$region" "$tag"
        for entry in "$@"; do
            printf ', "%s": "%s"' "${entry%% *}" "${entry#* }"
        done
        printf '}\n'
    } >images.json
}

read_arguments "$@"
check_requirements
tag=$(git rev-parse --short=12 HEAD)
results=()
host=
for image in "${images[@]}"; do
    uri=$(repository "$prefix-$image")
    [[ ${uri%%/*} == "$host" ]] || log_in "${uri%%/*}"
    host=${uri%%/*}
    pushed_image=$(push "$image" "$uri")
    results+=("$image $pushed_image")
done
printf '%s\n' "${results[@]}"
[[ $dry_run == yes ]] || write_images "${results[@]}"
