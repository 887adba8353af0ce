"""Reports, and a browser to open them: fixtures, which conftest.py loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from helpers.browser import launched
from vlm_harness import evaluate
from vlm_harness.analysis.compare import compare
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.report import comparison
from vlm_harness.report.page import Options
from vlm_harness.report.report import write

MODELS = ["tiny-clip", "tiny-llava"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Part of the demo run, with its pages; made once for all workers."""
    top = tmp_path_factory.getbasetemp()
    folder = (top if worker_id == "master" else top.parent) / "demo of the report"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            tasks = ["whatsup_rendered_a_left_right", "whatsup_rendered_b_four_way"]
            new = folder.with_name("demo under way")
            run = evaluate(MODELS, tasks, limit=60, output_dir=str(new), run_id="demo")
            write([run.path], new / "demo.html", Options())
            comparison.write(compare(run.path), new / "compare.html", Options())
            new.rename(folder)
    return folder / "demo.html"


@pytest.fixture(scope="module")
def mmvp(tmp_path_factory: pytest.TempPathFactory, realdata: Path) -> Path:
    """A report of MMVP with real photographs, letters and both option orders."""
    folder = tmp_path_factory.mktemp("mmvp")
    run = evaluate(
        ["tiny-llava"],
        ["mmvp"],
        protocol=["choice"],
        order="both",
        limit=60,
        data_dir=str(realdata),
        output_dir=str(folder),
        run_id="mmvp",
    )
    write([run.path], folder / "mmvp.html", Options())
    return folder / "mmvp.html"


def run_toy(bench: Path, handler: Any, run_id: str = "r", **options: Any) -> Path:
    return evaluate(
        [FakeBackend(handler, "fake")],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(bench),
        run_id=run_id,
        **{"protocol": ["generate"], **options},
    ).path
