"""Runs that are killed at random, and gone on with; a program of its own, since it forks.

    PYTHONPATH=.:tests python -m helpers.resume FOLDER KILLS TEARS SEED [fake]

Prints one line of JSON: how many kills struck a run that was under way, and how many runs that went
on after a kill or a tear were other than the one that was never stopped. Models are loaded by every
run anew; torch is imported once, before forking.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from helpers.runs import difference, key_of
from vlm_harness.runs.evaluator import evaluate

TINY: dict[str, Any] = {
    "models": ["tiny-clip", "tiny-llava"],
    "tasks": ["whatsup_rendered_a_left_right"],
    "protocol": ["similarity", "generate", "choice", "likelihood"],
    "limit": 8,
    "batch_size": 2,
}
FAKE: dict[str, Any] = {
    "models": ["fake:oracle", "fake:first"],
    "tasks": ["whatsup_rendered_a_left_right"],
    "protocol": ["generate", "choice", "likelihood"],
    "order": "both",
    "command": "all",
    "batch_size": 3,
    "limit": 40,
}
TIMINGS = ("started", "finished", "command_line", "environment", "config", "logs")


def run(folder: Path, what: dict[str, Any]) -> int:
    """A child that does the run; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            evaluate(output_dir=str(folder), run_id="run", **what)
            code = 0
        finally:
            os._exit(code)
    return child


def finish(folder: Path, what: dict[str, Any]) -> None:
    _, status = os.waitpid(run(folder, what), 0)
    assert status == 0, f"the run in {folder} did not finish"


def contents(folder: Path) -> dict[str, Any]:
    """All that a run says but when: lines by key, results, manifest."""
    lines: dict[Any, Any] = {}
    for path in sorted((folder / "run" / "samples").glob("*.jsonl")):
        for text in path.read_bytes().splitlines(keepends=True):
            assert text.endswith(b"\n")
            line = json.loads(text)
            key = key_of(line)
            assert key not in lines, f"doubled: {key}"
            lines[key] = line
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert manifest["finished"] is not None
    for name in TIMINGS:
        manifest.pop(name)
    return {
        "lines": [lines[key] for key in sorted(lines, key=str)],
        "results": json.loads((folder / "run" / "results.json").read_text()),
        "manifest": manifest,
    }


def main() -> None:
    place, n_kills, n_tears, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    what = FAKE if "fake" in sys.argv[5:] else TINY
    chance = random.Random(seed)
    whole = place / "whole"
    finish(whole, what)
    begun = time.monotonic()
    shutil.rmtree(whole)
    finish(whole, what)
    seconds = time.monotonic() - begun
    expected = contents(whole)
    struck = 0
    differences: list[str | None] = []
    for number in range(n_kills):
        folder = place / f"kill{number}"
        child = run(folder, what)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        struck += os.WIFSIGNALED(status)
        finish(folder, what)
        differences.append(difference(contents(folder), expected))
        shutil.rmtree(folder)
    for number in range(n_tears):
        folder = place / f"tear{number}"
        shutil.copytree(whole, folder)
        log = chance.choice(sorted((folder / "run" / "samples").iterdir()))
        with log.open("r+b") as stream:
            stream.truncate(chance.randrange(log.stat().st_size))
        if chance.random() < 0.2:
            (folder / "run" / "results.json").unlink()
        finish(folder, what)
        differences.append(difference(contents(folder), expected))
        shutil.rmtree(folder)
    found = [each for each in differences if each]
    print(json.dumps({"kills": n_kills, "struck": struck, "tears": n_tears, "different": found,
                      "lines": len(expected["lines"]), "seconds": seconds}))  # fmt: skip


if __name__ == "__main__":
    main()
