"""Packages import only those listed before them in ``docs/architecture.md``; no import cycles."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from helpers.bench import ROOT

PACKAGE = ROOT / "vlm_harness"
FOUNDATIONS = ("types", "errors", "plugins", "files", "paths", "deadline", "images")
LAYERS = (
    "specs", "datasets", "backends", "metrics", "tasks", "protocols", "logs", "analysis", "runs",
    "published", "report", "export", "leaderboard", "cli",
)  # fmt: skip
"""In order: a package may import only those before it."""
OUTSIDE = ("__init__", "__main__")
"""The public API and the entry point, which no other module imports."""


def module_of(path: Path) -> str:
    """``logs.lines`` for ``vlm_harness/logs/lines.py``, ``logs`` for its ``__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The project's modules that a module imports, including imports inside functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "vlm_harness" or name.startswith("vlm_harness."):
                parts = name.split(".")[1:]
                while parts and ".".join(parts) not in MODULES:
                    parts.pop()
                if parts and ".".join(parts) != module:
                    yield ".".join(parts)


def test_the_folder_listing_matches_the_architecture() -> None:
    found = {name.split(".")[0] for name in MODULES}
    assert found == {*FOUNDATIONS, *LAYERS, *OUTSIDE}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_what_is_listed_before_it(layer: str) -> None:
    allowed = {*FOUNDATIONS, *LAYERS[: LAYERS.index(layer) + 1]}
    for module in MODULES:
        if module.split(".")[0] == layer:
            above = sorted(name for name in imported(module) if name.split(".")[0] not in allowed)
            assert above == [], module


def test_foundations_import_only_foundations() -> None:
    for module in FOUNDATIONS:
        assert {name.split(".")[0] for name in imported(module)} <= {*FOUNDATIONS}, module


def test_there_are_no_import_cycles() -> None:
    graph = {module: set(imported(module)) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_map_of_the_documentation_is_complete() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.split("    vlm_harness/\n")[1].split("## ")[0]
    listed = re.findall(r"^      (\w+)(?:\.py|/)", tree, re.MULTILINE)
    assert tuple(listed) == (*FOUNDATIONS, *LAYERS)
    words = set(re.findall(r"\w+", tree))
    modules = {name.rpartition(".")[2] for name, path in MODULES.items() if "." in name}
    # Modules of the command line are named after its commands.
    commands = {path.stem for path in (PACKAGE / "cli").iterdir()}
    assert modules - commands - words == set()
