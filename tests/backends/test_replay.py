"""Recorded answers: files, joins, and what a recorded answer stands for."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Edit, Result, Tool, refused

NAMES = [f"thing{n}-{side}" for n in range(6) for side in ("left", "right")]
LETTERS = """\
prompt:
  template: lettered
  question: "Where is the {{ thing }}?"
  commands: {default: "Answer with the letter.", short: "Give a short answer."}
protocols:
  similarity: {}
  generate: {extract: [letter, keyword], max_new_tokens: 8}
"""


def side_of(name: str) -> str:
    return name.partition("-")[2]


def records(column: str = "text", key: str = "sample_id") -> list[dict[str, Any]]:
    """The correct answer to every sample."""
    return [{key: name, column: side_of(name)} for name in NAMES]


@pytest.fixture
def write(tool: Tool) -> Any:
    """Write a file of answers to the working directory; returns the value of ``--model``."""

    def write(rows: Any, name: str = "answers.jsonl") -> str:
        path = tool.bench / name
        if path.suffix in (".csv", ".tsv"):
            with path.open("w", newline="", encoding="utf-8") as stream:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                writer = csv.DictWriter(stream, rows[0], delimiter=delimiter)
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text("".join(lines), encoding="utf-8")
        return f"replay:{path}"

    return write


def accuracy(result: Result) -> list[float]:
    assert result.code == 0, result.err
    rows = json.loads(result.out)["results"]
    return [row["metrics"]["individual_accuracy"]["value"] for row in rows]


def run(tool: Tool, model: str, *args: str) -> Result:
    return tool.run("--model", model, "--json", *args)


def refusal(tool: Tool, model: str, *args: str) -> str:
    """The message of a run that is refused; nothing is left behind."""
    before = sorted(tool.bench.rglob("*"))
    message = refused(run(tool, model, *args))
    assert sorted(tool.bench.rglob("*")) == before
    return message


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.CSV"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_formats(tool: Tool, write: Any, name: str, mark: str) -> None:
    text = 'It is\u2028on \u2029the\u0085 side:\r\n\r\n{}, "I" think'
    rows = [{"id": name, "text": text.format(side_of(name))} for name in NAMES]
    model = write(rows, name.lower() if name.endswith("CSV") else name)
    path = Path(model.removeprefix("replay:"))
    path.write_bytes(mark.encode() + path.read_bytes())
    if name.endswith("CSV"):
        path = path.rename(path.with_suffix(".CSV"))
    assert accuracy(run(tool, f"replay:{path}")) == [1.0]
    (log,) = (tool.bench / "results").glob("*/samples/*.jsonl")
    lines = [json.loads(line) for line in log.read_bytes().split(b"\n") if line]
    assert {line["response"]["text"] for line in lines} == {
        text.format("left"),
        text.format("right"),
    }


@pytest.mark.parametrize(
    "rows",
    [
        {name: side_of(name) for name in NAMES},
        {name: [side_of(name)] for name in NAMES},
        {name: {"answer": side_of(name), "n": 1} for name in NAMES} | {"accuracy": 0.5},
        {"model": "x", "results": records("response")},
        records("generation", "id"),
    ],
    ids=["id to text", "id to list", "id to record", "a list in an object", "a list"],
)
def test_json(tool: Tool, write: Any, rows: Any) -> None:
    assert accuracy(run(tool, write(rows, "a.json"))) == [1.0]


def test_json_lines_in_a_json_file(tool: Tool, write: Any) -> None:
    path = Path(write(records()).removeprefix("replay:"))
    path = path.rename(path.with_suffix(".json"))
    assert accuracy(run(tool, f"replay:{path}")) == [1.0]


def test_scores_by_id_and_in_a_csv(tool: Tool, write: Any) -> None:
    def scores(name: str) -> dict[str, float]:
        return {side: float(side == side_of(name)) for side in ("left", "right")}

    by_id = write({name: scores(name) for name in NAMES}, "a.json")
    assert accuracy(run(tool, by_id, "--protocol", "likelihood")) == [1.0]
    rows = [{"id": name, "scores": json.dumps(scores(name))} for name in NAMES]
    assert accuracy(run(tool, write(rows, "b.csv"), "--protocol", "choice")) == [1.0]
    rows = [{"id": name, "scores": [1 - n, n]} for n, name in enumerate(NAMES[:2])]
    assert accuracy(run(tool, write(rows, "c.jsonl"), "--protocol", "choice")) == [1.0]


@pytest.mark.parametrize("nested", [False, True])
def test_columns_with_dots(tool: Tool, write: Any, edit: Edit, nested: bool) -> None:
    """A column ``meta.key`` has the name, or is a value inside ``meta``."""

    def nest(*pairs: tuple[str, str, Any]) -> dict[str, Any]:
        if nested:
            return {first: {second: value} for first, second, value in pairs}
        return {f"{first}.{second}": value for first, second, value in pairs}

    path = tool.bench / "data" / "sides" / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | nest(("meta", "key", row["name"])) for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)))
    answers = [nest(("meta", "key", x), ("out", "said", side_of(x))) for x in NAMES]
    args = ("--model-args", "keys=meta.key,text=out.said")
    assert accuracy(run(tool, write(answers), *args)) == [1.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "a", "text": "x"}\n{"id": \n', "a.jsonl:2: not valid JSON"),
        (
            "a.jsonl",
            '{"id": "a"}\n5\n',
            "a.jsonl: row 2: expected a record (a JSON object), found 5",
        ),
        ("a.json", "[1]", "row 1: expected a record"),
        ("a.json", '{"a"', "a.json:1: not valid JSON"),
        ("a.csv", "id,text\na\n", "a.csv:2: expected 2 values (id, text), found 1"),
        ("a.jsonl", "", "expected a non-empty list of records"),
        ("a.jsonl", "\udcff", "a.jsonl:1: not UTF-8"),
        ("a.jsonl", '{"id": "a", "n": 5}', "cannot tell which column holds the answer"),
        ("a.jsonl", '{"key": "a", "text": "b"}', "no column sample_id or id to join on"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', "id='1' have different an"),
        (
            "a.jsonl",
            '{"id": 1, "text": "a"}\n{"id": 2, "text": ["a", "b"]}',
            "row 2: column 'text'",
        ),
    ],
)
def test_bad_files(tool: Tool, name: str, content: str, message: str) -> None:
    (tool.bench / name).write_text(content, errors="surrogateescape")
    assert message in refusal(tool, f"replay:{name}")


@pytest.mark.parametrize("args", ["text=said", "scores=said", "keys=said", "order=said"])
def test_columns_that_are_missing(tool: Tool, write: Any, args: str) -> None:
    message = refusal(tool, write(records()), "--model-args", args)
    assert "no column 'said'; columns: sample_id, text" in message


def test_bad_files_are_reported_with_other_problems(tool: Tool) -> None:
    (tool.bench / "a.jsonl").write_text("{")
    message = refusal(tool, "replay:a.jsonl,hf_vlm:./none", "--data-dir", "none")
    assert "data not found" in message
    assert "a.jsonl:1: not valid JSON" in message


# --- joins ---------------------------------------------------------------------------------------


def test_missing_answers_are_not_wrong(tool: Tool, write: Any) -> None:
    rows = records()
    rows[0]["text"] = None
    rows[1]["text"] = float("nan")
    result = run(tool, write(rows[:8]))
    (row,) = json.loads(result.out)["results"]
    assert (row["n_samples"], row["n_expected"], row["complete"]) == (6, 12, False)
    assert accuracy(result) == [1.0]


def test_nothing_joins(tool: Tool, write: Any) -> None:
    rows = [{"id": f"q{n}", "text": "left"} for n in range(3)]
    message = refusal(tool, write(rows))
    assert "no recorded answer belongs to a sample of task sides" in message
    assert "id='q0'" in message
    assert "id='thing0-left'" in message
    assert "keys=COLUMN" in message
    message = refusal(tool, write(rows), "--model-args", "keys=id2")
    assert "no column 'id2'" in message


def test_a_key_that_the_task_does_not_have(tool: Tool, write: Any) -> None:
    rows = [{"question_id": 1, "text": "left"}]
    message = refusal(tool, write(rows), "--model-args", "keys=question_id")
    assert "the task has no field 'question_id'; fields: " in message


def test_every_task_of_a_run_must_join(tool: Tool, write: Any, edit: Edit) -> None:
    text = (tool.bench / "specs" / "sides.yaml").read_text()
    other = text.replace("task: sides", "task: other").replace('"{{ name }}"', '"o-{{ name }}"')
    (tool.bench / "specs" / "other.yaml").write_text(other)
    message = refusal(tool, write(records()), "--tasks", "sides,other")
    assert "belongs to a sample of task other" in message


def with_column(column: str, value: Any) -> list[dict[str, Any]]:
    return [row | {column: value(row["sample_id"])} for row in records()]


def thing(name: str) -> str:
    return name.partition("-")[0]


SAME = {
    "as asked": ("question", lambda x: f"Is the {thing(x)} on the left or the right?"),
    "with more": ("prompt", lambda x: f"Is the {thing(x)} on the left or the right?\nSay."),
    "other case": ("query", lambda x: f"is  the {thing(x).upper()} on the left or the right"),
    "other wording": ("question", lambda x: f"Where are the {thing(x)} located?"),
    "other language": ("question", lambda x: f"{thing(x)} 在左边还是右边"),
    "part of the prompt": ("statement", lambda x: f"{thing(x)} on the left"),
    "empty": ("question", lambda x: ""),
    "not recorded": ("question", lambda x: None),
    "image": ("image", lambda x: f"{x}.png"),
    "image of another format": ("image_path", lambda x: f"/other/folder/{x}.jpeg"),
    "image as URL": ("image_url", lambda x: f"https://example.org/a%20b/{x.upper()}.png?size=1"),
    "images": ("images", lambda x: [{"path": f"sides/{x}.png", "sha256": "0"}]),
    "image in base64": ("image", lambda x: "iVBO" * 1000),
    "a comment": ("comment", lambda x: "Is the cat on the mat?"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_records_of_the_same_samples(tool: Tool, write: Any, name: str) -> None:
    column, value = SAME[name]
    assert accuracy(run(tool, write(with_column(column, value)))) == [1.0]


def shifted(name: str) -> str:
    number = int(thing(name)[5:])
    return f"thing{(number + 1) % 6}-{side_of(name)}"


OTHER = {
    "another sample's question": (
        "question", lambda x: f"Is the {thing(shifted(x))} on the left or the right?", 12
    ),
    "half of them": (
        "prompt",
        lambda x: f"Is the {thing(x if x[7] == 'l' else shifted(x))} on the left or the right? X",
        6,
    ),
    "other data": ("question", lambda x: f"How many cats are near the {x[5]} dogs?", 12),
    "one question for all": ("question", lambda x: "How many dogs?", 12),
    "another image": ("image", lambda x: f"{shifted(x)}.png", 12),
    "other images": ("filename", lambda x: f"COCO_{x[5]}{len(x)}.jpg", 12),
    "an image's number": ("image", lambda x: 7, 12),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_records_of_other_samples_with_the_same_ids(tool: Tool, write: Any, name: str) -> None:
    column, value, n = OTHER[name]
    model = write(with_column(column, value))
    message = refusal(tool, model)
    assert f"{n} of the 12 recorded answers that join task sides were given to something else" in (
        message
    )
    assert f"has the {column} " in message
    assert "sample_id='thing0-" in message
    assert accuracy(run(tool, model, "--model-args", "verify=false")) == [1.0]


CAPTIONS = """\
task: captions
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
sample:
  id: "{{ key }}"
  options: ["a big {{ colour }} ball", "a tiny {{ colour }} ball"]
  target: 0
