"""The leaderboard's commands, and publishing its site. Fixtures: helpers/leaderboard.py."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT, Command, python, refused
from helpers.hub import TOKEN, Hub, serving
from helpers.leaderboard import put, result, specs, tree
from vlm_harness.errors import InputError
from vlm_harness.leaderboard.entry import dump, load_entries
from vlm_harness.leaderboard.publish import Content, parse_target, prepare, publish
from vlm_harness.leaderboard.submit import entries_of
from vlm_harness.published.rows import published_rows
from vlm_harness.specs.registry import Registry

# --- commands -------------------------------------------------------------------------------------


def test_add_and_check(place: Path, command: Command, tmp_path: Path) -> None:
    board, include = tmp_path / "board", ["--include-path", place / "specs"]
    done = result(command, "add", place / "results" / "r", "--results-dir", board, *include)
    assert done.code == 0, done.err
    assert "toy, 2 results" in done.out
    assert "These checks catch mistakes; they do not prevent fraud" in done.out
    done = result(command, "check", board, *include)
    assert (done.code, done.out.splitlines()[0]) == (0, "1 entry with 2 results are valid")
    (path,) = board.iterdir()
    assert result(command, "check", path, *include).code == 0
    assert "unknown task 'sides'" in refused(result(command, "check", path))
    assert "cannot be read" in refused(result(command, "check", tmp_path / "none.json"))


def test_help_says_that_checks_do_not_catch_fraud(command: Command) -> None:
    assert "These checks catch mistakes; they do not prevent fraud" in " ".join(
        result(command, "add", "--help").out.split()
    )
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


def test_check_and_build_need_no_model_libraries(
    entry: dict[str, Any], made: Path, tmp_path: Path
) -> None:
    put(tmp_path / "board", entry)
    heavy = ["torch", "torchvision", "transformers", "open_clip", "datasets", "evaluate", "scipy",
             "huggingface_hub", "jsonlines", "matplotlib"]  # fmt: skip
    script = f"""
import sys
sys.modules.update(dict.fromkeys({heavy!r}))  # makes their import fail
from vlm_harness import cli
for command in (["check", "board"], ["build", "--results-dir", "board"]):
    sys.argv = ["vlm-harness", "leaderboard", *command, "--include-path", {str(made / "specs")!r}]
    cli.main()
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "1 entry with 2 results are valid" in done.out
    assert (tmp_path / "site" / "index.html").is_file()


# --- publishing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "space:", "space:me", "space:me/a/b", "folder:", "model:me/x", "me/x", "space:../x"],
)
def test_invalid_targets_are_refused(command: Command, text: str) -> None:
    assert "--to: unrecognised target" in refused(result(command, "publish", "--to", text))


@pytest.fixture
def board(entry: dict[str, Any], made: Path, tmp_path: Path) -> list[object]:
    """Options for a leaderboard with one entry, which has a report."""
    put(tmp_path / "board", entry)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "r.html").write_text("the report of run r")
    return [
        "--results-dir", tmp_path / "board", "--include-path", made / "specs",
        "--reports", tmp_path / "reports",
    ]  # fmt: skip


