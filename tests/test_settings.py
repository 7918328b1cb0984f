"""All mistakes in a settings file are reported at once, each with its line."""

import json
import re
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from container.classifier.metric_lines import METRIC_DEFINITIONS
from image_classifier.sagemaker.endpoint_requests import model
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings import service_model, settings_file
from image_classifier.settings.inference import Endpoint
from image_classifier.settings.settings_file import SettingsError
from image_classifier.settings.tuning import is_integer
from tests.settings_files import BEGINNING, EXAMPLES, REGISTRY, TUNING, read

# Thirty mistakes; each comment is a part of the line's message.
PLANTED = """\
name = "Hands_2"  # lowercase letters
nmae = "x"  # did you mean name
[aws]
role = "image-classifier"  # arn:aws:iam
region = "Ireland"  # eu-west-1
bucket = "s3://my-bucket"  # without s3
subnets = ["subnet-1"]  # security_groups
kms_key = 5  # must be a valid string
[images]
train = "image-classifier-train:latest"  # container image in ECR
[data]
channels = ["training", "validaton"]  # 'validaton'
mode = "Pipe"  # 'File' or 'FastFile'
[training]
instance_type = "g5.xlarge"  # did you mean ml.g5.xlarge
instance_count = 0  # greater than or equal to 1
max_wait_hours = 3.0  # requires spot = true
volume_gb = "30"  # valid integer
[hyperparameters]
learning_rat = 0.1  # is unknown; did you mean learning_rate
epochs = "three"  # whole number
batch_size = 0  # must be 1 to
optimizer = "adamm"  # adamw, sgd
[metrics]
a = "val_loss=[0-9.]+"  # one group
b = "nothing=([0-9.]+)"  # matches no line
c = "loss=([-+0-9.eE]+)"  # matches several
[tuning]
objective = "accuracy"  # did you mean val_accuracy
goal = "Highest"  # 'Maximize' or 'Minimize'
parallel = 30  # less than or equal to 10
strategy = "TPE"  # 'Bayesian', 'Random'
[tuning.ranges]
learning_rate = { min = 0.1, max = 0.01 }  # min below max
weight_decay = { min = 0.0, max = 0.1, scaling = "Logarithmic" }  # above 0
epochs = { min = 0, max = 5 }  # must be 1 to 10000
[debugger]
rules = ["overfitt"]  # did you mean overfit
[profiler]
interval_ms = 300  # 500
[endpoint]
kind = "serverless"  # neither a VPC
memory_mb = 3000  # 1024, 2048
"""


def mistakes(directory: Path, rest: str = "", beginning: str = BEGINNING) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(directory, rest, beginning)
    return str(caught.value).splitlines()


