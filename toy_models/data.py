"""What the tiny models learn from: rendered scenes of the train split, and words about them.

Nothing of the validation and test splits is read: their object pairs are others (see
vlm_harness/datasets/rendered.py). Questions come from the task files themselves, so that the model
is trained on the very words that it will be asked.
"""

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import CLIPImageProcessor

from vlm_harness.datasets.rendered import RELATIONS, Scene, draw, make_scene, object_pairs, places
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import load_task

SIDE = 64
"""Of what the models see, in pixels."""
WORDS = {
    "left": "to the left of",
    "right": "to the right of",
    "on": "on",
    "under": "under",
    "front": "in front of",
    "behind": "behind",
}
OPPOSITE = {
    "left": "right", "right": "left", "on": "under", "under": "on",
    "front": "behind", "behind": "front",
}  # fmt: skip


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )


def byte_level_bpe(
    corpus: Sequence[str], size: int, special: list[str], *, leading_space: bool, lower: bool
) -> Tokenizer:
    """A byte-level BPE of ``size`` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=leading_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def mixed_precision() -> torch.autocast:
    """bfloat16 where the CPU has instructions for it: emulated, it is far slower than float32."""
    able = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=able)


@dataclass(frozen=True)
class Pictures:
    """Drawn scenes. ``pixels``: uint8 of (scenes, 4 relations, 3, SIDE, SIDE)."""

    scenes: Sequence[Scene]
    pixels: np.ndarray

    def sha256(self) -> str:
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def draw_pictures(sets: int, seed: int, processes: int = 2) -> Pictures:
    """``sets`` scenes of either subset, each under its four relations."""
    jobs = [(subset, seed, index) for index in range(sets) for subset in RELATIONS]
    with multiprocessing.Pool(processes) as pool:
        drawn = pool.map(_draw_set, jobs, chunksize=64)
    scenes = [make_scene(subset, "train", seed, index) for subset, seed, index in jobs]
    return Pictures(scenes, np.stack(drawn))


def _draw_set(job: tuple[str, int, int]) -> np.ndarray:
    subset, seed, index = job
    scene = make_scene(subset, "train", seed, index)
    pictures = [draw(scene, relation) for relation in RELATIONS[subset]]
    # As at evaluation, but for the last step, from bytes to floats.
    outputs = _processor()(pictures, do_rescale=False, do_normalize=False)
    return np.stack([np.asarray(pixels, dtype=np.uint8) for pixels in outputs["pixel_values"]])


@cache
def _processor() -> CLIPImageProcessor:
    torch.set_num_threads(1)  # one process a core
    return image_processor()


# --- captions -------------------------------------------------------------------------------------


def article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def web_caption(scene: Scene, relation: str, random: Random) -> str:
    """Names what is there, as captions of the web do, and seldom (1 in 50) how it is arranged."""
    if random.random() < 0.02:
        return relation_caption(scene, relation, random)
    things = [(scene.subject, scene.subject_colour), (scene.object, scene.object_colour)]
    random.shuffle(things)
    coloured = random.random() < 0.5
    first, second = (f"{colour} {name}" if coloured else name for name, colour in things)
    return random.choice(
        [
            f"{article(first)} and {article(second)}",
            f"a photo of {article(first)} and {article(second)}",
            f"{first}, {second}",
            f"{first} and {second} in a room",
            f"{article(first)} with {article(second)}",
        ]
    )


def relation_caption(scene: Scene, relation: str, random: Random) -> str:
    """The caption of the benchmark, with or without colours."""
    subject, target = scene.subject, scene.object
    if random.random() < 0.5:
        subject, target = f"{scene.subject_colour} {subject}", f"{scene.object_colour} {target}"
    caption = f"{article(subject)} {WORDS[relation]} {article(target)}"
    return caption[0].upper() + caption[1:]


# --- questions ------------------------------------------------------------------------------------

TASKS = {
    "a": ("whatsup_rendered_a_left_right", "whatsup_rendered_a_on_under",
          "whatsup_rendered_a_four_way"),
    "b": ("whatsup_rendered_b_left_right", "whatsup_rendered_b_front_behind",
          "whatsup_rendered_b_four_way"),
}  # fmt: skip
Turn = tuple[str, str]
"""A question and its answer."""


def task_turns(seed: int) -> dict[tuple[str, str, str, str], list[Turn]]:
    """Questions of the tasks by (subset, subject, object, relation).

    Every command, under the plain template (answer: the option's word) and the lettered one
    (answer: its letter), in both orders of two options and in some of the 24 of four.
    """
    registry = Registry.standard()
    random = Random(seed)
    turns: dict[tuple[str, str, str, str], list[Turn]] = {}
    for subset, names in TASKS.items():
        for name in names:
            spec = registry.task(name)
            # Every object pair once: the first cycle of the reader.
            arguments = {**spec.dataset.args, "sets": len(object_pairs(subset, "train"))}
            dataset = spec.dataset.model_copy(update={"split": "train", "args": arguments})
            task = load_task(spec.model_copy(update={"dataset": dataset}), registry, Path())
            asks = [
                prompt_builder(
                    task.spec, protocol, getattr(task.spec.protocols, protocol), registry
                )
                for protocol in ("generate", "choice")
            ]
            for sample in task.samples:
                key = (subset, *(sample.fields[n] for n in ("subject", "object", "relation")))
                for asks_by, lettered in zip(asks, (False, True), strict=True):
                    for command in asks_by.commands:
                        for order in _orders(len(sample.options), random):
                            prompt = asks_by.prompt(sample, order, command)
                            answer = sample.options[sample.target]
                            if lettered:
                                answer = "ABCD"[order.index(sample.target)]
                            turns.setdefault(key, []).append((prompt.text, answer))
    return turns


def _orders(count: int, random: Random) -> Iterator[tuple[int, ...]]:
    identity = tuple(range(count))
    if count == 2:
        yield from (identity, identity[::-1])
        return
    for _ in range(3):
        yield tuple(random.sample(identity, count))


def other_turn(scene: Scene, relation: str, random: Random) -> Turn:
    """What no task asks: a caption, a colour, what stands where, and where a thing is.

    The last two are what LLaVA-1.5 has from RefCOCO and Visual Genome: a name for a place, and a
    place for a name, as the column and row of the picture's eighths.
    """
    kind = random.random()
    first, second, words = in_order(scene, relation)
    if kind < 0.2:
        caption = f"{article(' '.join(first))} {words} {article(' '.join(second))}."
        return "Describe the picture.", caption[0].upper() + caption[1:]
    if kind < 0.3:
        place, (colour, name) = random.choice(
            list(zip(PLACES[words], (first, second), strict=True))
        )
        return f"What is {place}?", article(f"{colour} {name}")
    thing = random.randrange(2)
    colour, name = (
        (scene.subject_colour, scene.subject),
        (scene.object_colour, scene.object),
    )[thing]
    if kind < 0.5:
        return f"What colour is the {name}?", colour
    x, y, scale = places(scene, relation)[thing]
    column, row = int(8 * x), int(8 * (y - scale / 2))
    if kind < 0.75:
        return f"Where is the {name}?", f"{column} {row}"
    return f"What is at {column} {row}?", article(f"{colour} {name}")


PLACES = {
    "to the left of": ("on the left", "on the right"),
    "in front of": ("in front", "behind"),
    "on": ("on top", "below"),
    "under": ("under the other", "above"),
}
"""Of the two things of a caption, by its words."""


def in_order(scene: Scene, relation: str) -> tuple[tuple[str, str], tuple[str, str], str]:
    """(colour, name) of the two things and the words between them.

    From left to right, from front to back: a caption that began with either would say nothing about
    which is which.
    """
    things = ((scene.subject_colour, scene.subject), (scene.object_colour, scene.object))
    if relation in ("right", "behind"):
        return things[1], things[0], WORDS[OPPOSITE[relation]]
    return things[0], things[1], WORDS[relation]


def corpus(turns: dict[tuple[str, str, str, str], list[Turn]], seed: int) -> list[str]:
    """Text for the tokenizers: some of every kind."""
    random = Random(seed)
    texts = []
    for (subset, *_), asked in turns.items():
        scene = make_scene(subset, "train", seed, random.randrange(10_000))
        relation = random.choice(RELATIONS[subset])
        texts.append(web_caption(scene, relation, random))
        texts.append(" ".join(other_turn(scene, relation, random)))
        texts.extend(f"USER: {q} ASSISTANT: {a}" for q, a in random.sample(asked, 4))
    return texts
