"""Replayed answers of real models must reproduce their published scores.

If our answer extraction differs from the published one, the test lists both numbers and every
sample on which they differ, with the reason. Skipped if the recorded answers are missing.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command
from vlm_harness.protocols.extractors import extract, keyword
from vlm_harness.runs.evaluator import Run, evaluate
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import GenerateUse, ModelSpec
from vlm_harness.tasks.orders import orders
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import load_task

pytestmark = pytest.mark.realdata


def recorded(path: Path, text: str, keys: Any = None) -> ModelSpec:
    """A model that replays the answers of a file."""
    args = {"text": text} if keys is None else {"text": text, "keys": keys}
    return ModelSpec(model="recorded", backend="replay", checkpoint=str(path), args=args)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return [dict(row) for row in csv.DictReader(path.open())]
    return [json.loads(line) for line in path.open()]


def lines_of(run: Run) -> dict[str, dict[str, Any]]:
    """The log of a run of one task, by sample."""
    (path,) = (run.path / "samples").iterdir()
    return {line["sample_id"]: line for line in map(json.loads, path.open())}


def percent(run: Run, name: str, category: str | None = None) -> float:
    (row,) = run.results
    metrics = row["metrics"] if category is None else row["categories"][category]
    assert metrics[name]["value"] is not None
    return 100 * float(metrics[name]["value"])


# --- What'sUp: LLaVA-1.5-7B -----------------------------------------------------------------------

FOUR = ["left", "right", "on", "under"]


@pytest.mark.parametrize(
    ("name", "individual", "pair", "set_of_four", "correct_pairs"),
    [("A_baseline", 60.303, 40.6061, 0.0, 67), ("A_adaptvis", 84.8485, 61.2121, 30.303, 101)],
)
def test_whatsup_a(
    name: str,
    individual: float,
    pair: float,
    set_of_four: float,
    correct_pairs: int,
    realdata: Path,
    tmp_path: Path,
) -> None:
    """The published scores use the original labels, without the pillow/chair correction."""
    path = realdata / "whatsup" / "recorded_llava15" / f"{name}.jsonl"
    run = evaluate(
        [recorded(path, "generation", "image_path")],
        ["whatsup_a_four_way"],
        labels="original",
        data_dir=str(realdata),
        output_dir=str(tmp_path),
    )
    (row,) = run.results
    assert percent(run, "individual_accuracy") == pytest.approx(individual, abs=5e-4)
    assert percent(run, "whatsup_official_pair_accuracy") == pytest.approx(pair, abs=5e-5)
    assert percent(run, "whatsup_official_set_accuracy") == pytest.approx(set_of_four, abs=5e-4)
    assert (row["n_samples"], row["n_expected"], row["n_unparsed"]) == (330, 412, 0)
    assert percent(run, "pair_accuracy") == pytest.approx(
        100 * correct_pairs / 132
    )  # complete pairs
    assert {kind: each.to_dict() for kind, each in row["groups"].items()} == {
        "pair": {"n": 206, "n_incomplete": 206 - 132},
        "set": {"n": 103, "n_incomplete": 103 - 48},
    }
    assert not row["complete"]
    published = {Path(each["image_path"]).stem: each["correct"] for each in rows_of(path)}
    assert {key: line["correct"] for key, line in lines_of(run).items()} == published


def test_on_the_floor_is_not_on_the_chair(realdata: Path) -> None:
    """ "On the floor, under the chair" is under: 280 of 330, as by the published rule."""
    rows = rows_of(realdata / "whatsup" / "recorded_llava15" / "A_adaptvis.jsonl")
    plain = [keyword(row["generation"], FOUR) for row in rows]
    correct = [
        found.index == FOUR.index(row["gold"].lower())
        for found, row in zip(plain, rows, strict=True)
    ]
    assert sum(correct) == 280
    floor = [(row, found) for row, found in zip(rows, plain, strict=True)
             if "on the floor, under" in row["generation"]]  # fmt: skip
    assert len(floor) == 31
    assert {found.index for _, found in floor} == {FOUR.index("under")}


WHATSUP_B = """\
include: tasks/whatsup/_four_way.yaml
task: items
dataset: {reader: jsonl, path: whatsup/controlled_clevr_items.jsonl}
fields:
  name: "{{ obj_a }}_{{ row.relation }}_{{ obj_b }}"
  choices: "{{ ['left', 'right', 'front', 'behind'] }}"
