"""POPE, SugarCrepe and VSR on synthetic rows in their official formats: prompts and scores."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_harness import evaluate
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import InputError
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.orders import Order, orders
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import Request

REGISTRY = Registry.standard()
LETTER = "Answer with the option's letter from the given choices directly."
GROUPS = {
    "pope": ["pope_adversarial", "pope_popular", "pope_random"],
    "sugarcrepe": [
        "sugarcrepe_add_att", "sugarcrepe_add_obj", "sugarcrepe_replace_att",
        "sugarcrepe_replace_obj", "sugarcrepe_replace_rel", "sugarcrepe_swap_att",
        "sugarcrepe_swap_obj",
    ],
    "vsr": ["vsr_flipped", "vsr_random", "vsr_zeroshot"],
}  # fmt: skip


def task(name: str, root: Path) -> Task:
    return load_task(REGISTRY.task(name), REGISTRY, root)


def words(
    found: Task, protocol: str, order: Order = (0, 1), command: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Prompt and candidates of the first sample."""
    use = getattr(found.spec.protocols, protocol)
    asks = prompt_builder(found.spec, protocol, use, REGISTRY)
    prompt = asks.prompt(found.samples[0], order, command or asks.default_command)
    request = PROTOCOLS.get(protocol).request(found.samples[0], prompt, use)
    return prompt.text, request.candidates


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("group", GROUPS)
def test_groups(group: str) -> None:
    assert REGISTRY.select_tasks([group]) == GROUPS[group]


# --- POPE -----------------------------------------------------------------------------------------


