"""The command line: what each mistake is answered with, and what is imported to do so."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Command
from filelock import FileLock

from vlm_harness import cli

ROOT = Path(__file__).resolve().parent.parent
TOOL = [sys.executable, "-m", "vlm_harness"]
Edit = Callable[[str, str], None]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Tool:
    """The command, run in a folder with the toy benchmark."""

    def __init__(self, bench: Path, command: Command) -> None:
        self.bench, self.command = bench, command
        self.places = [
            "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
        ]  # fmt: skip

    def __call__(self, *args: str) -> Result:
        return Result(*self.command(*args))

    def run(self, *args: str) -> Result:
        """``--model fake:oracle --tasks sides``, where the arguments do not say otherwise."""
        model = [] if "--model" in args or "--config" in args else ["--model", "fake:oracle"]
        tasks = [] if "--tasks" in args or "--config" in args else ["--tasks", "sides"]
        return self(*model, *tasks, *self.places, *args)

    def refused(self, *args: str) -> str:
        """The one message of a run that is refused."""
        return refused(self.run(*args))


def refused(result: Result) -> str:
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(re.findall(r"^error: ", result.err, re.M | re.I)) == 1
    return result.err


@pytest.fixture
def tool(bench: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Tool:
    monkeypatch.chdir(bench)
    return Tool(bench, command)


@pytest.fixture
def edit(bench: Path) -> Edit:
    """Change the task of the toy benchmark."""

    def change(old: str, new: str) -> None:
        path = bench / "specs" / "sides.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def imported(*args: str, cwd: Path) -> tuple[int, set[str]]:
    code = (
        "import sys; sys.argv = ['vlm-harness', *sys.argv[1:]]\n"
        "from vlm_harness import cli\n"
        "try: cli.main(); code = 0\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "print('MODULES', code, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    found = done.stdout.split("MODULES ")[1].split()
    return int(found[0]), {name for name in found[1:] if "." not in name}


# --- what is imported -----------------------------------------------------------------------------


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
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
    done = subprocess.run(
        [*TOOL, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=60,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_run_and_a_mistake_as_processes(bench: Path) -> None:
    places = ["--include-path", "specs", "--data-dir", "data"]
    done = process("--model", "fake:oracle", "--tasks", "sides", *places, cwd=bench)
    assert done.code == 0
    assert "100.0" in done.out
    assert len(list(bench.glob("results/*/results.json"))) == 1
    message = refused(process("--model", "fake:oracle", "--tasks", "sdes", *places, cwd=bench))
    assert message.startswith("error: unknown task 'sdes'; did you mean 'sides'?")


def test_a_closed_pipe_is_no_bug(tmp_path: Path) -> None:
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
    """A newcomer learns of both at once, of each once, and soon."""
    for name in ("home", "data"):
        (tmp_path / name).mkdir()
    start = time.monotonic()
    result = process(
        *["--model", "llava", "--tasks", "whatsup_a"],
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "home"),
        VLM_HARNESS_DATA=str(tmp_path / "data"),
        HF_HUB_OFFLINE=offline,
        # Nobody answers there, on a machine with network neither.
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert time.monotonic() - start < 20
    message = refused(result)
    assert message.count("the data are not there") == 1
    assert f"{tmp_path}/data/whatsup/controlled_images_dataset.json" in message
    assert message.count("gdown 1ap8mmmpQjLIjPGuplkpBgc1hoEHCj4hm") == 1
    assert "--data-dir" in message
    assert message.count("the weights 'llava-hf/llava-1.5-7b-hf' are not on this machine") == 1
    assert "hf download llava-hf/llava-1.5-7b-hf" in message
    assert not (tmp_path / "results").exists()


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--tasks sids", "unknown task 'sids'; did you mean 'sides'?"),
        ("--tasks sides,tois", "unknown task 'tois'; did you mean 'toys'?"),
        ("--tasks x*", "no task or group fits 'x*'"),
        ("--model lava", "--model: unknown model 'lava'; did you mean 'llava'?"),
        ("--model ./nowhere", "--model: there is no folder nowhere"),
        ("--model fake:orcle", "unknown handler 'orcle'; did you mean 'oracle'?"),
        ("--model hf_vlm:./nowhere", "--model: there is no folder nowhere"),
        ("--model data", "data: the folder is no checkpoint: it has neither config.json nor"),
        ("--command shrt", "unknown command 'shrt'; did you mean 'short'?"),
        ("--protocol generat", "--protocol: unknown protocol 'generat'; did you mean 'generate'?"),
        ("--decoding gredy", "--decoding: unknown decoding 'gredy'; did you mean 'greedy'?"),
        ("--decoding greedy:k=1", "--decoding: decoding greedy: "),
        ("--samples thing0-lft", "--samples: no task has a sample 'thing0-lft'; did you mean"),
        ("--include-path nowhere", "--include-path: there is no folder nowhere"),
        ("--config nowhere.yaml", "nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_unknown_names(tool: Tool, args: str, message: str) -> None:
    assert message in tool.refused(*args.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            "--batch-size 0",
            "--batch-size: 0 is not allowed; allowed: a whole number from 1, or auto",
        ),
        ("--batch-size x", "--batch-size: 'x' is not allowed; allowed: a whole number from 1"),
        ("--limit 0", "--limit: 0 is not allowed; allowed: a whole number from 1"),
        ("--limit x", "Invalid value for '--limit': 'x' is not a valid integer"),
        ("--dtype float8", "--dtype: 'float8' is not allowed; allowed: 'auto', 'float32', 'bfloat"),
        ("--order sideways", "--order: 'sideways' is not allowed; allowed: 'fixed', 'both', 'cyc"),
        ("--images upside", "--images: 'upside' is not allowed; allowed: 'normal', 'none' or"),
        ("--labels new", "--labels: 'new' is not allowed; allowed: 'corrected' or 'original'"),
        ("--max-errors many", "--max-errors: 'many' is not allowed; allowed: a whole number, or a"),
        ("--model-args vlue=3", "--model-args: unknown argument 'vlue' of backend fake; did you"),
        ("--model-args value=x", "--model-args: argument 'value' of backend fake: "),
        ("--model-args value", "--model-args: expected key=value, found 'value'"),
        ("--model-args prompt_format={{x", "--model-args: prompt_format: bad Jinja"),
        ("--model clip --model-args paddng=x", "--model-args: unknown argument 'paddng'"),
        ("--protocol choice --decoding m3id", "--decoding: it has no effect: no protocol of this"),
        ("--protocol similarity --order both", "--order: it has no effect: no protocol of this"),
        ("--protocol similarity --command all", "--command: it has no effect"),
        ("--decoding m3id:lambda=.nan", "decoding m3id: lambda is a number from 0, not nan"),
        ("--decoding m3id:lambda=true", "decoding m3id: lambda is a number from 0, not True"),
        (
            "--decoding m3id:alpha=x",
            "decoding m3id: alpha is a number above 0 and up to 1, not 'x'",
        ),
        ("--decoding m3id:t0=1.5", "decoding m3id: t0 is a whole number from 0, not 1.5"),
        ("--decoding m3id:beta=1", "decoding m3id: there is no argument 'beta'"),
        ("--nope", "No such option '--nope'"),
        ("--output-dir specs/sides.yaml", "cannot write there: Not a directory"),
    ],
)
def test_bad_values(tool: Tool, args: str, message: str) -> None:
    assert message in tool.refused(*args.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "--model: no model was named"),
        ("--model fake:oracle", "--tasks: no task was named"),
        ("lst", "no command 'lst'; did you mean 'list'?"),
        ("list taks", "cannot list 'taks'; did you mean 'tasks'?"),
        ("show tsk mmvp", "cannot show 'tsk'; did you mean 'task'?"),
        ("show task mmpv", "unknown task 'mmpv'; did you mean 'mmvp'?"),
        ("schema tsk", "no schema of 'tsk'; did you mean 'task'?"),
        ("validate nowhere", "there is no file or folder nowhere"),
        ("rescore nowhere", "nowhere: there is no manifest.json, so this is no run folder"),
        ("preview --task mmpv", "unknown task 'mmpv'; did you mean 'mmvp'?"),
    ],
)
def test_other_commands(tool: Tool, args: str, message: str) -> None:
    assert message in refused(tool(*(args or "run").split()))


def test_data_dir_without_the_data(tool: Tool) -> None:
    message = tool.refused("--data-dir", "/nowhere")
    assert "the data are not there: no /nowhere/sides/rows.jsonl" in message
    assert "The data directory is /nowhere (set it with --data-dir or" in message


def test_a_missing_image(tool: Tool) -> None:
    """Looked for before any weights, but only where somebody will look at it."""
    (tool.bench / "data" / "sides" / "thing3-left.png").unlink()
    message = tool.refused("--model", "clip")
    assert "task sides: 1 of 12 images are not there, the first" in message
    assert "thing3-left.png" in message
    assert "2. model clip: the weights" in message
    assert tool.run().code == 0


# --- what cannot be done --------------------------------------------------------------------------


def test_a_protocol_that_the_backend_cannot_do(tool: Tool) -> None:
    message = tool.refused("--model", "clip", "--protocol", "generate")
    assert "the protocol 'generate' needs a backend that provides 'generate'" in message
    assert "hf_dual_encoder of model clip provides similarity" in message
    assert "Protocols of task sides for this model: similarity." in message
    assert "weights" not in message  # named before anything is looked for


def test_each_model_is_asked_under_those_protocols_that_it_can_answer(tool: Tool) -> None:
    models = "--model", "tiny-clip,tiny-llava", "--limit", "4"
    result = tool.run(*models, "--protocol", "similarity,likelihood", "--json")
    rows = json.loads(result.out)["results"]
    assert [(row["model"], row["protocol"]) for row in rows] == [
        ("tiny-clip", "similarity"),
        ("tiny-llava", "likelihood"),
    ]
    message = tool.refused(*models, "--protocol", "generate")
    assert "hf_dual_encoder of model tiny-clip provides similarity" in message
    message = tool.refused("--model", "tiny-clip", "--protocol", "similarity,choice")
    assert "the protocol 'choice' needs a backend that provides 'score'" in message


def test_a_protocol_that_the_task_does_not_declare(tool: Tool, edit: Edit) -> None:
    edit("  likelihood: {}\n", "")
    message = tool.refused("--protocol", "likelihood")
    assert "task sides does not declare the protocol 'likelihood'" in message
    assert "It declares: choice, generate, similarity" in message


def test_blind_with_a_dual_encoder(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_harness.backends.hf_common.check", lambda spec: None)
    message = tool.refused("--model", "clip", "--images", "none")
    assert "--images none: model clip cannot be asked without an image" in message


def test_swapped_images_need_pairs(tool: Tool, edit: Edit) -> None:
    message = tool.refused("--images", "swapped", "--samples", "thing0-left")
    assert "--images swapped: task sides: there is no whole pair to swap images within" in message
    edit('  pair: "{{ thing }}"\n', "")
    assert "no whole pair to swap images within" in tool.refused("--images", "swapped")


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  category:", "  catgory:", "sides.yaml:13: unknown key 'sample.catgory'; did you mean"),
        ("  category:", "\tcategory:", "sides.yaml:13: not valid YAML"),
        ('pair: "{{ thing }}"', 'pair: "{{ thing"', "sides.yaml:12: sample.pair: bad Jinja"),
        ('pair: "{{ thing }}"', "pair: {{ thing }}", 'needs quotes: key: "{{ ... }}"'),
        (
            'pair: "{{ thing }}"',
            'pair: "{{ thin }}"',
            "sides.yaml:12: sample.pair, row 0 of sides/rows.jsonl: 'thin' is",
        ),
        (
            "version: 1",
            "version: one",
            "sides.yaml:2: version: must be a whole number (found 'one')",
        ),
        (
            "\"{{ ['left', 'right'].index(side) }}\"",
            "2",
            "sample.target, row 0 of sides/rows.jsonl: the target 2 lies outside",
        ),
        ("[left, right]", "left and right", "options must be a list"),
        (
            "extract: keyword",
            "extract: keywrd",
            "unknown extractor 'keywrd'; did you mean 'keyword'",
        ),
        ("reader: jsonl", "reader: jsnl", "sides.yaml:5: unknown reader 'jsnl'; did you mean"),
        ("generate:", "template: x\n  generate:", "unknown key 'protocols.template'"),
        (
            "choice: {}",
            "choice: {template: letered}",
            "unknown prompt 'letered'; did you mean 'let",
        ),
        (
            "pair_accuracy,",
            "pair_acuracy,",
            "primary_metric: 'pair_accuracy' is not one of metrics",
        ),
    ],
)
def test_mistakes_in_a_task(tool: Tool, edit: Edit, old: str, new: str, message: str) -> None:
    edit(old, new)
    assert message in tool.refused("--protocol", "generate,choice")


@pytest.mark.parametrize(
    "content",
    [b"", b"- a\n", b"\tx: 1\n", b"\x89PNG\xff\xfe", b"task: {{ x }}", b"task: [", b"5"],
)
def test_a_broken_file_stops_everything(tool: Tool, content: bytes) -> None:
    (tool.bench / "specs" / "broken.yaml").write_bytes(content)
    for args in (["list", "tasks"], ["validate"]):
        message = refused(tool(*args, "--include-path", str(tool.bench / "specs")))
        assert "broken.yaml" in message
    assert "broken.yaml" in tool.refused()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["sides/{{ name }}.png"]', "5"),
        ('["sides/{{ name }}.png"]', "~"),
        ('["sides/{{ name }}.png"]', "[~]"),
        ('["sides/{{ name }}.png"]', '["../{{ name }}.png"]'),
        ('["sides/{{ name }}.png"]', '["sides/\\0.png"]'),
        ("[left, right]", "{left: 1}"),
        ("[left, right]", "~"),
        ("[left, right]", '"{{ {} }}"'),
        ('"{{ thing }}"\n', '"{{ [thing] | random }}"\n'),
        ('"{{ thing }}"\n', '"{{ thing.__class__ }}"\n'),
        ('"{{ thing }}"\n', "\"{{ 'x' * 10 ** 9 }}\"\n"),
        ("protocols:\n", "protocols: []\nprotocol:\n"),
        ("metrics: [", "metrics: [5, "),
        ("metrics: [", "metrics: [nope, "),
        ("version: 1", "version: 1e999"),
        ("version: 1", "version: .nan"),
        ("version: 1", f"version: {'9' * 5000}"),
        ("version: 1", "version: -1"),
        ("task: sides", "task: ünïcode"),
        ("path: sides/rows.jsonl", "path: ~"),
        ("path: sides/rows.jsonl", "path: []"),
        ("path: sides/rows.jsonl", 'path: ""'),
        ("path: sides/rows.jsonl", "path: /etc/passwd"),
        ("path: sides/rows.jsonl", "path: sides"),
        ("path: sides/rows.jsonl", "path: sides/thing0-left.png"),
        ("metrics: [", "chance: {pair_accuracy: .inf}\nmetrics: ["),
        ("metrics: [", "? [a, b]\n: c\nmetrics: ["),
        ("metrics: [", "overlay: nope\nmetrics: ["),
        ("metrics: [", "include: nope.yaml\nmetrics: ["),
        ("{extract: keyword, max_new_tokens: 8}", "{extract: []}"),
        ("{extract: keyword, max_new_tokens: 8}", "{extract: {name: keyword, args: {nope: 1}}}"),
        ("{extract: keyword, max_new_tokens: 8}", "{extract: regex}"),
        ("{extract: keyword, max_new_tokens: 8}", "{max_new_tokens: 0}"),
        ("Give a short answer.", "{{ nope }}"),
        ("Is the {{ thing }}", "{{ options[7] }}"),
    ],
)
def test_odd_files_are_bad_input_and_no_bug(tool: Tool, edit: Edit, old: str, new: str) -> None:
    edit(old, new)
    tool.refused("--protocol", "generate", "--command", "all")


@pytest.mark.parametrize(
    "row",
    ["5", "null", "[]", "{}", '{"name": null}', '{"name": "x", "side": "up"}', "{", "\xff", '"x"'],
)
def test_odd_rows_are_bad_input_and_no_bug(tool: Tool, row: str) -> None:
    path = tool.bench / "data" / "sides" / "rows.jsonl"
    path.write_bytes(path.read_bytes() + row.encode("latin-1") + b"\n")
    assert "rows.jsonl" in tool.refused() or "row 12" in tool.refused()


def test_names_with_spaces_and_other_letters(tool: Tool, edit: Edit) -> None:
    (tool.bench / "specs" / "sides.yaml").rename(tool.bench / "specs" / "my sides é.yaml")
    (tool.bench / "data" / "sides").rename(tool.bench / "data" / "my sides é")
    path = tool.bench / "specs" / "my sides é.yaml"
    path.write_text(path.read_text().replace("sides/", "my sides é/"))
    assert tool.run("--output-dir", "out put ü").code == 0


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
    assert json.loads(config.out) == json.loads(options.out)  # the same run folder, too
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


def test_the_same_command_finds_its_run_again(tool: Tool) -> None:
    first, second = tool.run("--json"), tool.run("--json", "--batch-size", "3")
    assert first == second
    assert len(list((tool.bench / "results").iterdir())) == 1


def test_a_model_named_twice_is_meant_once(tool: Tool) -> None:
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
    assert "results/mine: the folder holds another run: " in message
    assert changed in message.split("another run: ")[1].splitlines()[0]
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
        assert "results/mine/manifest.json: not" in message
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
        assert "oracle__sides__choice.jsonl:2: no line of a run's log: " in message
        assert field in message


@pytest.mark.parametrize("line", ["x", "[]", '{"schema": 1}', '{"schema": 1, "model": 1}', ""])
def test_a_corrupt_log(tool: Tool, line: str) -> None:
    assert tool.run("--run-id", "mine").code == 0
    path = tool.bench / "results" / "mine" / "samples" / "oracle__sides__generate.jsonl"
    with path.open("a") as stream:
        stream.write(line + "\n")
    for message in (tool.refused("--run-id", "mine"), refused(tool("rescore", "results/mine"))):
        assert "oracle__sides__generate.jsonl:13: no line of a run's log: " in message


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "tasks", "groups", "models", "prompts", "commands", "overlays", "metrics", "protocols",
        "extractors", "backends", "readers", "decodings",
    ],
)  # fmt: skip
def test_lists(tool: Tool, kind: str) -> None:
    rows = json.loads(tool("list", kind, "--json").out)
    assert rows
    assert all(row["name"] for row in rows)
    lines = tool("list", kind).out.splitlines()
    assert [line.split()[0] for line in lines[: len(rows)]] == [row["name"] for row in rows]


def test_a_list_says_what_things_are(tool: Tool) -> None:
    for kind in ("tasks", "models", "metrics", "protocols", "extractors", "backends", "readers"):
        rows = json.loads(tool("list", kind, "--json").out)
        assert all(row["description"] for row in rows), kind


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
    assert "FAIL  task    sides" in result.out
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
        ("metrics: [", "overlay: x\nmetrics: [", "unknown overlay 'x'"),
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
    message = refused(tool("preview", "--task", "sides", "--index", "99", *tool.places))
    assert "--index: 99 is outside the 12 samples of sides" in message


def test_data_commands(tool: Tool) -> None:
    rows = json.loads(tool("data", "list", *tool.places, "--json").out)["tasks"]
    here = [row["task"] for row in rows if row["here"] and row["reader"] != "rendered"]
    assert here == ["sides"]
    assert all(row["here"] for row in rows if row["reader"] == "rendered")  # drawn, not fetched
    result = tool("data", "check", *tool.places)
    assert result.code == 0
    assert "ok    sides: 12 samples, 12 images, 6 of 6 pairs whole" in result.out
    (tool.bench / "data" / "sides" / "thing0-left.png").write_bytes(b"no image")
    result = tool("data", "check", "sides", *tool.places)
    assert result.code == 2
    assert "image sides/thing0-left.png: the file is no image" in result.err


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
def test_folders_that_are_no_checkpoint(tool: Tool, config: str, message: str) -> None:
    (tool.bench / "ck").mkdir()
    (tool.bench / "ck" / "config.json").write_text(config)
    assert message in tool.refused("--model", "ck")


def test_a_checkpoint_that_was_cut_short(tool: Tool) -> None:
    folder = tool.bench / "ck"
    shutil.copytree(Path(__file__).parent.parent / "models" / "tiny-llava", folder)
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


def test_names_of_folders_may_hold_any_letters(tool: Tool, tmp_path: Path) -> None:
    record = tmp_path / "réponses 1.jsonl"
    record.write_text('{"sample_id": "thing0-left", "text": "left"}\n')
    result = tool("--model", f"replay:{record}", "--tasks", "sides", *tool.places, "--json")
    assert result.code == 0
    assert json.loads(result.out)["results"][0]["model"] == "r-ponses-1"


def test_validate_of_a_folder_without_specs(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = tool("validate", str(tmp_path / "empty"))
    assert result.code == 2
    assert "there is no spec in" in result.err


def test_validate_finds_extractors_that_cannot_take_the_options(tool: Tool, edit: Edit) -> None:
    edit("extract: keyword", "extract: yes_no")
    result = tool("validate", *tool.places)
    assert result.code == 2
    assert "yes_no needs one option like yes and one like no" in result.err


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
