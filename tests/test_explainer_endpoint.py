"""Requests to endpoints of several kinds, over real connections."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from container.classifier.errors import UserError
from container.classifier.media_types import CSV, JSON, JSON_LINES, NPY
from image_classifier.explainer.analysis import JPEG, PNG, Predictor
from image_classifier.explainer.endpoint import Endpoint, HttpEndpoint, SageMakerEndpoint
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.model import MAX_BATCH, Model
from image_classifier.explainer.payloads import parse_scores
from image_classifier.explainer.shapley import all_coalitions
from tests.endpoints import Behavior, Rows, patch_server

PIXELS = np.zeros((16, 16, 3), np.uint8)
PIXELS[:8, :8] = (215, 25, 30)


@pytest.fixture
def behavior() -> Iterator[Behavior]:
    with patch_server() as running:
        yield running


def image() -> SegmentedImage:
    """Return an image of 16 superpixels of 4 x 4 pixels, four of them red."""
    rows, columns = np.indices((16, 16)) // 4
    return SegmentedImage(PIXELS, 4 * rows + columns, np.zeros_like(PIXELS))


def probed(
    endpoint: Endpoint, content_type: str = NPY, parallel: int = 3, **options: object
) -> Model:
    predictor = Predictor(content_type=content_type, **options)  # type: ignore[arg-type]
    model = Model(endpoint, predictor, parallel)
    model.probe(PIXELS)
    return model


@pytest.mark.parametrize(
    ("body", "media_type", "probability", "rows"),
    [
        ("[0.1, 0.9]", JSON, None, [[0.1, 0.9]]),
        ('{"predictions": [0.1, 0.9]}', JSON, "predictions", [[0.1, 0.9]]),
        ('{"predictions": [[0.1, 0.9]]}', JSON, None, [[0.1, 0.9]]),
        ('{"predictions": [{"probabilities": [0.1, 0.9]}]}', JSON, None, [[0.1, 0.9]]),
        ('{"probabilities": [0.1, 0.9], "labels": ["a", "b"]}', JSON, None, [[0.1, 0.9]]),
        ('{"a": {"b": [[0, 1], [1, 0]]}}', JSON, "a.b", [[0, 1], [1, 0]]),
        ("0.1,0.9\n0.2,0.8\n", CSV, None, [[0.1, 0.9], [0.2, 0.8]]),
        (
            '{"probabilities": [0, 1]}\n{"probabilities": [1, 0]}\n',
            JSON_LINES,
            None,
            [[0, 1], [1, 0]],
        ),
    ],
)
def test_scores_are_found_in_responses_of_several_formats(
    body: str, media_type: str, probability: str | None, rows: list[list[float]]
) -> None:
    np.testing.assert_allclose(parse_scores(body.encode(), media_type, probability).rows, rows)


@pytest.mark.parametrize(
    ("body", "probability", "words"),
    [
        ("<html>", None, "no scores in the endpoint's response"),
        ('{"label": "ant"}', None, "set predictor.probability"),
        ('{"predictions": [[0.1, NaN]]}', None, "finite"),
        ("[[1, 2], [3]]", None, "no scores"),
        ("[]", None, "no scores"),
        ("0.5", None, "no scores"),
        ('{"a": [1]}', "a..b", "not a JMESPath"),
        ('{"a": [1]}', "b", "no scores"),
        ("[" * 100_000, None, "no scores"),
    ],
)
def test_response_without_scores_is_quoted(body: str, probability: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_scores(body.encode(), JSON, probability)


@pytest.mark.parametrize("content_type", [NPY, PNG, JPEG])
def test_scores_are_in_the_order_of_the_images(behavior: Behavior, content_type: str) -> None:
    coalitions = np.random.default_rng(0).random((50, 16)) < 0.5
    coalitions[:2] = [[True] * 16, [False] * 16]
    with probed(HttpEndpoint(behavior.url, parallel=3), content_type) as model:
        found = model.scores(image(), coalitions)

    expected = behavior.probabilities(image().mask(coalitions))
    np.testing.assert_allclose(found, expected, atol=0.1 if content_type == JPEG else 1e-9)
    assert model.class_names == ("none", "patch")
    assert set(behavior.paths) == {"/invocations"}


def test_batches_reduce_requests_and_few_are_in_flight(behavior: Behavior) -> None:
    counts: list[int] = []
    with probed(HttpEndpoint(behavior.url, parallel=3)) as model:
        model.scores(image(), all_coalitions(16)[:160], counts.append)

    assert model.accepts_batches
    assert len(behavior.paths) == 2 + 160 // MAX_BATCH
    assert behavior.max_in_flight <= 3
    assert sum(counts) == 160


def test_endpoint_without_batches_gets_one_image_per_request(behavior: Behavior) -> None:
    behavior.accepts_batches = False
    with probed(HttpEndpoint(behavior.url, parallel=3)) as model:
        found = model.scores(image(), all_coalitions(16)[:20])

    assert not model.accepts_batches
    assert found.shape == (20, 2)
    assert len(behavior.paths) == 2 + 20


def test_busy_endpoint_gets_the_request_again(behavior: Behavior) -> None:
    with probed(HttpEndpoint(behavior.url, parallel=2)) as model:
        behavior.busy = 3
        found = model.scores(image(), all_coalitions(16)[:40])

    assert found.shape == (40, 2)
    assert len(behavior.paths) == 2 + 3 + 3


def test_failing_endpoint_ends_the_analysis_with_its_message(behavior: Behavior) -> None:
    with probed(HttpEndpoint(behavior.url, parallel=2)) as model:
        behavior.fails_after = 0
        with pytest.raises(UserError, match=r"responded 500: .*the model broke"):
            model.scores(image(), all_coalitions(16)[:40])


def test_unreachable_server_is_reported() -> None:
    with pytest.raises(UserError, match="is the server running"):
        probed(HttpEndpoint("http://127.0.0.1:9", parallel=1))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "8080"])
def test_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(UserError, match="must look like"):
        HttpEndpoint(url, parallel=1)


def test_labels_must_equal_the_classes_of_the_endpoint(behavior: Behavior) -> None:
    endpoint = HttpEndpoint(behavior.url, parallel=1)

    with pytest.raises(UserError, match="none, patch, in this order"):
        probed(endpoint, label_headers=("patch", "none"))
    with pytest.raises(UserError, match="2 scores for 3 labels: a, b, c"):
        probed(endpoint, label_headers=("a", "b", "c"))


def test_labels_name_the_scores_of_an_endpoint_without_names(behavior: Behavior) -> None:
    behavior.answer = lambda rows: {"scores": rows.tolist()}
    model = probed(
        HttpEndpoint(behavior.url, parallel=1), probability="scores", label_headers=("a", "b")
    )

    assert model.class_names == ("a", "b")


def test_csv_is_requested_and_parsed(behavior: Behavior) -> None:
    behavior.answer = lambda rows: "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
    model = probed(HttpEndpoint(behavior.url, parallel=1), accept_type=CSV)

    assert model.class_names == ("class 0", "class 1")
    assert behavior.headers[0]["Accept"] == CSV


def test_changed_number_of_scores_is_reported(behavior: Behavior) -> None:
    with probed(HttpEndpoint(behavior.url, parallel=1)) as model:
        behavior.answer = lambda rows: [[*row, 0] for row in rows.tolist()]
        with pytest.raises(UserError, match="2 images with 2 lists of 3 scores, expected 2"):
            model.scores(image(), all_coalitions(16)[:2])


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, behavior: Behavior) -> Behavior:
    """Make boto3 use the test server as SageMaker's runtime."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", behavior.url)
    return behavior