def pope(root: Path, name: str = "pope/coco/coco_pope_random.json") -> Path:
    rows = [
        (1, "COCO_val2014_000000000001.jpg", "Is there a kite in the image?", "yes"),
        (2, "COCO_val2014_000000000001.jpg", "Is there a boat in the image?", "no"),
        (3, "COCO_val2014_000000000002.jpg", "Is there a kite in the image?", "no"),
    ]
    keys = ("question_id", "image", "text", "label")
    touch(root / name)
    (root / name).write_text(
        "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    )
    return root


def test_pope_asks_as_llava_does(tmp_path: Path) -> None:
    touch(tmp_path / "pope" / "val2014" / "COCO_val2014_000000000001.jpg")
    touch(tmp_path / "coco" / "val2014" / "COCO_val2014_000000000002.jpg")
    found = task("pope_random", pope(tmp_path))
    assert [(s.id, s.options[s.target]) for s in found.samples] == [
        ("1", "Yes"), ("2", "No"), ("3", "No"),
    ]  # fmt: skip
    assert all(sample.images[0].exists() for sample in found.samples)
    question = "Is there a kite in the image?"
    llava = f"{question}\nAnswer the question using a single word or phrase."
    assert words(found, "generate") == (llava, ())
    assert words(found, "likelihood") == (llava, ("Yes", "No"))
    assert words(found, "generate", command="yes_no")[0] == f"{question}\nAnswer yes or no."
    assert words(found, "choice") == (f"{question}\nA. Yes\nB. No\n{LETTER}", ("A", "B"))


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_each_split_of_pope_has_its_file(split: str, tmp_path: Path) -> None:
    """Either as in the evaluation of LLaVA, or in the folder of the photographs."""
    for place in ("pope/coco/", "pope/"):
        root = pope(tmp_path / place.replace("/", "-"), f"{place}coco_pope_{split}.json")
        assert len(task(f"pope_{split}", root).samples) == 3


def test_a_later_version_of_the_pope_files_is_detected(tmp_path: Path, command: Any) -> None:
    code, _, messages = command("data", "check", "pope_random", "--data-dir", pope(tmp_path))
    assert code == 2
    assert "coco_pope_random.json: checksum mismatch" in messages


def test_pope_is_scored_by_f1_of_yes(tmp_path: Path) -> None:
    """A true positive, a false positive and an unanswered negative: TP 1, FP 2."""
    answers = {"1": "Yes.", "2": "Yes", "3": "Perhaps a kite."}

    def handler(request: Request) -> str:
        assert request.sample is not None
        return answers[request.sample.id]

    run = evaluate(
        [FakeBackend(handler, "x")], ["pope_random"], data_dir=str(pope(tmp_path)),
        output_dir=str(tmp_path / "r"), images="none",
    )  # fmt: skip
    (row,) = run.results
    assert row["primary_metric"] == "f1"
    values = {name: metric["value"] for name, metric in row["metrics"].items()}
    assert values == pytest.approx(
        {"f1": 2 / 4, "individual_accuracy": 1 / 3, "precision": 1 / 3, "recall": 1, "yes_ratio": 1}
    )


# --- SugarCrepe -----------------------------------------------------------------------------------


def sugarcrepe(root: Path, name: str = "swap_obj") -> Path:
    rows = {
        "0": ("000000000001.jpg", "A cat sits on a dog. ", "A dog sits on a cat."),
        "7": ("000000000002.jpg", 'A sign that says "go"', 'A sign that says "stop".'),
    }
    keys = ("filename", "caption", "negative_caption")
    path = root / "sugarcrepe" / "data" / f"{name}.json"
    touch(path)
    path.write_text(
        json.dumps({key: dict(zip(keys, row, strict=True)) for key, row in rows.items()})
    )
    return root


def test_sugarcrepe_asks_as_its_gpt4v_results_were_made(tmp_path: Path) -> None:
    touch(tmp_path / "sugarcrepe/data/coco/images/val2017/000000000001.jpg")
    touch(tmp_path / "coco/val2017/000000000002.jpg")
    found = task("sugarcrepe_swap_obj", sugarcrepe(tmp_path))
    assert [(s.id, s.target) for s in found.samples] == [("0", 0), ("7", 0)]
    assert all(sample.images[0].exists() for sample in found.samples)
    cat, dog = found.samples[0].options
    assert (
        (cat, dog) == found.samples[0].captions == ("A cat sits on a dog.", "A dog sits on a cat.")
    )
    ask, end = "Which caption best describes the image?", "Output (1) or (2)."
    first = f"{ask}\n(1) {cat}\n (2) {dog}\n{end}"
    assert words(found, "generate") == (first, ())
    assert words(found, "generate", (1, 0)) == (f"{ask}\n(1) {dog}\n (2) {cat}\n{end}", ())
    assert words(found, "likelihood") == (first, (f"(1) {cat}", f"(2) {dog}"))
    assert words(found, "choice") == (f"{ask}\nA. {cat}\nB. {dog}\n{LETTER}", ("A", "B"))


@pytest.mark.parametrize("name", GROUPS["sugarcrepe"])
def test_the_correct_caption_is_shown_first_and_second_equally_often(
    name: str, tmp_path: Path
) -> None:
    """A model that always answers (1) is correct half the time."""
    sugarcrepe(tmp_path, name.removeprefix("sugarcrepe_"))
    run = evaluate(
        [FakeBackend(lambda _: "(1)", "x")], [name], data_dir=str(tmp_path), images="none",
        output_dir=str(tmp_path / "r"), protocol=["generate"],
    )  # fmt: skip
    assert run.results[0]["metrics"]["individual_accuracy"]["value"] == 1 / 2
    assert run.results[0]["n_samples"] == 4


def test_accepted_answers_to_sugarcrepe(tmp_path: Path) -> None:
    """In either order: the number, the number and its caption, the caption alone."""
    sugarcrepe(tmp_path)
    for form in ("({n})", "Output ({n}).", "{n}", "({n}) {caption}", "{caption}"):

        def handler(request: Request, form: str = form) -> str:
            assert request.sample is not None
            number = request.order.index(request.sample.target) + 1
            return form.format(n=number, caption=request.sample.options[request.sample.target])

        run = evaluate(
            [FakeBackend(handler, "x")], ["sugarcrepe_swap_obj"], data_dir=str(tmp_path),
            images="none", output_dir=str(tmp_path / "r"), protocol=["generate"], fresh=True,
        )  # fmt: skip
        assert run.results[0]["metrics"]["individual_accuracy"]["value"] == 1, form


def test_sugarcrepe_for_dual_encoders(tmp_path: Path) -> None:
    """Captions in the order of the options, once each; a tie is incorrect."""
    sugarcrepe(tmp_path)
    scores = {"0": [0.3, 0.2], "7": [0.2, 0.2]}

    def handler(request: Request) -> list[float]:
        assert request.sample is not None
        assert request.candidates == request.sample.options
        return scores[request.sample.id]

    run = evaluate(
        [FakeBackend(handler, "x")], ["sugarcrepe_swap_obj"], data_dir=str(tmp_path),
        output_dir=str(tmp_path / "r"), protocol=["similarity"],
    )  # fmt: skip
    (row,) = run.results
    assert (row["n_samples"], row["n_tied"], row["order"]) == (2, 1, "fixed")
    assert row["metrics"]["individual_accuracy"]["value"] == 1 / 2


# --- VSR ------------------------------------------------------------------------------------------

CAPTIONS = [
    # caption, label, relation; the same flipped, and its family
    ("The cat is at the left side of the tv.", 1, "at the left side of",
     "The cat is at the right side of the tv.", "left/right"),
    ("The cat is left of the bed.", 0, "left of", "The cat is right of the bed.", "left/right"),
    ("The dog is under the bed.", 1, "under", None, None),
    ("The dog is at the back of the car.", 0, "at the back of",
     "The dog is in front of the car.", "front/behind"),
    ("The horse is facing away from the cow.", 1, "facing away from",
     "The horse is facing the cow.", "facing"),
    ("The bus is parallel to the car.", 1, "parallel to",
     "The bus is perpendicular to the car.", "parallel"),
]  # fmt: skip


def vsr(root: Path, split: str = "random") -> Path:
    path = root / "vsr" / "splits" / split / "test.jsonl"
    touch(path)
    rows = [
        {"image": f"00000000000{n}.jpg", "caption": caption, "label": label, "relation": relation,
         "image_link": f"http://images.cocodataset.org/train2017/00000000000{n}.jpg"}
        for n, (caption, label, relation, _, _) in enumerate(CAPTIONS)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("split", ["random", "zeroshot"])
def test_vsr(split: str, tmp_path: Path) -> None:
    touch(tmp_path / "vsr/images/000000000000.jpg")
    touch(tmp_path / "coco/train2017/000000000001.jpg")
    found = task(f"vsr_{split}", vsr(tmp_path, split))
    assert [s.options[s.target] for s in found.samples] == [
        "True", "False", "True", "False", "True", "True",
    ]  # fmt: skip
    assert [sample.images[0].exists() for sample in found.samples[:3]] == [True, True, False]
    assert [s.category for s in found.samples[:2]] == ["at the left side of", "left of"]
    ask = f'Based on the image, is this statement true or false? "{CAPTIONS[0][0]}"'
    assert words(found, "generate") == (f"{ask} Answer true or false.", ())
    assert words(found, "generate", command="instructblip")[0] == f"{ask} Answer:"
    assert words(found, "likelihood")[1] == ("True", "False")
    turned = words(found, "generate", (1, 0))[0]
    assert turned == ask.replace("true or false", "false or true") + " Answer false or true."
    assert [*orders("fixed", found.samples[0], 0)] == [(0, 1)]
    assert found.spec.order == "fixed"


def test_vsr_flipped(tmp_path: Path) -> None:
    """Every caption that has an opposite, paired with it; one of the two is true."""
    found = task("vsr_flipped", vsr(tmp_path))
    assert [(s.id, s.pair, s.fields["caption"], s.category, s.target) for s in found.samples] == [
        sample
        for n, (caption, label, _, flipped, family) in enumerate(CAPTIONS)
        if flipped
        for sample in (
            (f"{n}-original", str(n), caption, family, 1 - label),
            (f"{n}-flipped", str(n), flipped, family, label),
        )
    ]
    assert len({s.images[0].path for s in found.samples if s.pair == "0"}) == 1
    ask, _ = words(found, "generate")
    assert ask.startswith("Based on the image, is this statement true or false?")
    run = evaluate(
        [FakeBackend(lambda _: "True.", "x")], ["vsr_flipped"], data_dir=str(tmp_path),
        output_dir=str(tmp_path / "r"), protocol=["generate"], images="none",
    )  # fmt: skip
    values = {name: metric["value"] for name, metric in run.results[0]["metrics"].items()}
    assert values == {"pair_accuracy": 0, "individual_accuracy": 1 / 2, "yes_ratio": 1}


def test_a_caption_without_its_relation_names_the_row(tmp_path: Path) -> None:
    path = vsr(tmp_path) / "vsr/splits/random/test.jsonl"
    path.write_text(path.read_text().replace("is left of", "is  left  of"))
    message = r"fields\.before, row 1 of .*: .* does not match 'The cat"
    with pytest.raises(InputError, match=message):
        task("vsr_flipped", tmp_path)