def test_thirty_mistakes_are_reported_with_one_line_each(tmp_path: Path) -> None:
    planted = {
        number: line.partition("  # ")[2]
        for number, line in enumerate(PLANTED.splitlines(), 1)
        if "  # " in line
    }
    assert len(planted) >= 30

    found = mistakes(tmp_path, PLANTED, "")

    by_line: dict[int, str] = {}
    for sentence in found:
        match = re.match(rf"{re.escape(str(tmp_path))}/settings\.toml:(\d+): ", sentence)
        assert match, sentence
        assert int(match[1]) not in by_line, "two messages for one mistake"
        by_line[int(match[1])] = sentence
    assert by_line.keys() == planted.keys()
    assert [n for n, words in planted.items() if words not in by_line[n]] == []


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ('[data]\nchannels = ["test"]\n', "must have training"),
        ("[training]\nspot = true\nkeep_alive_minutes = 5\n", "not for spot"),
        ("[training]\nspot = true\nmax_wait_hours = 1.0\n", "less than max_hours"),
        ('[endpoint]\nkind = "multi-model"\ninstance_type = "ml.g5.xlarge"\n', "has a GPU"),
        ('[endpoint]\nmodels = ["a"]\n', "multi-model"),
        ('[endpoint]\nkind = "serverless"\n[endpoint.capture]\n', "not supported by serverless"),
        ("[endpoint.capture]\npercent = 0\n", "greater than or equal to 1"),
        ("[endpoint.capture]\nrequests = false\nanswers = false\n", "drop the section"),
        ('[tuning]\nobjective = "val_loss"\n', "ranges must be 1 to 30"),
        (TUNING.replace('"val_loss"', '"images_per_second"'), "is a speed"),
        (TUNING.replace('"val_loss"', '"val_loss"\ngoal = "Maximize"'), "Minimize it"),
        (TUNING.replace('"val_loss"', '"val_f1"\ngoal = "Minimize"'), "Maximize it"),
        (TUNING.replace("jobs = 4", 'jobs = 4\nstrategy = "Grid"'), "must be values"),
        (
            TUNING.replace("jobs = 4", 'strategy = "Hyperband"\nearly_stopping = true'),
            "part of Hyperband",
        ),
        (TUNING.replace("jobs = 4", "jobs = 1"), "is more than jobs"),
        (TUNING.replace("[32, 64, 128]", "[32, 32]"), "twice"),
        (TUNING.replace("[32, 64, 128]", '[32, "many"]'), "whole number, got 'many'"),
        (TUNING.replace("epochs =", "epoch ="), "is unknown; did you mean epochs"),
        (TUNING + "[tuning.warm_start]\nparents = []\n", "one to five"),
        ("[debugger]\nrules = []\n[debugger.parameters.overfit]\npatience = 1\n", "does not name"),
        ('[metrics]\nval_loss = "val_accuracy=([0-9.]+)"\n', "matches val_accuracy, not val_loss"),
        ('[metrics]\nx = "val_loss=(.*)"\n', "must match a number"),
        ('[metrics]\nx = "("\n', "not a regular expression"),
        ("[hyperparameters]\nmax_minutes = 5\nhalf_size_steps = 0.5\n", "drop one"),
        ("[hyperparameters]\nepochs = [1]\n", "one value"),
        (
            "[training]\nmax_hours = 1\n[hyperparameters]\nmax_minutes = 61\n",
            "max_minutes is more than training.max_hours, 1: SageMaker would stop the job",
        ),
        (
            TUNING.replace("jobs = 4", 'strategy = "Hyperband"')
            + "[hyperparameters]\nmax_minutes = 5\n",
            "by which Hyperband compares trials: set epochs",
        ),
        ("[training]\nspot = maybe\n", "invalid TOML"),
    ],
)
def test_invalid_values_are_rejected(tmp_path: Path, rest: str, words: str) -> None:
    found = mistakes(tmp_path, "\n" + rest)

    assert any(words in sentence for sentence in found), found


def test_conflicts_between_sections_are_rejected(tmp_path: Path) -> None:
    isolated = BEGINNING.replace("[images]", "network_isolation = true\n[images]")
    abroad = BEGINNING.replace('region = "eu-west-1"', 'region = "us-east-1"')

    assert "add the channel weights" in mistakes(tmp_path, "", isolated)[0]
    assert "SageMaker pulls only from its own region" in mistakes(tmp_path, "", abroad)[0]
    assert (
        "neither a VPC"
        in mistakes(
            tmp_path,
            '[hyperparameters]\nnetwork = "small"\n[endpoint]\nkind = "serverless"\n',
            isolated,
        )[0]
    )


def test_conflicts_of_a_wrong_value_are_unknown(tmp_path: Path) -> None:
    grid = '[tuning]\nstrategy = "Grid"\n[tuning.ranges]\nbatch_size = { values = 32 }\n'

    (found,) = mistakes(tmp_path, "\n" + grid)

    assert "ranges.batch_size.values must be a list, got 32" in found


def test_account_keys_are_required_only_by_verbs_that_use_them(tmp_path: Path) -> None:
    file = read(tmp_path, "", 'name = "hands"\n')

    needed = r"train needs aws\.role, aws\.bucket, images\.train.*; without an account add --local"
    with pytest.raises(UserError, match=needed):
        file.require("train")
    file.require("cost")


def test_container_images_default_to_those_pushed_to_the_region(tmp_path: Path) -> None:
    pushed = {"region": "eu-west-1", "tag": "abc", "train": f"{REGISTRY}/t@sha256:1"}
    (tmp_path / "images.json").write_text(json.dumps(pushed))
    aws = '[aws]\nregion = "eu-west-1"\n'

    here = read(tmp_path, "", f'name = "hands"\n{aws}').settings.images
    named = read(tmp_path).settings.images
    elsewhere = read(tmp_path, "", 'name = "hands"\n[aws]\nregion = "us-east-1"\n').settings.images

    assert here.train == f"{REGISTRY}/t@sha256:1"
    assert named.train == f"{REGISTRY}/image-classifier-train:abc"
    assert elsewhere.train is None