sample: {captions: null, images: []}
protocols: {similarity: null}
"""


def test_whatsup_b(realdata: Path, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(WHATSUP_B)
    path = realdata / "whatsup" / "recorded_llava15" / "B_baseline.jsonl"
    run = evaluate(
        [recorded(path, "generation", {"id": "{{ row.id }}"})],
        ["items"],
        include_path=[str(tmp_path / "task.yaml")],
        data_dir=str(realdata),
        output_dir=str(tmp_path / "results"),
    )
    (row,) = run.results
    assert percent(run, "individual_accuracy") == pytest.approx(73.0887, abs=5e-5)
    assert percent(run, "whatsup_official_pair_accuracy") == pytest.approx(41.5902, abs=5e-5)
    assert percent(run, "whatsup_official_set_accuracy") == pytest.approx(3.6697, abs=5e-5)
    assert (row["n_samples"], row["n_unparsed"]) == (327, 0)
    assert {kind: each.to_dict() for kind, each in row["groups"].items()} == {
        "pair": {"n": 204, "n_incomplete": 204 - 129},
        "set": {"n": 102, "n_incomplete": 102 - 42},
    }
    published = {
        f"{each['obj_a']}_{each['relation']}_{each['obj_b']}": each["correct"]
        for each in rows_of(path)
    }
    assert {key: line["correct"] for key, line in lines_of(run).items()} == published


SPATIAL = """\
task: items
version: 1
dataset: {{reader: jsonl, path: whatsup/adaptvis_prompts/{file}_with_answer_{n}_options.jsonl}}
fields:
  choices: {choices}
sample:
  id: "{{{{ id }}}}"
  options: "{{{{ choices }}}}"
  target: "{{{{ answer[0] | lower | index_of(choices) }}}}"
prompt: {{question: "{{{{ question | regex_group('(?s)USER: (.*)ASSISTANT:') }}}}"}}
protocols: {{generate: {{extract: keyword, max_new_tokens: 16}}}}
"""


@pytest.mark.parametrize(
    ("name", "file", "n", "choices", "correct", "total", "published"),
    [
        ("COCO_two_dist", "COCO_QA_two_obj", "four", "[left, right, above, below]",
         205, 352, 58.2386),
        ("VG_two_baseline", "VG_QA_two_obj", "six", "[left, right, front, behind, above, below]",
         95, 233, 40.7725),
    ],
)  # fmt: skip
def test_coco_and_gqa_spatial(
    name: str,
    file: str,
    n: str,
    choices: str,
    correct: int,
    total: int,
    published: float,
    realdata: Path,
    tmp_path: Path,
) -> None:
    """AdaptVis asks about all relations at once, and its records do not name the image.

    The task therefore uses the recorded questions, not those of coco_spatial_two, which name two
    relations.
    """
    (tmp_path / "task.yaml").write_text(SPATIAL.format(file=file, n=n, choices=choices))
    path = realdata / "whatsup" / "recorded_llava15" / f"{name}.jsonl"
    run = evaluate(
        [recorded(path, "generation")],
        ["items"],
        include_path=[str(tmp_path / "task.yaml")],
        data_dir=str(realdata),
        output_dir=str(tmp_path / "results"),
    )
    lines = lines_of(run)
    assert sum(line["correct"] for line in lines.values()) == correct
    assert percent(run, "individual_accuracy") == pytest.approx(published, abs=5e-5)
    assert (run.results[0]["n_samples"], run.results[0]["n_unparsed"]) == (total, 0)
    for row in rows_of(path):
        line = lines[str(row["id"])]
        assert (line["prompt"], line["correct"]) == (row["question"].strip(), row["correct"])


# --- POPE: LLaVA-1.5-13B --------------------------------------------------------------------------

POPE = {"random": (10_000_000, 87.14), "popular": (20_000_000, 86.25), "adversarial": (0, 84.46)}
"""Offset that LLaVA adds to question_id in its single file of answers; published F1."""


def popes_own(text: str) -> str:
    """POPE's own extraction: everything that is not "no" is "yes"."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & {*words} else "yes"


