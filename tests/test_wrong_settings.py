"""Every mistake in a file of `wrong_settings` is reported once, with its line, and nothing else.

A comment after a line has parts of the messages for that line, separated by ` & `.
"""

import re
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from image_classifier.settings import settings_file
from tests.opt_ml import write_images
from tests.settings_files import write

FILES = sorted((Path(__file__).parent / "wrong_settings").glob("*.toml"))


def check(path: Path, *overrides: str) -> list[tuple[int, str]]:
    """Return the lines and the messages of the mistakes in a file; 0 is the command line."""
    with pytest.raises(UserError) as caught:
        settings_file.read(path, path.parent / "none", overrides, is_check=True)
    found = []
    for sentence in str(caught.value).splitlines():
        if sentence.startswith("missing for SageMaker only: "):
            continue
        match = re.fullmatch(rf"(?:{re.escape(str(path))}:(\d+)|--set): (.*)", sentence)
        assert match, sentence
        found.append((int(match[1] or 0), match[2]))
    return found


def test_at_least_twenty_files_are_checked() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("wrong", FILES, ids=lambda path: path.stem)
def test_every_mistake_is_named_once_with_its_line(wrong: Path, tmp_path: Path) -> None:
    text = wrong.read_text(encoding="utf-8")
    path = write(tmp_path, text, "")
    for name in ("training", "val"):
        write_images(tmp_path / "images" / name, per_class=1)
    expected = [
        (number, words)
        for number, line in enumerate(text.splitlines(), 1)
        if "  # " in line
        for words in line.partition("  # ")[2].split(" & ")
    ]

    found = check(path)

    assert len(found) == len(set(found))
    missed = [
        (number, words)
        for number, words in expected
        if sum(line == number and words in message for line, message in found) != 1
    ]
    assert (missed, len(found)) == ([], len(expected)), found


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "\n[training]\nspot = 3\n")

    found = check(
        path,
        "training.spot=true",
        "hyperparameters.network=resnet19",
        "tuning.ranges.epochs={min = 5, max = 2}",
        "trainin.volume_gb=5",
        "hyperparameters.lr=0.1",
        "endpoint.environment.SAGEMAKER_CLASSIFIER_THREADS=many",
    )

    assert [line for line, _ in found] == [0] * 5
    messages = " ".join(message for _, message in found)
    for words in (
        "hyperparameters.network names an unknown network, 'resnet19'; did you mean resnet18?",
        "tuning.ranges.epochs must have min below max",
        "trainin is unknown here; did you mean training?",
        "hyperparameters.lr is unknown; did you mean learning_rate?",
        "SAGEMAKER_CLASSIFIER_THREADS must be a whole number",
    ):
        assert words in messages


def test_overrides_replace_values_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "\n[training]\nmax_hours = 1.0\n[aws.tags]\nteam = 'a'\n")
    overrides = (
        "training.spot = true",
        "training.max_hours=4",
        "name=feet",
        'data.channels=["train", "val"]',
        "hyperparameters.network=small",
        "hyperparameters.epochs=3",
        "aws.kms_key=1234",
        "aws.tags.year=2026",
        "endpoint.environment.SAGEMAKER_CLASSIFIER_THREADS=4",
        "tuning.ranges.epochs={min = 2, max = 5}",
        "tuning.jobs=7",
        "data.local=with = signs",
    )

    settings = settings_file.read(path, tmp_path / "none", overrides).settings

    assert settings.training.spot
    assert settings.training.max_hours == 4
    assert settings.name == "feet"
    assert settings.data.channels == ("train", "val")
    assert settings.hyperparameters == {"network": "small", "epochs": 3}
    assert settings.aws.kms_key == "1234"
    assert settings.aws.tags == {"team": "a", "year": "2026"}
    assert settings.endpoint.environment == {"SAGEMAKER_CLASSIFIER_THREADS": "4"}
    assert settings.tuning
    assert (settings.tuning.jobs, settings.tuning.ranges["epochs"].bounds) == (7, (2, 5))
    assert settings.data.local == "with = signs"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.spot", "--set needs KEY=VALUE, got 'training.spot'"),
        ("=true", "--set needs KEY=VALUE"),
        ("a..b=1", "--set needs KEY=VALUE"),
        ("a b=1", "--set needs KEY=VALUE"),
        ("a\nb=1", "--set needs KEY=VALUE"),
        ("name.first=a", "--set name.first: name is not a table, got 'hands'"),
        ("hyperparameters.epochs=1\n2", "epochs must be a whole number"),
        ("hyperparameters.epochs=2026-01-01", "epochs must be a whole number"),
    ],
)
def test_overrides_that_are_not_keys_and_values_are_rejected(
    tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        settings_file.read(write(tmp_path), tmp_path / "none", (override,))

    assert words in str(caught.value)


def test_deeply_nested_brackets_are_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, "x = " + "[" * 100_000)

    with pytest.raises(UserError, match="invalid TOML"):
        settings_file.read(path)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "hands"\r\n')

    assert settings_file.read(path).settings.name == "hands"


def test_missing_folders_are_mistakes_for_check_alone(tmp_path: Path) -> None:
    path = write(tmp_path, '\n[data]\nlocal = "nowhere"\n')

    assert settings_file.read(path, tmp_path / "none").local_data == tmp_path / "nowhere"
    ((line, message),) = check(path)
    assert line == 13
    assert message.startswith(f"data.local does not exist: {tmp_path}/nowhere; fix the path")


def test_two_folders_of_a_channel_that_names_neither_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, '\n[data]\nlocal = "images"\nchannels = ["train", "validation"]\n')
    for name in ("train", "val", "valid"):
        (tmp_path / "images" / name).mkdir(parents=True)

    ((line, message),) = check(path)

    assert line == 14
    assert "name 'validation', and" in message
    assert "has val/ and valid/: name one of them" in message
