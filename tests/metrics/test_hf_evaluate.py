"""Modules of the library ``evaluate`` as metrics, from its cache; the hub is never contacted."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import evaluate
import evaluate.config
import pytest

from helpers.bench import Command
from vlm_harness.analysis.compare import compare
from vlm_harness.errors import InputError
from vlm_harness.metrics import METRICS, Record, hf_evaluate
from vlm_harness.metrics.stats import Statistic, estimate
from vlm_harness.specs.schemas import GroupRules

MODULE = """\
import datasets
import evaluate

class {cls}(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="",
            features=datasets.Features({{
                "predictions": datasets.Value("{kind}"),
                "references": {references},
            }}),
        )

    def _compute(self, predictions, references):
        {body}
"""
INT, TEXT, SEVERAL = (
    'datasets.Value("int32")', 'datasets.Value("string")',
    'datasets.Sequence(datasets.Value("string"))',
)  # fmt: skip
COUNT = "sum(p == r for p, r in zip(predictions, references)) / len(predictions)"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A separate cache of the library for the modules of these tests."""
    forget_modules()  # those of tests that used another cache
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path_factory.mktemp("hf_modules"))
        others = [place for place in sys.path if (Path(place) / "evaluate_modules").is_dir()]
        patch.setattr(sys, "path", [place for place in sys.path if place not in others])
        yield
    forget_modules()


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Write a module and let the library load it once, as a user would."""

    def make(name: str, body: str, kind: str = "string", references: str = TEXT) -> None:
        folder = tmp_path / "written" / name
        folder.mkdir(parents=True)
        text = MODULE.format(cls=name.title(), kind=kind, references=references, body=body)
        (folder / f"{name}.py").write_text(text)
        evaluate.load(str(folder))

    return make


def answers(text: str) -> list[Record]:
    """``lr``: correct is left, answered right; ``l-``: no answer."""
    return [
        Record(
            str(number), 0, 2, correct == answer, options=("left", "right"),
            target="lr".index(correct), prediction=None if answer == "-" else "lr".index(answer),
        )
        for number, (correct, answer) in enumerate(text.split())
    ]  # fmt: skip


def units(name: str, records: list[Record]) -> Statistic:
    found = METRICS.get(name)(records, GroupRules())
    assert isinstance(found, Statistic)
    return found


def test_numbers(install: Install) -> None:
    install("share", f'return {{"share": {COUNT}}}', "int32", INT)
    assert units("evaluate:share", answers("ll rr lr rl")).value == 1 / 2
    # A missing answer is incorrect.
    assert units("evaluate:share", answers("ll l- r-")).value == pytest.approx(1 / 3)


def test_texts_as_generated_or_the_option_chosen(install: Install) -> None:
    install("seen", 'return {"seen": 0.5, "all": str(predictions)}')
    install("equal", f'return {{"equal": {COUNT}}}')
    scored = answers("ll lr r-")
    generated = [
        Record("1", 0, 2, True, options=("left", "right"), text="left"),
        Record("2", 0, 2, True, options=("left", "right"), text="Left."),
    ]
    assert units("evaluate:equal", scored).value == pytest.approx(1 / 3)
    assert units("evaluate:equal", generated).value == 1 / 2
    module = hf_evaluate.load("evaluate:seen")
    assert hf_evaluate._inputs(module, scored)[0] == ["left", "right", ""]
    assert hf_evaluate._inputs(module, generated)[0] == ["left", "Left."]


def test_several_references(install: Install) -> None:
    body = f'return {{"within": {COUNT.replace("p == r", "p in r")}}}'
    install("within", body, references=SEVERAL)
    assert units("evaluate:within", answers("ll lr")).value == 1 / 2


def test_one_of_several_values(install: Install) -> None:
    install("rouge", 'return {"rouge1": 0.25, "rougeL": 0.75}')
    assert units("evaluate:rouge.rougeL", answers("ll")).value == 0.75
    with pytest.raises(InputError, match=r"computes rouge1, rougeL; .*as in evaluate:rouge.rouge1"):
        hf_evaluate.load("evaluate:rouge")
    with pytest.raises(InputError, match="computes rouge1, rougeL"):
        hf_evaluate.load("evaluate:rouge.rouge2")


def test_the_interval_equals_that_of_the_share(install: Install) -> None:
    install("share", f'return {{"share": {COUNT}}}', "int32", INT)
    records = answers("ll rr lr rl ll " * 10)
    found = estimate(units("evaluate:share", records), seed=1)
    own = estimate(METRICS.get("individual_accuracy")(records, GroupRules()), seed=1)
    assert found.value == own.value == 0.6
    assert (found.ci_low, found.ci_high) == pytest.approx((own.ci_low, own.ci_high), abs=0.04)


def test_a_failing_module_does_not_fail_the_run(install: Install) -> None:
    body = 'assert len(predictions) < 5, "too many"\n        return {"picky": 1.0}'
    install("picky", body)
    assert units("evaluate:picky", answers("ll " * 8)).value is None
    assert units("evaluate:picky", []).value is None


@pytest.mark.parametrize(
    ("name", "body", "references", "message"),
    [
        ("broken", "raise OSError('no such dictionary')", TEXT, "no such dictionary"),
        ("boxes", 'return {"boxes": 1}', "[[datasets.Value('int32')]]", "does not take one"),
    ],
)
def test_unusable_modules(
    name: str, body: str, references: str, message: str, install: Install
) -> None:
    install(name, body, references=references)
    with pytest.raises(InputError, match=f"cannot use evaluate module '{name}': .*{message}"):
        hf_evaluate.load(f"evaluate:{name}")


def test_code_is_not_downloaded_by_default_nor_taken_from_the_working_directory(
    bench: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench / "specs" / "sides.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("metrics: [", "metrics: ['evaluate:sly', "))
    (bench / "sly").mkdir()
    (bench / "sly" / "sly.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(bench)
    places = "--include-path", bench / "specs", "--data-dir", bench / "data"
    run = "run", "--model", "fake:oracle", "--tasks", "sides", *places
    code, _, message = command(*run)
    assert code == 2
    assert "evaluate module 'sly' not found on this machine" in message
    assert f"{spec}:" in message
    assert "Use --trust-remote-code to download and run it" in message
    code, _, message = command(*run, "--trust-remote-code")  # the tests are offline
    assert code == 2
    assert "cannot use evaluate module 'sly': " in message
    assert command("validate", spec)[0] == 0


@pytest.mark.slow
def test_in_a_task(install: Install, bench: Path, command: Command) -> None:
    install("equal", f'return {{"equal": {COUNT}}}')
    spec = bench / "specs" / "sides.yaml"
    text = spec.read_text()
    spec.write_text(
        text.replace("[individual_accuracy,", "['evaluate:equal', individual_accuracy,")
    )
    places = "--include-path", bench / "specs", "--data-dir", bench / "data"
    where = "--output-dir", bench / "runs", "--run-id", "r"
    code, out, err = command(
        "run", "--model", "fake:oracle,fake:first", "--tasks", "sides", *places, *where,
        "--protocol", "generate", "--json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert [row["metrics"]["evaluate:equal"]["value"] for row in rows] == [1.0, 0.5]
    # One sample per pair is correct: clusters do not vary, so there is no interval.
    assert rows[1]["metrics"]["evaluate:equal"]["ci_low"] is None
    (module,) = json.loads((bench / "runs" / "r" / "manifest.json").read_text())["identity"][
        "tasks"
    ]["sides"]["modules"].items()
    assert module[0] == "evaluate:equal"
    assert len(module[1]) == 64
    code, out, err = command("rescore", bench / "runs" / "r", "--json")
    assert (code, json.loads(out)["results"]) == (0, rows)
    found = compare(bench / "runs" / "r", metrics=["evaluate:equal"])
    (row,) = found.rows
    assert (row.value_a, row.value_b, row.difference, row.p) == (1.0, 0.5, -0.5, None)


def test_two_runs_are_resampled_together(install: Install) -> None:
    install("share", f'return {{"share": {COUNT}}}', "int32", INT)
    a, b = answers("ll lr rr rl " * 10), answers("ll lr rr rr " * 10)
    difference = units("evaluate:share", b).minus(units("evaluate:share", a))
    assert difference.value == pytest.approx(1 / 4)
    low, high = difference.interval(seed=0)
    assert low is not None
    assert high is not None
    # Three of four answers agree: with independent resampling it would be far wider.
    assert 0.08 < low < 1 / 4 < high < 0.42
