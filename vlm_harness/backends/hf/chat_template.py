"""Whether a checkpoint has the chat template that its family is prompted with.

A model that was trained on conversations gives useless answers to a bare question, without any
error. A template is easily lost: a finetuned model is saved without its processor, or a library
reads it from another file.
"""

from typing import Any

from vlm_harness.errors import InputError
from vlm_harness.specs.schemas import ModelSpec

BARE_TEXT_PROCESSORS = frozenset(
    {
        "Blip2Processor", "BlipProcessor", "ChameleonProcessor", "DonutProcessor",
        "EvollaProcessor", "Florence2Processor", "FuyuProcessor", "GitProcessor",
        "GotOcr2Processor", "IdeficsProcessor", "InstructBlipProcessor",
        "InstructBlipVideoProcessor", "Kosmos2Processor", "Kosmos2_5Processor", "NougatProcessor",
        "PI0Processor", "PPChart2TableProcessor", "PPFormulaNetProcessor", "PaliGemmaProcessor",
        "Pix2StructProcessor", "TrOCRProcessor", "UdopProcessor",
    }
)  # fmt: skip
"""Processors of families that were trained on the bare text: their checkpoints have no template."""


def adopt_tokenizers_template(processor: Any) -> None:
    """Use the tokenizer's chat template if the processor has none, and it has a place for images.

    Older checkpoints have their template in ``tokenizer_config.json``.
    """
    own = getattr(processor, "chat_template", None)
    if isinstance(own, str) and not own.strip():
        own = processor.chat_template = None  # an empty template would drop the question
    template = getattr(processor.tokenizer, "chat_template", None)
    if own is not None or template is None or _is_bare(processor):
        return
    processor.chat_template = template
    if not _places_images(processor):
        processor.chat_template = None


def check_chat_template(processor: Any, spec: ModelSpec) -> None:
    """Raise an InputError if prompts would lack a chat template that the family needs."""
    if spec.prompt_format is not None or _is_bare(processor):
        return
    if getattr(processor, "chat_template", None) is not None:
        return
    token = getattr(processor, "image_token", None)
    images = f"{{% for _ in images %}}{token or '<image>'}{{% endfor %}}"
    raise InputError(
        f"model {spec.model}: the checkpoint has no chat template, but models of its family "
        f"({type(processor).__name__}) are prompted with one",
        where=spec.at("checkpoint") if spec.path else spec.checkpoint,
        hint="Copy chat_template.jinja from the original checkpoint into the folder; or name the "
        "original checkpoint with\n--model-args processor=FOLDER_OR_HUB_NAME; or set "
        "prompt_format in a model file or with --model-args. If this is a\nbase model that was "
        f"trained on the bare text: --model-args 'prompt_format=\"{images}{{{{ prompt }}}}\"'.",
    )


def _is_bare(processor: Any) -> bool:
    return type(processor).__name__ in BARE_TEXT_PROCESSORS


def _places_images(processor: Any) -> bool:
    """Whether the template adds a token for an image, and contains the text."""
    try:
        without, with_image = (
            processor.apply_chat_template(
                [{"role": "user", "content": [*images, {"type": "text", "text": "QUESTION"}]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for images in ([], [{"type": "image"}])
        )
    # A template for texts alone can raise anything when it is given a list.
    except Exception:
        return False
    tokens = processor.tokenizer.get_added_vocab()
    return "QUESTION" in with_image and any(
        with_image.count(token) > without.count(token) for token in tokens
    )
