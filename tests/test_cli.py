"""The command: help, version, exit codes, closed pipes, next steps, and `init`."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from container.training.hyperparameters import Hyperparameters
from image_classifier.cli import main, parser, program, starter
from image_classifier.cli.verbs import PROGRAM, VERBS
from image_classifier.platform import processes
from image_classifier.platform.__main__ import SAMPLE_HYPERPARAMETERS
from image_classifier.settings import settings_file
from tests.opt_ml import write_images
from tests.planted import drawn, encoded, save
from tests.settings_files import EXAMPLES, TUNING, write

REPOSITORY = Path(__file__).resolve().parent.parent


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start the command in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "image_classifier", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def data_set(folder: Path, *splits: str, size: int = 24, per_class: int = 4) -> Path:
    """Write splits of two classes with images of one size; return their folder."""
    for split in splits:
        for class_name in ("ant", "bee"):
            for number in range(per_class):
                path = folder / split / class_name / f"{number}.png"
                save(drawn(f"{split}{number}", class_name, size), path)
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_help_describes_the_verb_and_ends_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])

    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: image-classifier {verb} ")
    assert " ".join(text.split()).count(VERBS[verb].summary[1:40]) == 1
    example, page = text.splitlines()[-2:]
    assert example == f"example: image-classifier {verb} {VERBS[verb].example}"
    assert page == f"documentation: docs/{VERBS[verb].page}"
    assert (REPOSITORY / "docs" / VERBS[verb].page).is_file()


def test_list_of_verbs_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {verb}" in text for verb in VERBS)

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("image-classifier ")


def test_examples_in_the_help_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    for name, verb in VERBS.items():
        if name == "completion":
            # It reads no file.
            continue
        # Files do not exist; a wrong option would raise SystemExit.
        code = main([name, *verb.example.split(), "--quiet"])
        assert code == (2 if name == "doctor" else 1)
        assert capsys.readouterr().err.startswith("image-classifier: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_has_verbs_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0

    printed = capsys.readouterr()
    assert all(verb in printed.out for verb in VERBS)
    assert "no-wait" in printed.out
    # The options of `prepare` are another module's.
    assert "manifest" in printed.out
    assert printed.err.startswith(f"next: save the script where {shell} loads completions")


def test_bash_completes_verbs_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "birds.toml").touch()
    script = """
