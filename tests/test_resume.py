"""A run that was killed or torn anywhere ends as one that was never stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT


def stopped_and_gone_on(folder: Path, *args: str) -> Any:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers_resume.py"), str(folder), *args],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_few_kills_and_tears(tmp_path: Path) -> None:
    found = stopped_and_gone_on(tmp_path, "4", "6", "0", "fake")
    assert found["lines"] > 400
    assert found["struck"] >= 2
    assert found["different"] == []


@pytest.mark.slow
def test_a_hundred_kills_and_tears_of_the_tiny_models(tmp_path: Path) -> None:
    found = stopped_and_gone_on(tmp_path, "100", "100", "1")
    assert found["struck"] >= 80
    assert found["different"] == []
