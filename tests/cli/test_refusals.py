"""The command line: error messages."""

import json

import pytest

from helpers.bench import Edit, Tool, refused

# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--tasks sids", "unknown task 'sids'; did you mean 'sides'?"),
        ("--tasks sides,tois", "unknown task 'tois'; did you mean 'toys'?"),
        ("--tasks x*", "no task or group matches 'x*'"),
        ("--model lava", "--model: unknown model 'lava'; did you mean 'llava'?"),
        ("--model ./nowhere", "--model: folder not found: 'nowhere'"),
        ("--model fake:orcle", "unknown handler 'orcle'; did you mean 'oracle'?"),
        ("--model hf_vlm:./nowhere", "--model: folder not found: 'nowhere'"),
        ("--model data", "data: not a checkpoint folder: it has neither config.json nor"),
        ("--command shrt", "unknown command 'shrt'; did you mean 'short'?"),
        ("--protocol generat", "--protocol: unknown protocol 'generat'; did you mean 'generate'?"),
        ("--decoding gredy", "--decoding: unknown decoding 'gredy'; did you mean 'greedy'?"),
        ("--decoding greedy:k=1", "--decoding: decoding greedy has no argument 'k'"),
        ("--samples thing0-lft", "--samples: no task has a sample 'thing0-lft'; did you mean"),
        ("--include-path nowhere", "--include-path: folder not found: 'nowhere'"),
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
            "--batch-size: must be an integer of at least 1, or auto, got 0",
        ),
        ("--batch-size x", "--batch-size: must be an integer of at least 1, or auto, got 'x'"),
        ("--limit 0", "--limit: must be an integer of at least 1, got 0"),
        ("--limit x", "Invalid value for '--limit': 'x' is not a valid integer"),
        ("--dtype float8", "--dtype: must be 'auto', 'float32', 'bfloat"),
        (
            "--order sideways",
            "--order: must be 'fixed', 'both', 'cyclic' or 'random', got 'sideways",
        ),
        ("--images upside", "--images: must be 'normal', 'none' or 'swapped', got 'upside"),
        ("--labels new", "--labels: must be 'corrected' or 'original', got 'new'"),
        (
            "--max-errors many",
            "--max-errors: must be an integer of at least 0, or a percentage such as 10%, got",
        ),
        ("--model-args vlue=3", "--model-args: unknown argument 'vlue' of backend fake; did you"),
        ("--model-args value=x", "--model-args: argument 'value' of backend fake: "),
        ("--model-args value", "--model-args: expected key=value, got 'value'"),
        ("--model-args prompt_format={{x", "--model-args: prompt_format: invalid Jinja template"),
        ("--model clip --model-args paddng=x", "--model-args: unknown argument 'paddng'"),
        (
            "--protocol choice --decoding m3id",
            "--decoding: the option has no effect: the only protocol, choice, generates no text",
        ),
        (
            "--protocol similarity --order both",
            "--order: the option has no effect: the only protocol, similarity, shows no options",
        ),
        (
            "--protocol similarity --command all",
            "--command: the option has no effect: the only protocol, similarity, uses no prompt",
        ),
        ("--device gpu", "--device: 'gpu' is not a device; use cpu, cuda, cuda:1 or mps"),
        (
            "--decoding m3id:lambda=.nan",
            "decoding m3id: lambda must be a finite number >= 0, got nan",
        ),
        (
            "--decoding m3id:lambda=true",
            "decoding m3id: lambda must be a finite number >= 0, got True",
        ),
        (
            "--decoding m3id:alpha=x",
            "decoding m3id: alpha must be in (0, 1], got 'x'",
        ),
        ("--decoding m3id:t0=1.5", "decoding m3id: t0 must be an integer >= 0, got 1.5"),
        ("--decoding m3id:beta=1", "decoding m3id has no argument 'beta'"),
        ("--nope", "No such option '--nope'"),
        ("--output-dir specs/sides.yaml", "cannot write there: Not a directory"),
    ],
)
def test_bad_values(tool: Tool, args: str, message: str) -> None:
    assert message in tool.refused(*args.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "--model: no model given"),
        ("--model fake:oracle", "--tasks: no task given"),
        ("lst", "unknown command 'lst'; did you mean 'list'?"),
        ("list taks", "cannot list 'taks'; did you mean 'tasks'?"),
        ("show tsk mmvp", "cannot show 'tsk'; did you mean 'task'?"),
        ("show task mmpv", "unknown task 'mmpv'; did you mean 'mmvp'?"),
        ("schema tsk", "no schema for 'tsk'; did you mean 'task'?"),
        ("validate nowhere", "no such file or folder: nowhere"),
        ("rescore nowhere", "nowhere: not a run folder: it has no manifest.json"),
        ("preview --task mmpv", "unknown task 'mmpv'; did you mean 'mmvp'?"),
    ],
)
def test_other_commands(tool: Tool, args: str, message: str) -> None:
    assert message in refused(tool(*(args or "run").split()))


def test_data_dir_without_the_data(tool: Tool) -> None:
    message = tool.refused("--data-dir", "/nowhere")
    assert "data not found: /nowhere/sides/rows.jsonl" in message
    assert "Data directory: /nowhere (change it with --data-dir or" in message


