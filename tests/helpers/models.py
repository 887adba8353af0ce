"""Tiny random checkpoints with real tokenizers and processors, saved offline.

Except for their size, they behave like their families: whether the tokenizer adds BOS, how the chat
template is written, and how the processor expands image tokens. Weights are large, so that
different pixels or words give clearly different scores.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing

from helpers.tokenizers import gemma_tokenizer, sentencepiece_model, word_tokenizer

PATCH = 14
WIDTH = 32
TIED = 0.1
"""Scale of embeddings tied to the output layer; larger ones would repeat the last token."""


# --- weights -------------------------------------------------------------------------------------


def randomise(
    model: torch.nn.Module, seed: int = 0, gain: float = 1.5, embedding: float = 1.0
) -> None:
    """Reinitialise all matrices with std ``gain / sqrt(fan in)``, to avoid flat outputs."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                if name.endswith("bias"):
                    weight.normal_(0.0, 0.1, generator=random)
                continue
            fan_in = math.prod(weight.shape[1:])
            table = "embed" in name and "patch" not in name
            std = embedding if table else gain / math.sqrt(fan_in)
            weight.normal_(0.0, std, generator=random)


def save(
    model: Any,
    processor: Any,
    path: Path,
    generation: dict[str, Any] | None = None,
    embedding: float = 1.0,
) -> Path:
    randomise(model, embedding=embedding)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


UNWANTED_SAMPLING: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.3,
    "top_p": 0.8,
    "top_k": 5,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "max_length": 30,
}
"""Settings of released generation_config.json files; greedy decoding must ignore them."""


def clip_vision(**kwargs: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": PATCH,
        **kwargs,
    }


def decoder(vocab: int, **kwargs: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        **kwargs,
    }


# --- dual encoders -------------------------------------------------------------------------------


def text_settings(tokenizer: Any, **kwargs: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        **kwargs,
    }


def tiny_clip(path: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = word_tokenizer(
        lower=True, bos="<|startoftext|>", eos="<|endoftext|>", pad="<|endoftext|>", length=40
    )
    config = CLIPConfig(
        text_config=text_settings(tokenizer, max_position_embeddings=40),
        vision_config=clip_vision(),
        projection_dim=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return save(CLIPModel(config), CLIPProcessor(images, tokenizer), path)


def tiny_siglip(path: Path) -> Path:
    """SigLIP 1: sentencepiece, lower case without punctuation, no mask over the padding."""
    from transformers import (
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
        SiglipTokenizer,
    )

    path.mkdir(parents=True, exist_ok=True)
    (path / "spiece.model").write_bytes(sentencepiece_model())
    tokenizer = SiglipTokenizer(str(path / "spiece.model"), model_input_names=["input_ids"])
    config = SiglipConfig(
        text_config=text_settings(tokenizer, max_position_embeddings=64),
        vision_config=clip_vision(),
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    return save(SiglipModel(config), SiglipProcessor(images, tokenizer), path)


def tiny_siglip2_fixed(path: Path) -> Path:
    """Like google/siglip2-base-patch16-224: model_type siglip, with a cased tokenizer."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tokenizer = word_tokenizer(
        lower=False, bos=None, eos="<eos>", pad="<pad>", length=64, model_input_names=["input_ids"]
    )
    config = SiglipConfig(
        text_config=text_settings(tokenizer, max_position_embeddings=64),
        vision_config=clip_vision(),
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    return save(SiglipModel(config), SiglipProcessor(images, tokenizer), path)


def tiny_siglip2(path: Path) -> Path:
    """NaFlex: the number of patches depends on the image's shape; padding is masked."""
    from transformers import (
        Siglip2Config,
        Siglip2ImageProcessor,
        Siglip2Model,
        Siglip2Processor,
        Siglip2Tokenizer,
    )

    bpe = json.loads(gemma_tokenizer(add_bos=False).backend_tokenizer.to_str())["model"]
    tokenizer = Siglip2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        padding_side="right",
        model_input_names=["input_ids"],
        model_max_length=64,
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    vision = clip_vision(num_patches=16)
    del vision["image_size"]
    config = Siglip2Config(
        text_config=text_settings(tokenizer, max_position_embeddings=64), vision_config=vision
    )
    images = Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16)
    return save(Siglip2Model(config), Siglip2Processor(images, tokenizer), path)


def tiny_align(path: Path) -> Path:
    from transformers import AlignConfig, AlignModel, AlignProcessor, EfficientNetImageProcessor

    tokenizer = word_tokenizer(
        lower=True, bos="[CLS]", eos="[SEP]", pad="[PAD]", unk="[UNK]", length=512
    )
    config = AlignConfig(
        text_config=text_settings(tokenizer),
        vision_config={
            "image_size": 32,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "depth_divisor": 4,
            "in_channels": [32, 16],
            "out_channels": [16, 128],
            "kernel_sizes": [3, 3],
            "depthwise_padding": [],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
            "hidden_dim": WIDTH,
        },
        projection_dim=WIDTH,
    )
    images = EfficientNetImageProcessor(
        size={"height": 36, "width": 36},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
    )
    return save(AlignModel(config), AlignProcessor(images, tokenizer), path)


def tiny_altclip(path: Path) -> Path:
    from transformers import AltCLIPConfig, AltCLIPModel, AltCLIPProcessor, CLIPImageProcessor

    tokenizer = word_tokenizer(lower=False, bos="<s>", eos="</s>", pad="<pad>", length=77)
    config = AltCLIPConfig(
        text_config=text_settings(tokenizer, max_position_embeddings=80, project_dim=WIDTH),
        vision_config=clip_vision(),
        projection_dim=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return save(AltCLIPModel(config), AltCLIPProcessor(images, tokenizer), path)


def _open_clip(path: Path, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> Path:
    import open_clip
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    randomise(model)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path / "open_clip_model.safetensors")
    return path


OPEN_CLIP_TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 8,
        "heads": 2,
        "layers": 2,
    },
}


def tiny_open_clip(path: Path) -> Path:
    """A folder like those on the hub: CLIP with the built-in tokenizer of 49408 tokens."""
    return _open_clip(
        path,
        OPEN_CLIP_TINY,
        {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    )


def tiny_open_clip_siglip(path: Path) -> Path:
    """SigLIP in open_clip: its own text pooling, squashed images, a tokenizer in the folder."""
    tokenizer = word_tokenizer(lower=True, bos=None, eos="</s>", pad="</s>", length=64)
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(path)
    return _open_clip(
        path,
        {
            "embed_dim": 64,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 28,
                "layers": 2,
                "width": 64,
                "patch_size": 14,
                "pool_type": "avg",
            },
            "text_cfg": {
                "context_length": 64,
                "vocab_size": len(tokenizer),
                "hf_tokenizer_name": "in-this-folder",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 64,
                "heads": 2,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
        },
        {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    )