def test_endpoints_on_graviton_use_the_container_image_for_arm64(tmp_path: Path) -> None:
    for file, serve in {"images.json": "s@sha256:1", "images-arm64.json": "s@sha256:2"}.items():
        pushed = {"region": "eu-west-1", "tag": "abc", "serve": f"{REGISTRY}/{serve}"}
        (tmp_path / file).write_text(json.dumps(pushed))
    beginning = 'name = "hands"\n[aws]\nregion = "eu-west-1"\n[endpoint]\ninstance_type = '

    for instance_type, serve in {
        "ml.c7g.large": "s@sha256:2",
        "ml.c7i.large": "s@sha256:1",
    }.items():
        settings = read(tmp_path, "", f'{beginning}"{instance_type}"\n').settings
        endpoint = model(settings, "hands-1", "s3://b/model.tar.gz")
        # Transform jobs have no such instances.
        job = model(settings, "hands-1", "s3://b/model.tar.gz", is_for_transform=True)
        assert f"'{REGISTRY}/{serve}'" in str(endpoint["PrimaryContainer"])
        assert f"'{REGISTRY}/s@sha256:1'" in str(job["PrimaryContainer"])


def test_endpoint_on_graviton_without_a_container_image_for_arm64_is_rejected(
    tmp_path: Path,
) -> None:
    file = read(tmp_path, '[endpoint]\ninstance_type = "ml.c8g.large"\n')

    with pytest.raises(UserError, match=r"images\.serve_arm64 .*--platform linux/arm64 serve"):
        file.require("deploy")
    file.require("transform")


def test_only_families_with_arm64_processors_are_arm64() -> None:
    names = service_model.choices("ProductionVariantInstanceType")

    found = {name.split(".")[1] for name in names if Endpoint(instance_type=name).is_arm64}

    assert {"c7g", "c8g", "m6gd", "r8g", "p6e-gb200"} <= found
    assert not found & {"g4dn", "g5", "g6e", "g7", "c7i", "m5", "p5", "p6-b200", "inf2", "trn1"}
    assert not Endpoint(kind="serverless", instance_type="ml.c7g.large").is_arm64


def test_container_image_with_the_tag_for_arm64_is_rejected_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"images\.serve has the tag of push\.sh for arm64"):
        read(tmp_path, "", f'name = "hands"\n[images]\nserve = "{REGISTRY}/s:abc-arm64"\n')


def test_damaged_images_json_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{}")

    with pytest.raises(UserError, match=r"run \./push\.sh again"):
        read(tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"#" * 2_000_000])
def test_unreadable_settings_file_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UserError, match=r"cannot be read|not UTF-8|more than a megabyte"):
        settings_file.read(path)


def test_lines_are_counted_across_multi_line_values() -> None:
    text = 'a = [\n  "[b]",\n  "c = 1",\n]\nd = """\n[e]\n"""\n["f g".h]\ni.j = 1\n'

    found = settings_file.find_lines(text)

    assert found == {
        ("a",): 1,
        ("d",): 5,
        ("f g",): 8,
        ("f g", "h"): 8,
        ("f g", "h", "i"): 9,
        ("f g", "h", "i", "j"): 9,
    }


def test_metric_definitions_of_the_training_program_match_its_log() -> None:
    lines = metrics.LOG.read_text(encoding="utf-8").splitlines()
    ours = {each["Name"]: each["Regex"] for each in METRIC_DEFINITIONS}

    assert {name: metrics.mistake(name, ours[name], lines) for name in ours} == dict.fromkeys(ours)


def test_integer_hyperparameters_are_recognized() -> None:
    assert [is_integer(name) for name in ("epochs", "image_size", "learning_rate", "mixup")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_have_no_mistakes(path: Path) -> None:
    assert settings_file.read(path).settings.name == path.stem


def test_table_instead_of_a_value_is_rejected(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "\n[hyperparameters.epochs]\nmin = 1\n")

    assert "epochs must be one value" in found[0]


def test_wrong_keys_do_not_hide_mistakes_elsewhere_in_their_section(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "\n[training]\nspot = 1\nvolume_gb = 0\nmax_wait_hours = 1.0\n")

    assert [sentence.split(" ")[1] for sentence in found] == [
        "training.spot",
        "training.volume_gb",
        "training.max_wait_hours",
    ]
