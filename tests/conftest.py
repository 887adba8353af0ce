"""Fixtures that tests share: a tiny benchmark on disk, and where real data lie."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from PIL import Image

from vlm_harness import cli

# Tests run side by side, one a core: threads of their own would wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run of CI; new ones on a developer's machine.
hypothesis.settings.register_profile("ci", derandomize=True)
hypothesis.settings.register_profile("fuzz", max_examples=10**9, database=None)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)

# Fixtures that several modules share, and that are too many to stand here.
pytest_plugins = ["helpers_leaderboard", "helpers_pages"]

ROOT = Path(__file__).resolve().parent.parent

Command = Callable[..., tuple[int, str, str]]
"""The command with its arguments: exit code, output, messages."""
Edit = Callable[[str, str], None]

TASK = """\
task: sides
version: 1
description: Two-way toy pairs.
groups: [toys]
dataset: {reader: jsonl, path: sides/rows.jsonl}
sample:
  id: "{{ name }}"
  images: ["sides/{{ name }}.png"]
  options: [left, right]
  captions: ["a {{ thing }} on the left", "a {{ thing }} on the right"]
  target: "{{ ['left', 'right'].index(side) }}"
  pair: "{{ thing }}"
  category: "{{ kind }}"
prompt:
  question: "Is the {{ thing }} on the {{ options[0] }} or the {{ options[1] }}?"
  commands: {default: "Answer {{ options[0] }} or {{ options[1] }}.", short: "Give a short answer."}
protocols:
  similarity: {}
  generate: {extract: keyword, max_new_tokens: 8}
  choice: {}
  likelihood: {}
metrics: [individual_accuracy, pair_accuracy, relaxed_pair_accuracy, mean_pair_cosine]
primary_metric: pair_accuracy
"""


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see neither the user's data nor their specs, and never the network."""
    for name in ("VLM_HARNESS_DATA", "VLM_HARNESS_PATH", "VLM_HARNESS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Libraries log to the standard error of the test that imported them, which is closed by now.
    monkeypatch.setattr("logging.raiseExceptions", False)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``vlm-harness`` as a shell would call it, in this process."""
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


def write_sides(root: Path, pairs: int = 6) -> Path:
    """Images with a square on the left or right, one row each, below ``root/sides``."""
    folder = root / "sides"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pairs):
        for side in ("left", "right"):
            name = f"thing{number}-{side}"
            image = Image.new("RGB", (48, 32), (30 + 20 * number, 90, 160))
            image.paste((250, 240, 20 * number), (4 if side == "left" else 32, 10, 16, 22))
            image.save(folder / f"{name}.png")
            rows.append(
                {"name": name, "thing": f"thing{number}", "side": side, "kind": f"k{number % 2}"}
            )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with ``specs/sides.yaml`` and ``data/``: 6 pairs, 12 samples."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "sides.yaml").write_text(TASK)
    write_sides(tmp_path / "data")
    return tmp_path


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real photographs and recorded answers, which are not part of the project."""
    folder = Path(os.environ.get("VLM_HARNESS_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set VLM_HARNESS_REALDATA")
    return folder.resolve()


# --- the command on the toy benchmark ------------------------------------------------------------


class Result(NamedTuple):
    code: int
    out: str
    err: str


def python(*args: str, cwd: Path | None = None, **environment: str) -> Result:
    """A Python of its own that imports this checkout, with more of an environment."""
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    return Result(done.returncode, done.stdout, done.stderr)


class Tool:
    """The command, run in a folder with the toy benchmark."""

    def __init__(self, bench: Path, command: Command) -> None:
        self.bench, self.command = bench, command
        self.places = [
            "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
        ]  # fmt: skip

    def __call__(self, *args: str) -> Result:
        return Result(*self.command(*args))

    def run(self, *args: str) -> Result:
        """``--model fake:oracle --tasks sides``, where the arguments do not say otherwise."""
        model = [] if "--model" in args or "--config" in args else ["--model", "fake:oracle"]
        tasks = [] if "--tasks" in args or "--config" in args else ["--tasks", "sides"]
        return self(*model, *tasks, *self.places, *args)

    def refused(self, *args: str) -> str:
        """The one message of a run that is refused."""
        return refused(self.run(*args))


def refused(result: Result) -> str:
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(re.findall(r"^error: ", result.err, re.M | re.I)) == 1
    return result.err


@pytest.fixture
def tool(bench: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Tool:
    monkeypatch.chdir(bench)
    return Tool(bench, command)


@pytest.fixture
def edit(bench: Path) -> Edit:
    """Change the task of the toy benchmark."""

    def change(old: str, new: str) -> None:
        path = bench / "specs" / "sides.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change
