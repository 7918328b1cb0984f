"""The cases of the doctor: their IDs, which are stable, and what to do when one fails."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PAGE = "docs/how-to/health-check.md"

TRAIN, SERVE, MULTI_MODEL, TRANSFORM = ROLES = ("train", "serve", "multi-model", "transform")

_SERVERS = (SERVE, MULTI_MODEL, TRANSFORM)
_ONE_MODEL = (SERVE, TRANSFORM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One requirement of SageMaker's contract."""

    roles: tuple[str, ...]
    """Roles that have it."""

    checks: str
    """What is required."""

    remedy: str
    """What to do when it fails."""

    is_of_image: bool = False
    """Whether commands do not have it."""


CASES: Mapping[str, Case] = {
    "image-architecture": Case(
        roles=ROLES,
        checks="the container image is for linux/amd64",
        remedy="build with `docker buildx build --platform linux/amd64`; for an instance type with "
        "a Graviton processor, keep arm64 and add --skip image-architecture",
        is_of_image=True,
    ),
    "image-entrypoint": Case(
        roles=ROLES,
        checks="`docker run IMAGE train` (or serve) executes the program as process 1",
        remedy='use ENTRYPOINT ["program"] in exec form, or an executable file called train (or '
        "serve) on the PATH: a first line such as #!/usr/bin/env python, mode 755",
        is_of_image=True,
    ),
    "image-secrets": Case(
        roles=ROLES,
        checks="environment, build history and usual files of all layers contain no credentials",
        remedy="build with `--secret` or remove them in the same RUN, and revoke the credentials: "
        "each person that can pull the container image can read them, in deleted files too",
        is_of_image=True,
    ),
    "start": Case(
        roles=ROLES,
        checks="the program starts and keeps running",
        remedy="run the same program by hand, and fix the error in the last lines of its log",
    ),
    "port": Case(
        roles=_SERVERS,
        checks="the server listens on 0.0.0.0, port 8080, or on SAGEMAKER_BIND_TO_PORT",
        remedy="bind the server to 0.0.0.0 and to port ${SAGEMAKER_BIND_TO_PORT:-8080}",
    ),
    "ping-ready": Case(
        roles=_SERVERS,
        checks="GET /ping returns 200 when the server is ready, and every time after that",
        remedy="return 200 from GET /ping when the model is loaded; SageMaker waits 8 minutes, "
        "the doctor --startup-timeout seconds",
    ),
    "ping-latency": Case(
        roles=_SERVERS,
        checks="GET /ping returns within 2 s",
        remedy="load the model before the server listens, and do no prediction in /ping",
    ),
    "ping-before-ready": Case(
        roles=_ONE_MODEL,
        checks="GET /ping returns 200 only when the model can predict",
        remedy="return 503 from /ping until the model is loaded, or load it before the server "
        "listens",
    ),
    "invocations-status": Case(
        roles=_ONE_MODEL,
        checks="POST /invocations returns 2xx for a valid request",
        remedy="run the request by hand, and read the log; check the route, the model files and "
        "the accepted Content-Type",
    ),
    "invocations-latency": Case(
        roles=_ONE_MODEL,
        checks="POST /invocations returns within 60 s",
        remedy="make predictions faster, or use asynchronous inference or batch transform",
    ),
    "error-status": Case(
        roles=_ONE_MODEL,
        checks="an invalid request gets 4xx, with a short JSON body or none, never 200 or 5xx",
        remedy='return 400, 413, 415 or 422 with {"error": "..."} and without a stack trace: '
        "SageMaker passes the body to the caller, and counts 5xx as faults of the model",
    ),
    "accept": Case(
        roles=_ONE_MODEL,
        checks="the response has the media type of Accept, which may be missing or a list, and "
        "Content-Type states its format",
        remedy="set Content-Type to the format of the body; return 406 for an Accept that cannot "
        "be produced",
    ),
    "keep-alive": Case(
        roles=_ONE_MODEL,
        checks="a connection serves several requests, or is announced as closed",
        remedy="read the whole body of each request, send Content-Length, and close connections "
        "only after the header `Connection: close`",
    ),
    "payload-size": Case(
        roles=_ONE_MODEL,
        checks="a body of 6 MiB, SageMaker's limit for real-time requests, is accepted",
        remedy="raise the limit of the server and of a proxy in front of it "
        "(nginx: client_max_body_size 30m; Flask: MAX_CONTENT_LENGTH)",
    ),
    "concurrency": Case(
        roles=_ONE_MODEL,
        checks="4 requests at once succeed, and /ping returns within 2 s meanwhile, and while "
        "another connection is open",
        remedy="use several threads or workers, one more than requests that run at once, so that "
        "/ping is never queued behind predictions",
    ),
    "memory": Case(
        roles=ROLES,
        checks="the program stays within its memory, and does not grow with each request or ping",
        remedy="load the model once, use fewer workers, and keep nothing from request to request; "
        "or use an instance type with more memory (--memory)",
    ),
    "read-only-model": Case(
        roles=_ONE_MODEL,
        checks="the server works with a read-only /opt/ml/model",
        remedy="write caches and unpacked files to /tmp",
    ),
    "writes-outside": Case(
        roles=ROLES,
        checks="the program writes only to /tmp, /etc, logs, caches, and where /opt/ml is writable",
        remedy="write to /tmp: other folders are on a small disk, and read-only for other users "
        "than root, as on serverless endpoints",
    ),
    "network": Case(
        roles=_SERVERS,
        checks="the server works without a network (EnableNetworkIsolation)",
        remedy="copy weights and packages into the container image or into model.tar.gz, instead "
        "of a download when it starts",
    ),
    "sigterm": Case(
        roles=ROLES,
        checks="the program ends after SIGTERM: a server within 30 s, a training within 120 s",
        remedy="start it with `exec` or with ENTRYPOINT in exec form, so that it is process 1, and "
        "handle SIGTERM: process 1 ignores it by default",
    ),
    "train-exit-code": Case(
        roles=(TRAIN,),
        checks="a training ends with 0 if it succeeded, and with another code if it failed",
        remedy="let exceptions end the program, or call sys.exit(1) after a failure: SageMaker "
        "reports a job with exit code 0 as Completed",
    ),
    "failure-file": Case(
        roles=(TRAIN,),
        checks="a failed training writes its reason to /opt/ml/output/failure",
        remedy="write the message of the exception first, then its stack trace: SageMaker shows "
        "the first 1,024 characters as FailureReason",
    ),
    "model-artifact": Case(
        roles=(TRAIN,),
        checks="a successful training writes files to /opt/ml/model",
        remedy="save the model to /opt/ml/model: only this folder becomes model.tar.gz",
    ),
    "hyperparameter-strings": Case(
        roles=(TRAIN,),
        checks="values in hyperparameters.json are strings, and keys of tuning jobs are ignored",
        remedy='convert each value, such as int(hyperparameters["epochs"]), and ignore keys that '
        "begin with `_` or `sagemaker_`",
    ),
    "channels-read-only": Case(
        roles=(TRAIN,),
        checks="the training works with read-only channels",
        remedy="write unpacked files and caches to /tmp",
    ),
    "no-network-train": Case(
        roles=(TRAIN,),
        checks="the training works without a network (EnableNetworkIsolation)",
        remedy="copy weights and packages into the container image, or pass them as a channel",
    ),
    "checkpoint-resume": Case(
        roles=(TRAIN,),
        checks="a restarted training continues from /opt/ml/checkpoints (spot instances), also if "
        "it was killed while it saved a checkpoint",
        remedy="read the newest complete file in /opt/ml/checkpoints at the start; write each as "
        "a temporary file that is then renamed",
    ),
    "image-label": Case(
        roles=(MULTI_MODEL,),
        checks="the container image has the label of multi-model containers",
        remedy="add LABEL com.amazonaws.sagemaker.capabilities.multi-models=true to the Dockerfile",
        is_of_image=True,
    ),
    "mme-load": Case(
        roles=(MULTI_MODEL,),
        checks="POST /models loads a model for all later requests, and two at once",
        remedy="implement the five requests of multi-model containers, and keep all models in one "
        "process with threads: every request must find them",
    ),
    "mme-status-codes": Case(
        roles=(MULTI_MODEL,),
        checks="requests for models return 200, 404 for an unknown model, 409 for a loaded one, "
        "507 without memory, and the names of all models",
        remedy="return 404 from GET, DELETE and invoke of a model that is not loaded, and 409 from "
        "POST /models of one that is",
    ),
    "mme-unload-memory": Case(
        roles=(MULTI_MODEL,),
        checks="DELETE /models/NAME frees the memory of the model",
        remedy="remove every reference to the model before DELETE returns, and call gc.collect()",
    ),
    "execution-parameters": Case(
        roles=(TRANSFORM,),
        checks="GET /execution-parameters returns 404, or 200 with SageMaker's three keys",
        remedy='return {"MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", '
        '"MaxPayloadInMB": 6} as JSON, or 404',
    ),
    "chunked-body": Case(
        roles=(TRANSFORM,),
        checks="a body in chunks, without Content-Length, is accepted (MaxPayloadInMB=0)",
        remedy="use a server that decodes Transfer-Encoding: chunked, such as gunicorn or uvicorn",
    ),
}


def of_role(role: str, *, is_container: bool) -> Iterator[str]:
    """Yield the IDs of the cases of a role."""
    for case_id, case in CASES.items():
        if role in case.roles and (is_container or not case.is_of_image):
            yield case_id
