"""Time option scoring: the harness against a full forward pass for every option of every prompt.

The baseline is how lmms-eval and others do it: for each option, image and prompt are processed and
run again, one at a time, with logits for the complete sequence.

    python -m perf.options --model CHECKPOINT --data-dir DATA
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from perf import mmvp, timing
from vlm_harness.types import LogLine

Scores = list[float]
"""Mean log-probability of the tokens of each option of a prompt, EOS included."""


class OnePassEach:
    """Runs ``model(**processor(prompt + option))`` for every option."""

    def __init__(self, checkpoint: str, answer_prefix: str, like: Any) -> None:
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=like.dtype)
        self.model.to(like.device).eval()
        self.prefix = answer_prefix
        self.eos = self.processor.tokenizer.eos_token

    def run(self, lines: Sequence[LogLine], data: Path) -> list[Scores]:
        return [
            [self.score(line, option, data) for option in line.candidates or ()] for line in lines
        ]

    @torch.inference_mode()
    def score(self, line: LogLine, option: str, data: Path) -> float:
        content = [{"type": "image"}, {"type": "text", "text": line.prompt}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        image = Image.open(mmvp.image_path(line, data)).convert("RGB")
        answer = self.prefix + option + self.eos
        inputs = self.processor(text=prompt + answer, images=image, return_tensors="pt").to(
            self.model.device, self.model.dtype
        )
        n = len(self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
        logprobs = self.model(**inputs).logits[0].float().log_softmax(-1)
        tokens = inputs["input_ids"][0, -n:]
        return float(logprobs[-n - 1 : -1].gather(1, tokens[:, None]).mean())


@click.command()
@mmvp.options(images=8)
@click.option("--protocol", default="choice,likelihood", show_default=True)
@click.option("--order", default="both", show_default=True)
@click.option(
    "--command", default="all", show_default=True, help="All three commands, or one by name."
)
@click.option("--answer-prefix", default=" ", show_default=True)
def main(
    checkpoint: str, data_dir: Path, images: int, answer_prefix: str, rounds: int, **grid: Any
) -> None:
    """Score the options of MMVP in both ways, and compare times and scores."""
    ours = mmvp.load(checkpoint, answer_prefix=answer_prefix)
    theirs = OnePassEach(checkpoint, answer_prefix, like=ours.loaded.model)

    evaluated = partial(mmvp.answers, ours, "mmvp_three_commands", data_dir, images, **grid)
    lines = evaluated()  # not timed: first calls are slower
    expected = theirs.run(lines, data_dir)
    found = [line.response.scores or [] for line in lines]
    largest = max(
        abs(a - b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
        if a is not None
    )
    click.echo(f"{len(lines)} prompts, {sum(map(len, expected))} options, {images} images")
    click.echo(f"largest score difference (mean log-probability): {largest:.1e}")
    jobs: dict[str, timing.Job] = {
        timing.OURS: evaluated,
        "a forward pass for every option": lambda: theirs.run(lines, data_dir),
    }
    timing.report(timing.alternately(jobs, rounds), ours=timing.OURS)


if __name__ == "__main__":
    main()
