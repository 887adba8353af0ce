"""The wheel contains the specs, and works from any folder."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from helpers.bench import ROOT


def test_the_wheel_has_one_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert settings["targets"]["wheel"]["packages"] == ["vlm_harness"]
    assert (ROOT / "vlm_harness" / "py.typed").is_file()


@pytest.mark.slow
def test_wheel_alone_lists_and_validates(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "vlm_harness", *arguments],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "whatsup_a_left_right" in run("list", "tasks")
    assert str(tmp_path / "site" / "vlm_harness" / "_data") in run("show", "task", "mmvp")
    validated = run("validate")
    specs = [path for path in ROOT.glob("tasks/**/*.yaml") if not path.name.startswith("_")]
    assert all(path.stem in validated for path in specs)
    assert "FAIL" not in validated
    # The wheel contains weights: a bundled model runs a bundled benchmark.
    task = "whatsup_rendered_b_left_right"
    row = run("run", "--model", "tiny-clip", "--tasks", task, "--limit", "4", "--json")
    assert '"model": "tiny-clip"' in row
    # The wheel contains the templates of its pages.
    (folder,) = (tmp_path / "elsewhere" / "results").iterdir()
    assert "4 images" in run("report", str(folder))
    assert "published rows" in run("leaderboard", "build")
    assert (tmp_path / "elsewhere" / "site" / "index.html").is_file()