prompt: {template: lettered, question: "Which caption fits?", commands: [letter]}
protocols:
  generate: {extract: [letter, keyword], max_new_tokens: 8}
"""
COLOURS = ["red", "green", "blue", "black", "white"]


@pytest.mark.parametrize("shift", [0, 1])
def test_prompts_of_which_only_the_options_differ(tool: Tool, write: Any, shift: int) -> None:
    """As in SugarCrepe, whose files share one question and their ids."""
    (tool.bench / "specs" / "captions.yaml").write_text(CAPTIONS)
    rows = [json.dumps({"key": n, "colour": colour}) for n, colour in enumerate(COLOURS)]
    (tool.bench / "data" / "rows.jsonl").write_text("\n".join(rows))
    answers = []
    for n in range(5):
        colour = COLOURS[(n + shift) % 5]
        prompt = (
            f"Which caption fits?\nA. a big {colour} ball\nB. a tiny {colour} ball\nSay A or B."
        )
        answers.append({"id": n, "text": "A", "prompt": prompt})
    if shift:
        message = refusal(tool, write(answers), "--tasks", "captions")
        assert "5 of the 5 recorded answers" in message
    else:
        assert accuracy(run(tool, write(answers), "--tasks", "captions")) == [1.0]


def test_the_same_file_joined_on_more(tool: Tool, write: Any) -> None:
    """Answers to two data sets in one file: the question is a key as well."""
    rows = with_column("question", SAME["as asked"][1])
    more = [row | {"question": "How many dogs?", "text": "two"} for row in rows]
    spec = tool.bench / "specs" / "rec.yaml"
    spec.write_text(
        "model: rec\nbackend: replay\ncheckpoint: answers.jsonl\nargs:\n  keys:\n"
        '    sample_id: "{{ id }}"\n    question: "Is the {{ thing }} on the left or the right?"\n'
    )
    write([*more, *rows])
    assert accuracy(run(tool, "rec")) == [1.0]


def test_a_column_of_questions_is_not_taken_for_answers(tool: Tool, write: Any) -> None:
    rows = [
        {"id": x, "text": f"Is the {thing(x)} on the left or the right?", "said": side_of(x)}
        for x in NAMES
    ]
    assert "the column 'text' holds the questions, not the answers" in refusal(tool, write(rows))
    assert accuracy(run(tool, write(rows), "--model-args", "text=said")) == [1.0]


def test_numbers_of_images(tool: Tool, write: Any) -> None:
    """COCO's numbers with and without zeros and prefix."""
    folder = tool.bench / "data" / "sides"
    rows = []
    for number, name in enumerate(NAMES):
        (folder / f"{name}.png").rename(folder / f"COCO_val2014_{number:012d}.png")
        rows.append({"name": name, "thing": thing(name), "side": side_of(name), "kind": "k",
                     "image": f"COCO_val2014_{number:012d}.png"})  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tool.bench / "specs" / "sides.yaml"
    path.write_text(path.read_text().replace("sides/{{ name }}.png", "sides/{{ image }}"))
    answers = [row | {"image": number} for number, row in enumerate(records())]
    assert accuracy(run(tool, write(answers))) == [1.0]


