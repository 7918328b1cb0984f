"""Wait until a server is ready: its first successful ping, within a time limit."""

import time
from collections.abc import Callable
from http import HTTPStatus

from container.classifier.errors import UserError
from image_classifier.platform.sandbox.http_call import Address, call

# SageMaker's limit for a response to /ping.
_PING_SECONDS = 2

_POLL_SECONDS = 0.2


def wait_until_ready(
    address: Address,
    seconds: float,
    *,
    why_ended: Callable[[], str | None],
    end_of_log: Callable[[], str],
) -> None:
    """Send pings to a server until one returns 200.

    Args:
        address: host and port.
        seconds: how long this may take.
        why_ended: returns why the server has ended; None: it runs.
        end_of_log: returns the last lines of the server.

    Raises:
        UserError: the server ended, or was not ready in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        response = call(address, "GET", "/ping", timeout=_PING_SECONDS)
        if response.status == HTTPStatus.OK:
            return
        if (reason := why_ended()) is not None:
            raise UserError(f"the server ended with {reason}")
        if time.monotonic() > deadline:
            raise UserError(
                f"the server was not ready after {seconds:g} s ({response}); {end_of_log()}"
            )
        time.sleep(_POLL_SECONDS)
