"""Export formats: compared with hand-written output and read back by the tools' own code."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from helpers.bench import TASK, Edit, Tool, python, refused
from helpers.exports import Go, Row, change
from helpers.runs import first
from helpers.runs import laconic as oracle
from vlm_harness.errors import printable
from vlm_harness.export import lm_eval, model_card, tables
from vlm_harness.export.formats import FORMATS, format_named
from vlm_harness.export.rows import Result, load
from vlm_harness.metrics import METRICS


def number(value: float | None, low: float | None = None, high: float | None = None) -> Row:
    return {"value": value, "ci_low": low, "ci_high": high, "n": 12, "chance": None}


def cells(text: str) -> list[list[str]]:
    """The first table of a Markdown text, as parsed by a GitHub-style renderer."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    found: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and token.level > 3:
            found[-1].append("".join(child.content for child in token.children or []))
        elif token.type == "table_close":
            break
    return found


def read(*folders: Path, **chosen: Any) -> list[Result]:
    return load(folders, **chosen)


# --- tables ---------------------------------------------------------------------------------------

# Always the first option: half of the samples, no pair. Wilson of 3, 0 and 6 out of 6 pairs, with
# z = 1.96: (0.5 + 0.32) / 1.64 +- 0.5123, that is 18.8 to 81.2; 0 to 39.0; 61.0 to 100.
MARKDOWN = """\
| model | sides: Indiv. | sides: Pairs |
| :-- | --: | --: |
| first | 50.0 (18.8–81.2) | 0.0 (0.0–39.0) |
| oracle | **100.0** (61.0–100.0) | **100.0** (61.0–100.0) |
| chance | 50 | 25 |

Percent; in brackets: 95% interval over groups; bold: the best of a column. Protocol: generate. \
Labels: corrected.
"""

LATEX = r"""% needs \usepackage{booktabs}
\begin{table}
  \centering
  \setlength{\tabcolsep}{4pt}
  \caption{Percent; below: 95\% interval over groups; bold: the best of a column. Protocol: generate. Labels: corrected.}
  \begin{tabular}{lrr}
    \toprule
     & \multicolumn{2}{c}{sides} \\
    \cmidrule(lr){2-3}
    model & Indiv. & Pairs \\
    \midrule
    first & 50.0 & 0.0 \\
     & {\scriptsize 18.8--81.2} & {\scriptsize 0.0--39.0} \\
    \addlinespace[2pt]
    oracle & \textbf{100.0} & \textbf{100.0} \\
     & {\scriptsize 61.0--100.0} & {\scriptsize 61.0--100.0} \\
    \midrule
    chance & 50 & 25 \\
    \bottomrule
  \end{tabular}
\end{table}
"""  # noqa: E501


def test_tables_by_hand(go: Go) -> None:
    results = read(go())
    assert tables.markdown(results) == MARKDOWN
    assert tables.latex(results) == LATEX


def test_the_best_of_a_column(go: Go) -> None:
    run = go(models={"a": first, "b": first, "c": oracle})
    values = iter([0.7504, 0.7496, 0.2])  # the first two are printed alike

    def edit(row: Row) -> None:
        value = next(values)
        row["metrics"] = {
            name: number(value) for name in ("pair_accuracy", "mean_pair_cosine", "yes_ratio")
        }

    change(run, edit)
    names = ["pair_accuracy", "mean_pair_cosine", "yes_ratio"]
    found = tables.table(read(run, metrics=names), "")
    assert [[cell and cell.best for cell in row.cells] for row in found.rows] == [
        [True, False, False],
        [True, False, False],
        [False, False, False],
    ]
    assert [cell and cell.value for cell in found.rows[0].cells] == ["75.0", "0.750", "75.0"]
    # A single row is not marked as the best.
    (single,) = tables.table(read(run, models=["c"], metrics=names), "").rows
    assert not any(cell and cell.best for cell in single.cells)


def test_partial_results_do_not_compete_with_complete_ones(go: Go) -> None:
    complete, part = go("complete", models={"a": first}), go("part", models={"b": oracle}, limit=4)
    text = tables.markdown(read(complete, part))
    assert "| **50.0** (" in text
    assert r"| 100.0\* (" in text
    assert r"\*: some samples are missing or failed." in text
    assert r"100.0\rlap{*}" in tables.latex(read(complete, part))
    text = tables.markdown(read(part, go("both", models={"c": first}, limit=4)))
    assert r"**100.0**\*" in text


