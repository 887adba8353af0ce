"""Tiny random checkpoints with real tokenizers and processors, made offline by ``save_pretrained``.

They are what their families are in all but size: the tokenizer adds BOS or does not, the chat
template is written as the released one is, and the processor expands image tokens. Weights are
drawn large, so that other pixels or other words give clearly other scores.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, WordLevelTrainer
from transformers import PreTrainedTokenizerFast

from vlm_harness.types import ImageRef

CORPUS = [
    "Is the beer bottle to the left of or to the right of the armchair? Answer left or right.",
    "A beer bottle to the left of an armchair. A beer bottle to the right of an armchair.",
    "Are the butterfly's wings closer to being open or closed? (a) Open (b) Closed",
    "What's in the picture, a cat or a dog? Answer with A or B. USER: ASSISTANT: User: Assistant:",
    "user assistant system [INST] [/INST] answer en yes no left right on under above below",
] * 4
PATCH = 14
WIDTH = 32
TIED = 0.1
"""Where embeddings are the output layer too: drawn larger, they would repeat the last token."""


# --- images ---------------------------------------------------------------------------------------


def drawing(seed: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A scene of a few coloured shapes, different for every seed."""
    random = torch.Generator().manual_seed(seed)

    def draw_int(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=random))

    image = Image.new("RGB", size, (draw_int(0, 256), draw_int(0, 256), draw_int(0, 256)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = draw_int(0, size[0]), draw_int(0, size[1])
        w, h = draw_int(4, max(5, size[0] // 2)), draw_int(4, max(5, size[1] // 2))
        colour = (draw_int(0, 256), draw_int(0, 256), draw_int(0, 256))
        shape = pen.ellipse if draw_int(0, 2) else pen.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
        return image
    if mode == "P":
        return image.quantize(16)
    return image.convert(mode)


def file_bytes(image: Image.Image, kind: str = "PNG", orientation: int | None = None) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def memory_ref(path: str, data: bytes) -> ImageRef:
    return ImageRef(path, read=lambda: data)


def varied_images() -> dict[str, bytes]:
    """Files as they come: sizes, modes, a sideways photograph."""
    return {
        "wide.png": file_bytes(drawing(1, (97, 41))),
        "tall.jpg": file_bytes(drawing(2, (40, 90)), "JPEG"),
        "grey.png": file_bytes(drawing(3, (64, 64), "L")),
        "alpha.png": file_bytes(drawing(4, (70, 50), "RGBA")),
        "palette.png": file_bytes(drawing(5, (33, 57), "P")),
        "sideways.jpg": file_bytes(drawing(6, (80, 45)), "JPEG", orientation=6),
        "small.png": file_bytes(drawing(7, (20, 24))),
    }


# --- tokenizers -----------------------------------------------------------------------------------


def _bpe(
    corpus: Sequence[str], special: Sequence[str], alphabet: Sequence[str], **model: Any
) -> Any:
    tokenizer = Tokenizer(models.BPE(**model))
    return tokenizer, BpeTrainer(
        vocab_size=len(special) + len(alphabet) + 200,
        special_tokens=list(special),
        initial_alphabet=list(alphabet),
        show_progress=False,
    )


def _prepend(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )


def llama_tokenizer(extra: Sequence[str] = (), pad: str | None = None, **kwargs: Any) -> Any:
    """As Llama's and Mistral's: BPE with byte fallback, spaces as ▁; BOS before every text."""
    special = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    tokenizer, trainer = _bpe(CORPUS, special, [], unk_token="<unk>", byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # Real ones do not split before BPE; merges across words are rare there, not with 200 merges.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    _prepend(tokenizer, "<s>")
    return _wrap(
        tokenizer,
        extra,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        **kwargs,
    )


def gemma_tokenizer(extra: Sequence[str] = (), add_bos: bool = True, **kwargs: Any) -> Any:
    """As Gemma's: BPE with byte fallback, spaces as ▁, newlines of their own; BOS before texts."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *[f"<0x{i:02X}>" for i in range(256)]]
    tokenizer, trainer = _bpe(CORPUS, special, ["\n"], unk_token="<unk>", byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if add_bos:
        _prepend(tokenizer, "<bos>")
    return _wrap(
        tokenizer,
        extra,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        **kwargs,
    )


def byte_tokenizer(
    extra: Sequence[str] = (), corpus: Sequence[str] = CORPUS, split: bool = True, **kwargs: Any
) -> Any:
    """As GPT-2's and Qwen's: byte-level BPE without BOS. ``split=False`` lets words merge."""
    tokenizer, trainer = _bpe(
        corpus, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainer)
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **kwargs}
    return _wrap(tokenizer, extra, **tokens)


def word_tokenizer(
    *,
    lower: bool,
    bos: str | None,
    eos: str,
    pad: str,
    unk: str = "<unk>",
    length: int,
    **kwargs: Any,
) -> Any:
    """Whole words, as text encoders' tests need no more: [BOS] words EOS, then padding."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=unk))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = list(dict.fromkeys([pad, unk, *([bos] if bos else []), eos]))
    trainer = WordLevelTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *(text.lower() for text in CORPUS)], trainer)
    names = [*([bos] if bos else []), eos]
    tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*([bos] if bos else []), "$A", eos]),
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
    tokens = {"eos_token": eos, "pad_token": pad, "unk_token": unk, "model_max_length": length}
    if bos:
        tokens["bos_token"] = bos
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**tokens, **kwargs})


