"""The checks of a run before it becomes an entry. Fixtures: helpers/leaderboard.py."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.bench import Command, refused
from helpers.leaderboard import RealBackend, ask, edit, edit_spec, result, specs
from helpers.runs import go, oracle
from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError, SampleError
from vlm_harness.leaderboard.entry import load_entries
from vlm_harness.leaderboard.submit import entries_of, submit
from vlm_harness.logs.identity import digest_of
from vlm_harness.logs.lines import read_manifest
from vlm_harness.specs.registry import Registry
from vlm_harness.types import Request

Change = Callable[[Path], Any]


# --- checksums of logs ----------------------------------------------------------------------------


def logged_checksums(run: Path) -> Any:
    return read_manifest(run)["logs"]


def checksums_match(run: Path) -> bool:
    logs = {f"samples/{path.name}": checksum(path) for path in (run / "samples").iterdir()}
    return bool(logged_checksums(run) == logs)


def test_a_finished_run_has_checksums_of_its_logs(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert logged_checksums(bench / "results" / "r") is None
        return oracle(request)

    run = ask(bench, handler)
    assert len(logged_checksums(run)) == 2
    assert checksums_match(run)


def last_line(log: bytes) -> int:
    return log.rindex(b"\n", 0, -1) + 1


@pytest.mark.parametrize(
    ("damage", "n_answered"),
    [
        (lambda log: log[:-9], 1),  # truncated line
        (lambda log: log + log[last_line(log) :], 0),  # duplicate line
        (lambda log: log + b'{"schema"', 0),  # truncated line after the last
        (lambda log: log[: last_line(log)], 1),
    ],
)
def test_checksums_after_resuming_a_run(
    place: Path, damage: Callable[[bytes], bytes], n_answered: int
) -> None:
    run = place / "results" / "r"
    log = sorted((run / "samples").iterdir())[0]
    log.write_bytes(damage(log.read_bytes()))
    requests = []

    def handler(request: Request) -> Any:
        requests.append(request)
        return oracle(request)

    ask(place, handler)
    assert len(requests) == n_answered
    assert checksums_match(run)
    assert entries_of(run, specs(place))


def test_printing_a_run_does_not_update_the_checksum_of_an_edited_log(place: Path) -> None:
    run = place / "results" / "r"
    one, other = sorted((run / "samples").iterdir())
    one.write_bytes(one.read_bytes().replace(b'"correct": true', b'"correct": fals', 1))
    one.write_bytes(one.read_bytes().replace(b"fals,", b"false,"))
    other.write_bytes(other.read_bytes() + b"{")
    # In the format of the harness, so that no line needs repair.
    assert ask(place) == run
    assert logged_checksums(run)[f"samples/{other.name}"] == checksum(other)
    assert logged_checksums(run)[f"samples/{one.name}"] != checksum(one)


def test_the_same_command_adds_checksums_to_an_old_manifest(place: Path) -> None:
    run = place / "results" / "r"
    before = read_manifest(run)
    edit(run / "manifest.json", lambda manifest: manifest.pop("logs"))
    with pytest.raises(InputError, match=r"no checksums of the logs(.|\n)*adds the checksums"):
        entries_of(run, specs(place))
    ask(place)
    assert read_manifest(run) == before


# --- adding a run ---------------------------------------------------------------------------------


def test_an_entry_describes_its_run(place: Path) -> None:
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
    for row, taken in zip(results, plain["results"], strict=True):
        assert taken == {key: row[key] for key in taken}
    assert load_entries([place / "board"], specs(place)) == [entry]


def test_an_entry_records_that_its_model_is_unverified(place: Path) -> None:
    run = place / "results" / "r"
    edit_manifest(lambda m: m["identity"]["models"]["toy"].update(verified=False))(place)
    ((path, entry),) = submit(run, specs(place), place / "board")
    assert not entry.model.verified
    assert json.loads(path.read_text())["model"]["verified"] is False


def test_a_run_with_several_models_writes_one_entry_each(place: Path) -> None:
    from vlm_harness.runs.evaluator import evaluate

    run = evaluate(
        [RealBackend(oracle, "one"), RealBackend(lambda _: "left", "two")],
        ["sides"],
        protocol=["generate"],
        data_dir=str(place / "data"),
        include_path=[str(place / "specs")],
        output_dir=str(place / "results"),
    )
    written = submit(run.path, specs(place), place / "board")
    assert [entry.model.name for _, entry in written] == ["one", "two"]
    assert [len(entry.results) for _, entry in written] == [1, 1]


def test_recorded_answers_are_accepted_and_marked(place: Path, command: Command) -> None:
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
def test_other_settings_are_recorded(
    place: Path, options: dict[str, Any], field: str, value: str
) -> None:
    run = ask(place, run_id="other", **options)
    (entry,) = entries_of(run, specs(place))
    assert {getattr(result, field) for result in entry.results} == {value}


def edit_manifest(change: Callable[[Any], Any]) -> Change:
    """Change the manifest, and update the checksum of its identity."""

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


def rerun(**options: Any) -> Change:
    return lambda place: ask(place, fresh=True, **options)


def failing(request: Request) -> Any:
    assert request.sample is not None
    if request.sample.id == "thing3-left":
        raise SampleError("no")
    return oracle(request)


REFUSED: list[tuple[Change, str]] = [
    (in_log(b"left", b"lefT"), r"generate.jsonl: the log was changed after the run finished"),
    (in_log(b"\n", b"\n\n"), r"the log was changed"),
    (
        lambda place: next((place / "results" / "r" / "samples").iterdir()).unlink(),
        "log not found",
    ),
    (
        edit_manifest(lambda m: m["logs"].popitem()),
        "the manifest has no checksum of this log",
    ),
    (
        in_results(lambda rows: rows[1]["metrics"]["pair_accuracy"].update(value=0.9)),
        r"results.json: it does not match the logs: toy on sides \(generate, default, fixed, "
        r"greedy, corrected\): metric pair_accuracy value is 0.9, but the logs give 1.0\n"
        r".*rescore",
    ),
    (
        in_results(lambda rows: rows[0]["metrics"]["pair_accuracy"].update(value=1 - 1e-8)),
        "metric pair_accuracy value is 0.99999999, but the logs give 1.0",
    ),
    (
        in_results(lambda rows: rows[0]["metrics"]["individual_accuracy"].update(n=13)),
        "metric individual_accuracy n is 13, but the logs give 12",
    ),
    (in_results(lambda rows: rows[0].update(n_tied=1)), "n_tied is 1, but the logs give 0"),
    (
        in_results(lambda rows: rows[0]["categories"].pop("k1")),
        "categories k1 is null, but the logs give {",
    ),
    (in_results(lambda rows: rows[0].update(n_tied="0")), 'n_tied is "0", but the logs give 0'),
    (in_results(lambda rows: rows.pop()), "it has 1 rows, but the logs give 2"),
    (in_results(lambda rows: rows[0].update(protocol="x")), "it has no row for toy on sides"),
    (
        lambda place: (place / "results" / "r" / "results.json").write_text("[]"),
        "results.json: cannot be read: not the results of a run",
    ),
    (
        lambda place: (place / "results" / "r" / "results.json").unlink(),
        "results.json: cannot be read: No such file",
    ),
    (rerun(limit=4), r"the run is limited to 4 samples per task \(--limit\)"),
    (
        rerun(samples=["thing1-left", "thing1-right"]),
        r"the run covers only selected samples \(--samples\)",
    ),
    (
        edit_manifest(lambda m: m.update(finished=None)),
        "the run is not finished\nRerun the original command to resume it",
    ),
    (
        rerun(handler=failing),
        r"1 of 12 samples failed: toy on sides \(choice, letter, fixed, corrected\)\n(.|\n)*"
        "Rerun the original command",
    ),
    (
        lambda place: go(place, run_id="r", fresh=True, protocol=["choice"]),
        "model 'toy' uses the fake backend; invented answers are not accepted",
    ),
    (
        lambda place: edit(
            place / "results" / "r" / "manifest.json", lambda m: m["identity"].update(seed=1)
        ),
        "manifest.json: the manifest was changed: its identity does not match its checksum",
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
        r"unknown task 'sides'; did you mean 'slides'\?\n.*--include-path",
    ),
    (
        lambda place: edit_spec(place, "version: 1", "version: 2"),
        "the run used version 1 of task sides; the current version is 2",
    ),
    (
        lambda place: edit_spec(place, "Give a short answer.", "Be short."),
        r"sides.yaml:\d+: task sides of the run differs from the current one, though both are "
        "version 1: prompt differs",
    ),
    (
        # The first command is the default.
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
        r"lettered.yaml.*: the template used for task sides \(choice, letter\) differs",
    ),
    (
        edit_manifest(lambda m: m["identity"]["cells"][1].update(question="Where?")),
        r"the question used for task sides \(generate, default\) differs from the current one",
    ),
    (
        edit_manifest(lambda m: m["identity"]["cells"][1].update(command="Guess.")),
        "the command used for task sides",
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
        "the label corrections of task sides differ from the current ones",
    ),
    (
        lambda place: edit_spec(
            place, "path: sides/rows.jsonl",
            f"path: sides/rows.jsonl, source: {{sha256: {{sides/rows.jsonl: {'0' * 64}}}}}",
        ),
        "the checksum of sides/rows.jsonl in the run is not the one of task sides",
    ),
    (
        edit_manifest(lambda m: m.update(finished="yesterday")),
        "manifest.json: run.finished: must be a time with a time zone",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused(place: Path, change: Change, message: str) -> None:
    change(place)
    with pytest.raises(InputError, match=message):
        submit(place / "results" / "r", specs(place), place / "board")
    assert not list(place.glob("board/*"))


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        entries_of(tmp_path, Registry.standard())


def test_all_problems_of_a_run_are_one_message(place: Path, command: Command) -> None:
    ask(place, limit=4, fresh=True, handler=failing)
    in_log(b"left", b"lefT")(place)
    edit_spec(place, "version: 1", "version: 3")
    run = place / "results" / "r"
    message = refused(result(command, "add", run, "--include-path", place / "specs"))
    for part in (
        "limited to 4",
        "log was changed",
        "version 1 of task sides; the current version is 3",
    ):
        assert part in message
    assert "the logs give" not in message  # the logs are not those of the run


@pytest.mark.parametrize(
    "change",
    [
        lambda place: edit_spec(place, "Two-way toy pairs.", "Other words."),
        lambda place: edit_spec(place, "groups: [toys]", "groups: [toys, others]"),
        # From versions with fewer keys in tasks.
        edit_manifest(lambda m: m["identity"]["tasks"]["sides"]["spec"].pop("exif")),
        edit_manifest(lambda m: m["identity"]["tasks"]["sides"]["spec"].pop("positive")),
        edit_manifest(lambda m: m["models"].clear()),
        edit_manifest(lambda m: [m.pop("environment"), m.pop("command_line"), m.pop("run_id")]),
        edit_manifest(lambda m: m.update(environment={}, command_line='"')),
        in_results(lambda rows: rows[0]["metrics"]["pair_accuracy"].update(value=1 - 1e-12)),
        in_results(lambda rows: rows.reverse()),
    ],
)
def test_changes_that_affect_no_score_are_accepted(place: Path, change: Change) -> None:
    change(place)
    assert entries_of(place / "results" / "r", specs(place))


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "ftp://example.org/", "example.org", "https://", "https://a b/",
     "https://me:secret@example.org/", "https://example.org/\n", 'https://example.org/"onload=',
     "data:text/html,x", "//example.org", "https://[", "https://example.org/\u202e"],
)  # fmt: skip
def test_invalid_report_urls_are_refused(made: Path, url: str) -> None:
    with pytest.raises(InputError, match="--report-url"):
        entries_of(made / "results" / "r", specs(made), url)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_changed_byte_of_a_log_is_refused(made: Path, data: st.DataObject) -> None:
    registry = Registry([])  # logs are checked whatever else is wrong
    run = made / "results" / "r"
    log = data.draw(st.sampled_from(sorted((run / "samples").iterdir())))
    content = log.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    try:
        log.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
        with pytest.raises(InputError, match=f"{log.name}: the log was changed"):
            entries_of(run, registry)
    finally:
        log.write_bytes(content)
