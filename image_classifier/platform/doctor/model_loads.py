"""Loads of models that servers often fail: two concurrent ones, and more than memory holds."""

import time
from concurrent.futures import ThreadPoolExecutor

from image_classifier.platform.doctor.health import is_slow, ping, report_slow
from image_classifier.platform.doctor.model_client import FIRST, SECOND, ModelClient
from image_classifier.platform.doctor.startup import POLL_SECONDS

# Names of the same model, to fill the memory with.
MORE = tuple(f"{number:032x}" for number in range(0xD0, 0xD8))
_MORE_SECONDS = 5

# Largest fraction of the memory that the files of all these models may have; loaded, they take
# more.
_MAX_SHARE = 1 / 8

_NO_MEMORY = 507


def check(client: ModelClient) -> None:
    """Check a server that has loaded and unloaded models one by one."""
    for request in (_load_together, _load_more):
        if client.running.exit_code() is None:
            request(client)


def _load_together(client: ModelClient) -> None:
    """Load two models at once, and send pings meanwhile."""
    report = client.examination.report
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(client.load, name) for name in (FIRST, SECOND)]
        while not all(each.done() for each in pending):
            response = ping(client.examination, client.running)
            if is_slow(response):
                report_slow(client.examination, response, f"while models were loaded: {response}")
            time.sleep(POLL_SECONDS)
        responses = [each.result() for each in pending]
    failed = [each for each in responses if not each.is_success and each.status != _NO_MEMORY]
    if failed and client.running.exit_code() is None:
        report.fail("mme-load", "two models cannot be loaded at the same time", failed[0])
    for name in (FIRST, SECOND):
        client.unload(name)


def _load_more(client: ModelClient) -> None:
    """Load the model under several names, until it does not fit."""
    memory = client.examination.options.memory
    if client.model_bytes() * len(MORE) > memory * _MAX_SHARE:
        return
    deadline, loaded = time.monotonic() + _MORE_SECONDS, list[str]()
    for name in MORE:
        response = client.load(name)
        if not response.is_success:
            break
        loaded.append(name)
        if time.monotonic() > deadline:
            break
    if not response.is_success and response.status not in {_NO_MEMORY, None}:
        message = f"POST /models does not return 507 when no more than {len(loaded)} models fit"
        remedy = "return 507: then SageMaker unloads other models, and loads this one again"
        client.examination.report.fail("mme-status-codes", message, response, remedy)
    for name in loaded:
        client.unload(name)