def test_a_missing_image(tool: Tool) -> None:
    """Checked before the weights, but only if a model reads images."""
    (tool.bench / "data" / "sides" / "thing3-left.png").unlink()
    message = tool.refused("--model", "clip")
    assert "task sides: 1 of 12 images are missing, e.g." in message
    assert "thing3-left.png" in message
    assert "2. model clip: the weights" in message
    assert tool.run().code == 0


# --- unsupported combinations ---------------------------------------------------------------------


def test_a_protocol_that_the_backend_cannot_do(tool: Tool) -> None:
    message = tool.refused("--model", "clip", "--protocol", "generate")
    assert "model clip (hf_dual_encoder) supports only similarity, not generate" in message
    assert "Protocols of task sides for this model: similarity." in message
    assert "weights" not in message  # reported before any files are checked


def test_each_model_runs_with_the_protocols_that_it_supports(tool: Tool) -> None:
    models = "--model", "tiny-clip,tiny-llava", "--limit", "4"
    result = tool.run(*models, "--protocol", "similarity,likelihood", "--json")
    rows = json.loads(result.out)["results"]
    assert [(row["model"], row["protocol"]) for row in rows] == [
        ("tiny-clip", "similarity"),
        ("tiny-llava", "likelihood"),
    ]
    message = tool.refused(*models, "--protocol", "generate")
    assert "model tiny-clip (hf_dual_encoder) supports only similarity, not generate" in message
    message = tool.refused("--model", "tiny-clip", "--protocol", "similarity,choice")
    assert "model tiny-clip (hf_dual_encoder) supports only similarity, not choice" in message


def test_a_protocol_that_the_task_does_not_declare(tool: Tool, edit: Edit) -> None:
    edit("  likelihood: {}\n", "")
    message = tool.refused("--protocol", "likelihood")
    assert "task sides does not declare the protocol 'likelihood'" in message
    assert "Declared protocols: choice, generate, similarity" in message


def test_blind_with_a_dual_encoder(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_harness.backends.hf.loading.check", lambda spec: None)
    message = tool.refused("--model", "clip", "--images", "none")
    assert "--images none: model clip cannot be evaluated without images" in message


def test_swapped_images_need_pairs(tool: Tool, edit: Edit) -> None:
    message = tool.refused("--images", "swapped", "--samples", "thing0-left")
    expected = "--images swapped: task sides has no complete pair whose images could be swapped"
    assert expected in message
    edit('  pair: "{{ thing }}"\n', "")
    assert "no complete pair whose images could be swapped" in tool.refused("--images", "swapped")


LONG = "long" * 99
"""Longer than any file name may be."""


@pytest.mark.parametrize(
    "args",
    [
        ["--model", LONG], ["--model", f"./{LONG}"], ["--model", f"hf_vlm:{LONG}"],
        ["--include-path", LONG], ["--config", LONG], ["--output-dir", LONG], ["--run-id", LONG],
        ["--data-dir", LONG], ["--model", "circle"],
    ],
    ids=lambda args: " ".join(args)[:30],
)  # fmt: skip
def test_paths_that_the_system_rejects(tool: Tool, args: list[str]) -> None:
    (tool.bench / "circle").symlink_to("circle")
    message = tool.refused("--protocol", "choice", *args)
    assert "long" in message or "circle" in message


def test_an_include_that_the_system_rejects(tool: Tool, edit: Edit) -> None:
    edit("task: sides", f"include: {LONG}\ntask: sides")
    assert "File name too long" in tool.refused()


def test_a_run_folder_that_the_system_rejects(tool: Tool) -> None:
    assert LONG in refused(tool("rescore", LONG))


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  category:", "  catgory:", "sides.yaml:13: unknown key 'sample.catgory'; did you mean"),
        ("  category:", "\tcategory:", "sides.yaml:13: not valid YAML"),
        (
            'pair: "{{ thing }}"',
            'pair: "{{ thing"',
            "sides.yaml:12: sample.pair: invalid Jinja template",
        ),
        (
            'pair: "{{ thing }}"',
            "pair: {{ thing }}",
            'Quote a value that begins with {{: key: "{{ ... }}"',
        ),
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
            "sample.target, row 0 of sides/rows.jsonl: the target 2 is out of range",
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
            "primary_metric: 'pair_accuracy' is not in metrics",
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
def test_malformed_files_are_bad_input(tool: Tool, edit: Edit, old: str, new: str) -> None:
    edit(old, new)
    tool.refused("--protocol", "generate", "--command", "all")


@pytest.mark.parametrize(
    "row",
    ["5", "null", "[]", "{}", '{"name": null}', '{"name": "x", "side": "up"}', "{", "\xff", '"x"'],
)
def test_malformed_rows_are_bad_input(tool: Tool, row: str) -> None:
    path = tool.bench / "data" / "sides" / "rows.jsonl"
    path.write_bytes(path.read_bytes() + row.encode("latin-1") + b"\n")
    assert "rows.jsonl" in tool.refused() or "row 12" in tool.refused()


def test_names_with_spaces_and_other_letters(tool: Tool, edit: Edit) -> None:
    (tool.bench / "specs" / "sides.yaml").rename(tool.bench / "specs" / "my sides é.yaml")
    (tool.bench / "data" / "sides").rename(tool.bench / "data" / "my sides é")
    path = tool.bench / "specs" / "my sides é.yaml"
    path.write_text(path.read_text().replace("sides/", "my sides é/"))
    assert tool.run("--output-dir", "out put ü").code == 0