def _sentencepiece() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.lower() for text in CORPUS),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _wrap(tokenizer: Tokenizer, extra: Sequence[str], **kwargs: Any) -> Any:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kwargs)
    fast.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(t, special=True, normalized=False) for t in extra
            ]
        }
    )
    return fast


# --- weights --------------------------------------------------------------------------------------


def randomise(
    model: torch.nn.Module, seed: int = 0, gain: float = 1.5, embedding: float = 1.0
) -> None:
    """Draw all matrices anew, with ``gain / sqrt(fan in)``: flat outputs would prove nothing."""
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


def _save(
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
"""What released checkpoints put in generation_config.json; greedy decoding must not feel it."""


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


# --- dual encoders --------------------------------------------------------------------------------


def _text(tokenizer: Any, **kwargs: Any) -> dict[str, Any]:
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
        text_config=_text(tokenizer, max_position_embeddings=40),
        vision_config=clip_vision(),
        projection_dim=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return _save(CLIPModel(config), CLIPProcessor(images, tokenizer), path)


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
    (path / "spiece.model").write_bytes(_sentencepiece())
    tokenizer = SiglipTokenizer(str(path / "spiece.model"), model_input_names=["input_ids"])
    config = SiglipConfig(
        text_config=_text(tokenizer, max_position_embeddings=64),
        vision_config=clip_vision(),
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    return _save(SiglipModel(config), SiglipProcessor(images, tokenizer), path)


def tiny_siglip2_fixed(path: Path) -> Path:
    """As google/siglip2-base-patch16-224: model_type siglip, with a tokenizer that keeps case."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tokenizer = word_tokenizer(
        lower=False, bos=None, eos="<eos>", pad="<pad>", length=64, model_input_names=["input_ids"]
    )
    config = SiglipConfig(
        text_config=_text(tokenizer, max_position_embeddings=64),
        vision_config=clip_vision(),
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    return _save(SiglipModel(config), SiglipProcessor(images, tokenizer), path)


def tiny_siglip2(path: Path) -> Path:
    """NaFlex: as many patches as the image's shape asks for, with a mask over the rest."""
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
        text_config=_text(tokenizer, max_position_embeddings=64), vision_config=vision
    )
    images = Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16)
    return _save(Siglip2Model(config), Siglip2Processor(images, tokenizer), path)


