"""The public API of ``import vlm_harness``."""

import inspect
from pathlib import Path
from typing import Any

import pytest

import vlm_harness
from helpers.bench import ROOT, python
from vlm_harness.specs.schemas import RunConfig


def test_every_name_exists_and_is_documented() -> None:
    for name in vlm_harness.__all__:
        found = getattr(vlm_harness, name)
        assert name == "__version__" or inspect.getdoc(found), name
        assert name in dir(vlm_harness)
    with pytest.raises(AttributeError, match="no attribute 'evalute'; did you mean 'evaluate'"):
        vlm_harness.evalute  # noqa: B018


def test_import_is_lightweight() -> None:
    heavy = ("torch", "transformers", "numpy", "pandas", "jinja2", "yaml")
    code = f"import sys, vlm_harness; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).out.strip() == "[]"


def test_evaluate_accepts_every_option_of_a_run() -> None:
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


def test_an_invalid_argument_is_named(bench: Path) -> None:
    with pytest.raises(vlm_harness.InputError, match=r"^order: "):
        vlm_harness.evaluate("fake:oracle", "sides", order="sideways")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("tasks", None), ("tasks", 5), ("protocol", 5), ("command", [5]), ("decoding", None),
        ("samples", 5), ("include_path", 5), ("model_args", "x"), ("output_dir", None),
        ("data_dir", 5), ("limit", -1), ("limit", "5"), ("progress", True), ("batch_size", 0),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_type_give_one_message(argument: str, value: object) -> None:
    arguments: dict[str, Any] = {"models": "fake:oracle", "tasks": "sides", argument: value}
    with pytest.raises(vlm_harness.InputError, match=f"^{argument}: "):
        vlm_harness.evaluate(**arguments)


class Silent:
    def info(self) -> None: ...


@pytest.mark.parametrize("model", [None, 5, [None], object(), b"llava", {"a": 1}, Silent, Silent()])
def test_invalid_models_are_refused(model: Any) -> None:
    with pytest.raises(vlm_harness.InputError, match=r"^models: .* is not a model\n"):
        vlm_harness.evaluate(model, "sides")


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(vlm_harness.InputError, match=r"no argument 'model'; did you mean 'models'"):
        vlm_harness.evaluate(model="fake:oracle", tasks="sides")  # type: ignore[arg-type]
    with pytest.raises(vlm_harness.InputError, match=r"no argument 'task'; did you mean 'tasks'"):
        vlm_harness.evaluate("fake:oracle", task="sides")  # type: ignore[arg-type]
    with pytest.raises(vlm_harness.InputError, match="no model given"):
        vlm_harness.evaluate([], "sides")
    with pytest.raises(vlm_harness.InputError, match="no task given"):
        vlm_harness.evaluate("fake:oracle")


@pytest.mark.parametrize("labels", ["originl", "", "../../x", 5])
def test_unknown_labels_are_refused(bench: Path, labels: Any) -> None:
    run = evaluated(bench)
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(vlm_harness.InputError, match=r"^labels: unknown labels"):
        vlm_harness.rescore(run, labels)
    assert sorted(path.name for path in run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only_a": {"modl": "first"}}, "only_a: unknown field 'modl'.*'model'"),
        ({"only_b": {"task": "sides"}}, "only_b: unknown field 'task'"),
        ({"only_a": {"model": None}}, "only_a: model: expected a string, got None"),
        ({"only_a": "first"}, "only_a: expected a mapping of fields to values"),
        ({"tasks": "side"}, "'side'.*did you mean 'sides'"),
        ({"metrics": "pair_acuracy"}, "did you mean 'pair_accuracy'"),
    ],
)
def test_invalid_comparisons_are_refused(
    bench: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(vlm_harness.InputError, match=message):
        vlm_harness.compare(evaluated(bench), **arguments)


def evaluated(bench: Path, **options: Any) -> vlm_harness.FinishedRun:
    return vlm_harness.evaluate(
        ["fake:oracle", "fake:first"],
        "sides",
        protocol="choice",
        include_path=bench / "specs",
        data_dir=bench / "data",
        output_dir=bench / "results",
        **options,
    )


def test_a_run_is_opened_once(bench: Path) -> None:
    run = vlm_harness.open_run(evaluated(bench).path)
    assert vlm_harness.open_run(run) is run
    with pytest.raises(vlm_harness.InputError, match="did you mean 'sides'"):
        run.spec("side")


def test_empty_tables_keep_their_columns(bench: Path) -> None:
    run = evaluated(bench)
    full, rows = run.to_pandas(), run.results.to_pandas()
    for path in (run.path / "samples").iterdir():
        path.write_text("")
    assert set(run.to_pandas().columns) == set(full.columns)
    assert list(vlm_harness.Results().to_pandas().columns) == list(rows.columns)


@pytest.mark.slow
def test_a_type_checker_knows_every_name(tmp_path: Path) -> None:
    code = "import vlm_harness\nvlm_harness.evaluate\nvlm_harness.evalute\n"
    (tmp_path / "used.py").write_text(code)
    done = python("-m", "mypy", "--no-incremental", str(tmp_path / "used.py"), cwd=ROOT)
    assert 'has no attribute "evalute"' in done.out
    assert 'has no attribute "evaluate"' not in done.out


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
    run = evaluated(bench)
    comparison = vlm_harness.compare(run, only_a={"model": "oracle"}, only_b={"model": "first"})
    for shown in (run.results, comparison):
        html = shown._repr_html_()
        assert "<table" in html
        assert "oracle" in html
    assert set(run.results.to_pandas().metric) >= {"individual_accuracy", "pair_accuracy"}
    assert len(run.to_pandas()) == 24
    assert len(comparison.to_pandas()) >= 2
