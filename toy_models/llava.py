"""tiny-llava: LLaVA's recipe on tiny-clip's frozen vision tower.

As in LLaVA-1.5 (Liu et al. 2023), a two-layer MLP maps the patch features of the second-to-last
layer to embeddings of a Llama. Both are trained on questions and captions, with a loss on the
answers' tokens only. Unlike in LLaVA-1.5, the Llama is trained from scratch, so there is no
separate stage for the MLP.

Several turns share one image. Each attends to the image and to itself, not to other turns (an
answer would give away the next), at the positions it would have without the others. Turns without
the image attend only to themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken
from torch.nn import functional
from transformers import (
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from toy_models.data import (
    RenderedImages,
    Turn,
    byte_level_bpe,
    image_processor,
    mixed_precision,
    other_turn,
)
from toy_models.dual_encoder import normalise, warm_cosine
from vlm_harness.datasets.rendered import RELATIONS

IMAGES = 32
"""Images per step."""
TURNS = 4
"""Turns per image."""
BLIND = 0.05
"""Share of turns without the image."""
OTHER = 0.4
"""Share of turns that no task asks: captions, colours, places."""
STEPS = 3000
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] if item['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "{% endif %}"
    "{% else %} ASSISTANT: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}{{ item['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""Same format as in models/tiny-llava.yaml, for users who load the checkpoint without that file."""
LEARNING_RATE = 1e-3
IGNORED = -100


def text_tokenizer(corpus: Sequence[str]) -> Any:
    """A tokenizer like GPT-2's: cased byte-level BPE without a start token."""
    tokenizer = byte_level_bpe(corpus, 700, ["<pad>", "</s>"], leading_space=False, lower=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=1024,
    )
    image = AddedToken("<image>", special=True, normalized=False)
    fast.add_special_tokens({"additional_special_tokens": [image]})
    return fast


def build(clip: CLIPModel, tokenizer: Any) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """An untrained model on the vision tower of ``clip``, and its processor."""
    vision = clip.config.vision_config
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower_weights(clip, model), strict=True)
    model.model.vision_tower.requires_grad_(False)
    model.generation_config.bos_token_id = None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        image_processor(),
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which is dropped
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def tower_weights(clip: CLIPModel, model: LlavaForConditionalGeneration) -> dict[str, Any]:
    wanted = model.model.vision_tower.state_dict()
    weights = clip.state_dict()
    return {
        name: weights[f"vision_model.{name.removeprefix('vision_model.')}"].float()
        for name in wanted
    }


@torch.no_grad()
def patch_features(model: Any, images: RenderedImages, processor: Any) -> torch.Tensor:
    """Patch features of each image, the input of the MLP: bfloat16 of (images, patches, width)."""
    pixels = torch.from_numpy(images.pixels).flatten(0, 1)
    parts = []
    for part in torch.split(pixels, 512):
        output = model.model.vision_tower(
            normalise(part, processor.image_processor), output_hidden_states=True
        )
        parts.append(output.hidden_states[model.config.vision_feature_layer][:, 1:].bfloat16())
    return torch.cat(parts)


