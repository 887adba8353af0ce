"""What models computed before, kept across runs in one SQLite file (``--cache``).

Entries are found by a checksum over all that they depend on: the model (weights, arguments, dtype,
versions of the libraries), the rendered prompt, the candidates, the contents of the images, and how
text is drawn. So nothing has to be thrown away when something changes: it is not found any more.
"""

import dataclasses
import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from vlm_harness import __version__
from vlm_harness.backends import decoding
from vlm_harness.backends.family import LOADED
from vlm_harness.backends.resolve import family
from vlm_harness.errors import InputError, SampleError
from vlm_harness.files import to_json
from vlm_harness.images import ImageLoader
from vlm_harness.runs.environment import versions
from vlm_harness.runs.fingerprint import fingerprint
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model, OptionScore, Request, Response

SCHEMA = 1
AT_ONCE = 500
"""Keys of one question; SQLite takes 999 at least."""


def cache_file() -> Path:
    """``$VLM_HARNESS_CACHE``, else ``cache.sqlite`` in the user's cache folder."""
    chosen = os.environ.get("VLM_HARNESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("vlm-harness") / "cache.sqlite"


class Cache:
    """Values by key, in one file that several processes may use at once.

    Raises:
        InputError: the file cannot be used, here and in every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            # One file: no write-ahead log, which would not work on network drives either.
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, model TEXT NOT NULL, "
                "value BLOB NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
            )

    def close(self) -> None:
        self._database.close()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are known."""
        found: dict[bytes, bytes] = {}
        left = iter(dict.fromkeys(keys))
        with self._explained():
            while some := list(islice(left, AT_ONCE)):
                marks = ",".join("?" * len(some))
                found.update(
                    self._database.execute(
                        f"SELECT key, value FROM entries WHERE key IN ({marks})",
                        some,
                    )
                )
        return found

    def put(self, model: str, entries: Mapping[bytes, bytes]) -> None:
        rows = [(key, model, value, time.time()) for key, value in entries.items()]
        with self._explained(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)

    def by_model(self) -> dict[str, int]:
        """How many entries there are of each model."""
        with self._explained():
            return dict(
                self._database.execute("SELECT model, count(*) FROM entries GROUP BY model")
            )

    def clear(self, model: str | None = None) -> int:
        """Drop the entries of a model, or all; returns how many they were."""
        where, values = ("", ()) if model is None else (" WHERE model = ?", (model,))
        with self._explained():
            with self._database:
                dropped = self._database.execute(f"DELETE FROM entries{where}", values)
            self._database.execute("VACUUM")
        return dropped.rowcount

    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"the cache cannot be used: {error}",
                where=self.path,
                hint="Run without --cache, put it elsewhere with $VLM_HARNESS_CACHE, or delete it.",
            ) from None


class ModelCache:
    """What one model is known to have computed; counts how often that helped.

    ``warn`` is told where the file fails meanwhile, which stops no run.
    """

    def __init__(
        self, cache: Cache, name: str, identity: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._cache, self._name, self._warn = cache, name, warn
        self._model = hashlib.sha256(_text([SCHEMA, identity]).encode())
        self._works = True
        self.n_asked = 0
        self.n_known = 0

    def key(self, *parts: Any) -> bytes:
        digest = self._model.copy()
        digest.update(_text(parts).encode())
        return digest.digest()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._unless_it_fails():
            found = self._cache.get(keys)
        self.n_asked += len(keys)
        self.n_known += sum(key in found for key in keys)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        if entries and self._works:
            with self._unless_it_fails():
                self._cache.put(self._name, entries)

    @contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self._works = False
            self._warn(str(error))

    # --- responses -------------------------------------------------------------------------------

    def request_key(self, request: Request, loader: ImageLoader) -> bytes | None:
        """None where an answer cannot be known before: an image is unreadable, text is drawn."""
        if request.kind == "generate" and _is_sampled(request.decoding):
            return None
        try:
            images = [ref.pixels(loader.checksum(ref)) for ref in request.all_images]
        except SampleError:
            return None
        return self.key(
            request.kind, request.prompt, request.candidates, images, len(request.images),
            request.max_new_tokens, request.decoding,
        )  # fmt: skip

    def responses(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        """What is known, in order."""
        keys = [self.request_key(request, loader) for request in requests]
        found = self.get([key for key in keys if key is not None])
        return [_response(found[key]) if key is not None and key in found else None for key in keys]

    def keep(
        self,
        requests: Sequence[Request],
        responses: Sequence[Response | None],
        loader: ImageLoader,
    ) -> None:
        """Failures are not kept: another try may go well."""
        entries = {}
        for request, response in zip(requests, responses, strict=True):
            if response is None or response.error or not _finite(response):
                continue
            key = self.request_key(request, loader)
            if key is not None:
                entries[key] = _text(dataclasses.asdict(response)).encode()
        self.put(entries)


class CacheUse:
    """The cache of a run: what it was for each of its models."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._models: list[ModelCache] = []

    def of(self, spec: ModelSpec, info: Model, warn: Callable[[str], None]) -> ModelCache | None:
        """None where it cannot be known whether a model of that name is the same."""
        identity = identity_of(spec, info)
        if identity is None:
            return None
        self._models.append(ModelCache(self._cache, spec.model, identity, warn))
        return self._models[-1]

    def numbers(self) -> dict[str, Any]:
        return {
            "path": str(self._cache.path),
            "bytes": self._cache.size(),
            "asked": sum(each.n_asked for each in self._models),
            "known": sum(each.n_known for each in self._models),
        }


def identity_of(spec: ModelSpec, info: Model) -> dict[str, Any] | None:
    """All that a model's answers depend on; None where its weights have no name of their own."""
    # Answers that are looked up or made up are there at once, and by other things than images.
    if not family(spec).reads_images or spec.checkpoint == LOADED:
        return None
    weights = fingerprint(family(spec).files(spec)) or [info.checkpoint, info.revision]
    dump = spec.model_dump(
        mode="json", exclude={"model", "checkpoint", "revision", *ModelSpec.descriptive()}
    )
    dump["args"].pop("device", None)
    return {
        "weights": weights,
        "spec": dump,
        "dtype": info.dtype,
        "device": (info.device or "").partition(":")[0],
        "versions": {"vlm_harness": __version__, **versions()},
    }


def _is_sampled(text: str) -> bool:
    """Whether a decoding draws text at random."""
    name, arguments = decoding.parse(text)
    return bool(decoding.DECODINGS.get(name)(**arguments).get("do_sample"))


def _finite(response: Response) -> bool:
    values = [response.pair_cosine]
    for option in response.scores or ():
        values += [option.score, option.sum_logprob]
    return all(value is None or math.isfinite(value) for value in values)


def _response(value: bytes) -> Response | None:
    """None where the entry is damaged."""
    try:
        fields = json.loads(value)
        if fields["scores"] is not None:
            fields["scores"] = tuple(OptionScore(**option) for option in fields["scores"])
        return Response(**fields)
    except (ValueError, KeyError, TypeError):
        return None


def _text(value: Any) -> str:
    return to_json(value, sort_keys=True)
