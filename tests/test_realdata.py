"""Tests on real photographs, skipped if these are missing; see also test_recorded_answers.py."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT
from helpers.models import tiny_clip, tiny_open_clip, tiny_open_clip_siglip, tiny_siglip
from helpers.runs import same_however_computed
from helpers.vlms import tiny_llava
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.logs.rescore import rescore
from vlm_harness.runs.evaluator import Run, evaluate

pytestmark = pytest.mark.realdata


def metric(run: Run, name: str) -> float:
    value = run.results[0]["metrics"][name]["value"]
    assert value is not None
    return 100 * float(value)


def test_mmvp_labels(realdata: Path, tmp_path: Path) -> None:
    """A model that answers with the published labels is correct except for four corrected ones."""
    published = {
        row["Index"]: row["Correct Answer"]
        for row in csv.DictReader((realdata / "mmvp" / "Questions.csv").open())
    }
    run = evaluate(
        [FakeBackend(lambda request: published[request.sample.id], "published")],  # type: ignore[union-attr]
        ["mmvp"],
        protocol=["generate"],
        data_dir=str(realdata),
        output_dir=str(tmp_path),
    )
    assert metric(run, "individual_accuracy") == pytest.approx(100 * 296 / 300)
    assert metric(run, "pair_accuracy") == pytest.approx(100 * 148 / 150)
    incorrect = [
        line["sample_id"]
        for line in map(json.loads, next((run.path / "samples").iterdir()).open())
        if not line["correct"]
    ]
    assert sorted(incorrect, key=int) == ["99", "100", "279", "280"]
    rows = rescore(run.path, "original")
    assert (run.path / "results.original.json").is_file()
    assert rows[0]["metrics"]["individual_accuracy"]["value"] == 1.0
    assert rows[0]["labels"] == "original"


@pytest.fixture(scope="module")
def official_layout(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The available photographs, in the layout of the official download.

    A: complete sets of mug/table and dog/table, and one photograph of apple/armchair. B: mug/plate.
    """
    root = tmp_path_factory.mktemp("official")
    items = [json.loads(line) for line in (realdata / "whatsup" / "figure_items.jsonl").open()]
    rows: dict[str, list[dict[str, Any]]] = {"controlled_images": [], "controlled_clevr": []}
    for item in items:
        folder = {"teaser": "controlled_images"}.get(item["set"], item["set"])
        if folder in rows:
            name = Path(item["image"]).name
            target = root / "whatsup" / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(realdata / "whatsup" / item["image"], target)
            rows[folder].append(
                {
                    "image_path": f"data/{folder}/{name}",
                    "caption_options": item["caption_options"],
                }
            )
    apple = "apple_left_of_armchair.jpeg"
    shutil.copy(
        realdata / "whatsup" / "images_original" / apple,
        root / "whatsup" / "controlled_images" / apple,
    )
    official = json.loads((realdata / "whatsup" / "controlled_images_dataset.json").read_text())
    rows["controlled_images"] += [r for r in official if r["image_path"].endswith("/" + apple)]
    for folder, content in rows.items():
        (root / "whatsup" / f"{folder}_dataset.json").write_text(json.dumps(content))
    return root


def logged(run: Run) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {
        (line["task"], line["protocol"], line["sample_id"]): line
        for path in (run.path / "samples").glob("*.jsonl")
        for line in map(json.loads, path.open())
    }


DUAL_ENCODERS = {
    "clip": tiny_clip,
    "siglip": tiny_siglip,
    "open_clip": tiny_open_clip,
    "open_clip_siglip": tiny_open_clip_siglip,
}


def reference_similarity(kind: str, folder: Path, image: Any, captions: list[str]) -> list[float]:
    """Cosines computed with only the library, used as documented."""
    import torch

    if kind.startswith("open_clip"):
        import open_clip

        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        model.eval()
        with torch.no_grad():
            embedding = model.encode_image(preprocess(image)[None], normalize=True)
            texts = model.encode_text(
                open_clip.get_tokenizer(f"local-dir:{folder}")(captions), normalize=True
            )
        return [float(score) for score in (embedding @ texts.T)[0]]
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
    inputs = processor(text=captions, images=image, return_tensors="pt", **padding)
    if kind == "siglip":
        inputs.pop("attention_mask", None)
    with torch.no_grad():
        out = model(**inputs)
    unit = torch.nn.functional.normalize
    scores = unit(out.image_embeds, dim=-1) @ unit(out.text_embeds, dim=-1).T
    return [float(score) for score in scores[0]]


