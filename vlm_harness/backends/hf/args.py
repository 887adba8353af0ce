"""Arguments of the backends that load with transformers."""

from typing import Literal

from pydantic import Field

from vlm_harness.specs.schemas import Dtype, Spec


class TransformersArgs(Spec):
    """Shared by the backends that load with transformers."""

    device: str | None = Field(None, description="overrides --device for this model")
    dtype: Dtype | None = Field(None, description="overrides --dtype for this model")
    device_map: str | dict[str, str | int] | None = Field(
        None, description="auto spreads the model over the GPUs (needs accelerate)"
    )
    attn_implementation: str | None = Field(None, description="eager, sdpa, flash_attention_2, ...")
    compile: bool = Field(
        False, description="torch.compile the model: pays on a GPU where a run is long"
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        None, description="weights in 8 or 4 bits on a CUDA GPU (needs bitsandbytes)"
    )


class HfDualEncoderArgs(TransformersArgs):
    padding: Literal["max_length", "longest"] | None = Field(
        None, description="of texts; default: as the family was trained"
    )
    max_length: int | None = Field(None, ge=1, description="of texts, in tokens")
    lowercase: bool | None = Field(None, description="default: as the family was trained")


class HfVlmArgs(TransformersArgs):
    processor: str | None = Field(None, description="folder or hub name, where it lies elsewhere")
    min_pixels: int | None = Field(None, description="image budget of Qwen-VL processors")
    max_pixels: int | None = None
    share_prefixes: bool = Field(
        True, description="compute what prompts about one image share once, where the model can"
    )
    chat_template_args: dict[str, str | bool | int] = Field(
        {}, description="passed to the chat template, e.g. enable_thinking: false"
    )