def test_sagemaker_endpoint_is_invoked(account: Behavior) -> None:
    predictor = Predictor(endpoint_name="hands", target_model="a.tar.gz", custom_attributes="c=1")
    with probed(SageMakerEndpoint(predictor, region="eu-west-1", parallel=2)) as model:
        account.busy = 1
        found = model.scores(image(), all_coalitions(16)[:20])

    np.testing.assert_allclose(found, account.probabilities(image().mask(all_coalitions(16)[:20])))
    assert set(account.paths) == {"/endpoints/hands/invocations"}
    sent = {name.lower(): value for name, value in account.headers[-1].items()}
    assert sent["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert sent["x-amzn-sagemaker-custom-attributes"] == "c=1"
    assert sent["content-type"] == NPY


def test_error_message_of_the_container_is_reported(account: Behavior) -> None:
    account.accepts_batches = False
    endpoint = SageMakerEndpoint(Predictor(endpoint_name="hands"), region="eu-west-1", parallel=1)

    with probed(endpoint) as model:
        assert not model.accepts_batches
        account.fails_after = 0
        with pytest.raises(UserError, match=r"hands responded ModelError: .*the model broke"):
            model.scores(image(), all_coalitions(16)[:2])


def test_missing_region_or_endpoint_name_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    with pytest.raises(UserError, match="give --region"):
        SageMakerEndpoint(Predictor(endpoint_name="hands"), region=None, parallel=1)
    with pytest.raises(UserError, match="give --url"):
        SageMakerEndpoint(Predictor(), region=None, parallel=1)


def test_class_names_of_this_projects_response_are_parsed() -> None:
    rows: Rows = np.array([[0.25, 0.75]])
    body = json.dumps(
        {"predictions": [{"probabilities": rows[0].tolist()}], "class_names": ["a", "b"]}
    )

    assert parse_scores(body.encode(), JSON, None).class_names == ("a", "b")
