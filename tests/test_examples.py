"""The examples in the documentation must work as shown."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from helpers.bench import ROOT
from helpers.models import tiny_clip
from helpers.records import RULES, records
from helpers.vlms import tiny_llava
from vlm_harness.metrics import METRICS, Metric, Units, display
from vlm_harness.runs.evaluator import evaluate


@pytest.fixture(scope="module")
def easy_vqa() -> Path:
    """The data folder of the PyPI package easy-vqa."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        pytest.skip("the package easy-vqa is not installed")
    return Path(spec.origin).parent / "data"


def test_contributing_shows_the_example_file() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert shown[0] == (ROOT / "examples" / "easy_vqa.yaml").read_text()


def test_a_benchmark_defined_only_in_yaml(easy_vqa: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-llava"
    tiny_llava(folder)
    run = evaluate(
        [str(folder)],
        ["easy_vqa"],
        protocol=["generate", "choice", "likelihood"],
        include_path=[str(ROOT / "examples")],
        data_dir=str(easy_vqa),
        output_dir=str(tmp_path / "results"),
        limit=30,
    )
    assert [row["protocol"] for row in run.results] == ["generate", "choice", "likelihood"]
    for row in run.results:
        assert (row["n_samples"], row["n_errors"]) == (30, 0)
        assert set(row["categories"]) == {"yes/no", "colour", "shape"}


@pytest.mark.slow
def test_the_complete_benchmark_loads_and_can_be_answered(easy_vqa: Path, tmp_path: Path) -> None:
    run = evaluate(
        ["fake:oracle"],
        ["easy_vqa"],
        include_path=[str(ROOT / "examples")],
        data_dir=str(easy_vqa),
        output_dir=str(tmp_path),
    )
    (row,) = run.results
    assert row["complete"]
    assert row["n_samples"] == 9673
    assert row["metrics"]["individual_accuracy"]["value"] == 1.0


METRIC_HEAD = """\
from collections.abc import Sequence
from vlm_harness.metrics import Record, Units, groups, share
from vlm_harness.specs import GroupRules
"""


def test_the_metric_in_contributing_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def " in c)
    scope: dict[str, object] = {}
    exec(METRIC_HEAD + code, scope)
    found = scope["any_of_pair_accuracy"]
    assert isinstance(found, Metric)
    units = found(records("a1+ a2- b1- b2- c1+"), RULES)
    assert isinstance(units, Units)
    assert (units.value, units.n) == (0.5, 2)
    assert found.description == "Share of complete pairs with at least one correct sample."
    assert found.best([0.25, 0.75]) == 0.75
    monkeypatch.setitem(METRICS._loaded, "any_of_pair_accuracy", found)
    monkeypatch.setitem(METRICS._builtin, "any_of_pair_accuracy", "contributing")
    assert display.number("any_of_pair_accuracy", 0.5) == "50.0"


def test_the_model_in_contributing_is_valid(tmp_path: Path) -> None:
    from vlm_harness.specs.registry import Registry

    text = (ROOT / "CONTRIBUTING.md").read_text()
    (shown,) = (s for s in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "model:" in s)
    (tmp_path / "my.yaml").write_text(shown)
    assert Registry([tmp_path]).model("my-llava").answer_prefix == " "


def test_a_dual_encoder_on_captions(bench: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-clip"
    tiny_clip(folder)
    run = evaluate(
        [str(folder)],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(tmp_path / "results"),
    )
    (row,) = run.results
    assert row["protocol"] == "similarity"
    assert -1 <= row["metrics"]["mean_pair_cosine"]["value"] <= 1


LEFT_OUT = {"readings", "n_texts_cut", "n_over_limit"}
"""Fields that are left out at their default."""


def test_the_formats_are_documented_field_by_field(bench: Path, tmp_path: Path) -> None:
    run = evaluate(
        ["fake:oracle"],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(tmp_path / "results"),
    )
    (log,) = (run.path / "samples").iterdir()
    line = json.loads(log.read_text().splitlines()[0])
    sections = re.split(r"^## ", (ROOT / "docs" / "formats.md").read_text(), flags=re.MULTILINE)
    for fields, section in ((line, sections[1]), (run.results[0].to_dict(), sections[2])):
        rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
        documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert documented - LEFT_OUT == set(fields)