def tiny_align(path: Path) -> Path:
    from transformers import AlignConfig, AlignModel, AlignProcessor, EfficientNetImageProcessor

    tokenizer = word_tokenizer(
        lower=True, bos="[CLS]", eos="[SEP]", pad="[PAD]", unk="[UNK]", length=512
    )
    config = AlignConfig(
        text_config=_text(tokenizer),
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
    return _save(AlignModel(config), AlignProcessor(images, tokenizer), path)


def tiny_altclip(path: Path) -> Path:
    from transformers import AltCLIPConfig, AltCLIPModel, AltCLIPProcessor, CLIPImageProcessor

    tokenizer = word_tokenizer(lower=False, bos="<s>", eos="</s>", pad="<pad>", length=77)
    config = AltCLIPConfig(
        text_config=_text(tokenizer, max_position_embeddings=80, project_dim=WIDTH),
        vision_config=clip_vision(),
        projection_dim=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return _save(AltCLIPModel(config), AltCLIPProcessor(images, tokenizer), path)


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
    """A folder as the hub's: CLIP with the built-in tokenizer of 49408 tokens."""
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


# --- vision-language models -----------------------------------------------------------------------

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] }}{% endfor %}{{ ' [/INST]' }}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'text' %}{{ content['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ content['text'] | trim }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def tiny_llava(
    path: Path, chat_template: str | None = LLAVA_TEMPLATE, tokenizer: Any = None, **generation: Any
) -> Path:
    """LLaVA-1.5: Vicuna's tokenizer without a padding token, 4 image tokens."""
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tokenizer or llama_tokenizer(["<image>"])
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **clip_vision()},
        text_config={"model_type": "llama", **decoder(len(tokenizer))},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    settings = {"bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id, **generation}
    return _save(LlavaForConditionalGeneration(config), processor, path, settings)


def tiny_llava_next(path: Path, **generation: Any) -> Path:
    """LLaVA-1.6 with Mistral: as many image tokens as the tiles that the image's shape asks for."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tokenizer = llama_tokenizer(["<image>"], pad="<unk>")
    grid = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **clip_vision()},
        text_config={"model_type": "mistral", **decoder(len(tokenizer), sliding_window=None)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=grid,
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL_TEMPLATE,
    )
    settings = {"bos_token_id": 1, "eos_token_id": 2, **generation}
    return _save(LlavaNextForConditionalGeneration(config), processor, path, settings)


def tiny_llava_onevision(path: Path, **generation: Any) -> Path:
    """LLaVA-OneVision with Qwen2: tiles, no BOS."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = byte_tokenizer(["<image>", "<video>"])
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **clip_vision()},
        text_config={"model_type": "qwen2", **decoder(len(tokenizer))},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(
            size={"height": 28, "width": 28}, image_grid_pinpoints=grid, do_pad=True
        ),
        tokenizer,
        LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHATML_TEMPLATE.replace("IMAGE", "<image>\n"),
    )
    settings = {"eos_token_id": tokenizer.eos_token_id, **generation}
    return _save(LlavaOnevisionForConditionalGeneration(config), processor, path, settings)


def tiny_instructblip(path: Path, **generation: Any) -> Path:
    """InstructBLIP with Vicuna: a Q-Former that reads the question too; no chat template."""
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
    )

    tokenizer = llama_tokenizer(pad="</s>", padding_side="left")
    qformer_tokenizer = word_tokenizer(
        lower=True, bos="[CLS]", eos="[SEP]", pad="[PAD]", unk="[UNK]", length=512
    )
    processor = InstructBlipProcessor(
        BlipImageProcessor(size={"height": 28, "width": 28}),
        tokenizer,
        qformer_tokenizer,
        num_query_tokens=4,
    )
    config = InstructBlipConfig(
        vision_config=clip_vision(),
        qformer_config=_text(
            qformer_tokenizer, encoder_hidden_size=WIDTH, cross_attention_frequency=1
        ),
        text_config={"model_type": "llama", **decoder(len(processor.tokenizer))},
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    settings = {"bos_token_id": 1, "eos_token_id": 2, **generation}
    return _save(InstructBlipForConditionalGeneration(config), processor, path, settings)


def tiny_blip2(path: Path, **generation: Any) -> Path:
    """BLIP-2 with OPT: one token is BOS and EOS, positions are learned; no chat template."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    tokenizer = byte_tokenizer(bos_token="<|im_end|>", padding_side="left")
    _prepend(tokenizer.backend_tokenizer, "<|im_end|>")
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 28, "width": 28}), tokenizer, num_query_tokens=4
    )
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = Blip2Config(
        vision_config=clip_vision(),
        qformer_config={
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "encoder_hidden_size": WIDTH,
            "cross_attention_frequency": 1,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "bos_token_id": eos,
            "eos_token_id": eos,
            "pad_token_id": pad,
        },
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    settings = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": pad, **generation}
    model = Blip2ForConditionalGeneration(config)
    return _save(model, processor, path, settings, embedding=TIED)


def _qwen(path: Path, generation: dict[str, Any], version: str) -> Path:
    import transformers

    tokenizer = byte_tokenizer(
        ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    )
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }.items()
    }
    rope = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    text = decoder(len(tokenizer), rope_parameters=rope, eos_token_id=tokenizer.eos_token_id)
    if version == "2":
        vision = {"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2}
        vision |= {"hidden_size": WIDTH, "patch_size": 7}
    else:
        vision = {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
        vision |= {"out_hidden_size": WIDTH, "patch_size": 7}
        vision |= {"window_size": 28, "fullatt_block_indexes": [1]}
    stem = "Qwen2VL" if version == "2" else "Qwen2_5_VL"
    config = getattr(transformers, f"{stem}Config")(text_config=text, vision_config=vision, **ids)
    processor = getattr(transformers, f"{stem}Processor")(
        transformers.Qwen2VLImageProcessor(patch_size=7, min_pixels=14 * 14, max_pixels=56 * 56),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(patch_size=7),
        chat_template=CHATML_TEMPLATE.replace(
            "IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"
        ),
    )
    settings = {"eos_token_id": [tokenizer.eos_token_id, 0], "pad_token_id": 0, **generation}
    model = getattr(transformers, f"{stem}ForConditionalGeneration")(config)
    return _save(model, processor, path, settings)


def tiny_qwen2_vl(path: Path, **generation: Any) -> Path:
    """Qwen2-VL: as many image tokens as pixels, positions in three dimensions, two EOS tokens."""
    return _qwen(path, generation, "2")


def tiny_qwen2_5_vl(path: Path, **generation: Any) -> Path:
    return _qwen(path, generation, "2.5")


def tiny_smolvlm(path: Path, **generation: Any) -> Path:
    """SmolVLM: images cut into tiles; BOS is <|im_start|>, which the template itself writes."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    tokenizer = byte_tokenizer(
        ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
    )
    size = {"longest_edge": 56}
    config = SmolVLMConfig(
        vision_config=clip_vision(),
        text_config={
            "model_type": "llama",
            **decoder(len(tokenizer), pad_token_id=tokenizer.pad_token_id),
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size=size, max_image_size={"longest_edge": 28}),
        tokenizer,
        SmolVLMVideoProcessor(size=size, max_image_size={"longest_edge": 28}),
        image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    )
    settings = {"eos_token_id": tokenizer.eos_token_id, **generation}
    return _save(SmolVLMForConditionalGeneration(config), processor, path, settings)


