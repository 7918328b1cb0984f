"""The cases of a multi-model server, whose models SageMaker loads and unloads."""

import os
from contextlib import suppress
from dataclasses import replace
from shutil import copytree

from container.classifier.environment import MULTI_MODEL_VARIABLE
from image_classifier.platform.doctor import growth, model_loads, startup
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.growth import Growth
from image_classifier.platform.doctor.health import OK, Watch
from image_classifier.platform.doctor.model_client import FIRST, SECOND, UNKNOWN, ModelClient
from image_classifier.platform.doctor.payload import Payload, candidates
from image_classifier.platform.doctor.serving import (
    check_address,
    check_files,
    check_sigterm,
    launch_of,
    report_trouble,
)
from image_classifier.platform.doctor.startup import NOT_FOUND, NotReadyError
from image_classifier.platform.sandbox.launch import Launch

_CONFLICT, _NO_ROUTE = 409, {NOT_FOUND, 405}

# Connections that reach every worker of a server with few workers.
_CONNECTIONS = 16

_WARM_CYCLES, _CYCLES = 2, 6

_LOST_BYTES = 16 * 2**20


def examine(examination: Examination) -> None:
    """Start the server as SageMaker does, and check all cases."""
    report = examination.report
    _copy_models(examination)
    launch = replace(launch_of(examination), folders={"models": False})
    launch = replace(launch, variables={MULTI_MODEL_VARIABLE: "true", **launch.variables})
    try:
        try:
            _examine(examination, launch)
        except NotReadyError as error:
            _examine(examination, startup.relaxed(examination, launch, error))
    except NotReadyError as error:
        report_trouble(examination, error.trouble)
    report.skip_rest("the server ended before")


def _examine(examination: Examination, launch: Launch) -> None:
    report = examination.report
    with startup.server(examination, launch, examination.limits.startup) as running:
        report.accept("start", "image-entrypoint", "network")
        watch = Watch(examination, running)
        check_address(examination, running)
        watch.begin()
        _check_models(ModelClient(examination, running, launch))
        watch.check_growth()
        watch.finish()
        if running.exit_code() is not None:
            trouble = startup.of_end(examination, running, "while it loaded and served models")
            case_id = "memory" if trouble.case_id == "memory" else "mme-load"
            report_trouble(examination, replace(trouble, case_id=case_id, remedy=""))
            return
        report.accept("memory")
        check_files(examination, running)
        check_sigterm(examination, running)


def _check_models(client: ModelClient) -> None:
    report = client.examination.report
    response = client.load(FIRST)
    if response.status in _NO_ROUTE:
        report.fail("mme-load", "the server has no route POST /models", response)
        report.skip("mme-status-codes", "a consequence of mme-load")
        report.skip("mme-unload-memory", "a consequence of mme-load")
        return
    _check_unknown(client)
    if not response.is_success and client.examination.options.model is None:
        reason = f"the doctor's own model cannot be loaded: give --model ({response})"
        report.skip("mme-load", reason)
        report.skip("mme-unload-memory", reason)
    elif not response.is_success:
        report.fail("mme-load", "the model cannot be loaded", response)
    if not response.is_success:
        report.skip("mme-unload-memory", "a consequence of mme-load")
        report.accept("mme-status-codes")
        return
    _check_loaded(client)
    if "mme-load" in report.failed:
        report.skip("mme-status-codes", "a consequence of mme-load")
        report.skip("mme-unload-memory", "a consequence of mme-load")
        return
    again = client.load(FIRST)
    if again.status != _CONFLICT:
        message = "POST /models does not return 409 for a model that is loaded"
        report.fail("mme-status-codes", message, again)
    payload = _check_invocation(client)
    _check_unloaded(client, payload)
    if not report.failed.keys() & {"mme-load", "mme-status-codes"}:
        model_loads.check(client)
    _check_cycles(client, payload)
    report.accept("mme-load", "mme-status-codes", "mme-unload-memory")


def _check_unknown(client: ModelClient) -> None:
    body = Payload(body=b"{}", content_type="application/json")
    requests = {
        "GET /models/NAME": client.send("GET", f"/models/{UNKNOWN}"),
        "DELETE /models/NAME": client.unload(UNKNOWN),
        "POST /models/NAME/invoke": client.invoke(UNKNOWN, body),
    }
    for request, response in requests.items():
        if response.status != NOT_FOUND:
            message = f"{request} does not return 404 for a model that is not loaded"
            client.examination.report.fail("mme-status-codes", message, response)


