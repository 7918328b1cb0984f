"""The cases of a server of many models, which SageMaker loads and unloads."""

import json
from collections.abc import Mapping
from dataclasses import replace
from shutil import copytree

from image_classifier.platform.doctor import startup
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import Payload, candidates, parse
from image_classifier.platform.doctor.serving import (
    check_address,
    check_files,
    check_pings,
    check_sigterm,
    launch_of,
    report_trouble,
)
from image_classifier.platform.doctor.startup import NOT_FOUND, OK, NotReadyError
from image_classifier.platform.sandbox.http_call import Answer, call
from image_classifier.platform.sandbox.launch import Launch, Running

# SageMaker's names of models are hashes.
FIRST, SECOND, UNKNOWN = (f"{number:032x}" for number in (0xA1, 0xB2, 0xC3))

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
    launch = replace(launch, variables={"SAGEMAKER_MULTI_MODEL": "true", **launch.variables})
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
        check_address(examination, running)
        check_pings(examination, running)
        _check_models(_Client(running, examination, launch))
        if running.exit_code() is not None:
            trouble = startup.of_end(running, examination, "while it loaded and served models")
            case_id = "memory" if trouble.case_id == "memory" else "mme-load"
            report_trouble(examination, replace(trouble, case_id=case_id, remedy=""))
            return
        report.accept("memory")
        check_files(examination, running)
        check_sigterm(examination, running)


class _Client:
    """Sends SageMaker's requests for models."""

    def __init__(self, running: Running, examination: Examination, launch: Launch) -> None:
        self.running, self.examination = running, examination
        is_container = examination.target.is_container
        self._root = "/opt/ml/models" if is_container else f"{launch.base_dir}/models"

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        timeout = self.examination.limits.invocation
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        return call(self.running.address, method, path, timeout=timeout, body=body, headers=names)

    def load(self, name: str) -> Answer:
        url = f"{self._root}/{name}/model"
        body = json.dumps({"model_name": name, "url": url}).encode()
        return self.send("POST", "/models", body, Content_Type="application/json")

    def invoke(self, name: str, payload: Payload) -> Answer:
        headers = {"Content_Type": payload.content_type, "Accept": payload.accept}
        return self.send("POST", f"/models/{name}/invoke", payload.body, **headers)

    def names(self) -> set[str] | None:
        """Return the names in the list of models; None: it is no such list."""
        document = parse(self.send("GET", "/models").body)
        models = document.get("models") if isinstance(document, dict) else None
        if not isinstance(models, list):
            return None
        return {str(model.get("modelName")) for model in models if isinstance(model, Mapping)}


def _check_models(client: _Client) -> None:
    report = client.examination.report
    answer = client.load(FIRST)
    if answer.status in _NO_ROUTE:
        report.fail("mme-load", "the server has no route POST /models", str(answer))
        report.skip("mme-status-codes", "a consequence of mme-load")
        report.skip("mme-unload-memory", "a consequence of mme-load")
        return
    _check_unknown(client)
    if not answer.is_success and client.examination.options.model is None:
        reason = f"the doctor's own model cannot be loaded: give --model ({answer})"
        report.skip("mme-load", reason)
        report.skip("mme-unload-memory", reason)
    elif not answer.is_success:
        report.fail("mme-load", "the model cannot be loaded", str(answer))
    if not answer.is_success:
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
        report.fail("mme-status-codes", message, str(again))
    payload = _check_invocation(client)
    _check_unloaded(client, payload)
    _check_cycles(client, payload)
    report.accept("mme-load", "mme-status-codes", "mme-unload-memory")


def _check_unknown(client: _Client) -> None:
    body = Payload(body=b"{}", content_type="application/json")
    requests = {
        "GET /models/NAME": client.send("GET", f"/models/{UNKNOWN}"),
        "DELETE /models/NAME": client.send("DELETE", f"/models/{UNKNOWN}"),
        "POST /models/NAME/invoke": client.invoke(UNKNOWN, body),
    }
    for request, answer in requests.items():
        if answer.status != NOT_FOUND:
            message = f"{request} does not return 404 for a model that is not loaded"
            client.examination.report.fail("mme-status-codes", message, str(answer))


