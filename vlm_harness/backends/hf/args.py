"""Arguments of the backends that use transformers."""

from typing import Literal

from pydantic import Field

from vlm_harness.specs.schemas import Dtype
from vlm_harness.specs.spec import Spec


class TransformersArgs(Spec):
    """Arguments of all backends that use transformers."""

    device: str | None = Field(None, description="overrides --device for this model")
    dtype: Dtype | None = Field(None, description="overrides --dtype for this model")
    device_map: str | dict[str, str | int] | None = Field(
        None, description="auto spreads the model over the GPUs (needs accelerate)"
    )
    attn_implementation: str | None = Field(None, description="eager, sdpa, flash_attention_2, ...")
    compile: bool = Field(
        False, description="torch.compile the model; pays off in long runs on a GPU"
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        None, description="8-bit or 4-bit weights on a CUDA GPU (needs bitsandbytes)"
    )


class HfDualEncoderArgs(TransformersArgs):
    padding: Literal["max_length", "longest"] | None = Field(
        None, description="padding of texts; default: as the family was trained"
    )
    max_length: int | None = Field(None, ge=1, description="maximum text length in tokens")
    lowercase: bool | None = Field(
        None, description="whether to lower-case texts; default: as the family was trained"
    )


class HfVlmArgs(TransformersArgs):
    processor: str | None = Field(
        None, description="folder or hub name of the processor; default: the checkpoint"
    )
    min_pixels: int | None = Field(None, description="minimum pixels per image (Qwen-VL)")
    max_pixels: int | None = Field(None, description="maximum pixels per image (Qwen-VL)")
    share_prefixes: bool = Field(
        True,
        description="compute the prefix that prompts about one image share only once, if the model "
        "supports it",
    )
    chat_template_args: dict[str, str | bool | int] = Field(
        {}, description="arguments for the chat template, e.g. enable_thinking: false"
    )
