"""Dual encoders of open_clip."""

from pydantic import Field

from vlm_harness.backends.family import Family
from vlm_harness.specs.schemas import Dtype
from vlm_harness.specs.spec import Spec


class OpenClipArgs(Spec):
    device: str | None = None
    dtype: Dtype | None = None
    weights: str | None = Field(None, description="weights file, instead of a pretrained tag")
    quick_gelu: bool | None = Field(
        None,
        description="whether to use QuickGELU, as OpenAI's weights do; default: as the tag or the "
        "configuration says",
    )
    cache_dir: str | None = None


FAMILY = Family(
    summary="open_clip: any architecture and pretrained tag, or local weights",
    provides=frozenset({"similarity"}),
    factory="vlm_harness.backends.open_clip.encoder:OpenClip",
    args=OpenClipArgs,
    default_batch=32,
    checker="vlm_harness.backends.open_clip.checkpoint:check",
    hub="vlm_harness.backends.open_clip.checkpoint:repositories",
    embeds_images=True,
)