def test_only_two_metrics_have_no_direction() -> None:
    unranked = {name for name in METRICS.names() if METRICS.get(name).direction is None}
    assert unranked == {"mean_pair_cosine", "yes_ratio"}


def test_rows_are_named_by_what_varies(go: Go) -> None:
    plain = go("plain", models={"a": first}, protocol=["generate", "choice"], command=["all"])
    rows = cells(tables.markdown(read(plain)))
    assert rows[0][:4] == ["model", "protocol", "command", "sides: Indiv."]
    assert [row[:3] for row in rows[1:-1]] == [
        ["a", "generate", "default"],
        ["a", "generate", "short"],
        ["a", "choice", "letter"],  # the command of its template
    ]
    # Models with different settings: all rows name theirs.
    blind = go("blind", models={"b": first}, images="none")
    rows = cells(tables.markdown(read(plain, blind)))
    assert rows[0][:4] == ["model", "protocol", "command", "image mode"]
    assert [row[:4] for row in rows[-2:]] == [
        ["b", "generate", "default", "none"],
        ["chance", "", "", ""],
    ]
    # Models with the same settings in two runs: rows name their run.
    rows = cells(tables.markdown(read(go("one"), go("two"))))
    assert [row[:2] for row in rows[:3]] == [["model", "run"], ["first", "one"], ["oracle", "one"]]
    assert [row[1] for row in rows[3:5]] == ["two", "two"]


def test_columns_are_tasks_and_their_versions(go: Go, bench: Path, edit: Edit) -> None:
    old = go("old", models={"a": oracle})
    edit("version: 1", "version: 2")
    (bench / "specs" / "other.yaml").write_text(TASK.replace("task: sides", "task: sides_b_c"))
    (bench / "specs" / "third.yaml").write_text(TASK.replace("task: sides", "task: sides_b"))
    new = go("new", models={"b": first}, tasks=["sides", "sides_b_c"])
    rows = cells(tables.markdown(read(old, new, metrics=["pair_accuracy"])))
    assert [row[1:] for row in rows[1:3]] == [
        ["100.0 (61.0–100.0)", "", ""],
        ["", "0.0 (0.0–39.0)", "0.0 (0.0–39.0)"],
    ]
    assert rows[0][1:] == ["sides v1: Pairs", "sides v2: Pairs", "sides_b_c: Pairs"]
    run = go("pre", tasks=["sides_b", "sides_b_c"])
    text = tables.markdown(read(run, metrics=["pair_accuracy"]))
    assert cells(text)[0][1:] == ["b: Pairs", "b_c: Pairs"]
    assert r"Task names start with sides\_." in text


def test_metrics_without_a_value(go: Go) -> None:
    run = go(models={"a": oracle})
    change(run, lambda row: row["metrics"].update(pair_accuracy=number(None)))
    assert cells(tables.markdown(read(run)))[1][2] == "–"
    assert "& -- \\\\" in tables.latex(read(run))
    # Metrics without groups in the task are left out unless they are requested.
    change(run, lambda row: row["metrics"].update(set_accuracy=number(None)))
    assert [each.metrics for each in read(run)] == [["individual_accuracy", "pair_accuracy"]]
    assert [each.metrics for each in read(run, metrics=["set_accuracy"])] == [["set_accuracy"]]
    change(run, lambda row: row["metrics"].update(mean_pair_cosine=number(-0.25, -0.5, 0.0)))
    text = tables.latex(read(run, metrics=["mean_pair_cosine"]))
    assert "& $-$0.250 \\\\" in text
    assert "{\\scriptsize $-$0.500--0.000}" in text


