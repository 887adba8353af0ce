"""The bundled toy models, end to end: the paper's finding at toy scale, with every protocol."""

import math
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, pipeline

from helpers.bench import ROOT
from helpers.runs import lines, same_however_computed
from vlm_harness import evaluate
from vlm_harness.backends.hf import batch as hf_batch
from vlm_harness.backends.hf import loaded as hf_loaded
from vlm_harness.backends.hf import vlm as hf_vlm
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.images import ImageLoader, load
from vlm_harness.runs.evaluator import Run
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import Request

MODELS = ["tiny-clip", "tiny-llava"]
LEFT_RIGHT = ["whatsup_rendered_a_left_right", "whatsup_rendered_b_left_right"]
OTHER = ["whatsup_rendered_a_on_under", "whatsup_rendered_b_front_behind"]
FOUR_WAY = ["whatsup_rendered_a_four_way", "whatsup_rendered_b_four_way"]
Go = Callable[..., Run]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    def run(models: list[str], tasks: list[str], folder: str = "results", **options: Any) -> Run:
        return evaluate(models, tasks, output_dir=str(tmp_path / folder), **options)

    return run


def metric(run: Run, name: str, **of: str) -> list[float]:
    """Values of a metric in the rows that match ``of``."""
    rows = [row for row in run.results if all(row[key] == value for key, value in of.items())]
    assert rows
    return [row["metrics"][name]["value"] for row in rows]


def scores_in_card(model: str) -> dict[str, list[float]]:
    """Individual and pair accuracy by task, from the first score table of the model card."""
    text = (ROOT / "models" / model / "README.md").read_text().split("## Scores")[1]
    table = re.findall(r"^\| (\w+) \| ([\d.]+) \S+ \| ([\d.]+) ", text, re.M)
    return {name: [float(a), float(b)] for name, a, b in reversed(table)}


def check_left_right(run: Run) -> None:
    for task in LEFT_RIGHT:
        assert metric(run, "mean_pair_cosine", model="tiny-clip", task=task)[0] >= 0.95
        assert 0.45 <= metric(run, "individual_accuracy", model="tiny-clip", task=task)[0] <= 0.55
        assert metric(run, "pair_accuracy", model="tiny-clip", task=task)[0] <= 0.35
        assert metric(run, "pair_accuracy", model="tiny-llava", task=task)[0] >= 0.9


def test_the_finding(go: Go) -> None:
    """Table 1 at toy scale: a VLM can separate pairs that its encoder embeds almost identically."""
    check_left_right(go(MODELS, LEFT_RIGHT, limit=100))


@pytest.mark.slow
def test_the_scores_on_all_tasks_match_the_cards(go: Go) -> None:
    run = go(MODELS, ["whatsup_rendered"])
    assert len(run.results) == 12
    assert all(row["complete"] and not row["n_unparsed"] for row in run.results)
    check_left_right(run)
    for task in [*OTHER, *FOUR_WAY]:
        assert metric(run, "pair_accuracy", model="tiny-llava", task=task)[0] >= 0.8
    for row in run.results:
        in_card = scores_in_card(row["model"])[row["task"]]
        found = [
            100 * row["metrics"][f"{unit}_accuracy"]["value"] for unit in ("individual", "pair")
        ]
        # Rounding differs between machines, which may change a few samples.
        assert in_card == pytest.approx(found, abs=2), row["task"]
    for task in FOUR_WAY:
        clip, llava = (metric(run, "set_accuracy", model=m, task=task)[0] for m in MODELS)
        assert clip < 0.2
        assert llava >= 0.8


def test_one_vision_tower() -> None:
    clip, llava = (load_file(ROOT / "models" / name / "model.safetensors") for name in MODELS)
    tower = {
        name.split("vision_model.")[1]: weight
        for name, weight in clip.items()
        if "vision_model." in name
    }
    frozen = {
        name.split("vision_tower.")[1].removeprefix("vision_model."): weight
        for name, weight in llava.items()
        if "vision_tower." in name
    }
    assert len(frozen) > 50
    assert frozen.keys() == tower.keys()
    for name, weight in frozen.items():
        assert weight.dtype == tower[name].dtype
        assert torch.equal(weight, tower[name]), name


