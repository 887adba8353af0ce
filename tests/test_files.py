"""Atomic file writes, and strict JSON."""

from pathlib import Path

import pytest

from vlm_harness.errors import InputError
from vlm_harness.files import write_json, write_text


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    (tmp_path / "results.json.new").mkdir()  # blocks the temporary file
    with pytest.raises(InputError, match=r"results\.json: cannot be written"):
        write_text(path, "other")
    assert path.read_text() == '{\n "a": 1\n}\n'


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()
