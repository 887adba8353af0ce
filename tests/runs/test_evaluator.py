"""The evaluator with a fake backend: logs, results, retries, counts and refusals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import go, lines, oracle, value
from vlm_harness.analysis.sweeps import sweeps
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import InputError, SampleError, TooManyErrors
from vlm_harness.images import ImageLoader
from vlm_harness.logs.lock import locked
from vlm_harness.logs.rescore import rescore
from vlm_harness.protocols.extractors import EXTRACTORS
from vlm_harness.protocols.reading import Extraction
from vlm_harness.runs.evaluator import FinishedRun, evaluate
from vlm_harness.types import Model, OptionScore, Request, Response

REQUIRED = {
    "schema", "task", "task_version", "model", "sample_id", "pair", "set", "category", "images",
    "image_mode", "protocol", "prompt", "options", "order", "command", "decoding", "response",
    "prediction", "target", "correct", "status", "error",
}  # fmt: skip


def test_run_folder(bench: Path) -> None:
    run = go(bench, protocol=["generate"])
    assert run.path.name.startswith("toy__sides__")
    assert (run.path / "samples" / "toy__sides__generate.jsonl").is_file()
    written = lines(run)
    assert len(written) == 12
    assert set(written[0]) >= REQUIRED
    first = next(line for line in written if line["sample_id"] == "thing0-left")
    assert first["prompt"] == "Is the thing0 on the left or the right? Answer left or right."
    assert first["images"][0]["path"] == "sides/thing0-left.png"
    assert (first["prediction"], first["target"], first["correct"]) == (0, 0, True)
    assert first["response"] == {"text": "It is left."}
    results = json.loads((run.path / "results.json").read_text())["results"]
    assert results == run.results.to_dict()["results"]
    (row,) = results
    # Wilson's interval for 6 of 6: 1 / (1 + 1.96^2 / 6)
    assert row["metrics"]["pair_accuracy"] == {
        "value": 1.0, "ci_low": pytest.approx(0.60967, abs=1e-5), "ci_high": 1.0, "n": 6,
        "chance": 0.25,
    }  # fmt: skip
    assert row["complete"]
    assert (row["n_samples"], row["n_groups"], row["n_incomplete"]) == (12, 6, 0)
    assert set(row["categories"]) == {"k0", "k1"}
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["identity"]["tasks"]["sides"]["data"]["sides/rows.jsonl"]
    assert manifest["finished"]


def test_every_protocol_in_one_grid(bench: Path) -> None:
    run = go(bench, protocol=["similarity", "generate", "choice", "likelihood"], command=["all"])
    assert [(row["protocol"], row["command"]) for row in run.results] == [
        ("similarity", "none"),
        ("generate", "default"),
        ("generate", "short"),
        ("choice", "letter"),
        ("likelihood", "default"),
        ("likelihood", "short"),
    ]
    assert all(row["complete"] for row in run.results)
    assert all(row["metrics"]["individual_accuracy"]["value"] == 1 for row in run.results)
    assert "mean_pair_cosine" in run.results[0]["metrics"]
    assert run.results[1]["metrics"]["mean_pair_cosine"]["value"] is None


@pytest.mark.parametrize("order", ["both", "cyclic", "random"])
def test_orders(bench: Path, order: str) -> None:
    """Predictions refer to the canonical order, whatever order was shown."""
    run = go(bench, protocol=["choice"], order=order)
    written = lines(run)
    assert len(written) == (12 if order == "random" else 24)
    assert all(line["prediction"] == line["target"] for line in written)
    swapped = [line for line in written if line["order"] == [1, 0]]
    assert swapped
    assert all("A. right\nB. left" in line["prompt"] for line in swapped)
    assert all(line["candidates"] == ["B", "A"] for line in swapped)
    by_pair: dict[str, set[str]] = {}
    for line in written:
        by_pair.setdefault(line["pair"], set()).add(str(line["order"]))
    if order == "random":
        assert all(len(seen) == 1 for seen in by_pair.values())


def test_one_decoding_in_several_spellings_is_one_cell(bench: Path) -> None:
    spelled = ["m3id", "m3id:alpha=0.6,lambda=0.15", "m3id:lambda=0.150,alpha=0.6,t0=1"]
    run = go(bench, oracle, protocol=["generate"], decoding=[*spelled, "m3id:t0=2,alpha=0.5"])
    assert [row["decoding"] for row in run.results] == ["m3id", "m3id:alpha=0.5,t0=2"]


def test_a_constant_model_scores_zero(bench: Path) -> None:
    run = go(bench, lambda request: [0.5, 0.5], protocol=["similarity"])
    assert value(run) == 0
    assert run.results[0]["n_tied"] == 12
    assert all(line["prediction"] is None and line["status"] == "ok" for line in lines(run))


def test_unparsed_counts_as_wrong_and_is_not_guessed(bench: Path) -> None:
    run = go(bench, lambda request: "I cannot tell.", protocol=["generate"])
    assert value(run) == 0
    assert run.results[0]["n_unparsed"] == 12
    assert run.results[0]["complete"]


def test_missing_answers_are_not_incorrect(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert request.sample is not None
        return (
            None
            if request.sample.id in ("thing0-left", "thing1-left", "thing1-right")
            else oracle(request)
        )

    run = go(bench, handler, protocol=["generate"])
    (row,) = run.results
    assert (row["n_samples"], value(run)) == (9, 1.0)
    # thing0 lacks one of two answers, thing1 both: neither is scored, both are counted.
    assert (row["n_groups"], row["n_incomplete"]) == (6, 2)
    assert not row["complete"]


def test_a_failing_sample_does_not_affect_others(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing2-left":
            raise SampleError("cannot be read")
        if request.sample.id == "thing3-left":
            raise RuntimeError("shape mismatch")  # as a model's library would
        return oracle(request)

    run = go(bench, handler, protocol=["choice"], max_errors="3")
    (row,) = run.results
    assert (row["n_errors"], row["n_samples"], value(run)) == (2, 12, 10 / 12)
    assert not row["complete"]
    errors = {line["sample_id"]: line["error"] for line in lines(run) if line["status"] == "error"}
    assert errors == {
        "thing2-left": "cannot be read",
        "thing3-left": "RuntimeError: shape mismatch",
    }
    assert "shape mismatch" in (run.path / "errors.log").read_text()
    # Rerunning the command retries only the failed samples.
    backend = FakeBackend(oracle, "toy")
    again = go(bench, backend, protocol=["choice"], max_errors="3")
    assert sum(map(len, backend.calls)) == 2
    assert again.results[0]["complete"]
    assert len(lines(again)) == 12


def test_too_many_errors_stop_the_run_and_keep_finished_samples(bench: Path) -> None:
    asked: list[str] = []

    def handler(request: Request) -> Any:
        assert request.sample is not None
        asked.append(request.sample.id)
        if len(asked) > 4:
            raise SampleError("broken")
        return oracle(request)

    with pytest.raises(TooManyErrors, match="broken") as info:
        go(bench, handler, protocol=["choice"], max_errors="2", batch_size=1)
    assert info.value.exit_code == 3
    assert len(asked) == 7
    (folder,) = (bench / "results").iterdir()
    rows = json.loads((folder / "results.json").read_text())["results"]
    assert rows[0]["n_samples"] == 7


def test_every_sample_failed(bench: Path) -> None:
    def handler(request: Request) -> Any:
        raise SampleError("broken")

    with pytest.raises(TooManyErrors, match="every sample failed"):
        go(bench, handler, protocol=["choice"], max_errors="100%")


def test_nan_is_an_error(bench: Path) -> None:
    nan = float("nan")
    with pytest.raises(TooManyErrors, match="not finite"):
        go(bench, lambda request: [nan, 0.1], protocol=["similarity"], max_errors="100%")


def test_out_of_memory_is_retried_with_half_the_batch_size(bench: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    class Small(FakeBackend):
        sizes: list[int]

        def respond(self, requests: Any, loader: Any) -> Any:
            self.sizes.append(len(requests))
            if len(requests) > 3:
                raise OutOfMemoryError("CUDA out of memory")
            return super().respond(requests, loader)

    backend = Small(oracle, "toy")
    backend.sizes = []
    run = go(bench, backend, protocol=["choice"], batch_size=12)
    assert backend.sizes == [12, 6, 3, 3, 3, 3]
    assert value(run) == 1


def test_batch_size_does_not_change_the_run(bench: Path) -> None:
    runs = [go(bench, protocol=["choice", "generate"], batch_size=n) for n in (1, 3, 8)]
    assert len({run.path for run in runs}) == 1  # one run id: the later ones had nothing to do
    assert [run.n_new for run in runs] == [24, 0, 0]


def test_limit_takes_complete_pairs(bench: Path) -> None:
    run = go(bench, protocol=["choice"], limit=5)
    assert len(lines(run)) == 4
    assert not run.results[0]["complete"]
    assert run.results[0]["n_incomplete"] == 0
    assert len(lines(go(bench, protocol=["choice"], limit=1))) == 2


def test_samples_by_id(bench: Path) -> None:
    run = go(bench, protocol=["choice"], samples=["thing4-right"])
    assert [line["sample_id"] for line in lines(run)] == ["thing4-right"]
    assert not run.results[0]["complete"]
    with pytest.raises(InputError, match="did you mean 'thing4-right'"):
        go(bench, samples=["thing4-rigth"])


def test_swapped_images_exchange_the_images_of_a_pair(bench: Path) -> None:
    def sees(request: Request) -> str:
        return "left" if "left" in request.images[0].path else "right"

    assert value(go(bench, sees, protocol=["generate"])) == 1
    swapped = go(bench, sees, protocol=["generate"], images="swapped")
    assert value(swapped) == 0
    assert {line["image_mode"] for line in lines(swapped)} == {"swapped"}


def test_no_images(bench: Path) -> None:
    seen: list[int] = []

    def handler(request: Request) -> str:
        seen.append(len(request.images))
        return "left"

    run = go(bench, handler, protocol=["generate"], images="none")
    assert set(seen) == {0}
    assert (value(run), value(run, "pair_accuracy")) == (0.5, 0)


@pytest.mark.parametrize("protocol", ["similarity", "generate", "choice", "likelihood"])
def test_rescore_reproduces_the_results_from_the_log(bench: Path, protocol: str) -> None:
    order = "fixed" if protocol == "similarity" else "both"

    def handler(request: Request) -> Any:
        assert request.sample is not None
        number = sum(map(ord, request.sample.id)) % 7
        if request.kind == "generate":
            return ["left", "right", "no idea"][number % 3]
        scores = (OptionScore(number / 7, -number, 2), OptionScore(0.4, -1.0, 2))
        return Response(scores=scores, pair_cosine=0.9)

    run = go(bench, handler, protocol=[protocol], order=order)
    rows = rescore(run.path)
    assert rows == run.results
    assert json.loads((run.path / "results.json").read_text()) == run.results.to_dict()


def test_swapped_images_skip_and_count_incomplete_pairs(bench: Path) -> None:
    rows = bench / "data" / "sides" / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    (row,) = go(bench, oracle, protocol=["generate"], images="swapped").results
    assert (row["n_samples"], row["n_groups"], row["n_incomplete"]) == (10, 6, 1)
    assert not row["complete"]


def test_samples_of_a_group_skip_tasks_without_them(bench: Path) -> None:
    """``--tasks GROUP --samples ID``: the ids need not be in every task."""
    spec = bench / "specs" / "sides.yaml"
    other = (
        spec.read_text()
        .replace("task: sides", "task: other")
        .replace('{{ name }}"\n  images', 'o-{{ name }}"\n  images')
    )
    (bench / "specs" / "other.yaml").write_text(other)
    run = evaluate(
        [FakeBackend(oracle, "toy")],
        ["toys"],
        samples=["o-thing1-left"],
        data_dir=str(bench / "data"),
        include_path=[str(bench / "specs")],
        output_dir=str(bench / "results"),
    )
    assert [row["task"] for row in run.results] == ["other"]
    assert [line["sample_id"] for line in lines(run)] == ["o-thing1-left"]


def test_the_pair_cosine_of_swapped_images_is_that_of_the_pair(bench: Path) -> None:
    seen: list[tuple[str, str]] = []

    def handler(request: Request) -> Any:
        assert request.partner is not None
        seen.append((request.images[0].path, request.partner.path))
        return oracle(request)

    go(bench, handler, protocol=["generate"], images="swapped")
    assert all(image != partner for image, partner in seen)


def test_a_misspelt_metric_is_refused_before_the_run(bench: Path) -> None:
    spec = bench / "specs" / "sides.yaml"
    spec.write_text(spec.read_text().replace("[individual_accuracy,", "[individual_acuracy,"))
    with pytest.raises(InputError, match="did you mean 'individual_accuracy'"):
        go(bench, protocol=["choice"])
    assert not (bench / "results").exists()


def test_f1_needs_a_positive_option(bench: Path) -> None:
    spec = bench / "specs" / "sides.yaml"
    spec.write_text(spec.read_text().replace("[individual_accuracy,", "[f1, individual_accuracy,"))
    with pytest.raises(InputError, match=r"the metric 'f1' needs a positive option") as caught:
        go(bench)
    assert caught.value.where == f"{spec}:22"


def test_f1_of_the_positive_option(bench: Path) -> None:
    """Positive is left. Of 6 left: 4 left, 1 right, 1 unparsed; of 6 right: 1 left, 1 unparsed."""
    spec = bench / "specs" / "sides.yaml"
    text = spec.read_text().replace("[individual_accuracy,", "[f1, precision, recall, yes_ratio,")
    spec.write_text(text.replace("primary_metric: pair_accuracy", "primary_metric: f1")
                    + "positive: left\n")  # fmt: skip
    answers = {"thing0-left": "right", "thing1-left": "?", "thing2-right": "left",
               "thing3-right": "neither"}  # fmt: skip

    def handler(request: Request) -> Any:
        assert request.sample is not None
        return answers.get(request.sample.id, request.sample.options[request.sample.target])

    run = go(bench, handler, protocol=["generate"], order="both")
    expected = {"f1": 8 / (8 + 2 + 2), "precision": 4 / 6, "recall": 4 / 6, "yes_ratio": 5 / 10}
    assert {name: value(run, name) for name in expected} == pytest.approx(expected)
    assert run.results[0]["metrics"]["f1"]["chance"] == pytest.approx(1 / 2)
    assert rescore(run.path) == run.results
    (row,) = sweeps(run.path)
    assert (row["metric"], row["mean"]) == ("f1", pytest.approx(8 / 12))


def test_the_text_is_kept_when_an_extractor_fails(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(text: str, options: Any, **arguments: Any) -> Any:
        if text:
            raise ValueError("cannot work with these options")
        return Extraction(None, "nothing")

    monkeypatch.setitem(EXTRACTORS._loaded, "keyword", fails)
    monkeypatch.setattr("vlm_harness.runs.plan.confused", lambda *_: None)
    with pytest.raises(TooManyErrors, match="cannot work"):
        go(bench, protocol=["generate"], max_errors="100%")
    monkeypatch.delitem(EXTRACTORS._loaded, "keyword")
    (folder,) = (bench / "results").iterdir()
    rows = rescore(folder)
    assert rows[0]["metrics"]["individual_accuracy"]["value"] == 1.0


def test_rescore_refuses_a_run_in_progress(bench: Path) -> None:
    run = go(bench, protocol=["choice"])
    with locked(run.path), pytest.raises(InputError, match="in use by another process"):
        rescore(run.path)


def test_one_failure_does_not_stop_a_small_run(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing0-left":
            raise SampleError("broken")
        return oracle(request)

    (row,) = go(bench, handler, protocol=["choice"], limit=4).results
    assert (row["n_errors"], row["n_samples"]) == (1, 4)


def test_a_model_that_always_fails_is_not_hidden_by_others(bench: Path) -> None:
    def fails(request: Request) -> Any:
        raise SampleError("broken")

    good = [FakeBackend(oracle, f"good{n}") for n in range(11)]
    with pytest.raises(TooManyErrors, match="every sample failed: bad on sides"):
        evaluate(
            [*good, FakeBackend(fails, "bad")],
            ["sides"],
            protocol=["choice"],
            include_path=[str(bench / "specs")],
            data_dir=str(bench / "data"),
            output_dir=str(bench / "results"),
        )


@pytest.mark.parametrize("order", ["fixed", "both"])
def test_lettered_options_are_matched_by_their_letter(bench: Path, order: str) -> None:
    """In any order, "(b)" is the option that is labelled "(b)"."""
    spec = bench / "specs" / "sides.yaml"
    text = spec.read_text().replace("options: [left, right]", 'options: ["(a) left", "(b) right"]')
    spec.write_text(text.replace("extract: keyword", "extract: letter"))
    run = go(
        bench,
        lambda request: "(ab"[0] + "ab"[request.sample.target] + ")",  # type: ignore[union-attr]
        protocol=["generate"],
        order=order,
    )
    assert value(run) == 1.0


def test_options_of_the_wrong_kind_are_refused(bench: Path) -> None:
    with pytest.raises(InputError, match=r"limit: .*greater than or equal to 1 .*found 0"):
        go(bench, limit=0)
    with pytest.raises(InputError, match=r"argument 'orderr'; did you mean 'order'"):
        go(bench, orderr="both")


# --- model objects --------------------------------------------------------------------------------


class Mine:
    """A model without a declared family."""

    def __init__(self, answer: str = "left", revision: str | None = None) -> None:
        self.answer, self.revision = answer, revision

    def info(self) -> Model:
        return Model(name="mine", backend="mine", checkpoint="none", revision=self.revision)

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response]:
        return [Response(text=self.answer) for _ in requests]


def evaluate_mine(bench: Path, model: Mine, **options: Any) -> FinishedRun:
    return evaluate(
        model,
        "sides",
        protocol=options.pop("protocol", "generate"),
        data_dir=bench / "data",
        include_path=bench / "specs",
        output_dir=bench / "results",
        **options,
    )


def test_a_model_object_needs_no_declared_family(bench: Path) -> None:
    run = evaluate_mine(bench, Mine())
    assert run.n_new == 12
    assert run.results[0].metrics["individual_accuracy"].value == 0.5
    assert evaluate_mine(bench, Mine(), images="none").n_new == 12


def test_a_finished_run_of_an_object_is_not_read_for_a_new_object(bench: Path) -> None:
    evaluate_mine(bench, Mine("left"))
    with pytest.raises(InputError, match="the object mine may have changed since"):
        evaluate_mine(bench, Mine("right"))
    assert evaluate_mine(bench, Mine("right"), fresh=True).n_new == 12


def test_a_new_revision_of_an_object_starts_a_new_run(bench: Path) -> None:
    first = evaluate_mine(bench, Mine(revision="1"))
    assert evaluate_mine(bench, Mine(revision="1")).n_new == 0
    second = evaluate_mine(bench, Mine(revision="2"))
    assert (second.n_new, second.path != first.path) == (12, True)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (None, "expected a Response, but the model returned NoneType"),
        ("left", "expected a Response, but the model returned str"),
        (Response(), "the response has no text"),
        (Response(text=5), "text is int, not str"),  # type: ignore[arg-type]
        (Response(scores=(OptionScore(1.0),)), "expected text, but the model returned scores"),
        (Response(error=ValueError("bad")), r"ValueError\('bad'\)"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_response_is_an_error_of_its_sample(
    bench: Path, response: Any, message: str
) -> None:
    class Odd(Mine):
        def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response]:
            return [response for _ in requests]

    with pytest.raises(TooManyErrors, match=message):
        evaluate_mine(bench, Odd())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ((1.0, 0.2), "expected an OptionScore per candidate, but the model returned float"),
        ((OptionScore("1"), OptionScore("2")), "a score is str, not float"),  # type: ignore[arg-type]
        ((OptionScore(1.0),), "the model returned 1 scores for 2 candidates"),
        (None, "no scores"),
    ],
)
def test_invalid_scores_are_an_error_of_their_sample(
    bench: Path, scores: Any, message: str
) -> None:
    class Odd(Mine):
        def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response]:
            return [Response(scores=scores) for _ in requests]

    with pytest.raises(TooManyErrors, match=message):
        evaluate_mine(bench, Odd(), protocol="choice")


@pytest.mark.parametrize("given", [None, "left", 5, [Response(text="left")]])
def test_invalid_lists_of_responses(bench: Path, given: Any) -> None:
    class Odd(Mine):
        def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response]:
            return given if len(requests) > 1 or not isinstance(given, list) else given * 2  # type: ignore[no-any-return]

    with pytest.raises(TooManyErrors, match="responses"):
        evaluate_mine(bench, Odd())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, "expected a vlm_harness.Model, got NoneType"),
        ({"name": "a/b c"}, "name: "),
        ({"name": ""}, "name: "),
        ({"details": {"model": object()}}, "details: "),
        ({"revision": 1}, "revision: "),
    ],
)
def test_info_is_validated(bench: Path, fields: dict[str, Any] | None, message: str) -> None:
    class Odd(Mine):
        def info(self) -> Any:
            usual = {"name": "mine", "backend": "mine", "checkpoint": "none"}
            return None if fields is None else Model(**{**usual, **fields})

    with pytest.raises(InputError, match=r"^Odd\.info\(\): " + message):
        evaluate_mine(bench, Odd())