# --- one order, one command ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["both", "cyclic", "random"])
def test_an_answer_stands_for_one_order(tool: Tool, write: Any, order: str) -> None:
    message = refusal(tool, write(records()), "--order", order)
    assert message.startswith("error: --order: ")
    assert f"in another (task sides, order: {order})" in message
    assert "--order fixed" in message
    assert "order=COLUMN" in message
    assert accuracy(run(tool, write(records()), "--order", "fixed")) == [1.0]


def test_the_order_of_the_task(tool: Tool, write: Any, edit: Edit) -> None:
    edit("primary_metric", "order: both\nprimary_metric")
    assert "order: both" in refusal(tool, write(records()))
    assert accuracy(run(tool, write(records()), "--order", "fixed")) == [1.0]


def test_an_order_that_the_prompt_does_not_show(tool: Tool, write: Any, edit: Edit) -> None:
    edit("Is the {{ thing }} on the {{ options[0] }} or the {{ options[1] }}?", "Where is it?")
    edit("Answer {{ options[0] }} or {{ options[1] }}.", "Say where.")
    assert accuracy(run(tool, write(records()), "--order", "both")) == [1.0]


def lettered(tool: Tool) -> None:
    path = tool.bench / "specs" / "sides.yaml"
    before, _, after = path.read_text().partition("prompt:\n")
    path.write_text(before + LETTERS + "metrics:" + after.partition("metrics:")[2])


