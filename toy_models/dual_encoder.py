"""tiny-clip and its control: a CLIPModel trained with CLIP's contrastive loss."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from toy_models.data import SIDE, RenderedImages, byte_level_bpe, image_processor, mixed_precision
from vlm_harness.datasets.rendered import RELATIONS, Scene

BATCH = 128
STEPS = 1600
TEXT_LENGTH = 64
Caption = Callable[[Scene, str, Random], str]
"""Makes a caption from a scene and a relation."""
WIDTH = 128


def text_tokenizer(corpus: Sequence[str]) -> Any:
    """A tokenizer like CLIP's: lower case, byte-level BPE between start and end tokens."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = byte_level_bpe(corpus, 600, [start, end], leading_space=True, lower=True)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=TEXT_LENGTH,
    )


def build(tokenizer: Any) -> tuple[CLIPModel, CLIPProcessor]:
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    size = {"hidden_size": WIDTH, "num_attention_heads": 4, "projection_dim": WIDTH}
    config = CLIPConfig(
        text_config={
            **size,
            **ids,
            "vocab_size": len(tokenizer),
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "max_position_embeddings": TEXT_LENGTH,
        },
        vision_config={
            **size,
            "image_size": SIDE,
            "patch_size": 8,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
        },
        projection_dim=WIDTH,
    )
    return CLIPModel(config), CLIPProcessor(image_processor(), tokenizer)


def normalise(pixels: torch.Tensor, processor: Any) -> torch.Tensor:
    """The last step of the image processor: bytes to normalised floats."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (pixels.float() / 255 - mean) / std


def train(
    images: RenderedImages,
    corpus: Sequence[str],
    caption: Caption,
    seed: int,
    steps: int = STEPS,
) -> tuple[CLIPModel, CLIPProcessor]:
    """Train a dual encoder. A step uses ``BATCH`` scenes, each with one random relation."""
    torch.manual_seed(seed)
    random = Random(seed)
    model, processor = build(text_tokenizer(corpus))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, 50))
    pixels = torch.from_numpy(images.pixels)
    for step in range(steps):
        chosen = random.sample(range(len(images.scenes)), BATCH)
        relations = [random.randrange(4) for _ in chosen]
        captions = [
            caption(images.scenes[i], RELATIONS[images.scenes[i].subset][r], random)
            for i, r in zip(chosen, relations, strict=True)
        ]
        text = processor.tokenizer(captions, padding=True, return_tensors="pt")
        with mixed_precision():
            output = model(
                **text,
                pixel_values=normalise(pixels[chosen, relations], processor.image_processor),
                return_loss=True,
            )
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # as in CLIP: the temperature is at least 0.01
            model.logit_scale.clamp_(0, math.log(100))
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {output.loss.item():.3f}", flush=True)
    return model.eval(), processor


def warm_cosine(steps: int, warm: int) -> Callable[[int], float]:
    return lambda step: (
        min(1.0, (step + 1) / warm)
        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
    )