# --- sequences ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurnTokenizer:
    """Tokenizes turns, with the prompt format of models/tiny-llava.yaml."""

    tokenizer: Any
    image_token: int

    def prefix(self) -> list[int]:
        """Tokens up to and including one image token, which is later expanded."""
        return self._ids("USER: <image>")

    def turn(self, turn: Turn, blind: bool) -> tuple[list[int], list[int]]:
        """Tokens of a turn after the image, and their labels (the answer's tokens and EOS)."""
        question, answer = turn
        prompt = self._ids(f"USER: {question} ASSISTANT:" if blind else f"\n{question} ASSISTANT:")
        target = [*self._ids(f" {answer}"), self.tokenizer.eos_token_id]
        return prompt + target, [IGNORED] * len(prompt) + target

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Packed:
    """Rows of one image and several turns: (rows, length); mask: (rows, 1, length, length)."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


def pack(
    tokenizer: TurnTokenizer, rows: Sequence[Sequence[tuple[Turn, bool]]], n_patches: int
) -> Packed:
    """``rows``: the turns of each image, each with whether the turn is without the image."""
    prefix = tokenizer.prefix()
    prefix = prefix[:-1] + [tokenizer.image_token] * n_patches
    start = len(prefix)
    ids, labels, positions, segments = [], [], [], []
    for row in rows:
        row_ids, row_labels = list(prefix), [IGNORED] * start
        row_positions, row_segments = list(range(start)), [0] * start
        for number, (turn, blind) in enumerate(row, start=1):
            tokens, targets = tokenizer.turn(turn, blind)
            first = 0 if blind else start
            row_ids += tokens
            row_labels += targets
            row_positions += range(first, first + len(tokens))
            # Negative: a segment that does not attend to the image.
            row_segments += [-number if blind else number] * len(tokens)
        ids.append(torch.tensor(row_ids))
        labels.append(torch.tensor(row_labels))
        positions.append(torch.tensor(row_positions))
        segments.append(torch.tensor(row_segments))

    def padded(values: list[torch.Tensor], filler: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filler)

    segment = padded(segments, len(rows[0]) + 1)
    same = segment[:, :, None] == segment[:, None, :]
    to_image = (segment[:, :, None] > 0) & (segment[:, None, :] == 0)
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    return Packed(
        padded(ids, tokenizer.tokenizer.pad_token_id),
        padded(labels, IGNORED),
        padded(positions, 0),
        ((same | to_image) & causal)[:, None],
    )


def answer_loss(model: Any, packed: Packed, features: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each answer token: (tokens,)."""
    embeddings = model.get_input_embeddings()(packed.ids)
    image = model.model.multi_modal_projector(features.float()).to(embeddings.dtype)
    is_image = (packed.ids == model.config.image_token_id)[..., None].expand_as(embeddings)
    hidden = model.model.language_model(
        inputs_embeds=embeddings.masked_scatter(is_image, image),
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
    ).last_hidden_state
    targets = packed.labels[:, 1:]
    counted = targets != IGNORED
    logits = model.lm_head(hidden[:, :-1][counted])
    return functional.cross_entropy(logits.float(), targets[counted], reduction="none")


# --- training -------------------------------------------------------------------------------------


def train(
    clip: CLIPModel,
    images: RenderedImages,
    turns: dict[tuple[str, str, str, str], list[Turn]],
    corpus: Sequence[str],
    seed: int,
    steps: int = STEPS,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Train a model. A step uses ``IMAGES`` images with ``TURNS`` turns each."""
    torch.manual_seed(seed)
    random = Random(seed)
    model, processor = build(clip, text_tokenizer(corpus))
    features = patch_features(model, images, processor)
    tokenizer = TurnTokenizer(processor.tokenizer, model.config.image_token_id)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, 200))
    total = 0.0
    for step in range(steps):
        chosen = random.sample(range(len(features)), IMAGES)
        rows = [_turns(images, index, turns, random) for index in chosen]
        packed = pack(tokenizer, rows, features.shape[1])
        with mixed_precision():
            loss = answer_loss(model, packed, features[chosen]).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {total / 100:.4f}", flush=True)
            total = 0.0
    return model.eval(), processor


def _turns(
    images: RenderedImages, index: int, turns: Any, random: Random
) -> list[tuple[Turn, bool]]:
    scene = images.scenes[index // 4]
    relation = RELATIONS[scene.subset][index % 4]
    of_scene = turns[scene.subset, scene.subject, scene.object, relation]
    chosen = []
    for _ in range(TURNS):
        blind = random.random() < BLIND
        other = not blind and random.random() < OTHER
        turn = other_turn(scene, relation, random) if other else random.choice(of_scene)
        chosen.append((turn, blind))
    return chosen
