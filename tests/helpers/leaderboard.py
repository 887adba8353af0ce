"""A run that the leaderboard accepts, and its entry: fixtures, which conftest.py loads."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import TASK, Command, Result, write_sides
from helpers.runs import go, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.leaderboard.submit import entries_of
from vlm_harness.specs.registry import Registry
from vlm_harness.types import Model


class RealBackend(FakeBackend):
    """A fake model that reports the backend of a real one."""

    def info(self) -> Model:
        return Model(
            self.name, "hf_vlm", "org/toy", "abc", "float32", "cpu", 1000, {"vision_encoder": "eye"}
        )


def ask(place: Path, handler: Any = oracle, **options: Any) -> Path:
    settings = {"protocol": ["choice", "generate"], "run_id": "r", **options}
    return go(place, RealBackend(handler, "toy"), **settings).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy benchmark with a finished run, shared by tests that do not change it."""
    place = tmp_path_factory.mktemp("leaderboard")
    (place / "specs").mkdir()
    (place / "specs" / "sides.yaml").write_text(TASK)
    write_sides(place / "data")
    ask(place)
    return place


@pytest.fixture(scope="module")
def registry(made: Path) -> Registry:
    return specs(made)


@pytest.fixture(scope="module")
def plain_entry(made: Path, registry: Registry) -> dict[str, Any]:
    """The content of the run's entry file, shared by tests that do not change it."""
    (entry,) = entries_of(made / "results" / "r", registry)
    return entry.plain()


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def entry(plain_entry: dict[str, Any]) -> dict[str, Any]:
    """A copy of it that tests may change."""
    return copy.deepcopy(plain_entry)


def specs(place: Path) -> Registry:
    return Registry.standard([str(place / "specs")])


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_spec(place: Path, old: str, new: str) -> None:
    path = place / "specs" / "sides.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def put(folder: Path, data: Any, name: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if name is None:
        name = f"{data['model']['name']}__{data['run']['identity_sha256'][:10]}.json"
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def result(command: Command, *args: object) -> Result:
    return Result(*command("leaderboard", *args))


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}
