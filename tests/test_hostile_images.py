"""Every row of `docs/reference/images.md`, against the real program."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile_images import ROWS, Row
from tests.servers import Server, serving


@pytest.fixture(scope="module")
def server(base_dir: Path) -> Iterator[Server]:
    # In bfloat16, images that differ a little have equal responses.
    with serving(base_dir, SAGEMAKER_CLASSIFIER_PRECISION="float32") as running:
        yield running


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.image)
def test_an_image_has_the_response_of_its_row(server: Server, row: Row) -> None:
    worker = server.worker()

    response = server.invoke(row.body(), row.sent_as)

    document = json.loads(response.body)
    assert response.status == row.status, document
    if row.same_as:
        assert response.body == server.invoke(row.same_as()).body
    else:
        assert document["error"]["message"].startswith(row.expected)
    assert server.worker() == worker
    assert "Traceback" not in server.log.read_text()


def test_images_that_look_different_have_different_responses(server: Server) -> None:
    images = {row.same_as() for row in ROWS if row.same_as}

    assert len({server.invoke(image).body for image in images}) == len(images) > 10


def test_rows_have_either_pixels_or_an_error() -> None:
    assert [row.image for row in ROWS if (row.status == 200) != bool(row.same_as)] == []
