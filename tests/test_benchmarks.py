"""Command lines that documents state for the benchmarks, and the programs that these start."""

import importlib
import json
import re
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

from benchmarks import fine_tuning_rivals, job, results
from benchmarks.rivals import budget, commands, torch_loop
from benchmarks.rivals.budget import History, Job
from tests.command_lines import captured
from tests.documents import DOCS, ROOT
from tests.opt_ml import write_images

BENCHMARKS = ROOT / "benchmarks"
DOCUMENTS = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(BENCHMARKS.glob("*.*")))

# Without a parser: one has no arguments, the other is started by a program.
PLAIN = {"kernel_shap", "serving_limit"}

COMMAND = re.compile(r"\w -m benchmarks\.(?P<module>\w+)(?P<words>[^`\n]*)")
CONTINUATION = re.compile(r"`(?:\.\.\. |(?=--))(?P<words>[^`]*)`")


@dataclass(frozen=True)
class CommandLine:
    """A command line of a benchmark."""

    place: str
    module: str
    words: tuple[str, ...]


def words_of(text: str) -> tuple[str, ...]:
    """Return words with examples for placeholders, without the description after them."""
    command = re.sub(r"[\[\]]|\.\.\.|  +[a-z].*", " ", text)
    return tuple({"N": "1", "S": "0"}.get(word, word) for word in shlex.split(command))


def command_lines() -> Iterator[CommandLine]:
    """Yield each command line; in the table of measurements, `...` and options continue one."""
    for page in DOCUMENTS:
        last = None
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            place = f"{page.relative_to(ROOT)}:{number}"
            if match := COMMAND.search(line):
                last = CommandLine(place, match["module"], words_of(match["words"]))
                yield last
            if last and page.parent == BENCHMARKS and page.suffix == ".md":
                for match in CONTINUATION.finditer(line):
                    yield CommandLine(place, last.module, words_of(match["words"]) + last.words)


COMMAND_LINES = [each for each in command_lines() if each.module not in PLAIN]


def test_every_program_is_in_a_document() -> None:
    programs = {
        path.stem
        for path in BENCHMARKS.glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text("utf-8")
    }

    assert {each.module for each in command_lines()} == programs


@pytest.mark.parametrize("line", COMMAND_LINES, ids=lambda line: line.place)
def test_benchmarks_accept_the_command_lines_of_the_documents(line: CommandLine) -> None:
    module = importlib.import_module(f"benchmarks.{line.module}")

    parser = captured(module.main, [line.module])

    try:
        parser.parse_args(line.words)
    except SystemExit:
        pytest.fail(f"{line.place}: {line.module} {shlex.join(line.words)}")


@pytest.mark.parametrize("name", [commands.FLASK, commands.LITSERVE, commands.TORCHSERVE])
def test_servers_start_where_python_finds_their_modules(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_prepare_torchserve", lambda *_: [])

    command = commands.rival(name, Path("python"), tmp_path, 8080)

    # TorchServe's workers start in another folder.
    assert Path(command.variables.get("PYTHONPATH", command.directory)) == ROOT
    for module in re.findall(r"benchmarks[\w.]+", " ".join(command.arguments)):
        assert find_spec(module)


def test_programs_that_compare_fine_tuning_exist() -> None:
    assert all(find_spec(module) for module in fine_tuning_rivals.MODULES.values())


def test_images_that_measure_choose_no_epoch(tmp_path: Path) -> None:
    for channel in ("train", "val"):
        write_images(tmp_path / "flowers" / channel, per_class=8)
    with tarfile.open(tmp_path / "flowers.tar", "w") as archive:
        archive.add(tmp_path / "flowers", "flowers")
    run = fine_tuning_rivals.Run("flowers", "ours", 180, 0, None, 224, is_tested=True)

    folder = fine_tuning_rivals.drawn_folder(run, tmp_path, tmp_path / "scratch")

    chosen, measured, whole = (
        {path.relative_to(root).as_posix() for path in root.rglob("*.*")}
        for root in (folder / "val", folder / "test", tmp_path / "flowers" / "val")
    )
    assert len(chosen) == len(measured) == len(whole) / 2
    assert chosen | measured == whole


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [
        # 5 seconds of imports, 10 of the first epoch, 20 of each other one.
        (95.0, [1, 4]),
        (94.0, [1, 3]),
        (20.0, [1]),
    ],
)
def test_a_budget_counts_the_longer_training(
    seconds: float,
    epochs: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now, trained = 5.0, []

    def train(_: Job, count: int, history: History) -> None:
        nonlocal now
        trained.append(count)
        for epoch_seconds in (10.0, *[20.0] * count):
            now += epoch_seconds
            history.add(0.5)

    given = Job("fastai", "folder", seconds, seed=0, image_size=224)
    monkeypatch.setattr(budget, "processor_seconds", lambda: now)
    monkeypatch.setattr("sys.argv", ["fastai", json.dumps(asdict(given))])

    budget.run(train)

    result = json.loads(capsys.readouterr().out)
    assert trained == epochs
    assert result["epochs"] == epochs[-1]
    assert len(result["accuracies"]) == 1 + epochs[-1]
    assert result["seconds"] == 5 + 10 + 20 * epochs[-1]


@pytest.mark.parametrize("recipe", torch_loop.RECIPES)
def test_loops_train_from_the_given_weights(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for channel in ("train", "val"):
        write_images(tmp_path / channel, per_class=2)
    weights = tmp_path / "hub" / "checkpoints" / Path(SqueezeNet1_0_Weights.DEFAULT.url).name
    weights.parent.mkdir(parents=True)
    torch.save(squeezenet1_0(weights=None).state_dict(), weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch_loop, "WORKERS", 0)
    history = History(start=0.0)

    torch_loop.RECIPES[recipe](Job(recipe, str(tmp_path), 60, seed=0, image_size=32), 2, history)

    assert len(history.accuracies) == 2


def test_a_file_of_results_is_continued(tmp_path: Path) -> None:
    file, measured = tmp_path / "results.jsonl", []

    def measure(job: Job) -> dict[str, float]:
        measured.append(job.seed)
        return {"accuracy": 0.5}

    jobs = [Job("fastai", "folder", 60, seed, 224) for seed in range(3)]
    results.continued(file, jobs[:1], measure)
    found = results.continued(file, jobs, measure)

    assert measured == [0, 1, 2]
    assert [each["run"]["seed"] for each in found] == [0, 1, 2]


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no .*flowers\.tar: --data names the folder"):
        job.unpacked(tmp_path, "flowers", tmp_path)
