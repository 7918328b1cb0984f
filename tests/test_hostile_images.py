"""Every row of `docs/reference/images.md`, against the real program."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile_images import ROWS, Row
from tests.servers import Server, serving


@pytest.fixture(scope="module")
def server(base_dir: Path) -> Iterator[Server]:
    # bfloat16 answers images alike that differ a little.
    with serving(base_dir, SAGEMAKER_CLASSIFIER_PRECISION="float32") as running:
        yield running


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.image)
def test_an_image_has_the_answer_of_its_row(server: Server, row: Row) -> None:
    worker = server.worker()

    response = server.invoke(row.body(), row.sent_as)

    document = json.loads(response.body)
    assert response.status == row.status, document
    if row.seen:
        assert response.body == server.invoke(row.seen()).body
    else:
        assert document["error"]["message"].startswith(row.answer)
    assert server.worker() == worker
    assert "Traceback" not in server.log.read_text()


def test_images_that_look_different_have_different_answers(server: Server) -> None:
    images = {row.seen() for row in ROWS if row.seen}

    assert len({server.invoke(image).body for image in images}) == len(images) > 10


def test_rows_have_either_pixels_or_an_error() -> None:
    assert [row.image for row in ROWS if (row.status == 200) != bool(row.seen)] == []
