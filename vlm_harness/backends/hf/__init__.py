"""Models that run with transformers: dual encoders and generative VLMs."""

from vlm_harness.backends.family import Family
from vlm_harness.backends.hf.args import HfDualEncoderArgs, HfVlmArgs

DUAL_ENCODER = Family(
    summary="transformers AutoModel dual encoders: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, ...",
    provides=frozenset({"similarity"}),
    factory="vlm_harness.backends.hf.dual_encoder:HfDualEncoder",
    args=HfDualEncoderArgs,
    default_batch=32,
    checker="vlm_harness.backends.hf.loading:check",
    hub="vlm_harness.backends.hf.loading:repositories",
    embeds_images=True,
)
VLM = Family(
    summary="transformers AutoModelForImageTextToText: LLaVA, Qwen-VL, InternVL, PaliGemma, ...",
    provides=frozenset({"generate", "score"}),
    factory="vlm_harness.backends.hf.vlm:HfVlm",
    args=HfVlmArgs,
    without_image=True,
    checker="vlm_harness.backends.hf.loading:check",
    hub="vlm_harness.backends.hf.loading:repositories",
    formatter="vlm_harness.backends.hf.prompt_format:prompt_formatter",
)
