"""The toy benchmark on disk, and the command-line tool as a user runs it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., tuple[int, str, str]]
"""Runs the command with arguments; returns exit code, stdout and stderr."""
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


def write_sides(root: Path, pairs: int = 6) -> Path:
    """Write images with a square on the left or right, and one row each, to ``root/sides``."""
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


class Result(NamedTuple):
    code: int
    out: str
    err: str


def python(*args: str, cwd: Path | None = None, **environment: str) -> Result:
    """Run Python in a subprocess that can import this checkout and these helpers."""
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **environment},
    )
    return Result(done.returncode, done.stdout, done.stderr)


class Tool:
    """The command-line tool, run in a folder with the toy benchmark."""

    def __init__(self, bench: Path, command: Command) -> None:
        self.bench, self.command = bench, command
        self.places = [
            "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
        ]  # fmt: skip

    def __call__(self, *args: str) -> Result:
        return Result(*self.command(*args))

    def run(self, *args: str) -> Result:
        """Run the toy benchmark; default: ``--model fake:oracle --tasks sides``."""
        model = [] if "--model" in args or "--config" in args else ["--model", "fake:oracle"]
        tasks = [] if "--tasks" in args or "--config" in args else ["--tasks", "sides"]
        return self(*model, *tasks, *self.places, *args)

    def refused(self, *args: str) -> str:
        """The error message of a run that is refused."""
        return refused(self.run(*args))


def refused(result: Result) -> str:
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(re.findall(r"^error: ", result.err, re.M | re.I)) == 1
    return result.err