source <("$0" -m image_classifier completion bash --quiet)
for words in "image-classifier tr" "image-classifier train --loc" "image-classifier train bir"; do
    COMP_WORDS=($words) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    COMP_LINE=$words COMP_POINT=${#words}
    _shtab_image_classifier image-classifier "${COMP_WORDS[COMP_CWORD]}"
    echo "${COMPREPLY[@]}"
done
"""
    printed = subprocess.check_output(
        ["bash", "-c", script, sys.executable],  # noqa: S607 - on the PATH
        cwd=tmp_path,
        text=True,
    )

    assert [line.split() for line in printed.splitlines()] == [
        ["transform", "train"] if printed.startswith("transform") else ["train", "transform"],
        ["--local"],
        ["birds.toml"],
    ]


def test_results_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path, TUNING)

    assert main(["check", str(settings), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mistakes"] == []
    assert main(["check", str(settings), "--json", "--set", "tuning.jobs=-1"]) == 1
    (mistake,) = json.loads(capsys.readouterr().out)["mistakes"]
    assert "tuning.jobs" in mistake
    assert main(["cost", str(settings), "--json"]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["costs"]
    assert first["dollars"] > 0
    assert "training" in first["description"]


def test_log_beside_the_settings_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    log = tmp_path / ".launcher" / "hands" / "ml" / "training.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b'epoch=1 "quoted"\n\xff unreadable\n')

    assert main(["logs", str(settings), "--local", "--json"]) == 0

    documents = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [each["message"] for each in documents] == ['epoch=1 "quoted"', "\\xff unreadable"]
    assert {(each["time"], each["host"]) for each in documents} == {(None, None)}


def test_audit_as_json_has_counts_findings_and_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(tmp_path / "in", "train", "validation", per_class=20)
    copied = source / "train" / "ant" / "0.png"
    (source / "validation" / "ant" / "copy.png").write_bytes(copied.read_bytes())

    # Also with --quiet, which leaves out the text.
    assert main(["audit", str(source), "--json", "--quiet"]) == 1

    document = json.loads(capsys.readouterr().out)
    assert document["images"]["validation"] == {"ant": 21, "bee": 20}
    assert document["copies"] == [
        {"split": "validation", "images": 41, "copies": 1, "contradicted": 0}
    ]
    (fault,) = [each for each in document["findings"] if each["severity"] == "fault"]
    assert fault["kind"] == "exact-copy-across-splits"
    assert {fault["path"], *fault["others"]} == {"train/ant/0.png", "validation/ant/copy.png"}


def test_new_settings_name_their_schema_for_editors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data_set(tmp_path / "data", "train")
    output = tmp_path / "below" / "settings.toml"

    assert main(["init", "--data", "data", "--output", str(output)]) == 0

    first = output.read_text("utf-8").splitlines()[0]
    schema = output.parent / first.removeprefix("#:schema ")
    assert "properties" in json.loads(schema.read_text("utf-8"))


def test_script_and_module_have_their_own_names(tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, function = project["scripts"][PROGRAM].partition(":")
    assert getattr(import_module(module), function) is main

    with start("check", "none.toml", cwd=tmp_path) as process:
        _, error = process.communicate()
    assert process.returncode == program.MISTAKE
    assert error.startswith("python -m image_classifier: none.toml cannot be read")


@pytest.mark.parametrize("arguments", [[], ["trian"], ["check"], ["check", "a", "--no-wait"]])
def test_wrong_usage_has_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)

    assert end.value.code == 2
    assert "usage: image-classifier" in capsys.readouterr().err


def test_verb_without_local_names_those_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "a", "--local"])

    error = capsys.readouterr().err
    assert "usage: image-classifier status" in error
    assert "status has no --local, only train, tune," in error


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--memory", "4x"], "'4x' is not a size of 6m or more, such as 4g or 512m"),
        (["--memory", "1k"], "'1k' is not a size of 6m or more"),
        (["--memory", "inf"], "'inf' is not a size"),
        (["--cpus", "nan"], "'nan' is not a number of CPUs of 0.01 or more"),
        (["--cpus", "0"], "'0' is not a number of CPUs"),
        (["--memory", "4g"], "--memory and --cpus need --local"),
        (["--cpus", ".5", "--local"], "'.5' is not a number of CPUs"),
    ],
)
def test_wrong_limits_are_rejected(
    options: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "settings.toml", *options])

    assert end.value.code == 2
    assert found in capsys.readouterr().err


def test_limits_have_dockers_units() -> None:
    for command in (["train", "settings.toml", "--local"], ["doctor", "image"]):
        assert parser.parse([*command, "--memory", "1.5gb"], "").memory == 3 * 2**29


@pytest.mark.parametrize("port", ["70000", "-1", "0"])
@pytest.mark.parametrize("arguments", [["deploy", "settings.toml", "--local"], ["doctor", "image"]])
def test_port_out_of_range_is_rejected(
    arguments: list[str], port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*arguments, f"--port={port}"])

    assert end.value.code == 2
    assert f"expected a port from 1 to 65535, got '{port}'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "tune", "deploy"])
def test_limits_of_processes_are_rejected(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, TUNING)

    assert main([verb, str(path), "--local", "--processes", "--memory=1.5gb", "--cpus=2"]) == 1
    assert "this would run as a process: add --containers" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["cost", EXAMPLES / "hands.toml"]])
def test_closed_pipe_is_no_traceback(arguments: list[object]) -> None:
    with start(*arguments) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        error = process.stderr.read()

    assert error == ""
    # argparse ignores the error if Python does not buffer stdout.
    assert process.returncode == program.CLOSED_PIPE or arguments == ["--help"]


def test_interrupted_preparation_has_exit_code_130(tmp_path: Path) -> None:
    image = encoded(drawn(0), "PNG")
    for count in range(3000):
        path = tmp_path / "in" / ("ant" if count % 2 else "bee") / f"{count}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    with start("prepare", "in", "out", cwd=tmp_path) as process:
        while not list(tmp_path.glob(".prepare-*/in-use")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()

    assert process.returncode == program.INTERRUPTED
    assert error.endswith("python -m image_classifier: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_next_step_is_on_stderr_unless_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, TUNING)

    assert main(["check", str(settings), "--set", "name=a-b", "--set", "tuning.jobs = 3"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{settings}: no mistakes\n"
    command = f"train {settings} --set name=a-b --set 'tuning.jobs = 3' --local"
    assert printed.err.startswith(f"next: image-classifier {command}")

    assert main(["check", str(settings), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["tune", str(settings), "--dry-run"]) == 0
    assert capsys.readouterr().err == "next: the same command without --dry-run\n"


def test_paths_in_the_next_step_are_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()

    assert main(["check", str(write(folder))]) == 0

    assert f"train '{folder}/settings.toml' --local" in capsys.readouterr().err


def test_data_set_verbs_have_the_exit_codes_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(tmp_path / "in", "all", per_class=20)
    out = tmp_path / "out"
    assert main(["prepare", str(source / "all"), str(out), "--test", "0.2"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(
        f"next: image-classifier init --data {out} --output settings.toml (first put pretrained "
        f"weights, such as resnet18.pth, into {out}/weights/;"
    )
    assert f"{out} is ready" in printed.out

    assert main(["prepare", str(source / "all"), str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["audit", str(out), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["audit", str(out)]) == 0
    printed = capsys.readouterr()
    assert "other-file" not in printed.out
    assert printed.err.endswith(f"image-classifier init --data {out} --output settings.toml\n")
    (out / "train" / "ant" / "broken.png").write_bytes(b"no image")
    assert main(["audit", str(out), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"image-classifier: the audit of {out} found faults")
    assert error.count("\n") == 1


def test_init_writes_settings_without_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_set(tmp_path / "My data 1", "train", "valid", "test")
    output = tmp_path / "project" / "settings.toml"

    assert main(["init", "--data", str(data), "--output", str(output)]) == 0

    printed = capsys.readouterr()
    assert "Trained from scratch.\n" in printed.out
    assert printed.out.splitlines()[-1] == str(output)
    assert printed.err == f"next: image-classifier check {output}\n"
    file = settings_file.read(output)
    assert file.settings.name == "my-data-1-0864"
    assert file.settings.data.channels == ("train", "valid", "test")
    assert file.local_channels()["valid"] == data / "valid"
    text = output.read_text("utf-8")
    # Values that are needed on SageMaker are placeholders in comments.
    assert "# role = " in text
    assert "@" not in text
    assert main(["check", str(output)]) == 0
    assert main(["cost", str(output)]) == 0


def test_init_keeps_an_existing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = data_set(tmp_path / "data", "train"), tmp_path / "settings.toml"
    output.write_text("mine")
    command = ["init", "--data", str(data), "--output", str(output)]

    assert main(command) == 1
    assert "exists already: add --replace" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*command, "--replace", "--name", "Not a name"]) == 1
    assert "name must look like" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*command, "--replace"]) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pets-2", "pets-2"),
        ("2024_Ants & Bees!", "ants-bees-68f3"),
        ("ä", "images-33e6"),
        ("experiment-flowers-red", "experiment-f-ed56"),
        ("experiment-flowers-blue", "experiment-f-6a6c"),
    ],
)
def test_name_comes_from_the_folder(name: str, expected: str, tmp_path: Path) -> None:
    data, output = data_set(tmp_path / name, "train"), tmp_path / "settings.toml"

    assert main(["init", "--data", str(data), "--output", str(output), "--quiet"]) == 0

    assert settings_file.read(output).settings.name == expected


def test_init_explains_what_a_data_set_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = data_set(tmp_path / "classes", ".")

    assert main(["init", "--data", str(classes)]) == 1
    error = capsys.readouterr().err
    assert "no folder train/ or training/" in error
    assert "found ant, bee: `prepare" in error
    assert main(["init", "--data", str(tmp_path / "a.zip")]) == 1
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "images", "network", "image_size"),
    [(40, 60, "small", 32), (300, 100, "resnet18", 224), (150, 800, "small", 128)],
)
def test_network_suits_number_and_size_of_images(
    size: int, images: int, network: str, image_size: int, tmp_path: Path
) -> None:
    data = starter.DataSet(
        folder=tmp_path / "@epochs@ $epochs",
        channels=["train"],
        images=images,
        classes=["a", "b"],
        side=size,
        weights=(),
    )

    assert (data.network, data.image_size) == (network, image_size)
    text = starter.render(data, "x", tmp_path)
    document = tomllib.loads(text)
    assert document["data"]["local"] == data.folder.name
    given = document["hyperparameters"]
    # A default is left out, so that max_minutes can choose another size.
    assert given.get("image_size") == (32 if image_size == 32 else None)
    assert Hyperparameters.from_strings({k: json.dumps(v).strip('"') for k, v in given.items()})
    # The other kind of network has other values.
    other = "resnet18: 0.00005 to 0.001" if network == "small" else "small: 0.005 to 0.05"
    assert f'scaling = "Logarithmic" }}    # {other}' in text
    # Comments do not exceed a line of the other files.
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("resnet50-11ad3fa6.pth", "resnet50"),
        ("squeezenet1_0-deepcompression.pth", "squeezenet1_0"),
        ("wide_resnet50_2-32ee1156.pth", "wide_resnet50_2"),
        ("EfficientNet-b0.safetensors", "efficientnet_b0"),
        ("best-small.pth", "resnet18"),
    ],
)
def test_weights_decide_the_network(tmp_path: Path, name: str, network: str) -> None:
    data = data_set(tmp_path / "data", "train")
    (data / "model").mkdir()
    (data / "model" / name).touch()

    found = starter.DataSet.read(data)

    assert found.network == network
    assert list(found.channels) == ["train", "model"]


def test_images_that_cannot_be_read_are_left_to_the_audit(tmp_path: Path) -> None:
    write_images(tmp_path / "train", per_class=2)
    (tmp_path / "train" / "red" / "0.png").write_bytes(b"no image")

    assert starter.DataSet.read(tmp_path).side == 20
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"no image")
    assert main(["init", "--data", str(tmp_path), "--output", str(tmp_path / "s.toml")]) == 1


def test_hands_example_has_the_drawn_images_and_their_hyperparameters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = settings_file.read(EXAMPLES / "hands.toml")

    assert file.local_data == processes.TEST_DIR / "input" / "data"
    assert file.settings.job_hyperparameters().items() >= SAMPLE_HYPERPARAMETERS.items()
    # As in a fresh clone.
    clone = tmp_path / "clone"
    (clone / "examples").mkdir(parents=True)
    example = clone / "examples" / "hands.toml"
    example.write_text((EXAMPLES / "hands.toml").read_text("utf-8"))
    monkeypatch.setattr(processes, "TEST_DIR", clone / "local_test" / "test_dir")
    assert main(["train", str(example), "--local"]) == 1
    assert "draw them with `python -m image_classifier.platform prepare`" in capsys.readouterr().err


def test_large_images_are_opened_without_decoding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / "train" / name / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (3000, 2000)).save(path)

    assert starter.DataSet.read(tmp_path).side == 2000
