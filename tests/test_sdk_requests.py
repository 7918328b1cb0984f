"""The command's requests against those that both generations of the SDK were recorded to send."""

import pytest

from image_classifier.settings import service_model
from tests.sdk_requests import comparison
from tests.sdk_requests.settings import OPERATIONS


def test_every_difference_from_the_sdks_has_a_reason() -> None:
    found = comparison.differences()

    assert not [each for each in found if each.reason is None]
    names = {each.reason for each in found}
    assert names == set(comparison.REASONS.values())


@pytest.mark.parametrize("generation", [2, 3])
def test_recorded_requests_are_valid(generation: int) -> None:
    document = comparison.recorded(generation)

    assert document["version"].startswith(f"{generation}.")
    assert document["requests"].keys() == set(OPERATIONS)
    for operation, request in document["requests"].items():
        service_model.check(operation, request)


def test_command_requests_are_valid() -> None:
    for operation, request in comparison.command_requests().items():
        service_model.check(operation, request)
