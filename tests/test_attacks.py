"""Malicious task files, data and model outputs: no code runs, and nothing leaks."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.bench import ROOT, Edit, Tool, refused
from helpers.runs import go
from vlm_harness.errors import printable
from vlm_harness.types import Request

SECRET = "the secret of another folder"


@pytest.fixture(autouse=True)
def outside(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Next to the data and spec folders: a secret, and code that creates a file if it runs."""
    (bench / "secret.txt").write_text(SECRET)
    (bench / "secret.yaml").write_text(f"description: {SECRET}\n")
    (bench / "secret.jsonl").write_text(json.dumps({"name": SECRET}) + "\n")
    code = f"open({str(bench / 'mark')!r}, 'w').close()\n"
    for name in ("evil.py", "sides.py", "specs/evil.py", "specs/sides.py"):
        (bench / name).write_text(code)
    (bench / "evil").mkdir()
    (bench / "evil" / "evil.py").write_text(code)
    monkeypatch.chdir(bench)
    return bench


@pytest.fixture
def harmless(tool: Tool) -> Any:
    """Run the edited toy task; it must exit with code 2 and one message, without side effects."""

    def check(*args: str) -> str:
        result = tool.run(*args)
        assert not (tool.bench / "mark").exists()
        assert SECRET not in result.out + result.err
        return refused(result)

    return check


# --- YAML ----------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('tags: !!python/object/apply:os.system ["touch mark"]', "could not determine a constr"),
        ('tags: !!python/object/new:os.system ["touch mark"]', "could not determine a constr"),
        ("tags: !!python/name:os.system", "could not determine a constr"),
        ("tags: !!python/module:evil", "could not determine a constr"),
        ("tags: !function evil.main", "could not determine a constr"),
        ("tags: !include secret.txt", "could not determine a constr"),
        ("tags: !!timestamp foo", "is not allowed"),
        ("tags: !!binary aGk=", "is not allowed"),
        ("tags: !!set {a}", "is not allowed"),
        ("tags: !!bool foo", "not valid YAML"),
        ("tags: !!int ''", "not valid YAML"),
        ("tags: !!float ''", "not valid YAML"),
        ("include: /etc/hostname", "is outside the folder of the file"),
        ("include: ../secret.yaml", "is outside the folder of the file"),
        ("include: below/../../secret.yaml", "is outside the folder of the file"),
        ("include: [../secret.yaml]", "is outside the folder of the file"),
        ("include: '~/secret.yaml'", "file not found"),
        ("include: 'https://example.org/task.yaml'", "file not found"),
        ("include: sides.yaml", "circular include"),
        (LAUGHS, "has more than 1000000 values"),
        ("tags: &a [*a]", "self-referencing alias"),
        ("tags: " + "[" * 5000 + "]" * 5000, "nest"),
        (
            "metrics: [individual_accuracy, pair_accuracy, 'evaluate:evil']",
            "not found on this machine",
        ),
        ("metrics: ['evaluate:../evil']", "metrics"),
        ("metrics: ['evaluate:/etc/evil']", "metrics"),
        ("metrics: [individual_accuracy, pair_accuracy, evil.main]", "unknown metric 'evil.main'"),
        ("overlay: ../secret", "overlay"),
        ("tables: [../secret]", "tables"),
    ],
    ids=lambda text: text[:40],
)
def test_yaml(harmless: Any, bench: Path, line: str, part: str) -> None:
    path = bench / "specs" / "sides.yaml"
    key = line.partition(":")[0]
    kept = [each for each in path.read_text().splitlines() if not each.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, line, ""]))
    message = harmless()
    assert part in message
    assert "sides.yaml" in message
    assert len(message) < 2000


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\\nb", "$(touch mark)", "con|x"]
)
def test_names_that_are_paths(harmless: Any, edit: Edit, bench: Path, name: str) -> None:
    edit("task: sides", f'task: "{name}"')
    before = sorted(bench.rglob("*"))
    assert "task" in harmless("--tasks", name.replace("\\n", "\n"))
    assert sorted(bench.rglob("*")) == before


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("../secret.jsonl", "is outside the data directory"),
        ("sides/../../secret.jsonl", "is outside the data directory"),
        ("/etc/passwd", "is outside the data directory"),
        ("file:///etc/passwd", "is a URL"),
        ("https://example.org/rows.jsonl", "is a URL"),
        ("s3://bucket/rows.jsonl", "is a URL"),
        ("~/rows.jsonl", "data not found"),
        ("$HOME/rows.jsonl", "data not found"),
    ],
)
def test_data_outside_the_data_directory(harmless: Any, edit: Edit, path: str, part: str) -> None:
    edit("path: sides/rows.jsonl", f'path: "{path}"')
    assert part in harmless()


