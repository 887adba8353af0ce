"""The leaderboard: what of a run is checked, entries of strangers, and where the site goes."""

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TASK, Command, Result, python, refused, write_sides
from helpers_hub import TOKEN, Hub, serving
from helpers_runs import go, oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_harness.backends.fake import FakeBackend
from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError, SampleError
from vlm_harness.identity import digest_of
from vlm_harness.leaderboard.entry import check_folder, dump, load_entries, read_entry, rows
from vlm_harness.leaderboard.publish import Content, parse_target, prepare, publish
from vlm_harness.leaderboard.published import PublishedRow, published_rows
from vlm_harness.leaderboard.submit import entries_of, submit
from vlm_harness.registry import Registry
from vlm_harness.reproduce import cells, load, paper_tables
from vlm_harness.runlog import read_manifest
from vlm_harness.types import Model, Request

Change = Callable[[Path], Any]


class Earnest(FakeBackend):
    """A model that is not known to be made up."""

    def info(self) -> Model:
        return Model(
            self.name, "hf_vlm", "org/toy", "abc", "float32", "cpu", 1000, {"vision_encoder": "eye"}
        )


def ask(place: Path, handler: Any = oracle, **options: Any) -> Path:
    settings = {"protocol": ["choice", "generate"], "run_id": "r", **options}
    return go(place, Earnest(handler, "toy"), **settings).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy benchmark with a finished run of it, never changed."""
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
def whole(made: Path, registry: Registry) -> dict[str, Any]:
    """The run's entry as its file has it, never changed."""
    (entry,) = entries_of(made / "results" / "r", registry)
    return entry.plain()


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def entry(whole: dict[str, Any]) -> dict[str, Any]:
    """The same, to be changed."""
    return copy.deepcopy(whole)


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


# --- checksums of logs ----------------------------------------------------------------------------


def sums(run: Path) -> Any:
    return read_manifest(run)["logs"]


def right(run: Path) -> bool:
    logs = {f"samples/{path.name}": checksum(path) for path in (run / "samples").iterdir()}
    return bool(sums(run) == logs)


def test_logs_have_their_checksums_once_finished(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert sums(bench / "results" / "r") is None
        return oracle(request)

    run = ask(bench, handler)
    assert len(sums(run)) == 2
    assert right(run)


def last_line(log: bytes) -> int:
    return log.rindex(b"\n", 0, -1) + 1


@pytest.mark.parametrize(
    ("damage", "n_asked"),
    [
        (lambda log: log[:-9], 1),  # torn
        (lambda log: log + log[last_line(log) :], 0),  # doubled
        (lambda log: log + b'{"schema"', 0),  # torn behind the last
        (lambda log: log[: last_line(log)], 1),
    ],
)
def test_checksums_after_a_run_was_gone_on_with(
    place: Path, damage: Callable[[bytes], bytes], n_asked: int
) -> None:
    run = place / "results" / "r"
    log = sorted((run / "samples").iterdir())[0]
    log.write_bytes(damage(log.read_bytes()))
    asked = []

    def handler(request: Request) -> Any:
        asked.append(request)
        return oracle(request)

    ask(place, handler)
    assert len(asked) == n_asked
    assert right(run)
    assert entries_of(run, specs(place))


def test_a_log_that_was_edited_is_not_made_right_by_showing_the_run(place: Path) -> None:
    run = place / "results" / "r"
    one, other = sorted((run / "samples").iterdir())
    one.write_bytes(one.read_bytes().replace(b'"correct": true', b'"correct": fals', 1))
    one.write_bytes(one.read_bytes().replace(b"fals,", b"false,"))
    other.write_bytes(other.read_bytes() + b"{")
    # Written as the harness writes it, so that nothing is healed in it.
    assert ask(place) == run
    assert sums(run)[f"samples/{other.name}"] == checksum(other)
    assert sums(run)[f"samples/{one.name}"] != checksum(one)


def test_the_same_command_adds_checksums_to_an_old_manifest(place: Path) -> None:
    run = place / "results" / "r"
    before = read_manifest(run)
    edit(run / "manifest.json", lambda manifest: manifest.pop("logs"))
    with pytest.raises(InputError, match=r"no checksums of the logs(.|\n)*adds them"):
        entries_of(run, specs(place))
    ask(place)
    assert read_manifest(run) == before


# --- adding a run ---------------------------------------------------------------------------------


def test_an_entry_says_what_the_run_was(place: Path) -> None:
    run = place / "results" / "r"
    argv = ["/home/me/.venv/bin/vlm-harness", "--model", "a b", "--command", "Say 'x'"]
    edit(run / "manifest.json", lambda m: m.update(command_line=shlex.join(argv)))
    ((path, entry),) = submit(run, specs(place), place / "board", "https://example.org/r?a=1#b")
    assert path.name == f"toy__{entry.run.identity_sha256[:10]}.json"
    plain = json.loads(path.read_text())
    assert plain == entry.plain()
    assert plain["model"] == {
        "name": "toy", "backend": "hf_vlm", "checkpoint": "org/toy", "revision": "abc",
        "parameters": 1000, "dtype": "float32", "encoder": "eye", "family": "mllm",
    }  # fmt: skip
    manifest = read_manifest(run)
    assert plain["run"]["finished"] == manifest["finished"]
    assert plain["run"]["identity_sha256"] == manifest["identity_sha256"]
    assert plain["run"]["command_line"] == shlex.join(["vlm-harness", *argv[1:]])
    assert plain["run"]["report_url"] == "https://example.org/r?a=1#b"
    results = json.loads((run / "results.json").read_text())["results"]
    assert len(plain["results"]) == 2
    for row, result in zip(results, plain["results"], strict=True):
        assert result == {key: row[key] for key in result}
    assert load_entries([place / "board"], specs(place)) == [entry]


def test_a_run_of_several_models_writes_several(place: Path) -> None:
    from vlm_harness.evaluator import evaluate

    run = evaluate(
        [Earnest(oracle, "one"), Earnest(lambda _: "left", "two")],
        ["sides"],
        protocol=["generate"],
        data_dir=str(place / "data"),
        include_path=[str(place / "specs")],
        output_dir=str(place / "results"),
    )
    written = submit(run.path, specs(place), place / "board")
    assert [entry.model.name for _, entry in written] == ["one", "two"]
    assert [len(entry.results) for _, entry in written] == [1, 1]


def test_recorded_answers_are_taken_and_marked(place: Path, command: Command) -> None:
    answers = place / "recorded.jsonl"
    answers.write_text(
        "".join(
            json.dumps({"sample_id": f"thing{n}-{side}", "text": side}) + "\n"
            for n in range(6)
            for side in ("left", "right")
        )
    )
    code, _, err = command(
        "--model", f"replay:{answers}", "--tasks", "sides", "--include-path", place / "specs",
        "--data-dir", place / "data", "--output-dir", place / "results", "--run-id", "recorded",
    )  # fmt: skip
    assert code == 0, err
    (entry,) = entries_of(place / "results" / "recorded", specs(place))
    assert (entry.model.backend, entry.model.checkpoint) == ("replay", "recorded.jsonl")
    assert entry.results[0].primary.value == 1.0


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"images": "swapped"}, "image_mode", "swapped"),
        ({"labels": "original"}, "labels", "original"),
        ({"order": "both"}, "order", "both"),
    ],
)
def test_other_ways_of_asking_are_recorded(
    place: Path, options: dict[str, Any], field: str, value: str
) -> None:
    run = ask(place, run_id="other", **options)
    (entry,) = entries_of(run, specs(place))
    assert {getattr(result, field) for result in entry.results} == {value}


