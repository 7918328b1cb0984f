"""The notebooks run from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.planted import folders
from tests.readme import ROOT

NOTEBOOK = ROOT / "notebooks" / "data_exploration.ipynb"


# Jupyter's own ways with sockets and event loops.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_the_exploration_runs_on_the_sample_and_on_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    if own:
        folders(tmp_path / "own", {"ant": 12, "bee": 12})
        monkeypatch.setenv("PICTURES", str(tmp_path / "own"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]

    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=500, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "".join(output.get("text", "") for output in outputs)
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    counted = "24 pictures of 2 classes in all" if own else "300 pictures of 12 classes in train"
    assert counted in texts
    assert ("horizontal_flip would destroy the labels" in texts) == (not own)
    assert kinds.count("image/png") == 3
    assert "text/html" in kinds


def test_the_notebook_is_kept_without_its_output() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]

    assert all(not cell.get("outputs") for cell in notebook.cells)
