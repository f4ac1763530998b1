"""The notebook: its two files say the same, and it runs from the first cell to the last."""

import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "keras_to_estimator.ipynb"


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_the_two_files_say_the_same_and_hold_no_output():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert cells(notebook) == cells(jupytext.read(NOTEBOOK.with_suffix(".py"))), "run `make notebook`"
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []


@pytest.fixture(params=["synthetic", "real"])
def executed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The notebook with its outputs, on synthetic posts and on the real ones, where they are there."""
    for name in [name for name in os.environ if name.startswith("TAGGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    if request.param == "real":
        monkeypatch.setenv("TAGGER_SOURCE", str(request.getfixturevalue("real_posts")))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    return client.execute()


def test_it_runs_and_shows_plots_an_answer_and_the_report(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in data for data in shown) == 4
    texts = "\n".join(str(data.get("text/html", data.get("text/plain", ""))) for data in shown)
    assert "How do I center a div with css?" in texts
    assert "Passed: accuracy" in texts
    printed = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert "is live, accuracy" in printed
    assert "Warning" not in printed