def edit_manifest(change: Callable[[Any], Any]) -> Change:
    """Of a run that is otherwise whole: its identity has the right checksum."""

    def apply(place: Path) -> None:
        def both(manifest: Any) -> None:
            change(manifest)
            manifest["identity_sha256"] = digest_of(manifest["identity"])

        edit(place / "results" / "r" / "manifest.json", both)

    return apply


def in_log(old: bytes, new: bytes) -> Change:
    def apply(place: Path) -> None:
        path = sorted((place / "results" / "r" / "samples").iterdir())[1]
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return apply


def in_results(change: Callable[[list[Any]], Any]) -> Change:
    return lambda place: edit(
        place / "results" / "r" / "results.json", lambda data: change(data["results"])
    )


def again(**options: Any) -> Change:
    return lambda place: ask(place, fresh=True, **options)


def failing(request: Request) -> Any:
    assert request.sample is not None
    if request.sample.id == "thing3-left":
        raise SampleError("no")
    return oracle(request)


REFUSED: list[tuple[Change, str]] = [
    (in_log(b"left", b"lefT"), r"generate.jsonl: the log was changed since the run finished"),
    (in_log(b"\n", b"\n\n"), r"the log was changed"),
    (
        lambda place: next((place / "results" / "r" / "samples").iterdir()).unlink(),
        "the log is not there",
    ),
    (
        edit_manifest(lambda m: m["logs"].popitem()),
        "the manifest has no checksum of this log",
    ),
    (
        in_results(lambda rows: rows[1]["metrics"]["pair_accuracy"].update(value=0.9)),
        r"results.json: it is not what the logs give: toy on sides \(generate, default, fixed, "
        r"greedy, corrected\): metric pair_accuracy value is 0.9, and 1.0 by the logs\n"
        r".*rescore",
    ),
    (
        in_results(lambda rows: rows[0]["metrics"]["pair_accuracy"].update(value=1 - 1e-8)),
        "metric pair_accuracy value is 0.99999999, and 1.0 by",
    ),
    (
        in_results(lambda rows: rows[0]["metrics"]["individual_accuracy"].update(n=13)),
        "metric individual_accuracy n is 13, and 12 by",
    ),
    (in_results(lambda rows: rows[0].update(n_tied=1)), "n_tied is 1, and 0 by the logs"),
    (
        in_results(lambda rows: rows[0]["categories"].pop("k1")),
        "categories k1 is null, and {",
    ),
    (in_results(lambda rows: rows[0].update(n_tied="0")), 'n_tied is "0", and 0 by'),
    (in_results(lambda rows: rows.pop()), "it has 1 rows, and the logs give 2"),
    (in_results(lambda rows: rows[0].update(protocol="x")), "it has no row of toy on sides"),
    (
        lambda place: (place / "results" / "r" / "results.json").write_text("[]"),
        "results.json: cannot be read: these are no results of a run",
    ),
    (
        lambda place: (place / "results" / "r" / "results.json").unlink(),
        "results.json: cannot be read: No such file",
    ),
    (again(limit=4), r"the run was limited to 4 samples of each task \(--limit\)"),
    (
        again(samples=["thing1-left", "thing1-right"]),
        r"the run was of chosen samples alone \(--samples\)",
    ),
    (
        edit_manifest(lambda m: m.update(finished=None)),
        "the run is not finished\nRun the same command again",
    ),
    (
        again(handler=failing),
        r"1 of 12 samples failed: toy on sides \(choice, letter, fixed, corrected\)\n(.|\n)*again",
    ),
    (
        lambda place: go(place, run_id="r", fresh=True, protocol=["choice"]),
        "the model toy is of the backend fake, which makes its answers up",
    ),
    (
        lambda place: edit(
            place / "results" / "r" / "manifest.json", lambda m: m["identity"].update(seed=1)
        ),
        "manifest.json: the manifest was changed: its identity is not that of its checksum",
    ),
    (
        edit_manifest(
            lambda m: m["identity"].update(tasks={"slides": m["identity"]["tasks"]["sides"]})
        ),
        "the manifest was changed",
    ),
    (edit_manifest(lambda m: m["identity"].update(models={})), "the manifest was changed"),
    (
        edit_manifest(lambda m: m["expected"][0].update(labels="original")),
        "the manifest was changed",
    ),
    (
        lambda place: edit(
            place / "results" / "r" / "manifest.json",
            lambda m: m["identity"]["cells"][0].pop("template"),
        ),
        "the manifest was changed",
    ),
    (
        lambda place: edit_spec(place, "task: sides", "task: slides"),
        r"the task 'sides' is not known here; did you mean 'slides'\?\n.*--include-path",
    ),
    (
        lambda place: edit_spec(place, "version: 1", "version: 2"),
        "the run is of version 1 of task sides, and here it is 2",
    ),
    (
        lambda place: edit_spec(place, "Give a short answer.", "Be short."),
        r"sides.yaml:\d+: the task sides of the run is not the one here, though both are version "
        "1: prompt differs",
    ),
    (
        # The order of commands says which is the default.
        lambda place: edit_spec(
            place, '{default: "Answer {{ options[0] }} or {{ options[1] }}.", short: "Give a short'
            ' answer."}', '{short: "Give a short answer.", default: "Answer {{ options[0] }} or '
            '{{ options[1] }}."}',
        ),
        "prompt differs",
    ),
    (
        lambda place: edit_spec(place, "{extract: keyword, max", "{extract: letter, max"),
        "protocols differs",
    ),
    (
        lambda place: (place / "specs" / "sides.yaml").write_text("task: sides\nversion: 1\n"),
        "sides.yaml:1: sample: this key is required",
    ),
    (
        edit_manifest(lambda m: m["identity"]["cells"][0]["template"].update(template="x")),
        r"lettered.yaml.*: the template that task sides was asked with \(choice, letter\)",
    ),
    (
        edit_manifest(lambda m: m["identity"]["cells"][1].update(question="Where?")),
        r"the question that task sides was asked with \(generate, default\) is not the one here",
    ),
    (
        edit_manifest(lambda m: m["identity"]["cells"][1].update(command="Guess.")),
        "the command that task sides was asked with",
    ),
    (
        edit_manifest(
            lambda m: m["identity"]["tasks"]["sides"].update(
                overlay={
                    "overlay": "o", "reference": "r",
                    "corrections": [{"id": "a", "was": "left", "answer": "right"}],
                }
            )
        ),
        "the label corrections of task sides are not those here",
    ),
    (
        lambda place: edit_spec(
            place, "path: sides/rows.jsonl",
            f"path: sides/rows.jsonl, source: {{sha256: {{sides/rows.jsonl: {'0' * 64}}}}}",
        ),
        "the run read another sides/rows.jsonl than the one that task sides names",
    ),
    (
        edit_manifest(lambda m: m.update(finished="yesterday")),
        "manifest.json: run.finished: must be a time with its zone",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused(place: Path, change: Change, message: str) -> None:
    change(place)
    with pytest.raises(InputError, match=message):
        submit(place / "results" / "r", specs(place), place / "board")
    assert not list(place.glob("board/*"))


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is no run folder"):
        entries_of(tmp_path, Registry.standard())


def test_all_that_speaks_against_a_run_is_one_message(place: Path, command: Command) -> None:
    ask(place, limit=4, fresh=True, handler=failing)
    in_log(b"left", b"lefT")(place)
    edit_spec(place, "version: 1", "version: 3")
    run = place / "results" / "r"
    message = refused(result(command, "add", run, "--include-path", place / "specs"))
    for part in ("limited to 4", "log was changed", "version 1 of task sides, and here it is 3"):
        assert part in message
    assert "by the logs" not in message  # which are not the run's


@pytest.mark.parametrize(
    "change",
    [
        lambda place: edit_spec(place, "Two-way toy pairs.", "Other words."),
        lambda place: edit_spec(place, "groups: [toys]", "groups: [toys, others]"),
        # Written when tasks had fewer keys.
        edit_manifest(lambda m: m["identity"]["tasks"]["sides"]["spec"].pop("exif")),
        edit_manifest(lambda m: m["identity"]["tasks"]["sides"]["spec"].pop("positive")),
        edit_manifest(lambda m: m["models"].clear()),
        edit_manifest(lambda m: [m.pop("environment"), m.pop("command_line"), m.pop("run_id")]),
        edit_manifest(lambda m: m.update(environment={}, command_line='"')),
        in_results(lambda rows: rows[0]["metrics"]["pair_accuracy"].update(value=1 - 1e-12)),
        in_results(lambda rows: rows.reverse()),
    ],
)
def test_what_changes_no_score_is_taken(place: Path, change: Change) -> None:
    change(place)
    assert entries_of(place / "results" / "r", specs(place))


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "ftp://example.org/", "example.org", "https://", "https://a b/",
     "https://me:secret@example.org/", "https://example.org/\n", 'https://example.org/"onload=',
     "data:text/html,x", "//example.org", "https://[", "https://example.org/\u202e"],
)  # fmt: skip
def test_addresses_that_are_none(made: Path, url: str) -> None:
    with pytest.raises(InputError, match="--report-url"):
        entries_of(made / "results" / "r", specs(made), url)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_changed_byte_of_a_log_is_refused(made: Path, data: st.DataObject) -> None:
    registry = Registry([])  # the log is looked at whatever else is wrong
    run = made / "results" / "r"
    log = data.draw(st.sampled_from(sorted((run / "samples").iterdir())))
    whole = log.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    try:
        log.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        with pytest.raises(InputError, match=f"{log.name}: the log was changed"):
            entries_of(run, registry)
    finally:
        log.write_bytes(whole)