@pytest.mark.parametrize("protocol", ["generate", "choice", "likelihood"])
def test_without_images_both_samples_of_a_pair_get_the_same_answer(go: Go, protocol: str) -> None:
    run = go(
        ["tiny-llava"], [*LEFT_RIGHT, *OTHER], images="none", order="fixed", protocol=[protocol],
        limit=80,
    )  # fmt: skip
    assert metric(run, "individual_accuracy") == [0.5] * 4
    assert metric(run, "pair_accuracy") == [0.0] * 4


def test_swapped_images_exchange_the_answers_of_a_pair(go: Go) -> None:
    options: dict[str, Any] = {"limit": 80, "protocol": ["generate"]}
    normal = go(["tiny-llava"], LEFT_RIGHT, **options)
    swapped = go(["tiny-llava"], LEFT_RIGHT, images="swapped", **options)
    text = {line["sample_id"]: line["response"]["text"] for line in lines(normal)}
    pairs: dict[str, list[str]] = {}
    for line in lines(normal):
        pairs.setdefault(line["task"] + line["pair"], []).append(line["sample_id"])
    partner = {a: b for pair in pairs.values() for a, b in (pair, pair[::-1])}
    exchanged = {line["sample_id"]: line["response"]["text"] for line in lines(swapped)}
    assert exchanged == {name: text[partner[name]] for name in text}
    assert max(metric(swapped, "pair_accuracy")) <= 0.1


@pytest.mark.parametrize("order", ["fixed", "both", "cyclic", "random"])
def test_every_protocol_and_command(go: Go, order: str) -> None:
    run = go(
        ["tiny-llava"], ["whatsup_rendered_b_front_behind"], order=order, command=["all"],
        protocol=["generate", "choice", "likelihood"], limit=16,
    )  # fmt: skip
    assert {row["protocol"] for row in run.results} == {"generate", "choice", "likelihood"}
    assert all(row["n_unparsed"] == row["n_errors"] == 0 for row in run.results)
    for protocol in ("generate", "likelihood"):  # it was not trained on letters: see its card
        assert min(metric(run, "individual_accuracy", protocol=protocol)) >= 0.8