def test_tasks_that_do_not_fit_on_one_page_width(go: Go, bench: Path) -> None:
    names = [f"sides_{letter}" for letter in "abcd"]
    for name in names:
        (bench / "specs" / f"{name}.yaml").write_text(TASK.replace("task: sides", f"task: {name}"))
    text = tables.latex(read(go(tasks=names)))
    assert re.findall(r"\\begin{tabular}{(\w+)}", text) == ["lrrrrrr", "lrr"]
    assert re.findall(r"\\cmidrule\(lr\){(\d-\d)}", text) == ["2-3", "4-5", "6-7", "2-3"]
    assert re.findall(r"{c}{(\w)}", text) == [*"abcd"]
    assert all(part.count("chance") == 1 for part in text.split("\\medskip"))


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_has_the_numbers_of_results_json(go: Go) -> None:
    run = go(protocol=["generate", "choice"])
    rows = list(csv.DictReader(io.StringIO(tables.csv(read(run)))))
    assert tuple(rows[0]) == tables.CSV_COLUMNS
    assert len(rows) == 2 * 2 * 2
    results = json.loads((run / "results.json").read_text())["results"]
    of = {(each["model"], each["protocol"]): each for each in results}
    for row in rows:
        original = of[row["model"], row["protocol"]]
        metric = original["metrics"][row["metric"]]
        assert all(float(row[key]) == metric[key] for key in ("value", "ci_low", "ci_high"))
        assert (int(row["n"]), float(row["chance"])) == (metric["n"], metric["chance"])
        assert (row["version"], row["complete"], row["run"]) == ("1", "true", "run")
        assert int(row["n_samples"]) == original["n_samples"] == 12
    change(run, lambda row: row["metrics"].update(pair_accuracy=number(None)))
    rows = list(csv.DictReader(io.StringIO(tables.csv(read(run, metrics=["pair_accuracy"])))))
    assert {(row["value"], row["ci_low"], row["chance"]) for row in rows} == {("", "", "")}


@pytest.mark.parametrize("name", ['=HYPERLINK("x")', "+1", "-1", "@SUM(A1)", "\t=1", " =1"])
def test_csv_holds_no_formulas(go: Go, name: str) -> None:
    run = go(models={"a": first})
    change(run, lambda row: row.update(model=name))
    change(run, lambda row: row["metrics"].update(pair_accuracy=number(-0.5)))
    (_, row) = csv.DictReader(io.StringIO(tables.csv(read(run))))
    assert row["model"] == f"'{name}"
    assert row["value"] == "-0.5"  # numbers are not escaped


# --- escaping -------------------------------------------------------------------------------------

ODD = st.text(st.sampled_from("a1 \\`*_{}[]<>|~&$!#^%-'\"\n\t=é–\u202e\x1b") | st.characters())
"""Text with special characters, which are more frequent than others."""


@given(ODD, ODD)
def test_markdown_cells_round_trip(one: str, two: str) -> None:
    texts = [" ".join(printable(text).split()) for text in (one, two)]
    line = " | ".join(map(tables.markdown_text, texts))
    rows = cells(f"| {line} |\n| :-- | --: |\n| {line} |\n")
    assert rows == [texts, texts]


COMMAND = re.compile(r"\\([A-Za-z]+)\{\}|\\([&%$#_{}])|\{([\[*])\}|([-'])\{\}(?=[-'])")
NAMES = {
    "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<",
    "textgreater": ">", "textbar": "|", "textasciigrave": "`",
}  # fmt: skip


def unlatex(text: str) -> str:
    """The typeset text; fails if there are any unknown commands."""
    rest = COMMAND.sub("", text)
    assert not re.search(r"[\\{}&%$#_~^<>|`\[*\n]", rest), rest
    return COMMAND.sub(lambda m: NAMES[m[1]] if m[1] else m[2] or m[3] or m[4], text)


@given(ODD)
def test_latex_text_round_trips(text: str) -> None:
    text = " ".join(printable(text).replace("–", "").split())
    found = tables.latex_text(text)
    assert unlatex(found) == text
    assert "--" not in found
    assert "''" not in found
    depth = 0
    for brace in re.sub(r"\\[{}]", "", found):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        assert depth >= 0
    assert depth == 0


