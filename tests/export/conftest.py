"""Runs to export."""

from pathlib import Path
from typing import Any

import pytest

from helpers.exports import Go
from helpers.runs import first
from helpers.runs import laconic as oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.runs.evaluator import evaluate


@pytest.fixture
def go(bench: Path) -> Go:
    """Run fake models on the toy tasks; the run's folder."""

    def call(run_id: str = "run", *, models: Any = None, **options: Any) -> Path:
        backends = [
            FakeBackend(handler, name)
            for name, handler in (models or {"first": first, "oracle": oracle}).items()
        ]
        settings: dict[str, Any] = {
            "data_dir": str(bench / "data"),
            "include_path": [str(bench / "specs")],
            "output_dir": str(bench / "results"),
            "protocol": ["generate"],
            "run_id": run_id,
            **options,
        }
        return evaluate(backends, settings.pop("tasks", ["sides"]), **settings).path

    return call