def test_rows_nested_too_deeply(harmless: Any, bench: Path) -> None:
    (bench / "data" / "sides" / "rows.jsonl").write_text("[" * 100_000)
    assert "nested too deeply" in harmless()


def test_data_that_is_a_pipe(harmless: Any, bench: Path) -> None:
    path = bench / "data" / "sides" / "rows.jsonl"
    path.unlink()
    os.mkfifo(path)
    assert "data not found" in harmless()


@pytest.mark.parametrize("where", ["task", "data"])
@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("../secret.txt", "is outside the data directory"),
        ("/etc/passwd", "is outside the data directory"),
        ("http://169.254.169.254/latest/meta-data", "is a URL"),
        ("a\\u0000b", "is outside the data directory"),
    ],
)
def test_images_outside_the_data_directory(
    harmless: Any, edit: Edit, bench: Path, where: str, path: str, part: str
) -> None:
    if where == "task":
        edit('images: ["sides/{{ name }}.png"]', f'images: ["{path}"]')
    else:
        edit('images: ["sides/{{ name }}.png"]', 'images: ["{{ file }}"]')
        rows = bench / "data" / "sides" / "rows.jsonl"
        text = rows.read_text().replace('{"name"', f'{{"file": "{path}", "name"')
        rows.write_text(text)
    assert part in harmless()


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc", "owner/../secret", "evil", "https://example.org/x", "a/b/c", "./a"],
)
def test_invalid_hub_dataset_names(harmless: Any, edit: Edit, name: str) -> None:
    edit("reader: jsonl, path: sides/rows.jsonl", f'reader: hub, name: "{name}"')
    assert "dataset.name" in harmless()


@pytest.mark.parametrize("run_id", ["../evil", "/tmp/evil", "..", "a/../../b", "\x1b[31m", "a b"])
def test_run_ids_are_names(harmless: Any, bench: Path, run_id: str) -> None:
    """Invalid names are refused, not sanitised: another run could have the sanitised name."""
    assert "--run-id" in harmless("--protocol", "choice", "--run-id", run_id, "--output-dir", "out")
    assert not (bench / "out").exists()


def test_an_evaluate_module_is_not_loaded_from_the_working_directory(harmless: Any) -> None:
    assert "evil" in harmless("--tasks", "evil")


# --- templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ name.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('touch mark').read() }}",
        "{{ lipsum.__globals__['os'].system('touch mark') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ joiner.__init__ }}",
        "{{ name | attr('__class__') }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(name) }}",
        "{{ ['x'] | map('attr', '__class__') | list }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends 'secret.txt' %}",
        "{{ open('secret.txt').read() }}",
        "{{ request.application }}",
        "{{ config.items() }}",
        "{% for i in range(10**12) %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
    ],
)
@pytest.mark.parametrize("place", ["fields", "question", "prompt"])
def test_templates(harmless: Any, edit: Edit, bench: Path, place: str, source: str) -> None:
    if place == "fields":
        edit("sample:\n", f"fields: {{x: {json.dumps(source)}}}\nsample:\n")
    elif place == "question":
        edit('question: "Is', f'question: {json.dumps(source)}\n  #"')
    else:
        text = f"prompt: evil\ntemplate: {json.dumps(source)}\n"
        (bench / "specs" / "evil.yaml").write_text(text)
        edit("prompt:\n", "prompt:\n  template: evil\n")
    assert ".yaml" in harmless("--protocol", "choice" if place != "prompt" else "generate")


