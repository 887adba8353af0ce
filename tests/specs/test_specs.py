"""Schemas: rejected files, the lines in messages, and the JSON Schemas for editors."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helpers.bench import ROOT
from vlm_harness.errors import InputError
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry, kind_of, spec_files
from vlm_harness.specs.schemas import (
    CommandsSpec,
    GenerateUse,
    ModelSpec,
    OverlaySpec,
    PromptSpec,
    RunConfig,
    TaskSpec,
)
from vlm_harness.specs.spec import Spec

BUNDLED = [path for folder in ("tasks", "prompts", "models") for path in spec_files(ROOT / folder)]

TASK = """\
task: t
version: 1
dataset:
  reader: jsonl
  path: rows.jsonl
sample:
  id: "{{ name }}"
  images: ["{{ name }}.png"]
  options: [a, b]
  target: 0
prompt:
  question: Which?
  commands: {one: One word.}
protocols:
  generate: {extract: keyword}
metrics: [individual_accuracy]
"""


def parse(text: str, cls: type[Spec] = TaskSpec) -> Any:
    return spec_check.parse(cls, yamlfile.loads(text, Path("x.yaml")))


def refusal(old: str, new: str) -> str:
    """The message for the task above with one change."""
    assert old in TASK
    with pytest.raises(InputError) as caught:
        parse(TASK.replace(old, new))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_task_above_is_fine() -> None:
    assert parse(TASK).task == "t"


# --- unknown keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: t", "task: t\ntagz: [x]", "x.yaml:2: unknown key 'tagz'; did you mean 'tags'?"),
        (
            "  path:",
            "  paht: x\n  path:",
            "x.yaml:5: unknown key 'dataset.paht'; did you mean 'path'?",
        ),
        (
            "  target: 0",
            "  target: 0\n  catgory: x",
            "x.yaml:11: unknown key 'sample.catgory'; did you mean 'category'?",
        ),
        (
            '["{{ name }}.png"]',
            "[x, {any_of: [y], anyof: [z]}]",
            "x.yaml:8: unknown key 'sample.images.1.anyof'; did you mean 'any_of'?",
        ),
        (
            "generate:",
            "genrate:",
            "x.yaml:15: unknown key 'protocols.genrate'; did you mean 'generate'?",
        ),
        (
            "extract: keyword",
            "extrct: keyword",
            "x.yaml:15: unknown key 'protocols.generate.extrct'; did you mean 'extract'?",
        ),
        (
            "extract: keyword",
            "extract: {name: keyword, arg: {}}",
            "x.yaml:15: unknown key 'protocols.generate.extract.arg'; did you mean 'args'?",
        ),
        (
            "{extract: keyword}",
            "\n    extract:\n      - letter\n      - name: keyword\n        arg: {}",
            "x.yaml:19: unknown key 'protocols.generate.extract.1.arg'; did you mean 'args'?",
        ),
        (
            "  commands:",
            "  comands:",
            "x.yaml:13: unknown key 'prompt.comands'; did you mean 'commands'?",
        ),
        (
            "metrics:",
            "grouping: {pair: {sise: 2}}\nmetrics:",
            "x.yaml:16: unknown key 'grouping.pair.sise'; did you mean 'size'?",
        ),
        (
            "metrics:",
            "label_correction: o\nmetrics:",
            "x.yaml:16: unknown key 'label_correction'; did you mean 'label_corrections'?",
        ),
        (
            "metrics:",
            "overlays: o\nmetrics:",
            "x.yaml:16: unknown key 'overlays'; did you mean 'label_corrections'?",
        ),
    ],
)
def test_an_unknown_key_suggests_the_nearest(old: str, new: str, message: str) -> None:
    found = refusal(old, new)
    assert message in found.splitlines()
    assert "allowed here: " in found


def test_only_the_errors_of_the_matching_type_are_reported() -> None:
    """If a value can have several types, the errors of the other types are not shown."""
    message = refusal("extract: keyword", "extract: {name: keyword, arg: {}}")
    assert message.splitlines() == [
        "x.yaml:15: unknown key 'protocols.generate.extract.arg'; did you mean 'args'?",
        "  allowed here: ambiguous, args, name",
    ]


def test_a_key_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "_base.yaml").write_text(TASK.replace("  path:", "  paths: x\n  path:"))
    (tmp_path / "t.yaml").write_text("include: _base.yaml\nversion: 2\n")
    with pytest.raises(InputError, match=r"_base\.yaml:5: unknown key 'dataset\.paths'"):
        spec_check.parse(TaskSpec, yamlfile.load(tmp_path / "t.yaml"))


# --- wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", 'version: "1"', "x.yaml:2: version: must be a whole number (found '1')"),
        ("version: 1", "version: 0", "x.yaml:2: version: must be greater than or equal to 1"),
        (
            "version: 1",
            "version:",
            "x.yaml:2: version: must be a whole number (the value is empty)",
        ),
        ("version: 1", "", "x.yaml:1: version: this key is required"),
        ("  id:", "  category:", "x.yaml:6: sample.id: this key is required"),
        ("task: t", "task: a b", "x.yaml:1: task: must match pattern"),
        ("task: t", "task: ../t", "x.yaml:1: task: must match pattern"),
        ("[a, b]", "5", "x.yaml:9: sample.options: must be text or a list (found 5)"),
        ("[a, b]", "[a, [b]]", "x.yaml:9: sample.options.1: must be text or"),
        ("[a, b]", "[a, ~]", "x.yaml:9: sample.options.1: must be text or"),
        ("target: 0", "target: 1.5", "x.yaml:10: sample.target: must be text or a whole number"),
        ("target: 0", "target: true", "x.yaml:10: sample.target: must be text or a whole number"),
        ('["{{ name }}.png"]', "5", "x.yaml:8: sample.images: must be text or a list (found 5)"),
        (
            "extract: keyword",
            "extract: 5",
            "extract: must be text or a mapping or a list (found 5)",
        ),
        ("extract: keyword", "extract: [5]", "extract.0: must be text or a mapping (found 5)"),
        ("{extract: keyword}", "5", "x.yaml:15: protocols.generate: must be a mapping (found 5)"),
        (
            "{one: One word.}",
            "5",
            "x.yaml:13: prompt.commands: must be a mapping or a list (found 5)",
        ),
        ("{one: One word.}", "{one: 5}", "x.yaml:13: prompt.commands.one: must be text (found 5)"),
        ("{one: One word.}", "{on e: x}", "x.yaml:13: prompt.commands.on e: must match"),
        ("metrics:", "order: sideways\nmetrics:", "x.yaml:16: order: must be 'fixed', 'both'"),
        ("metrics:", "groups: whatsup\nmetrics:", "x.yaml:16: groups: must be a list"),
        ("metrics:", "grouping: {pair: {size: 1}}\nmetrics:", "x.yaml:16: grouping.pair.size: "),
        ("metrics:", "chance: {x: .nan}\nmetrics:", "x.yaml:16: chance.x: must be a finite"),
        ("metrics:", "fields: {a-b: x}\nmetrics:", "x.yaml:16: fields.a-b: must match"),
        ("metrics:", "fields: {1: x}\nmetrics:", "x.yaml:16: fields.1: must be text (found 1)"),
        ("metrics:", "null: x\nmetrics:", "x.yaml:1: Keys should be strings"),
        (
            "metrics:",
            "primary_metric: pair_accuracy\nmetrics:",
            "x.yaml:16: primary_metric: 'pair_accuracy' is not in metrics: individual_accuracy",
        ),
        (
            "generate: {extract: keyword}",
            "similarity: {}",
            "x.yaml:15: protocols.similarity: the protocol similarity requires sample.captions",
        ),
        (
            "protocols:\n  generate: {extract: keyword}",
            "protocols: {}",
            "x.yaml:14: protocols: at least",
        ),
        (
            "protocols:\n  generate: {extract: keyword}",
            "protocols: []",
            "protocols: must be a mapping",
        ),
        (
            "protocols:\n  generate: {extract: keyword}",
            "protocols:",
            "protocols: must be a mapping",
        ),
    ],
)
def test_wrong_values(old: str, new: str, message: str) -> None:
    assert message in refusal(old, new)


def test_all_violations_are_reported_at_once() -> None:
    message = refusal("version: 1", 'version: "1"\nordr: both').splitlines()
    assert message[0].startswith("x.yaml:2: version")
    assert message[1].startswith("x.yaml:3: unknown key 'ordr'")


def test_all_invalid_templates_are_reported_at_once() -> None:
    old, new = '["{{ name }}.png"]', '\n    - any_of: ["{{ a", b, "{% c %}"]\n    - "{{ d"'
    places = [line.split(": invalid Jinja template")[0] for line in refusal(old, new).splitlines()]
    assert places == [
        "x.yaml:9: sample.images.0.any_of.0",
        "x.yaml:9: sample.images.0.any_of.2",
        "x.yaml:10: sample.images.1",
    ]


@pytest.mark.parametrize("text", ["task: t\nsample: null", "task: t", "task: t\ndataset: [1]"])
def test_fragments(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml:\d: "):
        parse(text)


# --- Jinja ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"{{ name }}"', '"{{ name"', "x.yaml:7: sample.id"),
        ('["{{ name }}.png"]', '\n    - a\n    - "{{ name"', "x.yaml:10: sample.images.1"),
        (
            '["{{ name }}.png"]',
            '\n    - any_of:\n        - a\n        - "{{ name"',
            "x.yaml:11: sample.images.0.any_of.1",
        ),
        ("target: 0", "target: |\n    {{ 1 }}\n    {% if %}", "x.yaml:12: sample.target"),
        ("Which?", '"{{ }}"', "x.yaml:12: prompt.question"),
        (
            "{one: One word.}",
            '\n    one: x\n    two: "{{ x | no }}"',
            "x.yaml:15: prompt.commands.two",
        ),
        (
            "metrics:",
            'fields:\n  a: "{{ x }}"\n  b: [1, {c: "{{ y"}]\nmetrics:',
            "x.yaml:18: fields.b.1.c",
        ),
        (
            "{extract: keyword}",
            '\n    commands:\n      one: "{% for %}"',
            "x.yaml:17: protocols.generate.commands.one",
        ),
        ("metrics:", 'where: "{{ a"\nmetrics:', "x.yaml:16: where"),
    ],
)
def test_bad_jinja_names_the_line(old: str, new: str, where: str) -> None:
    assert refusal(old, new).startswith(f"{where}: invalid Jinja template: ")


def test_bad_jinja_in_a_prompt_file() -> None:
    text = "prompt: p\ntemplate: |-\n  {{ question }}\n  {% for x in options %}\n  {{ x }\n"
    with pytest.raises(InputError, match=r"^x\.yaml:5: template: invalid Jinja template"):
        parse(text, PromptSpec)


def test_bad_jinja_in_a_model_file() -> None:
    text = 'model: m\nbackend: fake\ncheckpoint: oracle\nprompt_format: "{{ prompt"\n'
    with pytest.raises(InputError, match=r"^x\.yaml:4: prompt_format: invalid Jinja template"):
        parse(text, ModelSpec)


# --- the other kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "text", "message"),
    [
        (ModelSpec, "model: m\nbackend: f\ncheckpoint: 5", "x.yaml:3: checkpoint: must be text"),
        (ModelSpec, "model: m\nbackend: f\ncheckpont: c", "did you mean 'checkpoint'?"),
        (
            OverlaySpec,
            "overlay: o\nreference: r\ncorrections:\n  - {id: 1, was: a, answer: b}\n"
            "  - {id: 2, was: a, anser: b}",
            "x.yaml:5: unknown key 'corrections.1.anser'; did you mean 'answer'?",
        ),
        (OverlaySpec, "overlay: o\nreference: r\ncorrections: []", "x.yaml:3: corrections: List"),
        (
            OverlaySpec,
            "label_corrections: o\nreference: r\ncorrections: []",
            "x.yaml:3: corrections: List",
        ),
        (
            OverlaySpec,
            "label_corrections: 5",
            "x.yaml:1: label_corrections: must be text (found 5)",
        ),
        (OverlaySpec, "overlay: 5", "x.yaml:1: overlay: must be text (found 5)"),
        (CommandsSpec, "commands: {a: 1}", "x.yaml:1: commands.a: must be text (found 1)"),
        (RunConfig, "model: m\nlimt: 5", "x.yaml:2: unknown key 'limt'; did you mean 'limit'?"),
        (RunConfig, "limit: 0", "x.yaml:1: limit: "),
        (RunConfig, "batch_size: x", "x.yaml:1: batch_size: "),
        (RunConfig, "max_errors: many", "x.yaml:1: max_errors: "),
    ],
)
def test_other_kinds(cls: type[Spec], text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, cls)
    assert message in str(caught.value)


# --- label_corrections, and its old name overlay --------------------------------------------------

CORRECTIONS = "reference: r\ncorrections:\n  - {id: 1, was: a, answer: b}\n"


def test_the_old_and_the_new_key_give_the_same_spec() -> None:
    """What goes into the manifest has the old name, so that run ids do not change."""
    old, new = (parse(f"{TASK}{key}: o\n") for key in ("overlay", "label_corrections"))
    assert old.overlay == new.overlay == "o"
    assert old.model_dump(mode="json") == new.model_dump(mode="json")
    assert new.model_dump(mode="json")["overlay"] == "o"
    assert "label_corrections" not in new.model_dump(mode="json")
    old, new = (
        parse(f"{key}: o\n{CORRECTIONS}", OverlaySpec) for key in ("overlay", "label_corrections")
    )
    assert old.model_dump(mode="json") == new.model_dump(mode="json")
    assert new.model_dump(mode="json")["overlay"] == "o"
    assert OverlaySpec.model_validate(new.model_dump(mode="json")).overlay == "o"


@pytest.mark.parametrize("key", ["overlay", "label_corrections"])
def test_a_spec_knows_the_line_of_either_key(key: str) -> None:
    text = f"task: t\n{key}: o\n" + TASK.removeprefix("task: t\n")
    assert parse(text).at("overlay") == "x.yaml:2"
    corrections = parse(f"reference: r\n{key}: o\ncorrections: [{{id: 1, was: a, answer: b}}]",
                        OverlaySpec)  # fmt: skip
    assert corrections.at("overlay") == "x.yaml:2"
    assert corrections.at("corrections", 0) == "x.yaml:3"


@pytest.mark.parametrize(
    ("text", "cls", "place"),
    [
        (f"{TASK}label_corrections: o\noverlay: o\n", TaskSpec, "x.yaml:18"),
        (f"{TASK}overlay: o\nlabel_corrections: p\n", TaskSpec, "x.yaml:17"),
        (f"label_corrections: o\noverlay: o\n{CORRECTIONS}", OverlaySpec, "x.yaml:2"),
    ],
)
def test_both_keys_at_once_are_an_error(text: str, cls: type[Spec], place: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, cls)
    assert str(caught.value) == (
        f"{place}: overlay: old name of 'label_corrections', which is also given; keep one of them"
    )


@pytest.mark.parametrize(
    ("base", "own"), [("overlay", "label_corrections"), ("label_corrections", "overlay")]
)
@pytest.mark.parametrize("value", ["mine", "null"])
def test_either_key_replaces_the_other_in_an_included_file(
    tmp_path: Path, base: str, own: str, value: str
) -> None:
    (tmp_path / "_base.yaml").write_text(f"{TASK}{base}: o\n")
    (tmp_path / "t.yaml").write_text(f"include: _base.yaml\n{own}: {value}\n")
    spec = spec_check.parse(TaskSpec, yamlfile.load(tmp_path / "t.yaml"))
    assert spec.overlay == (None if value == "null" else value)
    assert spec.at("overlay") == f"{tmp_path / 't.yaml'}:2"


@pytest.mark.parametrize("kind", ["task", "label_corrections", "overlay"])
def test_json_schema_offers_the_new_key(kind: str) -> None:
    properties = schema_of(kind)["properties"]
    assert "label_corrections" in properties
    assert "overlay" not in properties


def test_chains_of_extractors() -> None:
    assert GenerateUse(extract="a").extractors() == [("a", {}, False)]
    chain = ["a", {"name": "b", "args": {"n": 1}}, {"name": "c", "ambiguous": "continue"}]
    use = GenerateUse.model_validate({"extract": chain})
    assert use.extractors() == [("a", {}, False), ("b", {"n": 1}, False), ("c", {}, True)]
    # What does not differ from the default is not part of a run's identity.
    assert use.essence()["extract"][1] == {"name": "b", "args": {"n": 1}}
    assert "readings" not in use.essence()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("{name: letter, args: {case: true}}", "extractor letter: case: .* arguments: none"),
        ("{name: keyword, args: {which: best}}", "extractor keyword: which: .*first"),
        ("{name: regex}", "extractor regex: pattern: .* arguments: group, ignore_case, pattern"),
    ],
)
def test_arguments_of_extractors_are_checked(use: str, message: str) -> None:
    assert re.search(message, refusal("extract: keyword", f"extract: {use}"))


def test_the_json_schema_has_the_arguments_of_the_extractors() -> None:
    schema = TaskSpec.model_json_schema()["$defs"]["ExtractorUse"]
    keyword = schema["allOf"][0]
    assert keyword["if"]["properties"]["name"] == {"const": "keyword"}
    assert "which" in keyword["then"]["properties"]["args"]["properties"]


def test_run_config_takes_one_or_many() -> None:
    config = parse("model: a\ntasks: [b, c]\nmax_errors: 3", RunConfig)
    assert (config.model, config.tasks, config.max_errors) == (["a"], ["b", "c"], "3")


# --- bundled files and JSON Schemas ---------------------------------------------------------------


def test_every_bundled_spec_parses() -> None:
    found = Registry.standard()
    counted = 0
    for kind in ("task", "model", "prompt", "overlay", "command"):
        for name in found.names(kind):
            getattr(found, kind)(name)
            counted += 1
    assert counted > 30


def schema_of(kind: str) -> dict[str, Any]:
    schema = specs.KINDS[kind].model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_json_schema_accepts_the_bundled_files(path: Path) -> None:
    file = yamlfile.load(path)
    kind = kind_of(file)
    jsonschema.validate(file.data, schema_of("commands" if kind == "command" else kind))


@pytest.mark.parametrize("kind", list(specs.KINDS))
def test_json_schema_rejects_an_unknown_key(kind: str) -> None:
    errors = jsonschema.Draft202012Validator(schema_of(kind)).iter_errors({"no_such_key": 1})
    assert any("no_such_key" in error.message for error in errors)
    json.dumps(schema_of(kind))


def test_json_schema_of_a_run() -> None:
    jsonschema.validate({"model": ["m"], "tasks": ["t"], "batch_size": "auto"}, schema_of("run"))
    # As in the command: a single name needs no list.
    jsonschema.validate({"model": "m", "tasks": "t", "max_errors": 5}, schema_of("run"))
