"""Time greedy answers to MMVP: the harness against lm-evaluation-harness (hf-multimodal).

Both use the same checkpoint, prompts, photographs and batch size, and run alternately. Each runs in
its own process, so that torch and allocator settings of one do not affect the other. If two texts
differ, the command prints the gap between the best two tokens at the first difference.

    pip install lm_eval accelerate
    python -m perf.generation --model CHECKPOINT --data-dir DATA
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image

from perf import mmvp, timing
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.types import ImageRef, LogLine, Request

TOKENS = 16
"""As in tasks/mmvp_generation.yaml."""


def as_sent(vlm: HfVlm, line: LogLine) -> str:
    """The prompt of a log line in the model's format."""
    refs = tuple(ImageRef(image.path, read=bytes) for image in line.images or ())
    return vlm.formatter.text(Request("generate", refs, prompt=line.prompt or ""))


def first_gap(vlm: HfVlm, line: LogLine, theirs: str, data: Path) -> float:
    """Log-probability gap between the best two tokens, at the first difference of two answers."""
    tokenizer = vlm.formatter.tokenizer
    one, other = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (line.response.text or "", theirs)
    )
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    same = min(len(one), len(other)) if same is None else same
    prompt = as_sent(vlm, line) + tokenizer.decode(one[:same])
    image = Image.open(mmvp.image_path(line, data)).convert("RGB")
    inputs = vlm.loaded.on_device(vlm.formatter.inputs([prompt], [[image]]))
    with torch.inference_mode():
        best = vlm.loaded.model(**inputs).logits[0, -1].float().log_softmax(-1).topk(2).values
    return float(best[0] - best[1])


class Theirs:
    """lm-evaluation-harness, run in a separate process."""

    model: Any

    @classmethod
    def load(cls, checkpoint: str, batch_size: int, device: str, dtype: str) -> None:
        from lm_eval.models.hf_vlms import HFMultimodalLM

        cls.model = HFMultimodalLM(
            pretrained=checkpoint, batch_size=batch_size, dtype=dtype, device=device
        )
        cls.model.chat_applied = True  # the prompts are in the model's format already

    @classmethod
    def answers(cls, prompts: Sequence[tuple[str, Path]]) -> list[str]:
        from lm_eval.api.instance import Instance

        settings = {"max_gen_toks": TOKENS, "until": [], "do_sample": False}
        requests = []
        for number, (text, path) in enumerate(prompts):
            images = {"visual": [Image.open(path).convert("RGB")]}
            requests.append(Instance("generate_until", {}, (text, settings, images), number))
        return list(cls.model.generate_until(requests, disable_tqdm=True))


@click.command()
@mmvp.options(images=24)
@click.option("--batch-size", default=8, show_default=True)
def main(checkpoint: str, data_dir: Path, images: int, batch_size: int, rounds: int) -> None:
    """Time a model on MMVP in both harnesses."""
    ours = mmvp.load(checkpoint)
    dtype = str(ours.loaded.model.dtype).removeprefix("torch.")
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=partial(
            Theirs.load, checkpoint, batch_size, str(ours.loaded.model.device), dtype
        ),
    ) as theirs:
        evaluated = partial(
            mmvp.answers, ours, "mmvp_generation", data_dir, images, batch_size=batch_size
        )
        lines = evaluated()  # not timed: first calls are slower
        prompts = [(as_sent(ours, line), mmvp.image_path(line, data_dir)) for line in lines]

        def their_answers() -> list[str]:
            return theirs.submit(Theirs.answers, prompts).result()

        click.echo(f"{len(lines)} prompts, up to {TOKENS} tokens, batch size {batch_size}")
        for line, text in zip(lines, their_answers(), strict=True):
            if line.response.text != text.strip():
                gap = first_gap(ours, line, text.strip(), data_dir)
                click.echo(
                    f"texts differ for sample {line.sample_id}: best two tokens {gap:.1e} apart"
                )
        jobs: dict[str, timing.Job] = {
            timing.OURS: evaluated,
            "lm-evaluation-harness, hf-multimodal": their_answers,
        }
        timing.report(timing.alternately(jobs, rounds), ours=timing.OURS)


if __name__ == "__main__":
    main()
