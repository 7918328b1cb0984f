"""SageMaker's contract for a serving container: HTTP requests to the real program.

The numbers in the names are those of the contract's checklist. `test_serving_life.py` tests 1, 2,
3, 7, 8 and 14; `test_serving_image.py` tests 12, 13 and 16, which need Docker.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.artifacts import CLASS_NAMES, encode
from tests.bodies import JPEG, PIXELS, PNG, WEBP, in_chunks, instances, lines, npy
from tests.servers import Server, request, serving


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/jpeg", JPEG),
        ("image/jpg", JPEG),
        ("image/png", PNG),
        ("image/webp", WEBP),
        ("application/x-image", PNG),
        ("application/octet-stream", JPEG),
        ("application/octet-stream", npy(PIXELS)),
        ("application/x-npy", npy(PIXELS)),
        ("application/json", instances(PNG)),
        ("IMAGE/PNG; charset=binary", PNG),
    ],
)
def test_4_every_content_type_is_predicted(server: Server, content_type: str, body: bytes) -> None:
    response = server.invoke(body, content_type)

    assert response.status == 200, response.body
    assert response.headers["Content-Type"] == "application/json"
    document = json.loads(response.body)
    assert document["class_names"] == list(CLASS_NAMES)
    (prediction,) = document["predictions"]
    assert prediction["class_name"] in CLASS_NAMES
    assert prediction["probability"] == max(prediction["probabilities"])
    assert sum(prediction["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/json;q=0.1, text/csv;q=0.9", "text/csv"),
        ("image/png, */*;q=0.5", "application/json"),
    ],
)
def test_4_accept_header_selects_the_response_type(
    server: Server, accept: str | None, content_type: str
) -> None:
    response = server.invoke(PNG, accept=accept)

    assert response.status == 200
    assert response.headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    ("content_type", "accept", "body", "status"),
    [
        ("text/plain", None, b"text", 415),
        ("image/png", "image/png", PNG, 406),
        ("image/png", None, b"", 400),
        ("application/json", None, b"{", 400),
        ("image/png", None, b"not an image", 422),
        ("image/png", None, PNG[: len(PNG) // 2], 422),
    ],
)
def test_4_invalid_requests_are_answered_with_4xx_in_json(
    server: Server, content_type: str, accept: str | None, body: bytes, status: int
) -> None:
    response = server.invoke(body, content_type, accept)

    assert response.status == status
    assert response.headers["Content-Type"] == "application/json"
    assert set(json.loads(response.body)["error"]) == {"code", "message"}
    assert len(response.body) < 2048
    assert server.invoke(PNG).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/invocations", 405)]
)
def test_4_unknown_path_or_method_is_answered_in_json(
    server: Server, method: str, path: str, status: int
) -> None:
    response = request(server.port, method, path)

    assert response.status == status
    assert json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_5_too_large_body_is_answered_with_413(base_dir: Path, *, chunked: bool) -> None:
    with serving(base_dir, SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server:
        body = bytes(5 * 2**20)
        response = server.invoke(in_chunks(body, 2**16) if chunked else body)

        assert response.status == 413
        assert "larger than 1 MB" in json.loads(response.body)["error"]["message"]
        assert server.invoke(PNG).status == 200


def test_5_bodies_up_to_25_mb_are_accepted(server: Server) -> None:
    image = np.zeros((2048, 4096, 3), np.uint8)

    assert server.invoke(npy(image), "application/x-npy").status == 200
    assert server.invoke(npy(np.zeros((3000, 3000, 3), np.uint8))).status == 413


@pytest.mark.parametrize("body", [PNG, b"not an image"])
def test_6_custom_attributes_are_returned(server: Server, body: bytes) -> None:
    response = server.invoke(
        body, X_Amzn_SageMaker_Custom_Attributes="trace=1; c=ü".encode("latin-1").decode("latin-1")
    )

    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1; c=ü"


def test_9_execution_parameters_have_the_three_keys_of_sagemaker(server: Server) -> None:
    response = server.get("/execution-parameters")

    document = json.loads(response.body)
    assert response.status == 200
    assert document == {
        "MaxConcurrentTransforms": document["MaxConcurrentTransforms"],
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 6,
    }
    assert 1 <= document["MaxConcurrentTransforms"] * document["MaxPayloadInMB"] <= 100


@pytest.mark.slow
def test_10_transform_job_accepts_bodies_of_100_mb_with_many_images(
    base_dir: Path,
) -> None:
    text = base64.b64encode(PNG).decode()
    line = json.dumps({"b64": text, "note": "x" * (2**20 - len(text) - 24)}) + "\n"
    mebibyte = line.encode()
    assert len(mebibyte) == 2**20
    with serving(base_dir, SAGEMAKER_BATCH="true") as server:
        response = server.invoke(100 * mebibyte, "application/jsonlines")

        assert response.status == 200
        assert response.headers["Content-Type"] == "application/jsonlines"
        assert len(response.body.splitlines()) == 100
        assert server.invoke(100 * mebibyte + b"\n", "application/jsonlines").status == 413
        assert server.get("/execution-parameters").status == 200


def test_10_mini_batch_response_has_a_line_for_each_record(base_dir: Path) -> None:
    # SageMaker sends this with BatchStrategy MultiRecord and SplitType Line.
    batch = lines(PNG, PNG[:100], JPEG) + b"no JSON\n"
    with serving(
        base_dir, SAGEMAKER_BATCH="true", SAGEMAKER_BATCH_STRATEGY="MULTI_RECORD"
    ) as server:
        response = server.invoke(batch, "application/jsonlines", "application/jsonlines")
        alone = server.invoke(PNG, "image/png", "application/jsonlines")

    assert response.status == 200
    first, truncated, third, no_json = map(json.loads, response.body.splitlines())
    assert first["class_name"] == json.loads(alone.body)["class_name"]
    assert truncated["error"]["code"] == "unprocessable_entity"
    assert third["class_name"] in CLASS_NAMES
    assert no_json["error"]["code"] == "bad_request"


def test_10_unreadable_image_can_be_answered_with_200_and_an_error(base_dir: Path) -> None:
    with serving(
        base_dir, SAGEMAKER_BATCH="true", SAGEMAKER_CLASSIFIER_ERROR_RECORDS="true"
    ) as server:
        response = server.invoke(PNG[:100], "image/png")
        empty = server.invoke(b"", "image/png")
        as_csv = server.invoke(PNG[:100], "image/png", "text/csv")

    assert empty.status == 200
    assert b"the body is empty" in empty.body
    assert response.status == 200
    (prediction,) = json.loads(response.body)["predictions"]
    assert prediction["error"]["code"] == "unprocessable_entity"
    assert as_csv.status == 422


def test_10_local_mode_gets_no_execution_parameters(base_dir: Path) -> None:
    with serving(
        base_dir, SAGEMAKER_BATCH="True", SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="1"
    ) as server:
        assert server.get("/execution-parameters").status == 404
        assert server.invoke(PNG).status == 200


def test_11_chunked_body_is_accepted(server: Server) -> None:
    assert server.invoke(in_chunks(PNG)).body == server.invoke(PNG).body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("image/jpeg", JPEG), ("image/png", PNG), ("application/x-npy", npy(PIXELS))],
)
def test_15_clarify_gets_the_full_score_vector_in_class_order(
    server: Server, content_type: str, body: bytes
) -> None:
    as_json = json.loads(server.invoke(body, content_type, "application/json").body)
    as_csv = server.invoke(body, content_type, "text/csv").body.decode()
    as_line = json.loads(server.invoke(body, content_type, "application/jsonlines").body)

    scores = as_json["predictions"][0]["probabilities"]
    assert len(scores) == len(CLASS_NAMES)
    assert [float(text) for text in as_csv.split(",")] == scores
    assert as_line["probabilities"] == scores


def test_same_pixels_have_the_same_prediction_in_every_format(server: Server) -> None:
    responses = {
        server.invoke(PNG).body,
        server.invoke(npy(PIXELS), "application/x-npy").body,
        server.invoke(instances(PNG), "application/json").body,
        server.invoke(encode(PIXELS, "BMP"), "application/x-image").body,
    }

    assert len(responses) == 1


def test_request_is_logged_on_one_line_and_a_ping_is_not(base_dir: Path) -> None:
    with serving(base_dir) as server:
        server.invoke(instances(PNG, PNG), "application/json")
        server.get("/ping")
        server.get("/an-unknown-path")

        log = server.log.read_text()

    line, unknown = [line for line in log.splitlines() if "request=" in line]
    assert "method=POST request=invocations status=200 milliseconds=" in line
    for step in ("read", "wait", "decode", "infer"):
        assert re.search(rf" {step}=\d+\.\d ", line)
    assert re.search(r" images=2 errors=0 id=[0-9a-f]{16}$", line)
    assert "method=GET request=unknown status=404 milliseconds=" in unknown