def tiny_idefics3(path: Path, **generation: Any) -> Path:
    """Idefics3: SmolVLM's elder, whose processor needs no further package."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    tokenizer = byte_tokenizer(
        ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
    )
    pad = tokenizer.pad_token_id
    config = Idefics3Config(
        vision_config=clip_vision(),
        text_config={"model_type": "llama", **decoder(len(tokenizer), pad_token_id=pad)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=1,
        pad_token_id=pad,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
        tokenizer,
        image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    )
    settings = {"eos_token_id": tokenizer.eos_token_id, **generation}
    return _save(Idefics3ForConditionalGeneration(config), processor, path, settings)


def tiny_paligemma(path: Path, **generation: Any) -> Path:
    """PaliGemma: no chat template; the processor writes image tokens, BOS and the last newline."""
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = gemma_tokenizer(["<image>"], add_bos=False)
    images = SiglipImageProcessor(size={"height": 28, "width": 28}, image_seq_length=4)
    processor = PaliGemmaProcessor(images, tokenizer)
    config = PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **clip_vision()},
        text_config={
            "model_type": "gemma",
            **decoder(len(processor.tokenizer), num_key_value_heads=1, head_dim=16),
        },
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    settings = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, **generation}
    model = PaliGemmaForConditionalGeneration(config)
    return _save(model, processor, path, settings, embedding=TIED)


def tiny_gemma3(path: Path, **generation: Any) -> Path:
    """Gemma 3: BOS from the template and from the tokenizer, sliding windows, two EOS tokens."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    special = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer = gemma_tokenizer(
        [*special.values(), "<start_of_turn>", "<end_of_turn>"], extra_special_tokens=special
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        vision_config=clip_vision(),
        text_config=decoder(
            len(tokenizer),
            num_key_value_heads=1,
            head_dim=16,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=16,
        ),
        mm_tokens_per_image=4,
        image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=4,
    )
    settings = {"eos_token_id": [1, ids("<end_of_turn>")], "pad_token_id": 0, **generation}
    model = Gemma3ForConditionalGeneration(config)
    return _save(model, processor, path, settings, embedding=TIED)


def tiny_internvl(path: Path, **generation: Any) -> Path:
    """InternVL3: tiles through a pixel shuffle, Qwen2 below."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer([*special.values()], extra_special_tokens=special)
    vision = clip_vision(image_size=[28, 28], patch_size=[7, 7], num_channels=3)
    config = InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **decoder(len(tokenizer))},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    size = {"height": 28, "width": 28}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=3),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=CHATML_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    settings = {"eos_token_id": tokenizer.eos_token_id, **generation}
    return _save(InternVLForConditionalGeneration(config), processor, path, settings)


VLM_FAMILIES: dict[str, Callable[..., Path]] = {
    "llava": tiny_llava,
    "llava_next": tiny_llava_next,
    "llava_onevision": tiny_llava_onevision,
    "instructblip": tiny_instructblip,
    "blip2": tiny_blip2,
    "qwen2_vl": tiny_qwen2_vl,
    "qwen2_5_vl": tiny_qwen2_5_vl,
    "idefics3": tiny_idefics3,
    "smolvlm": tiny_smolvlm,
    "paligemma": tiny_paligemma,
    "gemma3": tiny_gemma3,
    "internvl": tiny_internvl,
}
