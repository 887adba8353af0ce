"""The command line: what each mistake is answered with."""

import json

import pytest

from helpers.bench import Edit, Tool, refused

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
    monkeypatch.setattr("vlm_harness.backends.hf.loading.check", lambda spec: None)
    message = tool.refused("--model", "clip", "--images", "none")
    assert "--images none: model clip cannot be asked without an image" in message


def test_swapped_images_need_pairs(tool: Tool, edit: Edit) -> None:
    message = tool.refused("--images", "swapped", "--samples", "thing0-left")
    assert "--images swapped: task sides: there is no whole pair to swap images within" in message
    edit('  pair: "{{ thing }}"\n', "")
    assert "no whole pair to swap images within" in tool.refused("--images", "swapped")


LONG = "long" * 99
"""No name of a file anywhere."""


@pytest.mark.parametrize(
    "args",
    [
        ["--model", LONG], ["--model", f"./{LONG}"], ["--model", f"hf_vlm:{LONG}"],
        ["--include-path", LONG], ["--config", LONG], ["--output-dir", LONG], ["--run-id", LONG],
        ["--data-dir", LONG], ["--model", "circle"],
    ],
    ids=lambda args: " ".join(args)[:30],
)  # fmt: skip
def test_paths_that_the_system_refuses(tool: Tool, args: list[str]) -> None:
    (tool.bench / "circle").symlink_to("circle")
    message = tool.refused("--protocol", "choice", *args)
    assert "long" in message or "circle" in message


def test_an_include_that_the_system_refuses(tool: Tool, edit: Edit) -> None:
    edit("task: sides", f"include: {LONG}\ntask: sides")
    assert "File name too long" in tool.refused()


def test_a_folder_of_a_run_that_the_system_refuses(tool: Tool) -> None:
    assert LONG in refused(tool("rescore", LONG))


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
