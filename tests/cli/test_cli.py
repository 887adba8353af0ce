"""The command line: what it imports, how it runs and resumes, what it prints."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from helpers.bench import ROOT, Edit, Result, Tool, python, refused
from vlm_harness import cli

TOOL = [sys.executable, "-m", "vlm_harness"]


def imported(*args: str, cwd: Path) -> tuple[int, set[str]]:
    code = (
        "import sys; sys.argv = ['vlm-harness', *sys.argv[1:]]\n"
        "from vlm_harness import cli\n"
        "try: cli.main(); code = 0\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "print('MODULES', code, *sys.modules)"
    )
    done = python("-c", code, *args, cwd=cwd)
    assert done.code == 0, done.err
    found = done.out.split("MODULES ")[1].split()
    return int(found[0]), {name for name in found[1:] if "." not in name}


# --- what is imported -----------------------------------------------------------------------------


def test_help_imports_only_what_it_needs(tmp_path: Path) -> None:
    code, modules = imported("--help", cwd=tmp_path)
    assert code == 0
    assert not modules & {"torch", "transformers", "pydantic", "jinja2", "rich", "yaml", "numpy"}


@pytest.mark.parametrize(
    "args",
    [
        "run --help",
        "list tasks",
        "list models",
        "list metrics",
        "list backends",
        "show task mmvp",
        "show model llava",
        "validate",
        "schema task",
        "rescore --help",
        "rescore nowhere",
        "--model clip --tasks mmvp --protocol generate",
    ],
)
def test_no_torch(args: str, tmp_path: Path) -> None:
    _, modules = imported(*args.split(), cwd=tmp_path)
    assert not modules & {"torch", "transformers", "open_clip"}


# --- as a process ---------------------------------------------------------------------------------


def process(*args: str, cwd: Path, **environment: str) -> Result:
    return python("-m", "vlm_harness", *args, cwd=cwd, **environment)


def test_a_run_and_a_mistake_as_processes(bench: Path) -> None:
    places = ["--include-path", "specs", "--data-dir", "data"]
    done = process("--model", "fake:oracle", "--tasks", "sides", *places, cwd=bench)
    assert done.code == 0
    assert "100.0" in done.out
    assert len(list(bench.glob("results/*/results.json"))) == 1
    message = refused(process("--model", "fake:oracle", "--tasks", "sdes", *places, cwd=bench))
    assert message.startswith("error: unknown task 'sdes'; did you mean 'sides'?")


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    for args in ("list models", "schema task"):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {' '.join(TOOL)} {args} | head -1"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr
        assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("offline", ["1", "0"])
def test_neither_data_nor_weights(tmp_path: Path, offline: str) -> None:
    """Both are reported together, once each, and quickly."""
    for name in ("home", "data"):
        (tmp_path / name).mkdir()
    start = time.monotonic()
    result = process(
        *["--model", "llava", "--tasks", "whatsup_a"],
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "home"),
        VLM_HARNESS_DATA=str(tmp_path / "data"),
        HF_HUB_OFFLINE=offline,
        # Nothing listens there, with or without network.
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert time.monotonic() - start < 20
    message = refused(result)
    assert message.count("data not found") == 1
    assert f"{tmp_path}/data/whatsup/controlled_images_dataset.json" in message
    assert message.count("gdown 1ap8mmmpQjLIjPGuplkpBgc1hoEHCj4hm") == 1
    assert "--data-dir" in message
    assert message.count("the weights 'llava-hf/llava-1.5-7b-hf' are not on this machine") == 1
    assert "hf download llava-hf/llava-1.5-7b-hf" in message
    assert not (tmp_path / "results").exists()


# --- --config -------------------------------------------------------------------------------------


def test_config_equals_options(tool: Tool) -> None:
    (tool.bench / "run.yaml").write_text(
        "model: fake:first\ntasks: [sides]\nprotocol: generate,choice\nlimit: 4\norder: both\n"
        f"include_path: specs\ndata_dir: {tool.bench / 'data'}\n"
    )
    options = tool.run(
        *[
            "--model",
            "fake:first",
            "--protocol",
            "generate,choice",
            "--limit",
            "4",
            "--order",
            "both",
            "--json",
        ]
    )
    config = tool("--config", "run.yaml", "--json")
    assert (options.code, config.code) == (0, 0), config.err
    assert json.loads(config.out) == json.loads(options.out)  # and the same run folder
    assert len(json.loads(config.out)["results"]) == 2


def test_options_override_config(tool: Tool) -> None:
    (tool.bench / "run.yaml").write_text("model: fake:first\ntasks: sides\nlimit: 4\n")
    result = tool.run("--config", "run.yaml", "--limit", "2", "--model", "fake:oracle", "--json")
    (row,) = json.loads(result.out)["results"]
    assert (row["model"], row["limit"], row["n_samples"]) == ("oracle", 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: fake:oracle\nlimt: 5\n", "run.yaml:2: unknown key 'limt'; did you mean 'limit'?"),
        ("model: fake:oracle\nlimit: 0\n", "run.yaml:2: limit: must be greater than or equal to 1"),
        (
            "batch_size: 0\n",
            "run.yaml:1: batch_size: must be greater than or equal to 1 or must be",
        ),
        ("batch_size: x\n", "run.yaml:1: batch_size: must be 'auto' (found 'x')"),
        ("order: up\n", "run.yaml:1: order: must be 'fixed', 'both', 'cyclic' or 'random'"),
        ("- a\n", "run.yaml:1: expected a mapping, found list"),
        ("", "run.yaml: the file is empty"),
    ],
)
def test_mistakes_in_config(tool: Tool, text: str, message: str) -> None:
    (tool.bench / "run.yaml").write_text(text)
    assert message in tool.refused("--config", "run.yaml")


# --- run folders ----------------------------------------------------------------------------------


def test_the_same_command_reuses_its_run(tool: Tool) -> None:
    first, second = tool.run("--json"), tool.run("--json", "--batch-size", "3")
    assert first == second
    assert len(list((tool.bench / "results").iterdir())) == 1


def test_a_model_named_twice_runs_once(tool: Tool) -> None:
    result = tool.run("--model", "fake:oracle,fake:oracle", "--json")
    assert len(json.loads(result.out)["results"]) == 1


def test_a_folder_in_use(tool: Tool) -> None:
    folder = tool.bench / "results" / "mine"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        message = tool.refused("--run-id", "mine")
    assert "results/mine: the run folder is in use by another process" in message
    assert tool.run("--run-id", "mine").code == 0


@pytest.mark.parametrize(
    ("args", "changed"),
    [("--limit 2", "limit"), ("--seed 5", "seed"), ("--model fake:first", "models")],
)
def test_a_folder_that_holds_another_run(tool: Tool, args: str, changed: str) -> None:
    assert tool.run("--run-id", "mine").code == 0
    message = tool.refused("--run-id", "mine", *args.split())
    assert "results/mine: the folder contains a different run; changed settings: " in message
    assert changed in message.split("changed settings: ")[1].splitlines()[0]
    assert "--fresh" in message
    assert tool.run("--run-id", "mine", *args.split(), "--fresh").code == 0


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"identity": []}',
        b'{"identity_sha256": 5}',
        b"\xff",
        b"",
    ],
)
def test_a_corrupt_manifest(tool: Tool, content: bytes) -> None:
    assert tool.run("--run-id", "mine").code == 0
    (tool.bench / "results" / "mine" / "manifest.json").write_bytes(content)
    for message in (tool.refused("--run-id", "mine"), refused(tool("rescore", "results/mine"))):
        assert "results/mine/manifest.json: " in message
        assert re.search(r"/manifest\.json: (not valid JSON|invalid manifest: )", message)
    assert tool.run("--run-id", "mine", "--fresh").code == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response", None), ("scores", ["a", "b"]), ("scores", [0.1]), ("options", []),
        ("target", 9), ("target", "left"), ("pair", 5), ("images", ["a"]), ("order", None),
        ("status", "great"), ("tied", ...),
    ],
)  # fmt: skip
def test_a_damaged_log(tool: Tool, field: str, value: Any) -> None:
    for name in ("mine", "other"):
        assert tool.run("--run-id", name, "--protocol", "choice").code == 0
    path = tool.bench / "results" / "mine" / "samples" / "oracle__sides__choice.jsonl"
    lines = [json.loads(line) for line in path.open()]
    changed = lines[1]["response"] if field == "scores" else lines[1]
    changed[field] = value
    if value is ...:
        del changed[field]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for command in (["rescore"], ["compare", "results/other"], ["contact-sheet"]):
        message = refused(tool(*command, "results/mine"))
        assert "oracle__sides__choice.jsonl:2: invalid log line: " in message
        assert field in message


@pytest.mark.parametrize("line", ["x", "[]", '{"schema": 1}', '{"schema": 1, "model": 1}', ""])
def test_a_corrupt_log(tool: Tool, line: str) -> None:
    assert tool.run("--run-id", "mine").code == 0
    path = tool.bench / "results" / "mine" / "samples" / "oracle__sides__generate.jsonl"
    with path.open("a") as stream:
        stream.write(line + "\n")
    for message in (tool.refused("--run-id", "mine"), refused(tool("rescore", "results/mine"))):
        assert "oracle__sides__generate.jsonl:13: invalid log line: " in message


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "tasks", "groups", "models", "prompts", "commands", "overlays", "metrics", "protocols",
        "extractors", "backends", "readers", "decodings", "label_corrections", "tables",
    ],
)  # fmt: skip
def test_lists(tool: Tool, kind: str) -> None:
    rows = json.loads(tool("list", kind, "--json").out)
    assert rows
    assert all(row["name"] for row in rows)
    lines = tool("list", kind).out.splitlines()
    assert [line.split()[0] for line in lines[: len(rows)]] == [row["name"] for row in rows]


def test_a_list_has_descriptions(tool: Tool) -> None:
    for kind in ("tasks", "models", "metrics", "protocols", "extractors", "backends", "readers"):
        rows = json.loads(tool("list", kind, "--json").out)
        assert all(row["description"] for row in rows), kind
        # Each plug-in has its own description, not that of a shared module or class.
        if kind not in ("tasks", "models"):
            assert len({row["description"] for row in rows}) == len(rows), kind


def test_a_list_of_metrics_has_their_properties(tool: Tool) -> None:
    rows = {row["name"]: row for row in json.loads(tool("list", "metrics", "--json").out)}
    cosine = {key: rows["mean_pair_cosine"][key] for key in ("unit", "direction", "range", "needs")}
    assert cosine == {"unit": "cosine", "direction": None, "range": [-1, 1], "needs": ["pairs"]}
    assert rows["f1"]["direction"] == "higher"
    assert rows["f1"]["needs"] == ["positive"]


def test_kinds_by_their_old_names(tool: Tool) -> None:
    assert tool("list", "overlays") == tool("list", "label_corrections")
    name = "mmvp_label_corrections"
    shown = tool("show", "label_corrections", name)
    assert shown.code == 0
    assert tool("show", "overlay", name) == shown
    assert tool("schema", "overlay") == tool("schema", "label_corrections")


MODEL = "model: {}\nbackend: fake\ncheckpoint: oracle\nverified: {}\n"


def test_a_list_marks_unverified_models(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(MODEL.format("new", "false"))
    (tmp_path / "known.yaml").write_text(MODEL.format("known", "true"))
    models = "list", "models", "--include-path", str(tmp_path)
    lines = tool(*models).out.splitlines()
    by_name = {line.split()[0]: line for line in lines if line}
    assert by_name["new"].endswith(" [unverified]")
    assert "unverified" not in by_name["known"]
    assert lines[-1] == ("unverified: this checkpoint has not been run by the project")
    rows = {row["name"]: row["verified"] for row in json.loads(tool(*models, "--json").out)}
    assert (rows["new"], rows["known"]) == (False, True)
    assert "unverified" not in tool("list", "tasks").out


def test_a_run_marks_unverified_models(tool: Tool) -> None:
    for name, verified in (("new", "false"), ("other-new", "false"), ("known", "true")):
        (tool.bench / "specs" / f"{name}.yaml").write_text(MODEL.format(name, verified))
    note = "unverified: this checkpoint has not been run by the project"
    out = tool.run("--model", "new,known,other-new", "--run-id", "mine").out
    assert f"new, other-new: {note}" in out.splitlines()
    assert f"new, other-new: {note}" in tool("rescore", "results/mine").out.splitlines()
    assert "unverified" not in tool.run("--model", "known").out


def test_the_table_of_a_partial_run_says_so(tool: Tool) -> None:
    out = tool.run("--limit", "4", "--protocol", "generate").out
    assert "oracle / sides / generate: partial run: --limit 4" in out.splitlines()
    assert "partial run" not in tool.run("--protocol", "generate").out


@pytest.mark.parametrize(
    ("args", "resumable"),
    [
        (["--model", "m", "--tasks", "t"], True),
        (["run", "--model", "m"], True),
        (["reproduce", "1"], True),
        (["list", "tasks"], False),
    ],
)
def test_ctrl_c(
    args: list[str],
    resumable: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "cli", interrupted)
    monkeypatch.setattr("sys.argv", ["vlm-harness", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    hint = " Finished samples are saved; run the same command to resume." if resumable else ""
    assert capsys.readouterr().err == f"Interrupted.{hint}\n"


def test_json_of_a_run(tool: Tool) -> None:
    result = tool.run("--json", "--protocol", "generate,similarity")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert Path(report["run"], "results.json").is_file()
    assert [row["protocol"] for row in report["results"]] == ["generate", "similarity"]
    again = json.loads(tool("rescore", report["run"], "--json").out)
    assert again["results"] == report["results"]


@pytest.mark.parametrize("kind", ["task", "model", "prompt", "commands", "overlay", "run"])
def test_schema(tool: Tool, kind: str) -> None:
    schema = json.loads(tool("schema", kind).out)
    assert schema["additionalProperties"] is False
    assert schema["$schema"].startswith("https://json-schema.org/")


def test_show(tool: Tool) -> None:
    shown = json.loads(tool("show", "task", "whatsup_a_left_right", "--json").out)
    assert shown["primary_metric"] == "pair_accuracy"
    assert shown["file"].endswith("whatsup_a_left_right.yaml")
    text = tool("show", "model", "llava").out
    assert "checkpoint: llava-hf/llava-1.5-7b-hf" in text


def test_validate(tool: Tool, edit: Edit) -> None:
    args = ["validate", *tool.places]
    result = tool(*args)
    assert result.code == 0
    assert re.search(r"^ok +task +sides +\(12 samples\)$", result.out, re.M)
    report = json.loads(tool(*args, "--json").out)
    assert {entry["error"] for entry in report} == {None}
    edit("{{ options[0] }} or the", "{{ optoins[0] }} or the")
    result = tool(*args, "specs")
    assert result.code == 2
    assert "FAIL  task  sides" in result.out
    assert "'optoins' is undefined; did you mean 'options'?" in result.err
    assert "0 of 1 specs are valid" in result.out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("extract: keyword", "extract: keywrd", "unknown extractor 'keywrd'; did you mean"),
        ("mean_pair_cosine", "mean_pair_cosin", "unknown metric 'mean_pair_cosin'; did you mean"),
        ("choice: {}", "choice: {template: x}", "unknown prompt 'x'"),
        ("choice: {}", "choice: {commands: [shrt]}", "unknown command 'shrt'; did you mean"),
        ("reader: jsonl", "reader: jsn", "unknown reader 'jsn'; did you mean"),
        ("metrics: [", "overlay: x\nmetrics: [", "unknown label corrections 'x'"),
        ("version: 1", "version: x", "version: must be a whole number"),
        ("Give a short", "{{ give }} a short", "'give' is undefined"),
    ],
)
def test_validate_finds(tool: Tool, edit: Edit, old: str, new: str, message: str) -> None:
    edit(old, new)
    result = tool("validate", "specs", *tool.places[2:])
    assert result.code == 2
    assert message in result.err
    assert "sides.yaml:" in result.err


def test_preview(tool: Tool) -> None:
    report = json.loads(tool("preview", "--task", "sides", *tool.places, "--json").out)
    assert report["images"][0]["width"] == 48
    prompts = {(p["protocol"], p["command"]): p["prompt"] for p in report["prompts"]}
    assert prompts["generate", "default"] == (
        "Is the thing0 on the left or the right? Answer left or right."
    )
    assert "thing0-left" in tool("preview", "--task", "sides", *tool.places).out
    assert "thing0-left" in tool("preview", "--tasks", "sides", *tool.places).out
    assert "--tasks" not in tool("preview", "--help").out
    message = refused(tool("preview", "--task", "sides", "--index", "99", *tool.places))
    assert "--index: expected 0 to 11 (sides has 12 samples), got 99" in message


def test_data_commands(tool: Tool) -> None:
    rows = json.loads(tool("data", "list", *tool.places, "--json").out)["tasks"]
    here = [row["task"] for row in rows if row["here"] and row["reader"] != "rendered"]
    assert here == ["sides"]
    assert all(row["here"] for row in rows if row["reader"] == "rendered")  # no download
    result = tool("data", "check", "sides,whatsup_rendered_a_on_under", *tool.places)
    assert result.code == 0, result.err
    assert "ok    sides: 12 samples, 12 images, 6 of 6 pairs complete" in result.out
    assert "ok    whatsup_rendered_a_on_under: 200 samples" in result.out
    (tool.bench / "data" / "sides" / "thing0-left.png").write_bytes(b"no image")
    result = tool("data", "check", "sides", *tool.places)
    assert result.code == 2
    assert "image sides/thing0-left.png: the file is not an image" in result.err


@pytest.mark.slow  # renders every image of every rendered task
def test_without_names_all_available_data_is_checked(tool: Tool) -> None:
    result = tool("data", "check", *tool.places)
    assert result.code == 0, result.err
    assert result.out.count("ok    ") == 7


@pytest.mark.parametrize("content", ["junk", "[]"])
def test_a_corrupt_record_of_checksums(tool: Tool, content: str) -> None:
    (tool.bench / "data" / "checksums.json").write_text(content)
    assert "checksums.json: " in refused(tool("data", "check", "sides", *tool.places))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json: not valid JSON"),
        ("[]", "config.json: expected a JSON object"),
        ("{}", "cannot tell how to run a model of type None"),
        ('{"architectures": [5]}', "cannot tell how to run a model of type None (5)"),
    ],
)
def test_folders_that_are_not_a_checkpoint(tool: Tool, config: str, message: str) -> None:
    (tool.bench / "ck").mkdir()
    (tool.bench / "ck" / "config.json").write_text(config)
    assert message in tool.refused("--model", "ck")


def test_a_truncated_checkpoint(tool: Tool) -> None:
    folder = tool.bench / "ck"
    shutil.copytree(ROOT / "models" / "tiny-llava", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message = tool.refused("--model", "ck", "--protocol", "generate")
    assert "cannot be loaded: Error while deserializing" in message


def test_version_and_help(tool: Tool) -> None:
    assert tool("--version").out.startswith("vlm-harness, version")
    for name in cli.COMMANDS:
        result = tool(name, "--help")
        assert result.code == 0
        assert "Usage: " in result.out


def test_file_names_may_contain_any_letters(tool: Tool, tmp_path: Path) -> None:
    record = tmp_path / "réponses 1.jsonl"
    record.write_text('{"sample_id": "thing0-left", "text": "left"}\n')
    result = tool("--model", f"replay:{record}", "--tasks", "sides", *tool.places, "--json")
    assert result.code == 0
    assert json.loads(result.out)["results"][0]["model"] == "r-ponses-1"


def test_validate_of_a_folder_without_specs(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = tool("validate", str(tmp_path / "empty"))
    assert result.code == 2
    assert "no spec files in" in result.err


def test_validate_finds_extractors_that_cannot_take_the_options(tool: Tool, edit: Edit) -> None:
    edit("extract: keyword", "extract: yes_no")
    result = tool("validate", *tool.places)
    assert result.code == 2
    assert "yes_no requires one option like yes and one like no" in result.err


def test_options_of_a_config_may_be_written_as_on_the_command_line(
    tool: Tool, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: fake:oracle\ntasks: sides\nbatch-size: 2\nlimit: 2\n")
    result = tool("--config", str(config), *tool.places, "--json")
    assert result.code == 0
    assert json.loads(result.out)["results"][0]["n_samples"] == 2
    config.write_text("model: fake:oracle\ntasks: sides\nbatch-size: 0\n")
    result = tool("--config", str(config), *tool.places)
    assert result.code == 2
    assert "run.yaml:3: batch_size" in result.err