def test_a_folder_has_the_files_published_last(
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
        ({"thesis.tex": ""}, "has files that `leaderboard publish` did not write: thesis.tex"),
        ({"index.html": "mine", "CNAME": ""}, "has files that .* index.html"),
        ({".leaderboard.json": '{"files": []}', "index.html": "mine"}, "would replace"),
        (
            {".leaderboard.json": '{"files": []}', "reports": "a file"},
            "would replace .*reports",
        ),
        ({".leaderboard.json": "[]"}, "not a list of published files"),
    ],
)
def test_a_folder_with_other_files_is_left_unchanged(
    board: list[object], command: Command, tmp_path: Path, before: dict[str, str], message: str
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, text in before.items():
        (folder / name).write_text(text)
    done = result(command, "publish", "--to", f"folder:{folder}", *board)
    assert re.search(message, refused(done))
    assert tree(folder) == before


def test_a_list_of_files_cannot_lead_outside_the_folder(
    board: list[object], command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (tmp_path / "precious").write_text("keep")
    (folder / "reports").symlink_to(tmp_path)
    listed = ["../precious", str(tmp_path / "precious"), "reports/precious"]
    (folder / ".leaderboard.json").write_text(json.dumps({"files": listed}))
    done = result(command, "publish", "--to", f"folder:{folder}", *board)
    assert "would replace" in refused(done)  # the link is not a published file
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
    assert "the option has no effect with folder:PATH" in refused(done)


def on_hub(hub: Hub, board: list[object], *args: str, **environment: str) -> Any:
    """``leaderboard publish`` in its own process, because the library reads URLs only once."""
    script = "from vlm_harness import cli; cli.main()"
    given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", **environment}
    return python("-c", script, "leaderboard", "publish", *map(str, (*args, *board)), **given)


def test_a_space_is_created_and_updated(board: list[object], tmp_path: Path) -> None:
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


def test_a_dataset_is_created_that_can_be_loaded(
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
    assert {line["verified"] for line in lines} == {True}
    card = files["README.md"].decode()
    assert "- config_name: results\n  data_files: results.jsonl\n" in card


@pytest.mark.slow
def test_load_dataset_reads_published_files(
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


def test_a_dataset_without_submissions_has_no_empty_table(tmp_path: Path) -> None:
    registry = Registry.standard()
    content = Content([], published_rows(registry), registry)
    files = prepare(parse_target("dataset:me/data"), content, tmp_path)
    assert "results.jsonl" not in files
    assert "config_name: results" not in files["README.md"].read_text()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": "hf_wrong"}, "the hub rejected the token\nLog in with `hf auth login`"),
        ({"HF_TOKEN": ""}, "not logged in to the Hugging Face hub\nLog in with"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached (Connect"),
        ({"HF_HUB_OFFLINE": "1"}, "the hub cannot be reached (OfflineModeIsEnabled"),
    ],
)
def test_errors_of_the_hub(
    board: list[object], tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with serving() as hub:
        given = {"HF_HOME": str(tmp_path / "home"), **environment}
        assert message in refused(on_hub(hub, board, "--to", "dataset:me/data", **given))
        assert not hub.repos


def test_a_repository_with_other_files_is_left_unchanged(
    board: list[object], tmp_path: Path
) -> None:
    with serving() as hub:
        hub.repos["spaces/me/app"] = {"app.py": b"", "README.md": b""}
        done = on_hub(hub, board, "--to", "space:me/app", HF_HOME=str(tmp_path))
        assert "has files that `leaderboard publish` did not write: app.py" in refused(done)
        assert set(hub.repos["spaces/me/app"]) == {"app.py", "README.md"}
        hub.allowed = False
        done = on_hub(hub, board, "--to", "space:them/app", HF_HOME=str(tmp_path))
        assert "no permission to write to this repository" in refused(done)


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


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    registry = Registry.standard()
    place = tmp_path / "made"
    place.mkdir()
    files = prepare(parse_target("dataset:me/data"), Content([], [], registry), place)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        publish(parse_target(f"folder:{tmp_path / 'file'}"), files)
    with pytest.raises(InputError, match="cannot be written"):
        publish(parse_target(f"folder:{tmp_path / 'file' / 'below'}"), files)


def test_entries_are_readable_json(made: Path) -> None:
    (entry,) = entries_of(made / "results" / "r", specs(made))
    assert dump(entry).startswith('{\n "schema": 1,\n "model": {\n  "name": "toy",\n')


# --- what CI runs ---------------------------------------------------------------------------------


def test_the_workflows_run_pull_requests_without_permissions() -> None:
    import yaml

    flows = {}
    for name in ("leaderboard", "docs"):
        path = ROOT / ".github" / "workflows" / f"{name}.yml"
        flow = yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # reads `on` as a string
        assert set(flow["on"]) == {"pull_request", "push", "workflow_dispatch"}
        assert flow["permissions"] == {"contents": "read"}
        assert "permissions" not in flow["jobs"]["build"]
        assert "secrets." not in path.read_text()
        runs = [step.get("run", "") for step in flow["jobs"]["build"]["steps"]]
        assert any("leaderboard build" in run for run in runs)
        flows[name] = flow, runs
    assert any("leaderboard check" in run for run in flows["leaderboard"][1])
    # A repository has one Pages site, so one workflow deploys both documentation and leaderboard.
    assert set(flows["leaderboard"][0]["jobs"]) == {"build"}
    deploy = flows["docs"][0]["jobs"]["deploy"]
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert "pull_request" in deploy["if"]
