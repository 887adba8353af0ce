"""Shared fixtures: a toy benchmark on disk, the command-line tool, and the folder of real data."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

from helpers.bench import ROOT, TASK, Command, Edit, Tool, write_sides
from vlm_harness import cli

# Tests run in parallel, one per core; more threads would only compete.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# CI always runs the same examples; a developer's machine runs new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
hypothesis.settings.register_profile("fuzz", max_examples=10**9, database=None)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)

# Modules with further shared fixtures.
pytest_plugins = ["helpers.leaderboard", "helpers.pages"]


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests use neither the user's data and specs nor the network."""
    for name in ("VLM_HARNESS_DATA", "VLM_HARNESS_PATH", "VLM_HARNESS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Libraries log to the stderr of the test that imported them, which is closed afterwards.
    monkeypatch.setattr("logging.raiseExceptions", False)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``vlm-harness`` as from a shell, but in this process."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlm-harness", *map(str, args)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with ``specs/sides.yaml`` and ``data/``: 6 pairs, 12 samples."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "sides.yaml").write_text(TASK)
    write_sides(tmp_path / "data")
    return tmp_path


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real photographs and recorded answers, which are not part of the project."""
    folder = Path(os.environ.get("VLM_HARNESS_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set VLM_HARNESS_REALDATA")
    return folder.resolve()


@pytest.fixture
def tool(bench: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Tool:
    monkeypatch.chdir(bench)
    return Tool(bench, command)


@pytest.fixture
def edit(bench: Path) -> Edit:
    """Edit the task file of the toy benchmark."""

    def change(old: str, new: str) -> None:
        path = bench / "specs" / "sides.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change
