"""Untrusted entries, and the paper's tables as rows. Fixtures: helpers/leaderboard.py."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.bench import ROOT
from helpers.leaderboard import edit_spec, put, specs
from vlm_harness.errors import InputError
from vlm_harness.leaderboard.entry import check_folder, load_entries, read_entry, rows
from vlm_harness.published.rows import PublishedRow, published_rows
from vlm_harness.published.tables import cells, load, paper_tables
from vlm_harness.specs.registry import Registry

# --- untrusted entries ----------------------------------------------------------------------------


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
        (["run", "finished"], "2025-01-31", "run.finished: must be a time with a time zone"),
        (["run", "report_url"], "javascript:alert(1)", "run.report_url: must be the URL of"),
        (["run", "command_line"], "x" * 20_001, "run.command_line"),
        (["run", "command_line"], "x\x00", "command_line contains control characters"),
        (["results"], [], "results"),
        (["results", 0, "task"], "slides", "unknown task 'slides'; did you mean 'sides'?"),
        (
            ["results", 0, "task_version"],
            2,
            "task sides has no version 2; the current version is 1",
        ),
        (["results", 0, "task_version"], True, "results.0.task_version"),
        (["results", 0, "protocol"], "similarly", "does not declare the protocol 'similarly'"),
        (["results", 0, "order"], "any", "results.0.order"),
        (["results", 0, "decoding"], "greedy; rm", "results.0.decoding"),
        (["results", 0, "primary_metric"], "accuracy", "'accuracy' is not among the metrics"),
        (["results", 0, "metrics"], {}, "results.0.metrics"),
        (["results", 0, "n_samples"], 0, "results.0.n_samples"),
        (["results", 0, "n_incomplete"], 7, "n_incomplete is 7, more than n_groups (6)"),
        (["results", 0, "metrics", "pair_accuracy", "value"], 100.0, "is outside its interval"),
        (["results", 0, "metrics", "pair_accuracy", "value"], "1", "must be a number"),
        (
            ["results", 0, "metrics", "pair_accuracy", "value"],
            None,
            "needs a value and both of its ends",
        ),
        (
            ["results", 0, "metrics", "pair_accuracy", "ci_low"],
            None,
            "needs a value and both of its ends",
        ),
        (["results", 0, "metrics", "pair_accuracy", "ci_high"], 2.0, "ci_high is 2, expected"),
        (["results", 0, "metrics", "pair_accuracy", "chance"], -0.5, "chance is -0.5, expected"),
        (["results", 0, "metrics", "pair_accuracy", "n"], 10**10, "pair_accuracy.n"),
        (["results", 0, "metrics", "a b"], {}, "results.0.metrics.a b"),
    ],
)
def test_invalid_entries_are_refused(
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


def test_unverified_models_are_marked_in_their_file(
    entry: dict[str, Any], registry: Registry, tmp_path: Path
) -> None:
    """Files written before the key existed are unchanged, and count as verified."""
    (read,) = load_entries([put(tmp_path / "old", entry).parent], registry)
    assert read.model.verified
    assert read.plain() == entry
    entry["model"]["verified"] = False
    (read,) = load_entries([put(tmp_path / "new", entry).parent], registry)
    assert not read.model.verified
    assert read.plain() == entry
    entry["model"]["verified"] = "no"
    with pytest.raises(InputError, match=r"model\.verified"):
        load_entries([put(tmp_path / "bad", entry).parent], registry)


def test_duplicate_results_are_refused(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    entry["results"].append(entry["results"][0])
    put(tmp_path / "board", entry)
    with pytest.raises(InputError, match=r"duplicate result: sides / choice"):
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
def test_invalid_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x__0.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_entries([tmp_path], Registry([]))


def test_every_invalid_file_is_reported(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    put(tmp_path, entry)
    put(tmp_path, {**entry, "schema": 3}, "a.json")
    put(tmp_path, entry, "b.json")
    with pytest.raises(InputError) as error:
        load_entries([tmp_path], specs(made))
    assert "a.json: schema" in str(error.value)
    assert "b.json: the file name does not match the content: it must be toy__" in str(error.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_anywhere_is_valid_or_gives_one_message(
    plain_entry: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plain = copy.deepcopy(plain_entry)
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
    earlier["results"][0]["command"] = "short"  # a configuration that only this entry has
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


def test_results_for_an_earlier_version_of_a_task_are_kept(
    entry: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    put(tmp_path / "board", entry)
    edit_spec(place, "version: 1", "version: 2")
    edit_spec(place, "relaxed_pair_accuracy, ", "")
    assert load_entries([tmp_path / "board"], specs(place))


def test_other_files_next_to_entries_are_refused(tmp_path: Path) -> None:
    for name in ("README.md", "a.json"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    (tmp_path / "index.html").touch()
    (tmp_path / "b.json").mkdir()
    with pytest.raises(InputError, match=r"b.json: only entries(.|\n)*index.html: only entries"):
        check_folder(tmp_path)


def test_the_results_of_the_project_are_valid() -> None:
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


def test_rows_shared_by_tables_occur_once(published: list[PublishedRow]) -> None:
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


def test_numbers_that_differ_between_tables_are_all_kept(published: list[PublishedRow]) -> None:
    found = [
        row
        for row in published
        if row.name == "SigLIP-ViT-L/16-384px + finetuning" and row.task == "whatsup_a_left_right"
    ]
    assert [row.tables for row in found] == [(5,), (9,), (10,)]
    assert len({tuple(row.values.items()) for row in found}) == 3


def test_cited_results_are_marked(published: list[PublishedRow]) -> None:
    cited = [row for row in published if row.cited]
    assert {row.name for row in cited} == {
        "w/ RP (Jiao et al., 2024)", "w/ DIVA (Wang et al. 2024a)",
    }  # fmt: skip
    assert all(row.model is None and row.note and not row.repeatable for row in cited)
