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
@click.option(
    "--seed", default=0, show_default=True, help="Of the scenes, the words and the weights."
)
@click.option("--output", type=click.Path(path_type=Path), default="models", show_default=True)
@click.option("--sets", default=8000, show_default=True, help="Scenes drawn of either subset.")
@click.option("--clip-steps", default=dual_encoder.STEPS, show_default=True)
@click.option("--llava-steps", default=llava.STEPS, show_default=True)
def main(seed: int, output: Path, sets: int, clip_steps: int, llava_steps: int) -> None:
    """Make OUTPUT/tiny-clip, OUTPUT/tiny-clip-control and OUTPUT/tiny-llava."""
    # Beside the bundled ones, and in their place at the end: three that belong together.
    final, output = output, output / ".training"
    shutil.rmtree(output, ignore_errors=True)
    seconds: dict[str, float] = {}
    with timed("data", seconds):
        turns = data.task_turns(seed)
        corpus = data.corpus(turns, seed)
        pictures = data.draw_pictures(sets, seed)

    def dual_encoder_on(name: str, caption: dual_encoder.Caption) -> None:
        with timed(name, seconds):
            model, processor = dual_encoder.train(pictures, corpus, caption, seed, clip_steps)
            save(model, processor, output / name)

    dual_encoder_on("tiny-clip", data.web_caption)
    with timed("tiny-llava", seconds):
        # The tower as it was rounded to half precision, which is the one that will be used.
        clip = CLIPModel.from_pretrained(output / "tiny-clip", dtype=torch.float32)
        model, processor = llava.train(clip, pictures, turns, corpus, seed, llava_steps)
        save(model, processor, output / "tiny-llava")
    dual_encoder_on("tiny-clip-control", data.relation_caption)
    facts = cards.Facts(
        seed, len(pictures.scenes), pictures.sha256(), clip_steps, llava_steps, seconds
    )
    cards.write(output, facts)
    for folder in output.iterdir():
        shutil.rmtree(final / folder.name, ignore_errors=True)
        folder.rename(final / folder.name)
    output.rmdir()


def save(model: torch.nn.Module, processor: object, folder: Path) -> None:
    """An ordinary checkpoint, in half precision."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)  # type: ignore[attr-defined]


@contextmanager
def timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    print(what, flush=True)
    start = time.monotonic()
    yield
    seconds[what] = time.monotonic() - start
    print(f"{what}: {seconds[what] / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