# --- entries of strangers -------------------------------------------------------------------------


def put(folder: Path, data: Any, name: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if name is None:
        name = f"{data['model']['name']}__{data['run']['identity_sha256'][:10]}.json"
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def at(data: Any, *steps: str | int) -> Any:
    for step in steps:
        data = data[step]
    return data


@pytest.mark.parametrize(
    ("place_of", "value", "message"),
    [
        (["schema"], 2, "schema: must be 1"),
        (["schema"], None, "schema"),
        (["extra"], 1, "unknown key 'extra'"),
        (["model", "extra"], 1, "unknown key 'model.extra'"),
        (["model", "name"], "<b>", "model.name"),
        (["model", "name"], "../x", "model.name"),
        (["model", "checkpoint"], "x" * 301, "model.checkpoint"),
        (["model", "encoder"], "a\x1b[31m", "model.encoder: must be one line of plain text"),
        (["model", "encoder"], "a\u202eb", "model.encoder: must be one line of plain text"),
        (["model", "encoder"], "", "model.encoder"),
        (["model", "parameters"], -1, "model.parameters"),
        (["model", "parameters"], 7.5, "model.parameters"),
        (["model", "family"], "llm", "model.family"),
        (["run", "identity_sha256"], "0" * 63, "run.identity_sha256"),
        (["run", "git_commit"], "HEAD", "run.git_commit"),
        (["run", "finished"], "2025-01-31", "run.finished: must be a time with its zone"),
        (["run", "report_url"], "javascript:alert(1)", "run.report_url: must be the address of"),
        (["run", "command_line"], "x" * 20_001, "run.command_line"),
        (["run", "command_line"], "x\x00", "command_line holds control characters"),
        (["results"], [], "results"),
        (["results", 0, "task"], "slides", "unknown task 'slides'; did you mean 'sides'?"),
        (["results", 0, "task_version"], 2, "task sides has no version 2; it is 1"),
        (["results", 0, "task_version"], True, "results.0.task_version"),
        (["results", 0, "protocol"], "similarly", "does not declare the protocol 'similarly'"),
        (["results", 0, "order"], "any", "results.0.order"),
        (["results", 0, "decoding"], "greedy; rm", "results.0.decoding"),
        (["results", 0, "primary_metric"], "accuracy", "'accuracy' is not one of metrics"),
        (["results", 0, "metrics"], {}, "results.0.metrics"),
        (["results", 0, "n_samples"], 0, "results.0.n_samples"),
        (["results", 0, "n_incomplete"], 7, "n_incomplete is 7, of 6 n_groups"),
        (["results", 0, "metrics", "pair_accuracy", "value"], 100.0, "lies outside its interval"),
        (["results", 0, "metrics", "pair_accuracy", "value"], "1", "must be a number"),
        (["results", 0, "metrics", "pair_accuracy", "value"], None, "both ends, or neither"),
        (["results", 0, "metrics", "pair_accuracy", "ci_low"], None, "both ends, or neither"),
        (["results", 0, "metrics", "pair_accuracy", "ci_high"], 2.0, "ci_high is 2, and must be"),
        (["results", 0, "metrics", "pair_accuracy", "chance"], -0.5, "chance is -0.5, and must"),
        (["results", 0, "metrics", "pair_accuracy", "n"], 10**10, "pair_accuracy.n"),
        (["results", 0, "metrics", "a b"], {}, "results.0.metrics.a b"),
    ],
)
def test_entries_that_are_none(
    entry: dict[str, Any], registry: Registry, tmp_path: Path, place_of: list[str | int],
    value: Any, message: str,
) -> None:  # fmt: skip
    at(entry, *place_of[:-1])[place_of[-1]] = value
    path = put(tmp_path / "board", entry, f"toy__{str(entry['run']['identity_sha256'])[:10]}.json")
    with pytest.raises(InputError) as error:
        load_entries([tmp_path / "board"], registry)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_every_key_is_required(entry: dict[str, Any], tmp_path: Path) -> None:
    for steps in ([], ["model"], ["run"], ["results", 0], ["results", 0, "metrics"]):
        for key in at(entry, *steps):
            changed = copy.deepcopy(entry)
            at(changed, *steps).pop(key)
            path = tmp_path / "x.json"
            path.write_text(json.dumps(changed))
            with pytest.raises(InputError):
                read_entry(path)


def test_a_result_twice(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    entry["results"].append(entry["results"][0])
    put(tmp_path / "board", entry)
    with pytest.raises(InputError, match=r"two results are of sides / choice"):
        load_entries([tmp_path / "board"], specs(made))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema": NaN}', "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("[" * 10**5, "not valid JSON"),
        (" " * (2**20 + 1), "too large"),
        ('{"schema": 1, "model": "\\ud800"}', "model"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x__0.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_entries([tmp_path], Registry([]))


def test_every_bad_file_is_told(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    put(tmp_path, entry)
    put(tmp_path, {**entry, "schema": 3}, "a.json")
    put(tmp_path, entry, "b.json")
    with pytest.raises(InputError) as error:
        load_entries([tmp_path], specs(made))
    assert "a.json: schema" in str(error.value)
    assert "b.json: its name does not fit what it holds: it must be toy__" in str(error.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_anywhere_is_an_entry_or_one_message(
    whole: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plain = copy.deepcopy(whole)
    spot: Any = plain
    while True:
        key = data.draw(st.sampled_from(list(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], dict | list) or data.draw(st.booleans()):
            break
        spot = spot[key]
    plainly = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    spot[key] = data.draw(
        plainly | st.lists(plainly, max_size=3) | st.dictionaries(st.text(), plainly, max_size=3)
    )
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(plain))
    try:
        read_entry(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_of_two_runs_of_a_model_the_later_is_newest(
    entry: dict[str, Any], made: Path, tmp_path: Path
) -> None:
    earlier = copy.deepcopy(entry)
    earlier["run"]["finished"] = "2020-01-01T00:00:00+00:00"
    earlier["run"]["identity_sha256"] = "f" * 64
    earlier["results"][0]["command"] = "short"  # asked in this way by no other
    for each in (entry, earlier):
        put(tmp_path, each)
    found = load_entries([tmp_path], specs(made))
    assert len(found) == 2
    old = "2020-01-01T00:00:00+00:00"
    state = {(row.entry.run.finished == old, row.result.command, row.result.protocol): row.newest
             for row in rows(found)}  # fmt: skip
    assert state == {
        (True, "short", "choice"): True,
        (True, "default", "generate"): False,
        (False, "letter", "choice"): True,
        (False, "default", "generate"): True,
    }


def test_an_earlier_version_of_a_task_stays(
    entry: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    put(tmp_path / "board", entry)
    edit_spec(place, "version: 1", "version: 2")
    edit_spec(place, "relaxed_pair_accuracy, ", "")
    assert load_entries([tmp_path / "board"], specs(place))


def test_what_else_lies_beside_entries(tmp_path: Path) -> None:
    for name in ("README.md", "a.json"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    (tmp_path / "index.html").touch()
    (tmp_path / "b.json").mkdir()
    with pytest.raises(InputError, match=r"b.json: only entries(.|\n)*index.html: only entries"):
        check_folder(tmp_path)


def test_the_projects_own_results_fit() -> None:
    check_folder(ROOT / "leaderboard" / "results")
    load_entries([ROOT / "leaderboard" / "results"], Registry.standard())


# --- published rows -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> list[PublishedRow]:
    return published_rows(Registry.standard())


def test_every_number_of_the_paper_is_in_one_row(published: list[PublishedRow]) -> None:
    registry = Registry.standard()
    for number in paper_tables():
        for cell in cells(load(str(number)), registry):
            same = [
                row.values[cell.metric]
                for row in published
                if number in row.tables
                and (row.name, row.task, row.protocol, row.decoding, row.cited)
                == (cell.name, cell.task, cell.protocol, cell.decoding, cell.cited)
                and cell.metric in row.values
            ]
            if cell.value is not None:
                scale = 1 if "cosine" in cell.metric else 100
                assert [round(scale * value, 6) for value in same] == [cell.value]
    assert all(row.values for row in published)
    assert all(0 <= value <= 1 for row in published for value in row.values.values())


def test_rows_that_tables_share_are_there_once(published: list[PublishedRow]) -> None:
    (clip,) = (
        row
        for row in published
        if (row.name, row.task) == ("CLIP-ViT-L/14-336px", "whatsup_a_left_right")
    )
    assert clip.tables == (1, 5, 12)
    assert clip.values == {"individual_accuracy": 0.49, "pair_accuracy": 0.019}
    assert clip.encoder == "CLIP ViT-L/14-336"
    assert clip.reference
    assert clip.repeatable


def test_numbers_that_tables_disagree_on_are_both_there(published: list[PublishedRow]) -> None:
    found = [
        row
        for row in published
        if row.name == "SigLIP-ViT-L/16-384px + finetuning" and row.task == "whatsup_a_left_right"
    ]
    assert [row.tables for row in found] == [(5,), (9,), (10,)]
    assert len({tuple(row.values.items()) for row in found}) == 3


def test_quotations_are_marked(published: list[PublishedRow]) -> None:
    cited = [row for row in published if row.cited]
    assert {row.name for row in cited} == {
        "w/ RP (Jiao et al., 2024)", "w/ DIVA (Wang et al. 2024a)",
    }  # fmt: skip
    assert all(row.model is None and row.note and not row.repeatable for row in cited)


# --- commands -------------------------------------------------------------------------------------


def result(command: Command, *args: object) -> Result:
    return Result(*command("leaderboard", *args))


def test_add_and_check(place: Path, command: Command, tmp_path: Path) -> None:
    board, include = tmp_path / "board", ["--include-path", place / "specs"]
    done = result(command, "add", place / "results" / "r", "--results-dir", board, *include)
    assert done.code == 0, done.err
    assert "toy, 2 results" in done.out
    assert "no proof against fraud" in done.out
    done = result(command, "check", board, *include)
    assert (done.code, done.out.splitlines()[0]) == (0, "1 entry with 2 results fit")
    (path,) = board.iterdir()
    assert result(command, "check", path, *include).code == 0
    assert "unknown task 'sides'" in refused(result(command, "check", path))
    assert "cannot be read" in refused(result(command, "check", tmp_path / "none.json"))


def test_help_says_that_it_is_no_proof(command: Command) -> None:
    assert "no proof against fraud" in " ".join(result(command, "add", "--help").out.split())
    assert "leaderboard" in command("--help")[1]


def test_entries_go_to_the_checkout(command: Command, tmp_path: Path) -> None:
    from vlm_harness.leaderboard.entry import results_folder, results_folders

    assert results_folder() == ROOT / "leaderboard" / "results"
    assert results_folders() == [ROOT / "leaderboard" / "results"]


def test_entries_go_to_the_working_directory_without_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vlm_harness import paths
    from vlm_harness.leaderboard.entry import results_folder, results_folders

    (tmp_path / "_data" / "leaderboard" / "results").mkdir(parents=True)
    monkeypatch.setattr(paths, "bundled", lambda: tmp_path / "_data")
    assert results_folder() == Path("leaderboard/results")
    monkeypatch.chdir(tmp_path)
    assert results_folders() == [tmp_path / "_data" / "leaderboard" / "results"]


def test_build(entry: dict[str, Any], made: Path, command: Command, tmp_path: Path) -> None:
    put(tmp_path / "board", entry)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "r.html").write_text("the report of run r")
    done = result(
        command, "build", "--output", tmp_path / "out", "--results-dir", tmp_path / "board",
        "--reports", tmp_path / "reports", "--include-path", made / "specs",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert set(tree(tmp_path / "out")) == {"index.html", "results.json", "reports/r.html"}
    assert "1 entry and 194 published rows" in (tmp_path / "out" / "index.html").read_text()
    assert "1 entry, 194 published rows" in done.out
    message = refused(result(command, "build", "--results-dir", tmp_path / "none"))
    assert "there is no such folder" in message


def test_neither_check_nor_build_need_what_models_need(
    entry: dict[str, Any], made: Path, tmp_path: Path
) -> None:
    put(tmp_path / "board", entry)
    heavy = ["torch", "torchvision", "transformers", "open_clip", "datasets", "evaluate", "scipy",
             "huggingface_hub", "jsonlines", "matplotlib"]  # fmt: skip
    script = f"""
import sys
sys.modules.update(dict.fromkeys({heavy!r}))  # importing them fails
from vlm_harness import cli
for command in (["check", "board"], ["build", "--results-dir", "board"]):
    sys.argv = ["vlm-harness", "leaderboard", *command, "--include-path", {str(made / "specs")!r}]
    cli.main()
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "1 entry with 2 results fit" in done.out
    assert (tmp_path / "site" / "index.html").is_file()


# --- publishing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "space:", "space:me", "space:me/a/b", "folder:", "model:me/x", "me/x", "space:../x"],
)
def test_targets_that_are_none(command: Command, text: str) -> None:
    assert "--to: cannot tell where" in refused(result(command, "publish", "--to", text))


@pytest.fixture
def board(entry: dict[str, Any], made: Path, tmp_path: Path) -> list[object]:
    """Of one entry, which has a report."""
    put(tmp_path / "board", entry)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "r.html").write_text("the report of run r")
    return [
        "--results-dir", tmp_path / "board", "--include-path", made / "specs",
        "--reports", tmp_path / "reports",
    ]  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_folder_holds_what_was_published_last(
    board: list[object], command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    to = ["publish", "--to", f"folder:{folder}", *board]
    assert result(command, *to).code == 0
    assert set(tree(folder)) == {
        ".nojekyll", ".leaderboard.json", "index.html", "results.json", "reports/r.html",
    }  # fmt: skip
    (folder / ".git").mkdir()
    (folder / ".git" / "config").touch()
    (folder / "CNAME").write_text("example.org")
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "reports" / "r.html").unlink()
    assert result(command, *to).code == 0
    assert set(tree(folder)) == {
        ".nojekyll", ".leaderboard.json", "index.html", "results.json", ".git/config", "CNAME",
        "mine.txt",
    }  # fmt: skip
    assert not (folder / "reports").exists()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ({"thesis.tex": ""}, "holds files that no `leaderboard publish` wrote: thesis.tex"),
        ({"index.html": "mine", "CNAME": ""}, "holds files that no .* index.html"),
        ({".leaderboard.json": '{"files": []}', "index.html": "mine"}, "would be replaced"),
        (
            {".leaderboard.json": '{"files": []}', "reports": "a file"},
            "would be replaced .*reports",
        ),
        ({".leaderboard.json": "[]"}, "it does not list what was published"),
    ],
)
def test_a_folder_of_somebody_else_is_left_alone(
    board: list[object], command: Command, tmp_path: Path, before: dict[str, str], message: str
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, text in before.items():
        (folder / name).write_text(text)
    done = result(command, "publish", "--to", f"folder:{folder}", *board)
    assert re.search(message, refused(done))
    assert tree(folder) == before


def test_a_list_of_files_cannot_reach_outside(
    board: list[object], command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (tmp_path / "precious").write_text("keep")
    (folder / "reports").symlink_to(tmp_path)
    listed = ["../precious", str(tmp_path / "precious"), "reports/precious"]
    (folder / ".leaderboard.json").write_text(json.dumps({"files": listed}))
    done = result(command, "publish", "--to", f"folder:{folder}", *board)
    assert "would be replaced" in refused(done)  # the link is nobody's that is known
    assert (tmp_path / "precious").read_text() == "keep"
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("to", ["folder:pages", "space:me/board", "dataset:me/board"])
def test_a_dry_run_lists_and_writes_nothing(
    board: list[object], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = result(command, "publish", "--to", to, "--dry-run", *board)
    assert done.code == 0, done.err
    assert f"to {to}" in done.out
    assert ("entries/toy__" if "dataset" in to else "index.html") in done.out
    assert not (tmp_path / "pages").exists()


def test_a_folder_cannot_be_private(command: Command, tmp_path: Path) -> None:
    done = result(command, "publish", "--to", f"folder:{tmp_path}", "--private")
    assert "it has no effect on a folder" in refused(done)


def on_hub(hub: Hub, board: list[object], *args: str, **environment: str) -> Any:
    """``leaderboard publish`` in a Python of its own, since the library reads addresses once."""
    script = "from vlm_harness import cli; cli.main()"
    given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", **environment}
    return python("-c", script, "leaderboard", "publish", *map(str, (*args, *board)), **given)


def test_a_space_is_made_and_kept_up(board: list[object], tmp_path: Path) -> None:
    with serving() as hub:
        done = on_hub(hub, board, "--to", "space:me/board", HF_HOME=str(tmp_path))
        assert done.code == 0, done.err
        assert f"{hub.url}/spaces/me/board" in done.out
        (made,) = hub.created
        assert (made["type"], made["sdk"]) == ("space", "static")
        assert not made.get("private")
        files = hub.repos["spaces/me/board"]
        assert b"1 entry and 194 published rows" in files["index.html"]
        assert b"\nsdk: static\n" in files["README.md"]
        assert "reports/r.html" in files
        assert [call.split()[1].split("/")[-2] for call in hub.calls[-2:]] == [
            "preupload",
            "commit",
        ]
        files["theirs.txt"] = b"mine"
        (tmp_path / "reports" / "r.html").unlink()
        done = on_hub(hub, board, "--to", "space:me/board", HF_HOME=str(tmp_path))
        assert done.code == 0, done.err
        assert "reports/r.html" not in files
        assert files["theirs.txt"] == b"mine"
        assert len(hub.created) == 1


def test_a_data_set_is_made_that_can_be_loaded(
    board: list[object], tmp_path: Path, entry: dict[str, Any]
) -> None:
    with serving() as hub:
        done = on_hub(hub, board, "--to", "dataset:me/data", "--private", HF_HOME=str(tmp_path))
        assert done.code == 0, done.err
        assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
        files = hub.repos["datasets/me/data"]
    names = {name for name in files if name.startswith("entries/")}
    assert [json.loads(files[name]) for name in names] == [entry]
    lines = [json.loads(line) for line in files["results.jsonl"].splitlines()]
    assert {(line["model"], line["task"]) for line in lines} == {("toy", "sides")}
    assert {line["metric"]: line["value"] for line in lines}["pair_accuracy"] == 1.0
    card = files["README.md"].decode()
    assert "- config_name: results\n  data_files: results.jsonl\n" in card


@pytest.mark.slow
def test_load_dataset_reads_what_is_published(
    made: Path, entry: dict[str, Any], tmp_path: Path
) -> None:
    import datasets

    registry = specs(made)
    put(tmp_path / "board", entry)
    folder = tmp_path / "data"
    folder.mkdir()
    content = Content(
        load_entries([tmp_path / "board"], registry), published_rows(registry), registry
    )
    prepare(parse_target("dataset:me/data"), content, folder)
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset(str(folder), "results", split="train", cache_dir=cache)
    assert set(found["model"]) == {"toy"}
    found = datasets.load_dataset(str(folder), "published", split="train", cache_dir=cache)
    assert len(found) > 250


def test_a_data_set_without_submissions_has_no_empty_table(tmp_path: Path) -> None:
    registry = Registry.standard()
    content = Content([], published_rows(registry), registry)
    files = prepare(parse_target("dataset:me/data"), content, tmp_path)
    assert "results.jsonl" not in files
    assert "config_name: results" not in files["README.md"].read_text()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": "hf_wrong"}, "the hub does not take the token\nLog in with `hf auth login`"),
        ({"HF_TOKEN": ""}, "nobody is logged in to the Hugging Face hub\nLog in with"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached (Connect"),
        ({"HF_HUB_OFFLINE": "1"}, "the hub cannot be reached (OfflineModeIsEnabled"),
    ],
)
def test_a_hub_that_says_no(
    board: list[object], tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with serving() as hub:
        given = {"HF_HOME": str(tmp_path / "home"), **environment}
        assert message in refused(on_hub(hub, board, "--to", "dataset:me/data", **given))
        assert not hub.repos


def test_a_hub_that_holds_something_else(board: list[object], tmp_path: Path) -> None:
    with serving() as hub:
        hub.repos["spaces/me/app"] = {"app.py": b"", "README.md": b""}
        done = on_hub(hub, board, "--to", "space:me/app", HF_HOME=str(tmp_path))
        assert "holds files that no `leaderboard publish` wrote: app.py" in refused(done)
        assert set(hub.repos["spaces/me/app"]) == {"app.py", "README.md"}
        hub.allowed = False
        done = on_hub(hub, board, "--to", "space:them/app", HF_HOME=str(tmp_path))
        assert "the hub does not let you write there" in refused(done)


# --- serving --------------------------------------------------------------------------------------


def test_serve(board: list[object], tmp_path: Path) -> None:
    arguments = ["-c", "from vlm_harness import cli; cli.main()", "leaderboard", "serve"]
    process = subprocess.Popen(
        [sys.executable, *arguments, "--port", "0", *map(str, board)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert b"1 entry and 194 published rows" in urllib.request.urlopen(address).read()
        assert urllib.request.urlopen(address + "reports/r.html").read() == b"the report of run r"
        (tmp_path / "secret").write_text("secret")
        for path in ("reports/", "reports", "../secret", "%2e%2e/secret", "none"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)
        port = address.rstrip("/").rpartition(":")[2]
        message = python(*arguments, "--port", port, *map(str, board))
        assert message.code == 2
        assert "cannot listen on 127.0.0.1" in message.err
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("vlm-harness-*"))


def test_publish_writes_nothing_where_nothing_can_be_written(tmp_path: Path) -> None:
    registry = Registry.standard()
    place = tmp_path / "made"
    place.mkdir()
    files = prepare(parse_target("dataset:me/data"), Content([], [], registry), place)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="it is no folder"):
        publish(parse_target(f"folder:{tmp_path / 'file'}"), files)
    with pytest.raises(InputError, match="cannot be written"):
        publish(parse_target(f"folder:{tmp_path / 'file' / 'below'}"), files)


def test_entries_are_written_as_people_read_them(made: Path) -> None:
    (entry,) = entries_of(made / "results" / "r", specs(made))
    assert dump(entry).startswith('{\n "schema": 1,\n "model": {\n  "name": "toy",\n')


# --- what CI runs ---------------------------------------------------------------------------------


def test_the_workflow_runs_what_a_fork_sends_without_rights() -> None:
    import yaml

    path = ROOT / ".github" / "workflows" / "leaderboard.yml"
    flow = yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # in which `on` is a word
    assert set(flow["on"]) == {"pull_request", "push", "workflow_dispatch"}
    assert flow["permissions"] == {"contents": "read"}
    assert "permissions" not in flow["jobs"]["build"]
    assert flow["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "pull_request" in flow["jobs"]["deploy"]["if"]
    assert "secrets." not in path.read_text()
    runs = [step.get("run", "") for step in flow["jobs"]["build"]["steps"]]
    assert any("leaderboard check" in run for run in runs)
    assert any("leaderboard build" in run for run in runs)
