"""A model family that answers which half of an image is brighter."""

from collections.abc import Sequence

from PIL import ImageStat
from pydantic import Field

from vlm_harness.backends import Family, LoadOptions
from vlm_harness.errors import SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.specs import ModelSpec, Spec
from vlm_harness.types import Model, Request, Response


class Args(Spec):
    """Arguments accepted in ``args:`` of a model file and in ``--model-args``."""

    reason: bool = Field(False, description="describe both halves before answering")


class BrighterHalf:
    """Answers ``left`` or ``right``."""

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.spec = spec
        self.args = Args.model_validate(spec.args)

    def info(self) -> Model:
        return Model(self.spec.model, "brighter_half", self.spec.checkpoint)

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response]:
        return [self._respond(request, loader) for request in requests]

    def _respond(self, request: Request, loader: ImageLoader) -> Response:
        try:
            image = loader.get(request.images[0]).pixels.convert("L")
        except SampleError as error:  # only this sample fails, not its batch
            return Response(error=str(error))
        middle = image.width // 2
        left = ImageStat.Stat(image.crop((0, 0, middle, image.height))).mean[0]
        right = ImageStat.Stat(image.crop((middle, 0, image.width, image.height))).mean[0]
        answer = "left" if left > right else "right"
        if not self.args.reason:
            return Response(text=answer)
        seen = f"The left half has brightness {left:.0f} and the right half {right:.0f}."
        return Response(text=f"{seen}\n{answer}")


FAMILY = Family(
    summary="which half of an image is brighter",
    provides=frozenset({"generate"}),
    factory="vlm_harness_example.backend:BrighterHalf",
    args=Args,
    local_files=False,
)
