"""Tiny random checkpoints of vision-language models: see ``helpers.models``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.models import PATCH, TIED, WIDTH, clip_vision, decoder, save, text_settings
from helpers.tokenizers import (
    byte_tokenizer,
    gemma_tokenizer,
    llama_tokenizer,
    prepend_bos,
    word_tokenizer,
)

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
    return save(LlavaForConditionalGeneration(config), processor, path, settings)


def tiny_llava_next(path: Path, **generation: Any) -> Path:
    """LLaVA-1.6 with Mistral: the number of image tokens depends on the image's tiles."""
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
    return save(LlavaNextForConditionalGeneration(config), processor, path, settings)


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
    return save(LlavaOnevisionForConditionalGeneration(config), processor, path, settings)


def tiny_instructblip(path: Path, **generation: Any) -> Path:
    """InstructBLIP with Vicuna: the Q-Former also reads the question; no chat template."""
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
        qformer_config=text_settings(
            qformer_tokenizer, encoder_hidden_size=WIDTH, cross_attention_frequency=1
        ),
        text_config={"model_type": "llama", **decoder(len(processor.tokenizer))},
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    settings = {"bos_token_id": 1, "eos_token_id": 2, **generation}
    return save(InstructBlipForConditionalGeneration(config), processor, path, settings)


def tiny_blip2(path: Path, **generation: Any) -> Path:
    """BLIP-2 with OPT: the same token is BOS and EOS, learned positions, no chat template."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    tokenizer = byte_tokenizer(bos_token="<|im_end|>", padding_side="left")
    prepend_bos(tokenizer.backend_tokenizer, "<|im_end|>")
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
    return save(model, processor, path, settings, embedding=TIED)


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
    return save(model, processor, path, settings)


def tiny_qwen2_vl(path: Path, **generation: Any) -> Path:
    """Qwen2-VL: image tokens proportional to pixels, 3-D positions, two EOS tokens."""
    return _qwen(path, generation, "2")


def tiny_qwen2_5_vl(path: Path, **generation: Any) -> Path:
    return _qwen(path, generation, "2.5")


def tiny_smolvlm(path: Path, **generation: Any) -> Path:
    """SmolVLM: tiled images; BOS is <|im_start|>, which the template contains."""
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
    return save(SmolVLMForConditionalGeneration(config), processor, path, settings)


def tiny_idefics3(path: Path, **generation: Any) -> Path:
    """Idefics3: predecessor of SmolVLM, whose processor needs no extra package."""
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
    return save(Idefics3ForConditionalGeneration(config), processor, path, settings)


def tiny_paligemma(path: Path, **generation: Any) -> Path:
    """PaliGemma: no chat template; the processor adds image tokens, BOS and the final newline."""
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
    return save(model, processor, path, settings, embedding=TIED)


def tiny_gemma3(path: Path, **generation: Any) -> Path:
    """Gemma 3: BOS from both template and tokenizer, sliding windows, two EOS tokens."""
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
    return save(model, processor, path, settings, embedding=TIED)


def tiny_internvl(path: Path, **generation: Any) -> Path:
    """InternVL3: tiles with pixel shuffle, and Qwen2."""
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
    return save(InternVLForConditionalGeneration(config), processor, path, settings)


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
