"""Encoding predictions as response bodies."""

import json

import numpy as np
import pytest
from werkzeug.exceptions import NotAcceptable, UnprocessableEntity

from container.classifier.media_types import RESPONSE_MEDIA_TYPES
from container.serving.http.encoding import choose_media_type, encode_response
from container.serving.model.outcome import Result

JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"

NAMES = [f"class {number}" for number in range(7)]
PROBABILITIES = np.array(
    [[0.1, 0.2, 0.3, 0.05, 0.05, 0.3, 0], [1, 0, 0, 0, 0, 0, 1e-10]], np.float32
)


@pytest.mark.parametrize("default", RESPONSE_MEDIA_TYPES)
@pytest.mark.parametrize(
    "accept", [None, "", " ", "*/*", "*/*;q=0.1", "text/html, */*", "*", "text/html, *;q=0.2"]
)
def test_client_without_a_preference_gets_the_default(accept: str | None, default: str) -> None:
    assert choose_media_type(accept, default) == default


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("text/csv", CSV),
        ("TEXT/CSV; charset=utf-8, text/csv", CSV),
        ("text/csv; charset=utf-8", CSV),
        ("application/json; verbose=true", JSON),
        ("application/json; verbose=true; q=0.1, text/csv; header=absent; q=0.2", CSV),
        ("text/*", CSV),
        ("application/*", JSON),
        ("application/json;q=0.5, text/csv", CSV),
        ("application/json;q=0, */*", JSON_LINES),
        ("text/csv;q=0.2, application/jsonlines;q=0.8, */*;q=0.1", JSON_LINES),
    ],
)
def test_q_values_and_wildcards_are_respected(accept: str, chosen: str) -> None:
    assert choose_media_type(accept, JSON) == chosen


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "nonsense", "x" * 10_000])
def test_unsupported_accept_is_rejected_with_the_supported_types(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json") as raised:
        choose_media_type(accept, JSON)

    assert len(raised.value.description or "") < 300


def test_json_has_probabilities_in_class_order_and_a_ranking() -> None:
    document = json.loads(encode_response(tuple(PROBABILITIES), NAMES, JSON))

    first, second = document["predictions"]
    assert document["class_names"] == NAMES
    assert first["class_name"] == "class 2"
    assert first["probability"] == 0.3
    assert first["probabilities"] == [0.1, 0.2, 0.3, 0.05, 0.05, 0.3, 0]
    assert [entry["class_name"] for entry in first["ranking"]] == [
        f"class {number}" for number in (2, 5, 1, 0, 3)
    ]
    assert second["probabilities"][-1] == 1e-10


def test_json_lines_have_one_prediction_per_line() -> None:
    lines = encode_response(tuple(PROBABILITIES), NAMES, JSON_LINES).decode().splitlines()

    whole = json.loads(encode_response(tuple(PROBABILITIES), NAMES, JSON))
    assert [json.loads(line) for line in lines] == whole["predictions"]


def test_csv_has_a_row_of_probabilities_per_image() -> None:
    rows = encode_response(tuple(PROBABILITIES), NAMES, CSV).decode().splitlines()

    parsed = [[float(text) for text in row.split(",")] for row in rows]
    assert np.array_equal(np.array(parsed, np.float32), PROBABILITIES)


def test_ranking_of_two_classes_has_two_entries() -> None:
    document = json.loads(encode_response([np.array([0.25, 0.75], np.float32)], NAMES[:2], JSON))

    assert document["predictions"] == [
        {
            "class_name": "class 1",
            "probability": 0.75,
            "probabilities": [0.25, 0.75],
            "ranking": [
                {"class_name": "class 1", "probability": 0.75},
                {"class_name": "class 0", "probability": 0.25},
            ],
        }
    ]


def test_failed_image_has_its_error_at_its_position() -> None:
    results = [PROBABILITIES[0], UnprocessableEntity("damaged"), PROBABILITIES[1]]
    good = encode_response([PROBABILITIES[0], PROBABILITIES[1]], NAMES, JSON_LINES).splitlines()

    lines = encode_response(results, NAMES, JSON_LINES).splitlines()
    document = json.loads(encode_response(results, NAMES, JSON))

    assert [lines[0], lines[2]] == good
    expected = {"error": {"code": "unprocessable_entity", "message": "damaged"}}
    assert json.loads(lines[1]) == document["predictions"][1] == expected


@pytest.mark.parametrize(
    ("media_type", "results"),
    [
        (CSV, [PROBABILITIES[0], UnprocessableEntity("damaged")]),
        (JSON, [UnprocessableEntity("damaged"), UnprocessableEntity("too")]),
    ],
)
def test_error_that_the_response_cannot_hold_is_raised(
    media_type: str, results: list[Result]
) -> None:
    with pytest.raises(UnprocessableEntity, match="damaged"):
        encode_response(results, NAMES, media_type)
