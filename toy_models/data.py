"""Training data of the toy models: rendered scenes of the train split, and texts about them.

The validation and test splits are not used; they have different object pairs (see
vlm_harness/datasets/rendered.py). Questions come from the task files, so that the model is trained
on the exact wording of the benchmark.
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
"""Side of the models' input images, in pixels."""
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
    """Train a byte-level BPE of ``size`` tokens, special tokens first."""
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
    """bfloat16 if the CPU supports it natively; emulated, it is far slower than float32."""
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


@dataclass(frozen=True)
class RenderedImages:
    """Rendered scenes. ``pixels``: uint8 of (scenes, 4 relations, 3, SIDE, SIDE)."""

    scenes: Sequence[Scene]
    pixels: np.ndarray

    def sha256(self) -> str:
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


def render_images(sets: int, seed: int, processes: int = 2) -> RenderedImages:
    """Render ``sets`` scenes per subset, each with its four relations."""
    jobs = [(subset, seed, index) for index in range(sets) for subset in RELATIONS]
    with multiprocessing.Pool(processes) as pool:
        rendered = pool.map(_render_set, jobs, chunksize=64)
    scenes = [make_scene(subset, "train", seed, index) for subset, seed, index in jobs]
    return RenderedImages(scenes, np.stack(rendered))


def _render_set(job: tuple[str, int, int]) -> np.ndarray:
    subset, seed, index = job
    scene = make_scene(subset, "train", seed, index)
    images = [draw(scene, relation) for relation in RELATIONS[subset]]
    # As in evaluation, except for the last step, from bytes to floats.
    outputs = _processor()(images, do_rescale=False, do_normalize=False)
    return np.stack([np.asarray(pixels, dtype=np.uint8) for pixels in outputs["pixel_values"]])


@cache
def _processor() -> CLIPImageProcessor:
    torch.set_num_threads(1)  # one process per core
    return image_processor()


# --- captions -------------------------------------------------------------------------------------


def article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def web_caption(scene: Scene, relation: str, random: Random) -> str:
    """A caption that names the objects, as web captions do, and rarely (1 in 50) their relation."""
    if random.random() < 0.02:
        return relation_caption(scene, relation, random)
    objects = [(scene.subject, scene.subject_colour), (scene.object, scene.object_colour)]
    random.shuffle(objects)
    coloured = random.random() < 0.5
    first, second = (f"{colour} {name}" if coloured else name for name, colour in objects)
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

    Covers every command, with the plain template (answer: the option's word) and the lettered one
    (answer: its letter), in both orders of two options and in three random orders of four.
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
            builders = [
                prompt_builder(
                    task.spec, protocol, getattr(task.spec.protocols, protocol), registry
                )
                for protocol in ("generate", "choice")
            ]
            for sample in task.samples:
                key = (subset, *(sample.fields[n] for n in ("subject", "object", "relation")))
                for builder, lettered in zip(builders, (False, True), strict=True):
                    for command in builder.commands:
                        for order in _orders(len(sample.options), random):
                            prompt = builder.prompt(sample, order, command)
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
    """A question that no task asks: for a caption, a colour, an object or a place.

    The last two correspond to the RefCOCO and Visual Genome data of LLaVA-1.5: a name for a place,
    and a place for a name, as column and row on an 8 x 8 grid over the image.
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
    index = random.randrange(2)
    colour, name = (
        (scene.subject_colour, scene.subject),
        (scene.object_colour, scene.object),
    )[index]
    if kind < 0.5:
        return f"What colour is the {name}?", colour
    x, y, scale = places(scene, relation)[index]
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
"""Places of the two objects of a caption, by the words between them."""


def in_order(scene: Scene, relation: str) -> tuple[tuple[str, str], tuple[str, str], str]:
    """(colour, name) of the two objects, and the words between them.

    The order is left to right and front to back: a caption in random order would not help to tell
    the objects apart.
    """
    objects = ((scene.subject_colour, scene.subject), (scene.object_colour, scene.object))
    if relation in ("right", "behind"):
        return objects[1], objects[0], WORDS[OPPOSITE[relation]]
    return objects[0], objects[1], WORDS[relation]


def corpus(turns: dict[tuple[str, str, str, str], list[Turn]], seed: int) -> list[str]:
    """Training texts for the tokenizers: a sample of every kind of text."""
    random = Random(seed)
    texts = []
    for (subset, *_), of_scene in turns.items():
        scene = make_scene(subset, "train", seed, random.randrange(10_000))
        relation = random.choice(RELATIONS[subset])
        texts.append(web_caption(scene, relation, random))
        texts.append(" ".join(other_turn(scene, relation, random)))
        texts.extend(f"USER: {q} ASSISTANT: {a}" for q, a in random.sample(of_scene, 4))
    return texts
