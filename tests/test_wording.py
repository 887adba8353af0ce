"""The check of the project's wording: its rules, the files that it reads, and its exit status."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "check_wording.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wording", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORDING = script()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("rule", WORDING.RULES, ids=lambda rule: rule.bad)
def test_a_rule_matches_its_bad_example_only(rule: Any) -> None:
    pattern = WORDING.compiled(rule)
    assert pattern.search(rule.bad)
    assert not pattern.search(rule.good)


@pytest.mark.parametrize("rule", WORDING.RULES, ids=lambda rule: rule.bad)
def test_no_rule_matches_a_good_example(rule: Any) -> None:
    assert list(WORDING.findings(rule.good)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a run that is gone\non with", [(1, "gone on with")]),
        ("# first\n# a run is gone\n# on with", [(2, "gone # on with")]),
        ('hint="It goes "\n    f"on with it"', [(1, 'goes " f"on with')]),
        ("def test_a_run_that_is_gone_on_with() -> None:", [(1, "gone_on_with")]),
        ("ok\n\nCOMPUTED ANEW", [(3, "ANEW")]),
        ("one.\n\nA task", []),
        ("if value is None: ...  # values are None", []),
        ("the reason, if there is none", []),
        ("from hypothesis import HealthCheck", []),
        ('throw new Error("x"); await away', []),
    ],
)
def test_text_that_is_wrapped_quoted_or_a_name(text: str, expected: list[Any]) -> None:
    found = [(line, phrase) for line, phrase, _ in WORDING.findings(text)]
    assert found == expected


def test_an_expression_of_jinja_is_no_phrase() -> None:
    assert list(WORDING.findings("{% if x is none %}{{ a\nis none }}", jinja=True)) == []
    text = "{{ a\n }} this one is none {{ b }}"
    assert [line for line, *_ in WORDING.findings(text, jinja=True)] == [2]


@pytest.mark.parametrize(
    ("path", "checked"),
    [
        ("README.md", True),
        ("docs/guides/first.md", True),
        ("vlm_harness/cli/run.py", True),
        (".github/workflows/tests.yml", True),
        ("vlm_harness/report/html/page.html.j2", True),
        ("Makefile", True),
        ("LICENSE", False),
        ("docs/images/a.png", False),
        ("vlm_harness/report/html/vendor/lib.js", False),
        ("tests/data/run_0_1_0/specs/task.yaml", False),
        ("models/tiny-clip/README.md", False),
        ("models/tiny-clip.yaml", False),
        ("models/llava.yaml", True),
        ("tasks/mmvp/mmvp_statements.yaml", False),
        ("tasks/mmvp/mmvp.yaml", True),
        (".ci/check_wording.py", False),
        ("tests/test_wording.py", False),
    ],
)
def test_which_files_are_checked(path: str, checked: bool) -> None:
    assert WORDING.is_checked(path) is checked


def test_the_exit_status_and_the_message(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("An unfinished run is resumed.\n")
    (tmp_path / "bad.py").write_text("# Fine.\n# An unfinished run is gone on with.\n")
    clean = run(tmp_path, "good.md")
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "")
    dirty = run(tmp_path, "good.md", "bad.py")
    assert (dirty.returncode, dirty.stderr) == (1, "")
    assert "bad.py:2: 'gone on with' -> use resume" in dirty.stdout
    assert "good.md" not in dirty.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_files_come_from_git(tmp_path: Path) -> None:
    """Tracked and new files are checked, ignored ones are not."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "page.md").write_text("computed anew\n")
    assert run(tmp_path).returncode == 0
    (tmp_path / "new.md").write_text("computed anew\n")
    found = run(tmp_path)
    assert found.returncode == 1
    assert found.stdout.startswith("new.md:1: 'anew' -> use again")
