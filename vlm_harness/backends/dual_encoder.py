"""What all dual encoders share: embeddings kept by content, cosines in float32."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlm_harness.backends.interface import (
    KnownValues,
    PreprocessesImages,
    RecallsValues,
    SharesRows,
)
from vlm_harness.errors import SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.types import ImageRef, Model, OptionScore, Request, Response

if TYPE_CHECKING:
    from PIL.Image import Image

Embeddings = npt.NDArray[np.float32]
"""[n, width], each row of length 1."""


TEXTS_AT_ONCE = 256


class DualEncoder(SharesRows, PreprocessesImages, RecallsValues, ABC):
    """Encodes every image and every caption once, however many tasks ask for it."""

    def __init__(self) -> None:
        self._images: dict[str, Embeddings] = {}  # by ImageRef.pixels
        self._texts: dict[str, Embeddings] = {}
        self._known: KnownValues | None = None

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

    def recall(self, known: KnownValues, requests: Sequence[Request], loader: ImageLoader) -> None:
        """Take up embeddings of earlier runs, as far as requests need them, and keep new ones."""
        self._known = known
        images: dict[bytes, str] = {}
        refs = _images(requests)
        for ref in refs:
            try:
                sha256 = loader.checksum(ref)
            except SampleError:
                continue  # said when it is asked for
            images[known.key("image", ref.pixels(sha256))] = ref.pixels(sha256)
        texts = {
            known.key("text", text): text for request in requests for text in request.candidates
        }
        for names, kept in ((images, self._images), (texts, self._texts)):
            rows = known.get(list(names))
            width = max(map(len, rows.values()), default=0)
            for key, value in rows.items():
                if len(value) == width and width % 4 == 0:  # else the file was damaged
                    kept[names[key]] = np.frombuffer(value, np.float32)
        for ref in refs:
            if _pixels(ref, loader) in self._images:
                loader.pass_over(ref)

    def row_of(self, request: Request) -> Hashable:
        """A batch is so many images, whatever is asked of each."""
        return request.images

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        failures = self._encode_images(_images(requests), loader)
        self._encode_texts([text for request in requests for text in request.candidates])
        return [self._one(request, loader, failures) for request in requests]

    def _encode_images(self, refs: Sequence[ImageRef], loader: ImageLoader) -> dict[ImageRef, str]:
        failures: dict[ImageRef, str] = {}
        new: dict[str, Any] = {}
        for ref in refs:
            if _pixels(ref, loader) in self._images:
                continue
            try:
                picture = loader.get(ref)
            except SampleError as error:
                failures[ref] = str(error)
                continue
            pixels = ref.pixels(picture.sha256)
            if pixels not in self._images and pixels not in new:
                prepared = picture.prepared
                new[pixels] = self.preprocess(picture.pixels) if prepared is None else prepared
        if new:
            made = dict(zip(new, self.embed_prepared(list(new.values())), strict=True))
            self._images.update(made)
            self._keep("image", made)
        return failures

    def _encode_texts(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), TEXTS_AT_ONCE):
            some = new[start : start + TEXTS_AT_ONCE]
            made = dict(zip(some, self.embed_texts(some), strict=True))
            self._texts.update(made)
            self._keep("text", made)

    def _keep(self, kind: str, made: dict[str, Embeddings]) -> None:
        if self._known is not None:
            self._known.put(
                {
                    self._known.key(kind, name): each.tobytes()
                    for name, each in made.items()
                    if np.isfinite(each).all()
                }
            )

    def _one(
        self, request: Request, loader: ImageLoader, failures: dict[ImageRef, str]
    ) -> Response:
        if len(request.images) != 1:
            return Response(error=f"a dual encoder takes one image, not {len(request.images)}")
        ref, partner = request.images[0], request.partner
        if ref in failures:
            return Response(error=failures[ref])

        def embedding(of: ImageRef) -> Embeddings:
            return self._images[of.pixels(loader.sha256[of.path])]

        image = embedding(ref)
        # Summed in float64 and rounded once: equal embeddings give equal scores whatever the
        # batch, so that a tie is seen as a tie.
        scores = tuple(
            OptionScore(_cosine(image, self._texts[text])) for text in request.candidates
        )
        cosine = None
        if partner is not None and partner not in failures:
            cosine = _cosine(image, embedding(partner))
        return Response(scores=scores, pair_cosine=cosine)


def _pixels(ref: ImageRef, loader: ImageLoader) -> str | None:
    """None where the file was not read yet."""
    sha256 = loader.sha256.get(ref.path)
    return None if sha256 is None else ref.pixels(sha256)


def _images(requests: Sequence[Request]) -> list[ImageRef]:
    return list(dict.fromkeys(ref for request in requests for ref in request.all_images))


def _cosine(a: Embeddings, b: Embeddings) -> float:
    return float(np.float32(np.dot(a.astype(np.float64), b.astype(np.float64))))