def test_latex_by_hand() -> None:
    assert tables.latex_text(r"a_b & 50% #1 ${x}$") == r"a\_b \& 50\% \#1 \$\{x\}\$"
    assert tables.latex_text("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert tables.latex_text("[2pt] a---b") == "{[}2pt] a-{}-{}-b"
    assert tables.latex_text("two\n\nlines") == "two lines"


def test_unusual_names_stay_in_their_cells(go: Go) -> None:
    run = go(models={"a": first})
    name = "a|b\n**c** \\ & _d_ <br> `e` \x1b[31m $x$"
    change(run, lambda row: row.update(model=name))
    rows = cells(tables.markdown(read(run)))
    assert {len(row) for row in rows} == {3}
    assert rows[1][0] == "a|b **c** \\ & _d_ <br> `e` \\x1b[31m $x$"
    lines = tables.latex(read(run)).splitlines()
    body = [line for line in lines if line.endswith(r" \\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {2}


# --- lm-evaluation-harness ------------------------------------------------------------------------


def test_lm_eval_has_the_shape_that_its_tools_read(go: Go) -> None:
    run = go(protocol=["generate", "choice"])
    low, high = 0.3, 0.498  # half of it over 1.96: 0.0505
    change(run, lambda row: row["metrics"].update(pair_accuracy=number(0.4, low, high)))
    found = json.loads(lm_eval.dump(read(run, models=["oracle"])))
    assert found["results"] == {
        "sides": {
            "name": "sides",
            "alias": "sides",
            "sample_len": 12,
            "individual_accuracy,generate": 1.0,
            "individual_accuracy_stderr,generate": "N/A",  # one-sided Wilson interval
            "pair_accuracy,generate": 0.4,
            "pair_accuracy_stderr,generate": pytest.approx(0.0505, abs=1e-4),
            "individual_accuracy,choice": 1.0,
            "individual_accuracy_stderr,choice": "N/A",
            "pair_accuracy,choice": 0.4,
            "pair_accuracy_stderr,choice": pytest.approx(0.0505, abs=1e-4),
        }
    }
    assert found["group_subtasks"] == {"sides": []}
    assert found["versions"] == {"sides": 1}
    assert found["n-shot"] == {"sides": 0}
    assert found["n-samples"] == {"sides": {"original": 12, "effective": 12}}
    better = {"individual_accuracy": True, "pair_accuracy": True}
    assert found["higher_is_better"] == {"sides": better}
    config = found["configs"]["sides"]
    assert (config["task"], config["dataset_path"], config["num_fewshot"]) == ("sides", "sides", 0)
    assert config["metadata"] == {"version": 1}
    assert found["model_name"] == "oracle"
    assert found["config"]["model"] == "fake"
    assert found["config"]["limit"] is None
    manifest = json.loads((run / "manifest.json").read_text())
    assert found["git_hash"] == manifest["environment"]["git_commit"]
    assert isinstance(found["date"], float)
    (about,) = found["vlm_harness"]["runs"]
    assert about == {"run_id": "run", "identity_sha256": manifest["identity_sha256"]}


def test_lm_eval_distinguishes_settings(go: Go) -> None:
    run = go(models={"a": oracle}, command=["all"], order="both", limit=4)
    change(run, lambda row: row["metrics"].update(mean_pair_cosine=number(None)))
    metrics = ["pair_accuracy", "mean_pair_cosine"]
    found = lm_eval.document(read(run, metrics=metrics))
    assert [key for key in found["results"]["sides"] if "stderr" not in key][3:] == [
        "pair_accuracy,generate:command=default",
        "mean_pair_cosine,generate:command=default",
        "pair_accuracy,generate:command=short",
        "mean_pair_cosine,generate:command=short",
    ]
    assert found["results"]["sides"]["mean_pair_cosine,generate:command=short"] == "N/A"
    assert found["higher_is_better"]["sides"] == {"pair_accuracy": True, "mean_pair_cosine": None}
    # Two lines per sample; 4 of 12 samples were evaluated.
    assert found["n-samples"]["sides"] == {"original": 12, "effective": 4}
    assert found["config"]["limit"] == 4
    change(run, lambda row: row.update(decoding=f"m3id:alpha=1,t0={row['command']}"))
    for key in lm_eval.document(read(run))["results"]["sides"]:
        assert key.count(",") <= 1  # between metric and filter


# --- model card -----------------------------------------------------------------------------------


def test_a_model_card_is_read_back_by_huggingface_hub(go: Go, edit: Edit, bench: Path) -> None:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    hub = (
        "dataset: {reader: jsonl, path: sides/rows.jsonl, source: {hub: some/pairs, revision: abc}}"
    )
    edit("dataset: {reader: jsonl, path: sides/rows.jsonl}", hub)
    text = (bench / "specs" / "sides.yaml").read_text()
    (bench / "specs" / "same.yaml").write_text(text.replace("task: sides", "task: same_data"))
    (bench / "specs" / "own.yaml").write_text(TASK.replace("task: sides", "task: own_data"))
    run = go(
        models={"a": oracle},
        tasks=["sides", "same_data", "own_data"],
        protocol=["similarity", "generate"],
        command=["all"],
    )
    results = read(run)
    text = model_card.dump(results)
    index = yaml.safe_load(text.strip().strip("-"))["model-index"]
    name, found = model_index_to_eval_results(index)
    assert name == "a"

    def key(each: Any) -> str:
        return str(sorted(vars(each).items(), key=str))

    # Results are merged by task and dataset, without mixing up their fields.
    assert sorted(found, key=key) == sorted(model_card.eval_results(results), key=key)
    assert ModelCard(text).data.eval_results == found
    assert len(found) == 3 * (1 + 2) * 2
    assert [(each["task"]["type"], each["dataset"]["type"]) for each in index[0]["results"]] == [
        ("zero-shot-image-classification", "some/pairs"),
        ("visual-question-answering", "some/pairs"),
        ("zero-shot-image-classification", "own_data"),
        ("visual-question-answering", "own_data"),
    ]
    dataset = {"name": "some/pairs", "type": "some/pairs", "revision": "abc"}
    assert index[0]["results"][1]["dataset"] == dataset
    assert index[0]["results"][2]["dataset"] == {"name": "own_data", "type": "own_data"}
    one = index[0]["results"][1]["metrics"][3]
    assert (one["type"], one["value"]) == ("pair_accuracy", 1.0)
    assert one["name"] == "sides: pair accuracy (generate, command short)"
    assert one["args"] == {
        "task": "sides", "task_version": 1, "protocol": "generate", "command": "short",
        "order": "fixed", "decoding": "greedy", "image_mode": "normal", "labels": "corrected",
        "ci_low": 0.6097, "ci_high": 1.0, "n": 6, "chance": 0.25, "complete": True,
    }  # fmt: skip
    assert not re.search("verif|source|token", text)
    change(run, lambda row: row["metrics"].update(pair_accuracy=number(None)))
    assert "pair_accuracy" not in model_card.dump(read(run))


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_or_writes(tool: Tool) -> None:
    assert tool.run("--run-id", "r", "--protocol", "generate").code == 0
    for name in FORMATS:
        shown = tool("export", "results/r", "--format", name)
        assert (shown.code, shown.err) == (0, "")
        written = tool("export", "results/r", "--format", name, "--output", "out")
        assert (written.code, written.out.strip()) == (0, "out")
        assert Path("out").read_text() == shown.out
        assert shown.out == format_named(name)(read(Path("results/r")))
    chosen = tool("export", "results/r", "-f", "csv", "--metric", "pair_accuracy", "-t", "sides")
    assert len(chosen.out.splitlines()) == 2


def test_refusals(tool: Tool, go: Go) -> None:
    run = go()

    def message(*args: object) -> str:
        return refused(tool("export", *map(str, args)))

    assert "did you mean 'markdown'?\nAvailable: csv, " in message(run, "-f", "markdwn")
    assert "not a run folder" in message(run.parent, "-f", "csv")
    assert "a metric 'pair_acc'; did you mean" in message(run, "-f", "csv", "--metric", "pair_acc")
    assert "a task 'side'; did you mean 'sides'?" in message(run, "-f", "csv", "-t", "side")
    assert "a model 'orcle'; did you mean" in message(run, "-f", "csv", "--model", "orcle")
    for name in ("lm-eval", "model-card"):
        found = message(run, "-f", name)
        assert "but the runs have 2\nChoose one with --model: first, oracle" in found
        assert tool("export", str(run), "-f", name, "--model", "first").code == 0
    assert "duplicate result: first on sides, in " in message(run, run, "-f", "csv")
    assert "folder not found: 'nowhere'" in message(run, "-f", "csv", "-o", "nowhere/x")
    path = run / "results.json"
    text = path.read_text()
    for old, new, expected in (
        ('"schema"', "schema", "not valid JSON"),
        ('"value": 0.5', '"value": "half"', "invalid results: results.0.metrics."),
        ('"results": [', '"rows": [', "invalid results: 'results' is missing"),
        ('"value": 0.5', '"value": NaN', "not valid JSON: NaN"),
        ('"task": "sides"', '"task": "tops"', "different run: this run has no task 'tops'"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        found = message(run, "-f", "csv")
        assert expected in found
        assert f"`vlm-harness rescore {run}` creates it" in found
    path.unlink()
    found = message(run, "-f", "csv")
    assert f"{run}: results.json is missing\n`vlm-harness rescore {run}` creates it" in found
    assert tool("rescore", str(run)).code == 0
    assert path.read_text() == text
    assert tool("export", str(run), "-f", "csv").code == 0


def test_export_needs_neither_torch_nor_pandas(go: Go) -> None:
    code = (
        "import sys; sys.argv = ['vlm-harness', 'export', *sys.argv[1:]]\n"
        "from vlm_harness import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sys.modules)"
    )
    for args in (["--help"], [str(go()), "--format", "latex"]):
        modules = set(python("-c", code, *args).out.split("MODULES ")[1].split())
        assert not modules & {"torch", "transformers", "pandas", "wandb", "huggingface_hub"}