def _check_loaded(client: _Client) -> None:
    """Check that all workers have the model, and that it is listed."""
    report = client.examination.report
    answers = [client.send("GET", f"/models/{FIRST}") for _ in range(_CONNECTIONS)]
    missing = [answer for answer in answers if answer.status == NOT_FOUND]
    if missing and len(missing) < len(answers):
        message = f"a loaded model is unknown to {len(missing)} of {len(answers)} requests"
        remedy = "load models in one process with threads, or share them between the workers"
        report.fail("mme-load", message, str(missing[0]), remedy)
        return
    failed = next((answer for answer in answers if answer.status != OK), None)
    if failed is not None:
        message = "GET /models/NAME does not return 200 for a loaded model"
        report.fail("mme-status-codes", message, str(failed))
    names = client.names()
    if names is None or FIRST not in names:
        message = 'GET /models returns no {"models": [{"modelName": ...}]} with the loaded model'
        report.fail("mme-status-codes", message, str(client.send("GET", "/models")))


def _check_invocation(client: _Client) -> Payload | None:
    """Return a request that the loaded model accepts."""
    report, options = client.examination.report, client.examination.options
    answer = None
    for payload in candidates(client.examination):
        answer = client.invoke(FIRST, payload)
        if answer.is_success:
            return payload
    if options.request is not None:
        message = "the given request fails with a loaded model"
        report.fail("mme-load", message, str(answer))
    return None


def _check_unloaded(client: _Client, payload: Payload | None) -> None:
    report = client.examination.report
    if "mme-load" in report.failed:
        return
    client.load(SECOND)
    deleted = client.send("DELETE", f"/models/{FIRST}")
    if deleted.status != OK:
        message = "DELETE /models/NAME does not return 200 for a loaded model"
        report.fail("mme-status-codes", message, str(deleted))
    answers = [client.send("GET", f"/models/{FIRST}")]
    if payload is not None:
        answers.append(client.invoke(FIRST, payload))
    for answer in answers:
        if answer.status != NOT_FOUND:
            message = "a model is not 404 after it has been unloaded"
            report.fail("mme-status-codes", message, str(answer))
    other = client.send("GET", f"/models/{SECOND}")
    if other.status != OK:
        message = "another model is lost when a model is unloaded"
        report.fail("mme-load", message, str(other))
    client.send("DELETE", f"/models/{SECOND}")


def _check_cycles(client: _Client, payload: Payload | None) -> None:
    """Check that unloading a model frees its memory."""
    report = client.examination.report
    if report.failed.keys() & {"mme-load", "mme-status-codes"}:
        report.skip("mme-unload-memory", "a consequence of the failed requests for models")
        return
    measured = []
    for cycles in (_WARM_CYCLES, _CYCLES):
        for _ in range(cycles):
            client.load(FIRST)
            if payload is not None:
                client.invoke(FIRST, payload)
            client.send("DELETE", f"/models/{FIRST}")
        measured.append(client.running.memory())
    before, after = measured
    if before is None or after is None:
        report.skip("mme-unload-memory", "the memory of the program is unknown on this system")
        return
    folder = client.examination.folder / "models" / FIRST
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    # An allocator keeps some memory for the next model.
    if after - before > max(_LOST_BYTES, 2 * size):
        report.fail(
            "mme-unload-memory",
            f"the memory grew by {(after - before) / 2**20:.0f} MiB in {_CYCLES} cycles of loading "
            "and unloading a model",
            f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after",
        )


def _copy_models(examination: Examination) -> None:
    """Copy the model under the two names that SageMaker's requests have."""
    source = examination.folder / "model"
    if examination.options.model is None:
        (source / "model.json").write_text("{}\n")
    for name in (FIRST, SECOND):
        copytree(source, examination.folder / "models" / name / "model")