def test_pope(realdata: Path, tmp_path: Path) -> None:
    path = realdata / "pope" / "recorded" / "llava-v1.5-13b.jsonl"
    found = []
    for split, (offset, published) in POPE.items():
        run = evaluate(
            [recorded(path, "text", {"question_id": f"{{{{ question_id + {offset} }}}}"})],
            [f"pope_{split}"],
            data_dir=str(realdata),
            output_dir=str(tmp_path),
        )
        (row,) = run.results
        assert row["complete"]
        assert (row["primary_metric"], row["n_unparsed"]) == ("f1", 0)
        found.append(percent(run, "f1"))
        assert round(found[-1], 2) == published
        # The other four metrics, as POPE's script computes them from the same texts.
        lines = lines_of(run).values()
        pairs = [(line["options"][line["target"]].lower(), popes_own(line["response"]["text"]))
                 for line in lines]  # fmt: skip
        tp, fp, fn = (pairs.count(x) for x in (("yes", "yes"), ("no", "yes"), ("yes", "no")))
        for name, value in {
            "individual_accuracy": sum(x == y for x, y in pairs) / len(pairs),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "yes_ratio": (tp + fp) / len(pairs),
        }.items():
            assert percent(run, name) == pytest.approx(100 * value)
    assert round(sum(found) / 3, 3) == 85.947  # published: 85.9


def test_pope_on_the_command_line(realdata: Path, tmp_path: Path, command: Command) -> None:
    path = realdata / "pope" / "recorded" / "llava-v1.5-13b.jsonl"
    code, out, _ = command(
        "--model", f"replay:{path}", "--model-args", "keys=question_id,text=text",
        "--tasks", "pope_adversarial", "--data-dir", realdata, "--output-dir", tmp_path,
    )  # fmt: skip
    assert code == 0
    assert "F1" in out
    assert re.search(r"pope_adversarial +│ generate +│ +84\.5 ", out)


# --- SugarCrepe: GPT-4V, positive-first -----------------------------------------------------------

# Officially correct, total, correct by our extraction, and reasons for samples that differ.
COMPARISON = 'not a choice: "neither fits, but (1) is closer" is a comparison'
BARE = 'an answer: a bare "1", which the official extraction ignores'
SUGARCREPE: dict[str, tuple[int, int, int, dict[str, str]]] = {
    "swap_att": (607, 666, 607, {}),
    "swap_obj": (211, 246, 211, {}),
    "add_att": (604, 692, 604, {}),
    "add_obj": (1859, 2062, 1860, {"1847": BARE}),
    "replace_att": (734, 788, 734, {}),
    "replace_obj": (1578, 1652, 1578, {}),
    "replace_rel": (1240, 1406, 1240, {}),
}


def gpt4v(realdata: Path, name: str) -> dict[str, dict[str, Any]]:
    path = realdata / "sugarcrepe" / "recorded" / "gpt4v" / "positive-first" / f"{name}.json"
    # swap_obj.json has a key `accuracy`, which is not an item.
    return {key: row for key, row in json.loads(path.read_text()).items() if isinstance(row, dict)}


def replay_gpt4v(realdata: Path, data: Path, name: str, tmp_path: Path) -> Run:
    rows = gpt4v(realdata, name).items()
    answers = write(
        tmp_path / f"{name}.jsonl",
        ({"id": key, "text": row["answer"]["free_form_answer"]} for key, row in rows),
    )
    return evaluate(
        [recorded(answers, "text")],
        [f"sugarcrepe_{name}"],
        order="fixed",  # positive-first is the only recorded order
        protocol=["generate"],
        data_dir=str(data),
        output_dir=str(tmp_path / "results"),
    )


