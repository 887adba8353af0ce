"""The backend that looks answers up in a recording."""

from collections.abc import Sequence

from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.replay.recording import read
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model, Request, Response


class Replay:
    """Looks answers up in a JSONL, JSON or CSV file.

    Raises:
        InputError: as ``recording.read``.
    """

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self._spec = spec
        self._recording = read(spec)

    def info(self) -> Model:
        return Model(
            name=self._spec.model,
            backend="replay",
            checkpoint=self._spec.checkpoint,
            details={"rows": self._recording.n_keys, "keys": self._recording.sources},
        )

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        return [self._recording.respond(request) for request in requests]
