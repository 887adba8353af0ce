"""Time What'sUp A with a dual encoder: the harness, the official way, and a bare script.

The official way encodes each image and each of its captions again in every task. The bare script
preprocesses and encodes each distinct image and caption once, in batches, and logs nothing.

    python -m perf.dual_encoders
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import open_clip
import torch
from PIL import Image

from perf import timing
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.open_clip.encoder import OpenClip
from vlm_harness.datasets.rendered import RELATIONS, draw, make_scene, object_pairs
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.schemas import ModelSpec

TASKS = ("whatsup_a_four_way", "whatsup_a_left_right", "whatsup_a_on_under")
WORDS = {"left": "to the left of", "right": "to the right of", "on": "on", "under": "under"}
Samples = list[tuple[str, list[str]]]
"""Image file and captions of each sample."""


def render_whatsup(folder: Path, sets: int) -> dict[str, Samples]:
    """Write rendered images in the official layout of What'sUp A; returns samples by task."""
    images = folder / "whatsup" / "controlled_images"
    images.mkdir(parents=True)
    rows = []
    samples: dict[str, Samples] = {task: [] for task in TASKS}
    scenes = [make_scene("a", "train", 0, n) for n in range(len(object_pairs("a", "train")))][:sets]
    for scene in scenes:
        captions = {
            each: f"A {scene.subject} {words} a {scene.object}" for each, words in WORDS.items()
        }
        for relation in RELATIONS["a"]:
            side = relation in ("left", "right")
            name = f"{scene.subject}_{relation}{'_of' if side else ''}_{scene.object}"
            draw(scene, relation).save(images / f"{name}.jpeg", quality=95)
            options = [captions[relation], *(c for r, c in captions.items() if r != relation)]
            rows.append(
                {
                    "image_path": f"data/controlled_images/{name}.jpeg",
                    "caption_options": options,
                }
            )
            file = str(images / f"{name}.jpeg")
            samples["whatsup_a_four_way"].append((file, options))
            two = ("left", "right") if side else ("on", "under")
            task = "whatsup_a_left_right" if side else "whatsup_a_on_under"
            samples[task].append((file, [captions[each] for each in two]))
    (folder / "whatsup" / "controlled_images_dataset.json").write_text(json.dumps(rows))
    return samples


class Scripts:
    def __init__(self, architecture: str, weights: str, device: torch.device) -> None:
        self.model, self.preprocess = open_clip.create_model_from_pretrained(
            architecture, pretrained=weights, device=device
        )
        self.model.eval()
        self.device = device
        self.tokenizer = open_clip.get_tokenizer(architecture)

    @torch.inference_mode()
    def images(self, files: Sequence[str]) -> Any:
        pixels = torch.stack([self.preprocess(Image.open(file).convert("RGB")) for file in files])
        return torch.nn.functional.normalize(
            self.model.encode_image(pixels.to(self.device)), dim=-1
        )

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Any:
        features = self.model.encode_text(self.tokenizer(list(captions)).to(self.device))
        return torch.nn.functional.normalize(features, dim=-1)

    def official(self, by_task: dict[str, Samples], batch: int = 16) -> dict[str, Any]:
        results = {}
        for task, samples in by_task.items():
            scores = []
            for start in range(0, len(samples), batch):
                files, captions = zip(*samples[start : start + batch], strict=True)
                images = self.images(files)
                for number in range(len(captions[0])):
                    texts = self.texts([each[number] for each in captions])
                    scores.append((images * texts).sum(-1))
            results[task] = scores
        return results

    def bare(self, by_task: dict[str, Samples], batch: int) -> dict[str, Any]:
        samples = [sample for of_task in by_task.values() for sample in of_task]
        files = list(dict.fromkeys(file for file, _ in samples))
        captions = list(dict.fromkeys(each for _, options in samples for each in options))
        images = torch.cat([self.images(files[n : n + batch]) for n in range(0, len(files), batch)])
        texts = torch.cat(
            [self.texts(captions[n : n + batch]) for n in range(0, len(captions), batch)]
        )
        scores = images @ texts.T
        row = {file: number for number, file in enumerate(files)}
        column = {caption: number for number, caption in enumerate(captions)}
        return {
            task: [
                [float(scores[row[file], column[each]]) for each in options]
                for file, options in of_task
            ]
            for task, of_task in by_task.items()
        }


@click.command()
@click.option(
    "--architecture",
    default="ViT-B-32",
    show_default=True,
    help="Architecture of open_clip; weights are random.",
)
@click.option("--sets", default=103, show_default=True, help="Number of sets of four images.")
@click.option("--batch-size", default=32, show_default=True, help="Batch size of the bare script.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--skip-official", is_flag=True)
def main(architecture: str, sets: int, batch_size: int, rounds: int, skip_official: bool) -> None:
    """Evaluate one dual encoder on the three tasks of What'sUp A in three ways."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        weights = folder / "weights.pt"
        torch.manual_seed(0)
        torch.save(open_clip.create_model(architecture).state_dict(), weights)
        samples = render_whatsup(folder, sets)
        spec = ModelSpec(
            model="ours",
            backend="open_clip",
            checkpoint=architecture,
            args={"weights": str(weights)},
        )

        ours = OpenClip(spec, LoadOptions())
        scripts = Scripts(architecture, str(weights), ours.device)

        def evaluated() -> Any:
            ours.forget()
            with tempfile.TemporaryDirectory() as runs:
                return evaluate([ours], TASKS, data_dir=root, output_dir=runs)

        n = len(samples[TASKS[0]])
        total = sum(map(len, samples.values()))
        click.echo(f"{n} images, {total} samples in {len(TASKS)} tasks")
        jobs = {
            timing.OURS: evaluated,
            "bare script, every image and caption once": lambda: scripts.bare(samples, batch_size),
        }
        if not skip_official:
            jobs["official way, again in every task"] = lambda: scripts.official(samples)
        timing.report(timing.alternately(jobs, rounds), ours=timing.OURS)


if __name__ == "__main__":
    main()