def _check_loaded(client: ModelClient) -> None:
    """Check that all workers have the model, and that it is listed."""
    report = client.examination.report
    responses = [client.send("GET", f"/models/{FIRST}") for _ in range(_CONNECTIONS)]
    missing = [response for response in responses if response.status == NOT_FOUND]
    if missing:
        message = f"a loaded model is unknown to {len(missing)} of {len(responses)} requests"
        remedy = "load models in one process with threads, or share them between the workers"
        if len(missing) == len(responses):
            remedy = "return from POST /models when the model is loaded"
        report.fail("mme-load", message, missing[0], remedy)
        return
    failed = next((response for response in responses if response.status != OK), None)
    if failed is not None:
        message = "GET /models/NAME does not return 200 for a loaded model"
        report.fail("mme-status-codes", message, failed)
    elif FIRST.encode() not in responses[0].body:
        # AWS's model server returns a list of its workers.
        message = 'GET /models/NAME returns no {"modelName": ..., "modelUrl": ...}'
        report.fail("mme-status-codes", message, responses[0])
    names = client.names()
    if names is None or FIRST not in names:
        message = 'GET /models returns no {"models": [{"modelName": ...}]} with the loaded model'
        report.fail("mme-status-codes", message, client.send("GET", "/models"))


def _check_invocation(client: ModelClient) -> Payload | None:
    """Return a request that the loaded model accepts."""
    report, options = client.examination.report, client.examination.options
    response = None
    for payload in candidates(client.examination):
        response = client.invoke(FIRST, payload)
        if response.is_success:
            return payload
    if options.request is not None:
        message = "the given request fails with a loaded model"
        report.fail("mme-load", message, response)
    return None


def _check_unloaded(client: ModelClient, payload: Payload | None) -> None:
    report = client.examination.report
    if "mme-load" in report.failed:
        return
    client.load(SECOND)
    names = client.names() or set()
    if FIRST in names and SECOND not in names:
        message = "GET /models lists one of two loaded models, and has no nextPageToken"
        report.fail("mme-status-codes", message, client.send("GET", "/models"))
    deleted = client.unload(FIRST)
    if deleted.status != OK:
        message = "DELETE /models/NAME does not return 200 for a loaded model"
        report.fail("mme-status-codes", message, deleted)
    responses = [client.send("GET", f"/models/{FIRST}")]
    if payload is not None:
        responses.append(client.invoke(FIRST, payload))
    for response in responses:
        if response.status != NOT_FOUND:
            message = "a model is not 404 after it has been unloaded"
            report.fail("mme-status-codes", message, response)
    other = client.send("GET", f"/models/{SECOND}")
    if other.status != OK:
        message = "another model is lost when a model is unloaded"
        report.fail("mme-load", message, other)
    client.unload(SECOND)


def _check_cycles(client: ModelClient, payload: Payload | None) -> None:
    """Check that unloading a model frees its memory."""
    report = client.examination.report
    if report.failed.keys() & {"mme-load", "mme-status-codes"}:
        report.skip("mme-unload-memory", "a consequence of the failed requests for models")
        return

    def cycle() -> None:
        client.load(FIRST)
        if payload is not None:
            client.invoke(FIRST, payload)
        client.unload(FIRST)

    measured = []
    for cycles in (_WARM_CYCLES, _CYCLES):
        for _ in range(cycles):
            cycle()
        measured.append(client.running.memory())
    before, after = measured
    if before is None or after is None:
        report.skip("mme-unload-memory", "the memory of the program is unknown on this system")
        return
    message = "the memory grows when a model is loaded and unloaded again and again"
    size = client.model_bytes()
    # An allocator keeps some memory for the next model.
    if after - before > max(_LOST_BYTES, 2 * size):
        evidence = Growth(before=before, after=after, requests=_CYCLES)
        report.fail("mme-unload-memory", message, evidence)
        return
    with suppress(growth.TooSlowError):
        found = growth.measure(client.running, cycle, client.examination.limits.growth)
        if found is not None:
            report.fail("mme-unload-memory", message, found)


def _copy_models(examination: Examination) -> None:
    """Give the model several names, under which SageMaker's requests load it."""
    source = examination.folder / "model"
    if examination.options.model is None:
        (source / "model.json").write_text("{}\n")
    for name in (FIRST, SECOND, *model_loads.MORE):
        target = examination.folder / "models" / name / "model"
        copytree(source, target, copy_function=os.link)
