"""Values of environment variables, and what the server needs of its system."""

import tempfile
from pathlib import Path

import pytest

from container.classifier.environment import IMAGE_MEMORY_VARIABLE, image_bytes
from container.classifier.errors import UserError
from container.serving import limits
from container.serving.settings import Settings
from image_classifier.settings import known_names

FLAGS = {
    "SAGEMAKER_CLASSIFIER_PAGE": "has_page",
    "SAGEMAKER_CLASSIFIER_METRICS": "has_metrics",
    "SAGEMAKER_CLASSIFIER_ERROR_RECORDS": "has_error_records",
    "SAGEMAKER_MULTI_MODEL": "multi_model",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "True", "TRUE", "1", "yes", "Yes", "on", "ON")),
        *((text, False) for text in ("", "false", "False", "0", "no", "NO", "off", "Off")),
    ],
)
@pytest.mark.parametrize("name", FLAGS)
def test_flag_has_the_usual_spellings(name: str, text: str, value: bool) -> None:  # noqa: FBT001
    settings = Settings.from_environment({name: text})

    assert getattr(settings, FLAGS[name]) is value
    assert known_names.ENVIRONMENT[name].rejection(text) is None


@pytest.mark.parametrize("name", FLAGS)
def test_other_spelling_of_a_flag_is_rejected(name: str) -> None:
    message = "must be one of true, 1, yes, on, false, 0, no, off, got 'enabled'"

    with pytest.raises(UserError, match=f"{name} {message}"):
        Settings.from_environment({name: "enabled"})
    assert known_names.ENVIRONMENT[name].rejection("enabled") == message


def test_memory_of_an_image_is_read_by_all_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE_MEMORY_VARIABLE, "1600")

    assert image_bytes() == 1_600_000_000
    assert Settings.from_environment({IMAGE_MEMORY_VARIABLE: "1600"}).image_bytes == image_bytes()
    for text in ("9", "1e3", "-1", "²"):
        monkeypatch.setenv(IMAGE_MEMORY_VARIABLE, text)
        with pytest.raises(UserError, match="SAGEMAKER_CLASSIFIER_IMAGE_MB must be a whole number"):
            image_bytes()


def test_heartbeats_need_a_writable_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(limits, "SHARED_MEMORY", str(tmp_path / "missing"))
    assert Path(limits.heartbeat_dir()).is_dir()

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(UserError, match="nor a temporary folder is writable: mount one"):
        limits.heartbeat_dir()