def test_images_of_different_size_are_cached_separately(go: Go, tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    for size in (32, 256):
        (specs / f"s{size}.yaml").write_text(
            f"include: tasks/whatsup/whatsup_rendered_b_left_right.yaml\ntask: s{size}\n"
            f"dataset: {{args: {{sets: 4, size: {size}}}}}\n"
        )
    options: dict[str, Any] = {"include_path": [str(specs)]}
    separate = [lines(go(["tiny-clip"], [name], name, **options)) for name in ("s256", "s32")]
    both = lines(go(["tiny-clip"], ["s256", "s32"], "both", **options))
    assert [each["images"] for each in both] == [each["images"] for run in separate for each in run]
    scores = [
        [each["response"]["scores"] for each in run] for run in (both, [*separate[0], *separate[1]])
    ]
    assert np.allclose(*scores, atol=1e-5)
    assert not np.allclose(scores[0][:8], scores[0][8:], atol=1e-3)


def test_similarity_by_both_dual_encoders(go: Go) -> None:
    run = go(["tiny-clip", "tiny-clip-control"], ["whatsup_rendered_b_left_right"], limit=40)
    assert [row["protocol"] for row in run.results] == ["similarity"] * 2
    plain, control = metric(run, "pair_accuracy")
    assert plain < 0.35
    assert control > 0.95
    assert metric(run, "mean_pair_cosine")[1] < 0.8


def test_the_toy_models_use_a_positional_shortcut(go: Go) -> None:
    """With exchanged names, a model that only uses the first object's position is always wrong."""
    own = str(ROOT / "toy_models" / "tasks")
    models = ["tiny-llava", "tiny-clip-control"]
    run = go(models, ["names_exchanged"], include_path=[own], limit=40)
    assert max(metric(run, "individual_accuracy")) <= 0.1


def test_the_batch_size_does_not_change_answers(go: Go) -> None:
    answers = []
    for size in (1, 8, 33):
        run = go(["tiny-llava"], LEFT_RIGHT[:1], batch_size=size, limit=32, folder=f"r{size}")
        answers.append({line["sample_id"]: line["response"]["text"] for line in lines(run)})
    assert answers[0] == answers[1] == answers[2]


def test_every_bundled_model_has_a_card_and_is_small() -> None:
    folders = [path.parent for path in (ROOT / "models").glob("*/config.json")]
    assert {folder.name for folder in folders} >= {*MODELS, "tiny-clip-control"}
    for folder in folders:
        card = (folder / "README.md").read_text()
        assert "## Scores" in card
        assert "What it is not" in card
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 15e6


# --- compared with slow reference loops -----------------------------------------------------------


@pytest.fixture(scope="module")
def llava() -> HfVlm:
    return HfVlm(Registry.standard().model("tiny-llava"), LoadOptions(device="cpu"))


@pytest.fixture(scope="module")
def exact(llava: HfVlm) -> Any:
    """The same weights in float64."""
    return LlavaForConditionalGeneration.from_pretrained(
        llava.loaded.spec.checkpoint, dtype=torch.float64
    ).eval()


def questions(count: int, prompts: list[str]) -> list[Request]:
    registry = Registry.standard()
    requests = []
    for index in range(count):
        task = _task(registry, (*LEFT_RIGHT, *OTHER)[index % 4])
        sample = task.samples[index // 4 * 3 % len(task.samples)]
        builder = prompt_builder(task.spec, "generate", task.spec.protocols.generate, registry)
        prompt = prompts[index % len(prompts)] or builder.prompt(sample, (0, 1), "default").text
        requests.append(
            Request("generate", sample.images, prompt=prompt, max_new_tokens=16,
                    candidates=sample.options)
        )  # fmt: skip
    return requests


@cache
def _task(registry: Registry, name: str) -> Task:
    return load_task(registry.task(name), registry, Path())


@torch.inference_mode()
def next_logprobs(
    exact: Any, processor: Any, request: Request, written: list[int], *, image: bool
) -> Any:
    text = f"USER: {'<image>' + chr(10) if image else ''}{request.prompt} ASSISTANT:"
    images = load(request.images[0]).pixels if image else None
    inputs = processor(text=text, images=images, return_tensors="pt")
    ids = torch.cat([inputs["input_ids"], torch.tensor([written], dtype=torch.long)], dim=1)
    pixels = {"pixel_values": inputs["pixel_values"].double()} if image else {}
    logits = exact(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits
    return logits[0, -1].log_softmax(-1)


def m3id_loop(
    exact: Any, processor: Any, request: Request, alpha: float, rate: float
) -> tuple[list[int], float]:
    """Section 5.1, one sample and token at a time; and the smallest gap between the best two."""
    written: list[int] = []
    gap = math.inf
    for t in range(1, request.max_new_tokens + 1):
        l_c = next_logprobs(exact, processor, request, written, image=True)
        l_u = next_logprobs(exact, processor, request, written, image=False)
        if l_c.max() < math.log(alpha):
            l_c = l_c + (1 - math.exp(-rate * t)) / math.exp(-rate * t) * (l_c - l_u)
        best = l_c.topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        written.append(int(best.indices[0]))
        if written[-1] == processor.tokenizer.eos_token_id:
            break
    return written, gap


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, 200], ids=["some", "all"])
@pytest.mark.parametrize(
    "arguments", [(1.0, 0.6), pytest.param((0.6, 0.15), marks=pytest.mark.slow)]
)
def test_m3id_generates_the_tokens_of_a_slow_loop(
    llava: HfVlm, exact: Any, count: int, arguments: tuple[float, float]
) -> None:
    alpha, rate = arguments
    requests = questions(count, ["", "Describe the picture."])
    decoding = f"m3id:alpha={alpha},lambda={rate}"
    loader = ImageLoader()
    answers: list[Any] = []
    for start in range(0, count, 16):
        batch = [replace(request, decoding=decoding) for request in requests[start : start + 16]]
        answers.extend(llava.respond(batch, loader))
    processor = llava.formatter.processor
    n_tokens = []
    for request, answer in zip(requests, answers, strict=True):
        ids, gap = m3id_loop(exact, processor, request, alpha, rate)
        if gap > 1e-4:
            assert answer.text == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        n_tokens.append(len(ids))
    assert max(n_tokens) > 6  # includes captions of several tokens


def test_perplexities_match_a_loop_in_float64(llava: HfVlm, exact: Any) -> None:
    requests = [replace(request, kind="score") for request in questions(24, ["", "Which side?"])]
    processor = llava.formatter.processor
    found = [answer for answer in llava.respond(requests, ImageLoader()) if answer is not None]
    for request, answer in zip(requests, found, strict=True):
        assert answer.scores is not None
        for option, score in zip(request.candidates, answer.scores, strict=True):
            ids = processor.tokenizer(f" {option}", add_special_tokens=False)["input_ids"]
            ids = [*ids, processor.tokenizer.eos_token_id]
            total = sum(
                float(next_logprobs(exact, processor, request, ids[:step], image=True)[token])
                for step, token in enumerate(ids)
            )
            assert score.n_tokens == len(ids)
            assert math.exp(-score.score) == pytest.approx(math.exp(-total / len(ids)), rel=1e-4)


def test_tiny_llava_gets_the_same_prompts_by_folder_and_by_name(go: Go) -> None:
    options: dict[str, Any] = {"limit": 8, "protocol": ["generate"]}
    by_name = go(["tiny-llava"], LEFT_RIGHT[:1], "name", **options)
    by_folder = go([str(ROOT / "models" / "tiny-llava")], LEFT_RIGHT[:1], "folder", **options)
    from_name, from_folder = (
        [(each["prompt"], each["response"]["text"]) for each in lines(run)]
        for run in (by_name, by_folder)
    )
    assert from_name == from_folder


def test_tiny_llava_answers_in_a_pipeline_of_transformers() -> None:
    """It is an ordinary checkpoint: other tools that load it know its prompt format."""
    registry = Registry.standard()
    task = load_task(registry.task(LEFT_RIGHT[0]), registry, ROOT, limit=2)
    builder = prompt_builder(task.spec, "generate", task.spec.protocols.generate, registry)
    folder = str(ROOT / "models" / "tiny-llava")
    pipe = pipeline("image-text-to-text", folder, dtype=torch.float32)
    for sample in task.samples:
        content = [
            {"type": "image", "image": load(sample.images[0]).pixels},
            {"type": "text", "text": builder.prompt(sample, (0, 1), "default").text},
        ]
        (reply,) = pipe(text=[{"role": "user", "content": content}], max_new_tokens=4)
        assert reply["generated_text"][-1]["content"].strip() == sample.options[sample.target]


# --- the same numbers however they are computed ---------------------------------------------------


@pytest.mark.parametrize(("protocol", "n_tried"), [("generate", 0), ("choice", 5)])
def test_the_next_batch_is_prepared_in_a_thread(
    go: Go, monkeypatch: pytest.MonkeyPatch, protocol: str, n_tried: int
) -> None:
    """Only the first of four batches, and those of the sharing trial, use the main thread."""
    in_main_thread: list[bool] = []
    inputs_of = hf_batch.inputs_of

    def spy(*args: Any) -> Any:
        in_main_thread.append(threading.current_thread() is threading.main_thread())
        return inputs_of(*args)

    for module in (hf_vlm, hf_loaded):
        monkeypatch.setattr(module, "inputs_of", spy)
    limits = {"protocol": [protocol], "limit": 16, "batch_size": 4}
    for workers, expected in ((1, n_tried + 1), (0, n_tried + 4)):
        in_main_thread.clear()
        go(["tiny-llava"], LEFT_RIGHT[:1], folder=str(workers), workers=workers, **limits)
        assert (sum(in_main_thread), len(in_main_thread)) == (expected, n_tried + 4)


@pytest.mark.slow
def test_nothing_depends_on_sharing_batches_workers_or_order(go: Go) -> None:
    """Predictions may differ only if the best two options are equal up to rounding."""
    tasks = ["whatsup_rendered_b_four_way", "whatsup_rendered_b_left_right"]
    assert same_however_computed(go, MODELS, tasks, limit=8) == 152
