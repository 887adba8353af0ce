"""What all dual encoders share: embeddings kept by content, cosines in float32."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlm_harness.backends import Pictures
from vlm_harness.errors import SampleError
from vlm_harness.types import ImageRef, Model, OptionScore, Request, Response

if TYPE_CHECKING:
    from PIL.Image import Image

Embeddings = npt.NDArray[np.float32]
"""[n, width], each row of length 1."""


class DualEncoder(ABC):
    """Encodes every image and every caption once, however many tasks ask for it."""

    def __init__(self) -> None:
        self._images: dict[str, Embeddings] = {}  # by checksum of the file
        self._texts: dict[str, Embeddings] = {}

    def forget(self) -> None:
        """Drop all embeddings."""
        self._images.clear()
        self._texts.clear()

    @abstractmethod
    def info(self) -> Model: ...

    @abstractmethod
    def preprocess(self, image: "Image") -> Any:
        """An RGB image as the model wants it; called in threads."""

    @abstractmethod
    def embed_prepared(self, images: Sequence[Any]) -> Embeddings:
        """What ``preprocess`` gave, to unit vectors [n, width], float32."""

    def embed_images(self, images: Sequence["Image"]) -> Embeddings:
        """RGB images to unit vectors [n, width], float32."""
        return self.embed_prepared([self.preprocess(image) for image in images])

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Captions to unit vectors [n, width], float32."""

    def respond(self, requests: Sequence[Request], pictures: Pictures) -> list[Response | None]:
        refs = {
            ref.path: ref
            for request in requests
            for ref in (*request.images, *([request.partner] if request.partner else []))
        }
        failures = self._encode_images(list(refs.values()), pictures)
        self._encode_texts([text for request in requests for text in request.candidates])
        return [self._one(request, pictures, failures) for request in requests]

    def _encode_images(self, refs: Sequence[ImageRef], pictures: Pictures) -> dict[str, str]:
        failures: dict[str, str] = {}
        new: dict[str, Any] = {}
        for ref in refs:
            if pictures.sha256.get(ref.path) in self._images:
                continue
            try:
                picture = pictures.get(ref)
            except SampleError as error:
                failures[ref.path] = str(error)
                continue
            if picture.sha256 not in self._images and picture.sha256 not in new:
                prepared = picture.prepared
                new[picture.sha256] = (
                    self.preprocess(picture.pixels) if prepared is None else prepared
                )
        if new:
            self._images.update(zip(new, self.embed_prepared(list(new.values())), strict=True))
        return failures

    def _encode_texts(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._texts.update(zip(new, self.embed_texts(new), strict=True))

    def _one(self, request: Request, pictures: Pictures, failures: dict[str, str]) -> Response:
        if len(request.images) != 1:
            return Response(error=f"a dual encoder takes one image, not {len(request.images)}")
        path = request.images[0].path
        if path in failures:
            return Response(error=failures[path])
        image = self._images[pictures.sha256[path]]
        # Summed in float64 and rounded once: equal embeddings give equal scores whatever the
        # batch, so that a tie is seen as a tie.
        scores = tuple(
            OptionScore(_cosine(image, self._texts[text])) for text in request.candidates
        )
        cosine = None
        if request.partner is not None and request.partner.path not in failures:
            cosine = _cosine(image, self._images[pictures.sha256[request.partner.path]])
        return Response(scores=scores, pair_cosine=cosine)


def _cosine(a: Embeddings, b: Embeddings) -> float:
    return float(np.float32(np.dot(a.astype(np.float64), b.astype(np.float64))))