@pytest.mark.parametrize("name", SUGARCREPE)
def test_sugarcrepe(name: str, realdata: Path, tmp_path: Path) -> None:
    """Official and our scores on the items of that time, and all samples extracted differently."""
    official, total, ours, expected = SUGARCREPE[name]
    rows = gpt4v(realdata, name)
    choice = {key: row["answer"]["multiple_choice_answer"] for key, row in rows.items()}
    assert (sum(choice[key] == rows[key]["caption"] for key in rows), len(rows)) == (
        official,
        total,
    )
    items = {key: {k: row[k] for k in ("filename", "caption", "negative_caption")}
             for key, row in rows.items()}  # fmt: skip
    data = tmp_path / "data" / "sugarcrepe" / "data" / f"{name}.json"
    data.parent.mkdir(parents=True)
    data.write_text(json.dumps(items))
    run = replay_gpt4v(realdata, tmp_path / "data", name, tmp_path)
    lines = lines_of(run)
    assert (sum(line["correct"] for line in lines.values()), len(lines)) == (ours, total)
    extracted: dict[str, str | None] = {}
    for key, line in lines.items():
        captions = (rows[key]["caption"], rows[key]["negative_caption"])
        extracted[key] = None if line["prediction"] is None else captions[line["prediction"]]
    assert {key for key in rows if (choice[key] or None) != extracted[key]} == {*expected}
    for key, why in expected.items():
        assert why == BARE
        assert (choice[key], lines[key]["response"]["text"], extracted[key]) == (
            "", "1", rows[key]["caption"],
        )  # fmt: skip
    unanswered = sum(not text for text in choice.values())
    assert run.results[0]["n_unparsed"] == unanswered - len(expected)


def test_sugarcrepe_with_the_current_data(realdata: Path, tmp_path: Path) -> None:
    """swap_obj no longer contains item 108, which GPT-4V answered correctly: 210 of 245."""
    run = replay_gpt4v(realdata, realdata, "swap_obj", tmp_path)
    lines = lines_of(run)
    assert (sum(line["correct"] for line in lines.values()), len(lines)) == (210, 245)
    removed = gpt4v(realdata, "swap_obj").keys() - lines.keys()
    assert removed == {"108"}
    assert gpt4v(realdata, "swap_obj")["108"]["correct"]
    assert run.results[0]["complete"]


def test_the_first_number_in_the_text_is_not_the_answer(realdata: Path) -> None:
    """Refusals such as "Neither caption (1) nor (2)" would add 60 correct answers."""
    more = 0
    for name, (official, _, _, _) in SUGARCREPE.items():
        texts = [row["answer"]["free_form_answer"] for row in gpt4v(realdata, name).values()]
        firsts = [re.search(r"\(([12])\)", text) for text in texts]
        more += sum(first is not None and first[1] == "1" for first in firsts) - official
    assert more == 60


# --- VSR: Qwen2-VL-7B -----------------------------------------------------------------------------

# Correct pairs and total as published, and for the pairs with a well-formed recorded statement.
FLIPPED = {
    "FF": ("facing", (29, 103), (29, 103)),
    "FB": ("front/behind", (153, 314), (146, 292)),
    "LR": ("left/right", (126, 245), (47, 69)),
    "PP": ("parallel", (3, 34), (3, 34)),
}


@pytest.fixture
def vsr(realdata: Path, tmp_path: Path) -> Path:
    """The test set of the random split, at the path of the official repository."""
    write(
        tmp_path / "vsr" / "splits" / "random" / "test.jsonl",
        rows_of(realdata / "vsr" / "annotations" / "random_test.jsonl"),
    )
    return tmp_path


