"""The notebooks run from the first cell to the last."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.documents import ROOT
from tests.opt_ml import make_job, train_here
from tests.planted import folders

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# Jupyter leaves sockets and event loops open.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_exploration_runs_on_the_sample_and_on_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    if own:
        folders(tmp_path / "own", {"ant": 12, "bee": 12})
        monkeypatch.setenv("IMAGES", str(tmp_path / "own"))

    texts, kinds = run("data_exploration.ipynb")

    counted = "24 images of 2 classes in all" if own else "300 images of 12 classes in train"
    assert counted in texts
    assert ("leave horizontal_flip off" in texts) == (not own)
    assert kinds.count("image/png") == 3
    assert "text/html" in kinds


# Jupyter leaves sockets and event loops open.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_debugger_report_shows_the_tensors_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, epochs="12", debug="required")
    assert train_here(job, "train") == 0
    monkeypatch.setenv("JOB", str(job))

    texts, kinds = run("debugger_report.ipynb")

    assert re.search(r"NoIssuesFound +LossNotDecreasing", texts)
    assert re.search(r"InsufficientData +LowGPUUtilization", texts)
    assert kinds.count("image/png") == 3
    assert "text/html" in kinds


# Jupyter leaves sockets and event loops open.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_train_and_deploy_runs_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SETTINGS", raising=False)

    texts, kinds = run("train_and_deploy.ipynb")

    assert "best: trial" in texts
    # The log of the search's export has its own.
    accuracy = re.findall(r"accuracy ([\d.]+)% .* validation images", texts)[-1]
    assert float(accuracy) > 90
    assert texts.count(".png: ") == 8
    assert "1 image explained" in texts
    assert "the server is stopped" in texts
    # The pages of tuning, training, debugger and explanation.
    assert kinds.count("text/html") >= 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]

    assert all(not cell.get("outputs") for cell in notebook.cells)


def run(name: str) -> tuple[str, list[str]]:
    """Run a notebook; return its printed text and the media types of its other output."""
    path = ROOT / "notebooks" / name
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=500, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "".join(output.get("text", "") for output in outputs)
    return texts, [kind for output in outputs for kind in output.get("data", {})]
