"""Encoding predictions as response bodies."""

import json

import numpy as np
import pytest
from werkzeug.exceptions import NotAcceptable, UnprocessableEntity

from container.classifier.media_types import RESPONSE_MEDIA_TYPES
from container.serving.http.encoding import choose_media_type, encode_response, ranked_classes
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


@pytest.mark.parametrize(
    ("accept", "media_type", "top"),
    [
        (None, JSON, None),
        ("application/json", JSON, None),
        ("application/json; verbose=true", JSON, None),
        ("application/json;top=3", JSON, 3),
        ("text/csv;top=4;q=0.1, application/jsonlines; top=2", JSON_LINES, 2),
        ("*/*; top=1", JSON, 1),
        ("text/html;top=x, application/json", JSON, None),
    ],
)
def test_number_of_classes_is_a_parameter_of_accept(
    accept: str | None, media_type: str, top: int | None
) -> None:
    assert ranked_classes(accept, media_type) == top


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "9" * 10_000])
def test_other_numbers_of_classes_are_rejected(top: str) -> None:
    if top.startswith("9"):
        assert ranked_classes(f"{JSON};top={top}", JSON) == 999_999_999
        return
    with pytest.raises(NotAcceptable, match="is not a number of classes from 1 on"):
        ranked_classes(f"{JSON};top={top}", JSON)
    with pytest.raises(NotAcceptable, match="text/csv has a column for every class: accept"):
        ranked_classes(f"{CSV};top={top}", CSV)


@pytest.mark.parametrize(("top", "listed"), [(1, 1), (3, 3), (100, len(NAMES))])
def test_response_with_the_best_classes_has_no_others(top: int, listed: int) -> None:
    results: list[Result] = [*PROBABILITIES, UnprocessableEntity("no")]

    document = json.loads(encode_response(results, NAMES, JSON, top=top))
    lines = encode_response(results, NAMES, JSON_LINES, top=top).decode().splitlines()

    assert document.keys() == {"predictions"}
    assert list(map(json.loads, lines)) == document["predictions"]
    first = document["predictions"][0]
    assert first.keys() == {"class_name", "probability", "ranking"}
    assert len(first["ranking"]) == listed
    assert first["ranking"][0] == {"class_name": "class 2", "probability": 0.3}
    assert document["predictions"][2]["error"]["message"] == "no"


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