def letters(column: str, value: Any) -> list[dict[str, Any]]:
    """The letter of the correct answer in both orders."""
    rows = []
    for name in NAMES:
        for order in ([0, 1], [1, 0]):
            shown = [("left", "right")[n] for n in order]
            letter = "AB"[shown.index(side_of(name))]
            rows.append({"id": name, "text": letter, column: value(order, shown)})
    return rows


ORDERS = {
    "numbers": ("order", lambda order, shown: order),
    "numbers as text": ("order", lambda order, shown: json.dumps(order)),
    "texts": ("order", lambda order, shown: shown),
    "shown": (
        "shown",
        lambda order, shown: [f"{x}. {y}" for x, y in zip("AB", shown, strict=True)],
    ),
    "options": ("options", lambda order, shown: [each.upper() for each in shown]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_column_names_the_order(tool: Tool, write: Any, name: str) -> None:
    """A letter is read in the order in which it was recorded."""
    lettered(tool)
    rows = letters(*ORDERS[name])
    assert accuracy(run(tool, write(rows), "--order", "both")) == [1.0]
    assert accuracy(run(tool, write(rows), "--order", "cyclic")) == [1.0]
    assert accuracy(run(tool, write(rows), "--order", "random")) == [1.0]
    result = run(tool, write(rows), "--order", "fixed")
    assert accuracy(result) == [1.0]
    assert json.loads(result.out)["results"][0]["n_samples"] == 12
    renamed = [{("o" if k == ORDERS[name][0] else k): v for k, v in row.items()} for row in rows]
    args = ("--model-args", "order=o", "--order", "both")
    assert accuracy(run(tool, write(renamed), *args)) == [1.0]


def test_answers_in_one_order_only(tool: Tool, write: Any) -> None:
    lettered(tool)
    rows = letters("order", lambda order, shown: order)
    canonical, reversed_ = rows[::2], rows[1::2]
    message = refusal(tool, write(canonical), "--order", "both")
    assert "no answer was recorded with the options in another order" in message
    message = refusal(tool, write(reversed_), "--order", "fixed")
    assert "recorded order [1, 0]; asked order [0, 1]" in message
    assert "id='thing0-left' of the file and sample 'thing0-left' of task sides" in message
    result = run(tool, write(reversed_), "--order", "both")
    (row,) = json.loads(result.out)["results"]
    assert (row["n_samples"], row["complete"], accuracy(result)) == (12, False, [1.0])
    assert accuracy(run(tool, write(reversed_), "--model-args", "order=false")) == [0.0]


def test_a_column_called_order_that_has_no_orders(tool: Tool, write: Any) -> None:
    rows = [row | {"order": n, "options": "a, b"} for n, row in enumerate(records())]
    assert accuracy(run(tool, write(rows))) == [1.0]
    message = refusal(tool, write(rows), "--model-args", "order=order")
    assert "row 1: column 'order': expected a list of option numbers or of options, found 0" in (
        message
    )


def test_an_answer_stands_for_one_command(tool: Tool, write: Any) -> None:
    model = write(records())
    message = refusal(tool, model, "--command", "all")
    assert message.startswith("error: --command: ")
    assert "several for task sides: default, short" in message
    assert "command=COLUMN" in message
    assert accuracy(run(tool, model, "--command", "short")) == [1.0]


def test_a_column_names_the_command(tool: Tool, write: Any) -> None:
    wrong = {"left": "right", "right": "left"}
    rows = [
        {"id": name, "command": command, "text": say[side_of(name)]}
        for name in NAMES
        for command, say in (("default", {"left": "left", "right": "right"}), ("short", wrong))
    ]
    assert accuracy(run(tool, write(rows), "--command", "all")) == [1.0, 0.0]
    assert accuracy(run(tool, write(rows), "--command", "short")) == [0.0]
    message = refusal(tool, write(rows[::2]), "--command", "short")
    assert "recorded command 'default'; asked command 'short'" in message
    other = [row | {"command": "pick it up"} for row in records()]
    assert accuracy(run(tool, write(other))) == [1.0]


def test_an_answer_stands_for_one_decoding(tool: Tool, write: Any) -> None:
    message = refusal(tool, write(records()), "--decoding", "greedy", "--decoding", "m3id")
    assert message.startswith("error: --decoding: ")


def test_a_log_is_a_recording(tool: Tool, write: Any) -> None:
    """The lines of a run, in both orders and under both commands, are replayed as they are."""
    lettered(tool)
    grid = ("--order", "both", "--command", "all")
    before = accuracy(tool.run("--model", "fake:first", "--json", *grid, "--run-id", "first"))
    log = tool.bench / "results" / "first" / "samples" / "first__sides__generate.jsonl"
    assert accuracy(run(tool, f"replay:{log}", *grid)) == before == [0.5, 0.5]
    scored = ("--protocol", "similarity", "--run-id", "scored")
    before = accuracy(tool.run("--model", "fake:first", "--json", *scored))
    log = tool.bench / "results" / "scored" / "samples" / "first__sides__similarity.jsonl"
    assert accuracy(run(tool, f"replay:{log}")) == before


# --- protocols -----------------------------------------------------------------------------------


def scored(**more: Any) -> list[dict[str, Any]]:
    return [
        {"id": name, "scores": [float(side_of(name) == x) for x in ("left", "right")], **more}
        for name in NAMES
    ]


def test_scores_are_read_by_a_protocol_for_scores(tool: Tool, write: Any, edit: Edit) -> None:
    result = run(tool, write(scored()))
    assert [row["protocol"] for row in json.loads(result.out)["results"]] == ["similarity"]
    edit("  similarity: {}\n", "")
    result = run(tool, write(scored()))
    assert [row["protocol"] for row in json.loads(result.out)["results"]] == ["choice"]
    assert accuracy(result) == [1.0]
    result = run(tool, write(scored(text="left")))
    assert [row["protocol"] for row in json.loads(result.out)["results"]] == ["generate"]
    assert accuracy(result) == [0.5]


@pytest.mark.parametrize(
    ("rows", "protocol", "needed"),
    [
        (records(key="id"), "choice", "a score per option"),
        (scored(), "generate", "a text"),
        ([row | {"scores": None} for row in records(key="id")], "likelihood", "a score per option"),
    ],
)
def test_protocols_without_answers(
    tool: Tool, write: Any, rows: Any, protocol: str, needed: str
) -> None:
    message = refusal(tool, write(rows), "--protocol", protocol)
    assert f"the protocol {protocol} finds no answers: it needs {needed} per record" in message
    assert "id='thing0-left' of the file and sample 'thing0-left' of task sides" in message


def test_in_a_grid_the_protocols_with_answers_are_run(tool: Tool, write: Any) -> None:
    result = run(tool, f"{write(records())},fake:oracle", "--protocol", "generate,choice")
    rows = json.loads(result.out)["results"]
    assert [(row["model"], row["protocol"]) for row in rows] == [
        ("answers", "generate"), ("oracle", "generate"), ("oracle", "choice"),
    ]  # fmt: skip


def test_scores_are_those_of_one_protocol(tool: Tool, write: Any) -> None:
    message = refusal(tool, write(scored()), "--protocol", "choice,likelihood")
    assert message.startswith("error: --protocol: ")
    assert "choice, likelihood" in message


@pytest.mark.parametrize("scores", [[0.1], "much", {"left": 1}, ["a", "b"], [None, 1.0]])
def test_scores_that_do_not_fit_are_failed_samples(tool: Tool, write: Any, scores: Any) -> None:
    rows = scored()
    rows[0]["scores"] = scores
    result = run(tool, write(rows), "--protocol", "choice")
    (row,) = json.loads(result.out)["results"]
    assert (row["n_errors"], row["n_samples"]) == (1, 12)


# --- other runs ----------------------------------------------------------------------------------


def test_a_new_run_that_overwrites_is_checked_first(tool: Tool, write: Any) -> None:
    model = write(records())
    assert run(tool, model, "--run-id", "r").code == 0
    before = {path: path.read_bytes() for path in (tool.bench / "results").rglob("*.json*")}
    message = refused(run(tool, model, "--run-id", "r", "--command", "all", "--fresh"))
    assert "--command" in message
    assert {path: path.read_bytes() for path in before} == before


def test_a_model_that_cannot_be_loaded_leaves_no_folder(tool: Tool) -> None:
    folder = tool.bench / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
    result = tool.run("--model", str(folder))
    assert result.code == 2
    assert not (tool.bench / "results").exists()
