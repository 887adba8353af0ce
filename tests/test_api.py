"""What ``import vlm_harness`` gives."""

import inspect
from pathlib import Path

import pytest

import vlm_harness
from helpers.bench import python
from vlm_harness.specs.schemas import RunConfig


def test_every_name_is_there_and_documented() -> None:
    for name in vlm_harness.__all__:
        found = getattr(vlm_harness, name)
        assert name == "__version__" or inspect.getdoc(found), name
        assert name in dir(vlm_harness)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        vlm_harness.evalute  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "pandas", "jinja2", "yaml")
    code = f"import sys, vlm_harness; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).out.strip() == "[]"


def test_evaluate_takes_every_option_of_a_run() -> None:
    given = inspect.signature(vlm_harness.evaluate).parameters
    assert set(RunConfig.model_fields) - {"model"} <= set(given)
    assert all(
        given[name].kind is inspect.Parameter.KEYWORD_ONLY
        for name in given
        if name not in ("models", "tasks", "unknown")
    )


def test_a_misspelt_argument_is_suggested(bench: Path) -> None:
    with pytest.raises(vlm_harness.InputError, match=r"no argument 'protocl'.*'protocol'"):
        vlm_harness.evaluate("fake:oracle", "sides", protocl="choice")  # type: ignore[arg-type]


def test_an_unfit_argument_is_named(bench: Path) -> None:
    with pytest.raises(vlm_harness.InputError, match=r"^order: "):
        vlm_harness.evaluate("fake:oracle", "sides", order="sideways")  # type: ignore[arg-type]


def test_one_name_or_a_list(bench: Path) -> None:
    places = {
        "include_path": bench / "specs",
        "data_dir": bench / "data",
        "output_dir": bench / "results",
    }
    one = vlm_harness.evaluate("fake:oracle", "sides", protocol="choice", **places)  # type: ignore[arg-type]
    many = vlm_harness.evaluate(["fake:oracle"], ["sides"], protocol=["choice"], **places)  # type: ignore[arg-type]
    assert (one.path, one.n_new, many.n_new) == (many.path, 12, 0)


def test_notebooks_show_tables(bench: Path) -> None:
    run = vlm_harness.evaluate(
        ["fake:oracle", "fake:first"],
        "sides",
        protocol="choice",
        include_path=bench / "specs",
        data_dir=bench / "data",
        output_dir=bench / "results",
    )
    comparison = vlm_harness.compare(run, only_a={"model": "oracle"}, only_b={"model": "first"})
    for shown in (run.results, comparison):
        html = shown._repr_html_()
        assert "<table" in html
        assert "oracle" in html
    assert set(run.results.to_pandas().metric) >= {"individual_accuracy", "pair_accuracy"}
    assert len(run.to_pandas()) == 24
    assert len(comparison.to_pandas()) >= 2
