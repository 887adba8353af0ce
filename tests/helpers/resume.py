"""Kill runs or truncate their logs at random, and resume them. A separate program, since it forks.

    PYTHONPATH=.:tests python -m helpers.resume FOLDER KILLS TRUNCATIONS SEED [fake]

Prints one line of JSON: the number of kills that hit a run in progress, and how resumed runs differ
from an uninterrupted one. Every run loads its models again; torch is imported once, before forking.
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


def run(folder: Path, options: dict[str, Any]) -> int:
    """Start the run in a child process; returns its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            evaluate(output_dir=str(folder), run_id="run", **options)
            code = 0
        finally:
            os._exit(code)
    return child


def finish(folder: Path, options: dict[str, Any]) -> None:
    _, status = os.waitpid(run(folder, options), 0)
    assert status == 0, f"the run in {folder} did not finish"


def contents(folder: Path) -> dict[str, Any]:
    """Log lines sorted by key, results and manifest of a run, without timings."""
    lines: dict[Any, Any] = {}
    for path in sorted((folder / "run" / "samples").glob("*.jsonl")):
        for text in path.read_bytes().splitlines(keepends=True):
            assert text.endswith(b"\n")
            line = json.loads(text)
            key = key_of(line)
            assert key not in lines, f"duplicate line: {key}"
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
    root, n_kills, n_truncations, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    options = FAKE if "fake" in sys.argv[5:] else TINY
    generator = random.Random(seed)
    complete = root / "complete"
    finish(complete, options)
    start = time.monotonic()
    shutil.rmtree(complete)
    finish(complete, options)
    seconds = time.monotonic() - start
    expected = contents(complete)
    n_hit = 0
    differences: list[str | None] = []
    for number in range(n_kills):
        folder = root / f"kill{number}"
        child = run(folder, options)
        time.sleep(generator.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        n_hit += os.WIFSIGNALED(status)
        finish(folder, options)
        differences.append(difference(contents(folder), expected))
        shutil.rmtree(folder)
    for number in range(n_truncations):
        folder = root / f"truncation{number}"
        shutil.copytree(complete, folder)
        log = generator.choice(sorted((folder / "run" / "samples").iterdir()))
        with log.open("r+b") as stream:
            stream.truncate(generator.randrange(log.stat().st_size))
        if generator.random() < 0.2:
            (folder / "run" / "results.json").unlink()
        finish(folder, options)
        differences.append(difference(contents(folder), expected))
        shutil.rmtree(folder)
    summary = {
        "kills": n_kills,
        "hit": n_hit,
        "truncations": n_truncations,
        "different": [each for each in differences if each],
        "lines": len(expected["lines"]),
        "seconds": seconds,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
