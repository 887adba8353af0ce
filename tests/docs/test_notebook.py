"""The notebook runs offline, and is committed with the outputs that it produces."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_cells_run_and_print_what_the_notebook_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            capsys.readouterr()
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)
            assert capsys.readouterr().out == printed(cell)


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("ipykernel", reason="the extra docs is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra docs is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = [shown(cell) for cell in notebook.cells]
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert [shown(cell) for cell in notebook.cells] == before


def printed(cell: Any) -> str:
    outputs = [each for each in cell["outputs"] if each.get("name") == "stdout"]
    return "".join("".join(each["text"]) for each in outputs)


def shown(cell: Any) -> list[str]:
    """What the cell prints, and its results as HTML."""
    outputs = cell.get("outputs", [])
    tables = [each["data"].get("text/html", "") for each in outputs if "data" in each]
    return [printed(cell) if outputs else "", *tables]
