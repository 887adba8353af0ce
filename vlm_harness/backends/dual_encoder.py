"""The common base of dual encoders: embeddings cached by content, cosines in float32."""

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
"""[n, width], rows of unit length."""


TEXT_BATCH_SIZE = 256


class DualEncoder(SharesRows, PreprocessesImages, RecallsValues, ABC):
    """Encodes every image and every caption once, however many tasks use it."""

    def __init__(self) -> None:
        self._images: dict[str, Embeddings] = {}  # by ImageRef.pixels
        self._texts: dict[str, Embeddings] = {}
        self._over_limit: dict[str, bool] = {}  # by text
        self._known: KnownValues | None = None

    def forget(self) -> None:
        """Drop all embeddings."""
        self._images.clear()
        self._texts.clear()
        self._over_limit.clear()

    @abstractmethod
    def info(self) -> Model: ...

    @abstractmethod
    def preprocess(self, image: "Image") -> Any:
        """Turn an RGB image into the model's input; called in threads."""

    @abstractmethod
    def embed_prepared(self, images: Sequence[Any]) -> Embeddings:
        """Embed outputs of ``preprocess`` as unit vectors [n, width], float32."""

    def embed_images(self, images: Sequence["Image"]) -> Embeddings:
        """Embed RGB images as unit vectors [n, width], float32."""
        return self.embed_prepared([self.preprocess(image) for image in images])

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed captions as unit vectors [n, width], float32."""

    def over_limit(self, texts: Sequence[str]) -> Sequence[bool]:
        """Whether each caption exceeds the model's limit, at which ``embed_texts`` truncates it.

        By default none is, for models without a limit.
        """
        return [False] * len(texts)

    def recall(self, known: KnownValues, requests: Sequence[Request], loader: ImageLoader) -> None:
        """Load embeddings of earlier runs for these requests, and store new ones from now on."""
        self._known = known
        images: dict[bytes, str] = {}
        refs = _images(requests)
        for ref in refs:
            try:
                sha256 = loader.checksum(ref)
            except SampleError:
                continue  # reported when the image is requested
            images[known.key("image", ref.pixels(sha256))] = ref.pixels(sha256)
        texts = {
            known.key("text", text): text for request in requests for text in request.candidates
        }
        for names, embeddings in ((images, self._images), (texts, self._texts)):
            cached = known.get(list(names))
            width = max(map(len, cached.values()), default=0)
            for key, value in cached.items():
                if len(value) == width and width % 4 == 0:  # otherwise the file is damaged
                    embeddings[names[key]] = np.frombuffer(value, np.float32)
        for ref in refs:
            if _pixels(ref, loader) in self._images:
                loader.skip_prefetch(ref)

    def row_of(self, request: Request) -> Hashable:
        """The batch size counts images, whatever the number of requests about each."""
        return request.images

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        failures = self._encode_images(_images(requests), loader)
        texts = [text for request in requests for text in request.candidates]
        self._encode_texts(texts)
        self._check_lengths(texts)
        return [self._respond_one(request, loader, failures) for request in requests]

    def _encode_images(self, refs: Sequence[ImageRef], loader: ImageLoader) -> dict[ImageRef, str]:
        failures: dict[ImageRef, str] = {}
        new: dict[str, Any] = {}
        for ref in refs:
            if _pixels(ref, loader) in self._images:
                continue
            try:
                image = loader.get(ref)
            except SampleError as error:
                failures[ref] = str(error)
                continue
            pixels = ref.pixels(image.sha256)
            if pixels not in self._images and pixels not in new:
                prepared = image.prepared
                new[pixels] = self.preprocess(image.pixels) if prepared is None else prepared
        if new:
            embedded = dict(zip(new, self.embed_prepared(list(new.values())), strict=True))
            self._images.update(embedded)
            self._store("image", embedded)
        return failures

    def _encode_texts(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), TEXT_BATCH_SIZE):
            batch = new[start : start + TEXT_BATCH_SIZE]
            embedded = dict(zip(batch, self.embed_texts(batch), strict=True))
            self._texts.update(embedded)
            self._store("text", embedded)

    def _check_lengths(self, texts: Sequence[str]) -> None:
        """Also of texts whose embeddings were recalled."""
        new = [text for text in dict.fromkeys(texts) if text not in self._over_limit]
        if new:
            self._over_limit.update(zip(new, self.over_limit(new), strict=True))

    def _store(self, kind: str, embedded: dict[str, Embeddings]) -> None:
        if self._known is not None:
            self._known.put(
                {
                    self._known.key(kind, name): embedding.tobytes()
                    for name, embedding in embedded.items()
                    if np.isfinite(embedding).all()
                }
            )

    def _respond_one(
        self, request: Request, loader: ImageLoader, failures: dict[ImageRef, str]
    ) -> Response:
        if len(request.images) != 1:
            return Response(error=f"a dual encoder takes one image, got {len(request.images)}")
        ref, partner = request.images[0], request.partner
        if ref in failures:
            return Response(error=failures[ref])

        def embedding(of: ImageRef) -> Embeddings:
            return self._images[of.pixels(loader.sha256[of.path])]

        image = embedding(ref)
        # Summed in float64 and rounded once: equal embeddings give equal scores in any batch, so
        # that ties are detected.
        scores = tuple(
            OptionScore(_cosine(image, self._texts[text])) for text in request.candidates
        )
        cosine = None
        if partner is not None and partner not in failures:
            cosine = _cosine(image, embedding(partner))
        over_limit = any(self._over_limit[text] for text in request.candidates)
        return Response(scores=scores, pair_cosine=cosine, over_limit=over_limit)


def _pixels(ref: ImageRef, loader: ImageLoader) -> str | None:
    """None if the file has not been read yet."""
    sha256 = loader.sha256.get(ref.path)
    return None if sha256 is None else ref.pixels(sha256)


def _images(requests: Sequence[Request]) -> list[ImageRef]:
    return list(dict.fromkeys(ref for request in requests for ref in request.all_images))


def _cosine(a: Embeddings, b: Embeddings) -> float:
    return float(np.float32(np.dot(a.astype(np.float64), b.astype(np.float64))))
