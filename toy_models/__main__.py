"""Train tiny-clip, its control and tiny-llava, evaluate them and write their cards."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from transformers import CLIPModel

from toy_models import cards, data, dual_encoder, llava


@click.command("train-tiny")
@click.option("--seed", default=0, show_default=True, help="Seed of the scenes, texts and weights.")
@click.option("--output", type=click.Path(path_type=Path), default="models", show_default=True)
@click.option("--sets", default=8000, show_default=True, help="Rendered scenes per subset.")
@click.option("--clip-steps", default=dual_encoder.STEPS, show_default=True)
@click.option("--llava-steps", default=llava.STEPS, show_default=True)
def main(seed: int, output: Path, sets: int, clip_steps: int, llava_steps: int) -> None:
    """Train OUTPUT/tiny-clip, OUTPUT/tiny-clip-control and OUTPUT/tiny-llava."""
    # Existing models are replaced only at the end, so that the three always belong together.
    final, output = output, output / ".training"
    shutil.rmtree(output, ignore_errors=True)
    seconds: dict[str, float] = {}
    with timed("data", seconds):
        turns = data.task_turns(seed)
        corpus = data.corpus(turns, seed)
        images = data.render_images(sets, seed)

    def train_dual_encoder(name: str, caption: dual_encoder.Caption) -> None:
        with timed(name, seconds):
            model, processor = dual_encoder.train(images, corpus, caption, seed, clip_steps)
            save(model, processor, output / name)

    train_dual_encoder("tiny-clip", data.web_caption)
    with timed("tiny-llava", seconds):
        # The vision tower after rounding to half precision, as it is used later.
        clip = CLIPModel.from_pretrained(output / "tiny-clip", dtype=torch.float32)
        model, processor = llava.train(clip, images, turns, corpus, seed, llava_steps)
        save(model, processor, output / "tiny-llava")
    train_dual_encoder("tiny-clip-control", data.relation_caption)
    facts = cards.Facts(seed, len(images.scenes), images.sha256(), clip_steps, llava_steps, seconds)
    cards.write(output, facts)
    for folder in output.iterdir():
        shutil.rmtree(final / folder.name, ignore_errors=True)
        folder.rename(final / folder.name)
    output.rmdir()


def save(model: torch.nn.Module, processor: object, folder: Path) -> None:
    """Save an ordinary checkpoint in half precision."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)  # type: ignore[attr-defined]


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    print(step, flush=True)
    start = time.monotonic()
    yield
    seconds[step] = time.monotonic() - start
    print(f"{step}: {seconds[step] / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