@pytest.mark.parametrize("kind", DUAL_ENCODERS)
def test_whatsup_photographs_with_dual_encoders(
    kind: str, official_layout: Path, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / kind
    DUAL_ENCODERS[kind](folder)
    runs = [
        evaluate(
            [str(folder)],
            ["whatsup"],
            data_dir=str(official_layout),
            output_dir=str(tmp_path / "results"),
            run_id=f"batch-{size}",
            batch_size=size,
        )
        for size in (1, 3, 8)
    ]
    first = logged(runs[0])
    # 9 + 4 photographs, two-way and four-way; the apple's pair is incomplete and counted.
    assert len(first) == 2 * (9 + 4)
    by_task = {row["task"]: row for row in runs[0].results}
    assert by_task["whatsup_a_left_right"]["n_incomplete"] == 1
    assert by_task["whatsup_a_four_way"]["groups"]["set"].to_dict() == {"n": 3, "n_incomplete": 1}
    assert by_task["whatsup_a_left_right"]["metrics"]["mean_pair_cosine"]["n"] == 2
    assert_same_predictions(runs)
    for line in first.values():
        image = Image.open(official_layout / line["images"][0]["path"]).convert("RGB")
        expected = reference_similarity(kind, folder, image, line["candidates"])
        assert line["response"]["scores"] == pytest.approx(expected, abs=1e-5)


def test_whatsup_photographs_with_llava(official_layout: Path, tmp_path: Path) -> None:
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    folder = tmp_path / "llava"
    tiny_llava(folder)
    form = "USER: {% for _ in images %}<image>\n{% endfor %}{{ prompt }} ASSISTANT:"
    runs = [
        evaluate(
            [str(folder)],
            ["whatsup_a", "whatsup_b"],
            protocol=["choice", "likelihood", "generate"],
            data_dir=str(official_layout),
            output_dir=str(tmp_path / "results"),
            run_id=f"batch-{size}",
            batch_size=size,
            model_args={"prompt_format": form, "answer_prefix": " "},
        )
        for size in (1, 3, 8)
    ]
    assert_same_predictions(runs)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    eos = model.generation_config.eos_token_id
    eos = eos[0] if isinstance(eos, list) else eos
    checked = 0
    for (task, protocol, _), line in logged(runs[0]).items():
        if task not in ("whatsup_a_left_right", "whatsup_b_four_way"):
            continue
        image = Image.open(official_layout / line["images"][0]["path"]).convert("RGB")
        prompt = f"USER: <image>\n{line['prompt']} ASSISTANT:"
        with torch.no_grad():
            if protocol == "generate":
                inputs = processor(text=prompt, images=image, return_tensors="pt")
                out = model.generate(**inputs, do_sample=False, max_new_tokens=16)
                new = out[0, inputs["input_ids"].shape[1] :]
                text = processor.decode(new, skip_special_tokens=True).strip()
                assert line["response"]["text"] == text
                continue
            length = processor(text=prompt, images=image, return_tensors="pt")["input_ids"].shape[1]
            for index, answer in enumerate(line["candidates"]):
                inputs = processor(text=f"{prompt} {answer}", images=image, return_tensors="pt")
                ids = torch.cat([inputs["input_ids"], torch.tensor([[eos]])], dim=1)
                inputs["input_ids"], inputs["attention_mask"] = ids, torch.ones_like(ids)
                logits = model(**inputs).logits[0, length - 1 : -1].double()
                tokens = ids[0, length:]
                logprobs = logits.log_softmax(-1).gather(1, tokens[:, None])
                assert line["response"]["n_tokens"][index] == len(tokens)
                assert line["response"]["scores"][index] == pytest.approx(
                    float(logprobs.mean()), abs=1e-5
                )
                checked += 1
    assert checked >= 2 * (5 * 2 + 4 * 4)


@pytest.fixture(scope="module")
def coco_layout(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items of POPE, SugarCrepe and VSR with an available photograph, in the official layouts."""
    root = tmp_path_factory.mktemp("coco")

    def put(benchmark: str, image: str, *target: str) -> None:
        path = root.joinpath(*target)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(realdata / benchmark / image, path)

    def items(benchmark: str) -> list[dict[str, Any]]:
        path = realdata / benchmark / "subset_with_images.jsonl"
        return [json.loads(line) for line in path.open()]

    files: dict[str, list[dict[str, Any]]] = {}
    for item in items("pope"):
        put("pope", item["image_file"], "pope", "val2014", item["image"])
        name = f"pope/coco/coco_pope_{item['category']}.json"
        files.setdefault(name, []).append({**item, "text": item["text"].split("\n")[0]})
    for item in items("vsr"):
        put("vsr", item["image_file"], "vsr", "images", item["image"])
        files.setdefault("vsr/splits/random/test.jsonl", []).append(item)
    for name, rows in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    objects: dict[str, dict[str, Any]] = {}
    for item in items("sugarcrepe"):
        put("sugarcrepe", item["image"], "sugarcrepe/data/coco/images/val2017", item["filename"])
        objects.setdefault(item["subset"], {})[item["index"]] = item
    for subset, content in objects.items():
        (root / "sugarcrepe" / "data" / f"{subset}.json").write_text(json.dumps(content))
    return root


def test_sugarcrepe_photographs_with_clip(coco_layout: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "clip"
    tiny_clip(folder)
    run = evaluate(
        [str(folder)],
        ["sugarcrepe"],
        data_dir=str(coco_layout),
        output_dir=str(tmp_path / "results"),
    )
    lines = logged(run)
    assert len(lines) == 227
    assert all(row["complete"] for row in run.results)
    for line in list(lines.values())[::10]:
        image = Image.open(coco_layout / line["images"][0]["path"]).convert("RGB")
        expected = reference_similarity("clip", folder, image, line["candidates"])
        assert line["response"]["scores"] == pytest.approx(expected, abs=1e-5)
        # The official rule. Captions that differ only in words outside the tiny vocabulary tie.
        if abs(expected[0] - expected[1]) > 1e-5:
            assert line["correct"] == (expected[0] > expected[1])


def test_pope_and_vsr_photographs_with_llava(coco_layout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "llava"
    tiny_llava(folder)
    run = evaluate(
        [str(folder)],
        ["pope", "vsr_random", "vsr_flipped"],
        protocol=["likelihood"],
        data_dir=str(coco_layout),
        output_dir=str(tmp_path / "results"),
        model_args={
            "prompt_format": "USER: <image>\n{{ prompt }} ASSISTANT:",
            "answer_prefix": " ",
        },
    )
    assert all(row["complete"] for row in run.results)
    by_task = {row["task"]: row for row in run.results}
    assert [by_task[f"pope_{s}"]["n_samples"] for s in ("random", "popular", "adversarial")] == [
        12, 12, 12,
    ]  # fmt: skip
    assert by_task["vsr_random"]["n_samples"] == 32
    pairs = by_task["vsr_flipped"]
    assert pairs["n_samples"] == 2 * pairs["n_groups"] > 0
    for name in ("f1", "recall", "yes_ratio"):
        assert by_task["pope_random"]["metrics"][name]["value"] is not None


def assert_same_predictions(runs: list[Run]) -> None:
    """Predictions are equal at every batch size, up to rounding of the best two (printed)."""
    close = []
    reference = logged(runs[0])
    for run in runs[1:]:
        other = logged(run)
        assert other.keys() == reference.keys()
        for key, line in other.items():
            if line["prediction"] != reference[key]["prediction"]:
                scores = sorted(line["response"].get("scores", [0, 1]))
                assert scores[-1] - scores[-2] < 1e-4, key
                close.append(key)
    print(f"differ within rounding: {close or 'none'}")


@pytest.mark.slow
def test_a_full_size_model_is_the_same_however_computed(realdata: Path, tmp_path: Path) -> None:
    """Works with any VLM checkpoint; uses four photographs with two prompts each."""
    checkpoint = os.environ.get("VLM_HARNESS_SMALL_VLM")
    if not checkpoint:
        pytest.skip("set VLM_HARNESS_SMALL_VLM to the folder of a checkpoint")

    def go(models: list[str], tasks: list[str], folder: str, **options: Any) -> Run:
        include = [str(ROOT / "perf" / "tasks")]
        return evaluate(
            models, tasks, output_dir=str(tmp_path / folder), data_dir=str(realdata),
            include_path=include, order="both", **options,
        )  # fmt: skip

    tasks = ["mmvp_three_commands", "mmvp_generation"]
    assert same_however_computed(go, [checkpoint], tasks, limit=4) > 100