def qwen(realdata: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Answers to the captions, and to the captions with flipped relations."""
    folder = realdata / "vsr" / "recorded"
    (answers,) = folder.glob("qwen2vl_7b_predictions_*.csv")
    return rows_of(answers), rows_of(folder / "consistency_flips_7B_zero_shot.csv")


def test_vsr(realdata: Path, vsr: Path, tmp_path: Path) -> None:
    """The recorded answers are to a different wording of the question (see the task file)."""
    (path,) = (realdata / "vsr" / "recorded").glob("qwen2vl_7b_predictions_*.csv")
    run = evaluate(
        [recorded(path, "raw_output")],
        ["vsr_random"],
        data_dir=str(vsr),
        output_dir=str(tmp_path / "results"),
    )
    (row,) = run.results
    lines = lines_of(run)
    assert row["complete"]
    assert (sum(line["correct"] for line in lines.values()), len(lines)) == (1776, 2195)
    assert percent(run, "individual_accuracy") == pytest.approx(80.91, abs=5e-3)
    assert row["n_unparsed"] == 0
    for answer in rows_of(path):
        line = lines[answer["id"]]
        assert (answer["statement"] in line["prompt"], line["correct"]) == (
            True, answer["correct"] == "True",
        )  # fmt: skip


def test_vsr_flipped(realdata: Path, vsr: Path, tmp_path: Path) -> None:
    """As published: joined by row only, even if the model saw a garbled flipped statement."""
    answers, flips = qwen(realdata)
    rows = [{"id": f"{x['id']}-original", "text": x["raw_output"]} for x in answers]
    rows += [{"id": f"{x['orig_idx']}-flipped", "text": x["flip_prediction"]} for x in flips]
    run = evaluate(
        [recorded(write(tmp_path / "answers.jsonl", rows), "text")],
        ["vsr_flipped"],
        data_dir=str(vsr),
        output_dir=str(tmp_path / "results"),
    )
    (row,) = run.results
    assert (row["n_samples"], row["n_groups"], row["n_unparsed"]) == (2 * 696, 696, 0)
    assert row["complete"]
    for family, (category, (correct, n), _) in FLIPPED.items():
        assert row["categories"][category]["pair_accuracy"]["n"] == n, family
        assert percent(run, "pair_accuracy", category) == pytest.approx(100 * correct / n), family


def test_vsr_garbled_flipped_statements(realdata: Path, vsr: Path, tmp_path: Path) -> None:
    """Joined by statement as well: 198 of the 696 recorded statements are garbled.

    "At the right side of the left side of": the recorded study flipped only a part of relations
    that contain "the". Their answers are missing here, and their pairs incomplete.
    """
    answers, flips = qwen(realdata)
    rows = [{"row": x["id"], "caption": x["statement"], "text": x["raw_output"]} for x in answers]
    rows += [{"row": x["orig_idx"], "caption": x["statement"], "text": x["flip_prediction"]}
             for x in flips]  # fmt: skip
    keys = {"row": "{{ row_index }}", "caption": "{{ caption }}"}
    run = evaluate(
        [recorded(write(tmp_path / "answers.jsonl", rows), "text", keys)],
        ["vsr_flipped"],
        data_dir=str(vsr),
        output_dir=str(tmp_path / "results"),
    )
    (row,) = run.results
    assert (row["n_samples"], row["n_groups"], row["n_incomplete"]) == (2 * 696 - 198, 696, 198)
    for family, (category, _, (correct, n)) in FLIPPED.items():
        assert row["categories"][category]["pair_accuracy"]["n"] == n, family
        assert percent(run, "pair_accuracy", category) == pytest.approx(100 * correct / n), family
    lines = lines_of(run)
    garbled = [x for x in flips if f"{x['orig_idx']}-flipped" not in lines]
    assert {x["orig_rel"] for x in garbled} == {
        "at the left side of", "at the right side of", "at the back of",
    }  # fmt: skip
    assert all(
        re.search(r" of the (left|right|back) ?(side)? of ", x["statement"]) for x in garbled
    )


# --- the correct answer to every question is extracted --------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("group", ["pope", "sugarcrepe", "vsr"])
def test_the_correct_answer_is_extracted_in_every_order(
    group: str, realdata: Path, tmp_path: Path
) -> None:
    """As the prompt shows it and, if it is numbered, without its number and as the bare number."""
    root = realdata
    if group == "vsr":
        root = tmp_path
        for split in ("random", "zeroshot"):
            rows = rows_of(realdata / "vsr" / "annotations" / f"{split}_test.jsonl")
            write(root / "vsr" / "splits" / split / "test.jsonl", rows)
    registry = Registry.standard()
    for name in registry.select_tasks([group]):
        task = load_task(registry.task(name), registry, root)
        use = task.spec.protocols.generate
        assert isinstance(use, GenerateUse)
        builder = prompt_builder(task.spec, "generate", use, registry)
        for sample in task.samples:
            for order in orders("both", sample, 0):
                shown = builder.prompt(sample, order, builder.default_command).shown
                for position, text in enumerate(shown):
                    option = sample.options[order[position]]
                    forms = {text, option, option.rstrip(".")}
                    forms |= {f"({position + 1})"} if text != option else set()
                    for form in forms:
                        _, found = extract(use.extractors(), form, shown)
                        assert found.index == position, (name, sample.id, form)