# --- weights -------------------------------------------------------------------------------------


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self.mark), "w")


def test_weights_that_contain_code(tool: Tool) -> None:
    """Pickled code in checkpoints of transformers and open_clip."""
    folder = tool.bench / "checkpoint"
    shutil.copytree(ROOT / "models" / "tiny-clip", folder)
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Evil(tool.bench / "mark")}, folder / "pytorch_model.bin")
    file = folder / "pytorch_model.bin"
    for args in (
        ["--model", str(folder)],
        ["--model", "open_clip:ViT-B-32", "--model-args", f"weights={file}"],
    ):
        message = refused(tool.run(*args, "--protocol", "similarity"))
        assert "cannot be loaded" in message
        assert not (tool.bench / "mark").exists()


def test_code_of_a_checkpoint_is_not_run(tool: Tool) -> None:
    folder = tool.bench / "checkpoint"
    shutil.copytree(ROOT / "models" / "tiny-clip", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.E"}}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(tool.bench / "evil.py", folder / "evil.py")
    message = refused(tool.run("--model", f"hf_dual_encoder:{folder}", "--protocol", "similarity"))
    assert "--trust-remote-code" in message
    assert not (tool.bench / "mark").exists()


# --- model output --------------------------------------------------------------------------------

OUTPUTS = {
    "script": "<script>alert(1)</script> left",
    "terminal": "\x1b]0;owned\x07\x1b[2J\x1b[31m left \x9b5n",
    "backwards": "\u202etfel si ti\u202c left\u2066",
    "markup": "[red on white]left[/] [link=https://example.org]x[/link]",
    "template": "{{ 7 * 7 }}{% for i in range(10**9) %} left",
    "json": 'left"}\n{"schema": 1, "model": "better", "correct": true}\n',
    "newlines": "left\r\n\n\x0b\x0c\u2028\u2029\x85",
    "nul": "left\0",
    "surrogate": "left \ud800",
    "large": "left" + " and so on" * 10_000,
    "format": "left %s %n {0} {0.__class__}",
    "formula": "=HYPERLINK(\"https://example.org\"; \"left\")",
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_model_output_is_treated_as_text_everywhere(
    tool: Tool, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the log, when rescored, compared, rendered, and shown in messages."""

    def answer(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing5-right":
            raise RuntimeError(OUTPUTS[name])
        return OUTPUTS[name]

    for run_id in ("one", "other"):
        run = go(tool.bench, answer, protocol=["generate"], run_id=run_id, max_errors="50%")
        (log,) = (run.path / "samples").glob("*.jsonl")
        logged = [json.loads(line) for line in log.read_bytes().splitlines()]
        assert len(logged) == 12
        texts = {line["response"].get("text") for line in logged}
        assert texts == {OUTPUTS[name], None}
        assert run.results[0]["n_errors"] == 1
    outputs = [
        tool("rescore", str(run.path)),
        tool("compare", "results/one", "results/other"),
        tool("contact-sheet", str(run.path), *tool.places[2:]),
        tool.run("--model", f"fake:{'x' * 9}\x1b[31m"),
        tool("show", "task", "\x1b[31msides", *tool.places[:2]),
    ]
    assert [each.code for each in outputs] == [0, 0, 0, 2, 2]
    for result in outputs:
        shown = result.out + result.err
        assert shown == printable(shown)
        assert "Traceback" not in shown
    assert not (tool.bench / "mark").exists()


def test_printable() -> None:
    assert printable("a\tb\nc é 中 🙂") == "a\tb\nc é 中 🙂"
    assert printable("\x1b[31m\r\x07\x9b\u202e\ud800") == r"\x1b[31m\r\x07\x9b\u202e\ud800"
