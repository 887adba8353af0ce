"""Caches model answers across runs in one SQLite file (``--cache``).

The cache key is a checksum of everything an answer depends on: the model (weights, arguments,
dtype, library versions), the rendered prompt, the candidates, the image contents, and the decoding.
Entries never have to be invalidated: after a change they are simply not found.
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

SCHEMA = 2
KEYS_PER_QUERY = 500
"""Maximum number of keys in one SQL query; SQLite supports at least 999."""


def cache_file() -> Path:
    """``$VLM_HARNESS_CACHE``, or ``cache.sqlite`` in the user's cache folder."""
    chosen = os.environ.get("VLM_HARNESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("vlm-harness") / "cache.sqlite"


class Cache:
    """A key-value store in one file, safe for concurrent use by several processes.

    Raises:
        InputError: the file cannot be used. All methods raise it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._as_input_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            # No write-ahead log: it needs more files, and does not work on network drives.
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, model TEXT NOT NULL, "
                "value BLOB NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
            )

    def close(self) -> None:
        self._database.close()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The stored values; unknown keys are omitted."""
        found: dict[bytes, bytes] = {}
        remaining = iter(dict.fromkeys(keys))
        with self._as_input_error():
            while chunk := list(islice(remaining, KEYS_PER_QUERY)):
                marks = ",".join("?" * len(chunk))
                found.update(
                    self._database.execute(
                        f"SELECT key, value FROM entries WHERE key IN ({marks})",
                        chunk,
                    )
                )
        return found

    def put(self, model: str, entries: Mapping[bytes, bytes]) -> None:
        rows = [(key, model, value, time.time()) for key, value in entries.items()]
        with self._as_input_error(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)

    def by_model(self) -> dict[str, int]:
        """Number of entries per model."""
        with self._as_input_error():
            return dict(
                self._database.execute("SELECT model, count(*) FROM entries GROUP BY model")
            )

    def clear(self, model: str | None = None) -> int:
        """Delete the entries of a model, or all entries; returns the number deleted."""
        where, values = ("", ()) if model is None else (" WHERE model = ?", (model,))
        with self._as_input_error():
            with self._database:
                deleted = self._database.execute(f"DELETE FROM entries{where}", values)
            self._database.execute("VACUUM")
        return deleted.rowcount

    def size(self) -> int:
        """File size in bytes."""
        return self.path.stat().st_size

    @contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"the cache cannot be used: {error}",
                where=self.path,
                hint="Run without --cache, set $VLM_HARNESS_CACHE to another file, or delete it.",
            ) from None


class ModelCache:
    """The cached answers of one model; counts lookups and hits.

    If the cache file fails during a run, ``warn`` is called and the run continues without it.
    """

    def __init__(
        self, cache: Cache, name: str, identity: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._cache, self._name, self._warn = cache, name, warn
        self._model = hashlib.sha256(_to_json([SCHEMA, identity]).encode())
        self._enabled = True
        self.n_lookups = 0
        self.n_hits = 0

    def key(self, *parts: Any) -> bytes:
        digest = self._model.copy()
        digest.update(_to_json(parts).encode())
        return digest.digest()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._disabled_on_error():
            found = self._cache.get(keys)
        self.n_lookups += len(keys)
        self.n_hits += sum(key in found for key in keys)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        if entries and self._enabled:
            with self._disabled_on_error():
                self._cache.put(self._name, entries)

    @contextmanager
    def _disabled_on_error(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self._enabled = False
            self._warn(str(error))

    # --- responses -------------------------------------------------------------------------------

    def request_key(self, request: Request, loader: ImageLoader) -> bytes | None:
        """Cache key; None if the answer is not cacheable (unreadable image, sampled text)."""
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
        """The cached responses in order; None for each request that is not cached."""
        keys = [self.request_key(request, loader) for request in requests]
        found = self.get([key for key in keys if key is not None])
        return [_response(found[key]) if key is not None and key in found else None for key in keys]

    def store(
        self,
        requests: Sequence[Request],
        responses: Sequence[Response | None],
        loader: ImageLoader,
    ) -> None:
        """Cache responses. Failures are not cached, since a retry may succeed."""
        entries = {}
        for request, response in zip(requests, responses, strict=True):
            if response is None or response.error or not _finite(response):
                continue
            key = self.request_key(request, loader)
            if key is not None:
                entries[key] = _to_json(dataclasses.asdict(response)).encode()
        self.put(entries)


class CacheUse:
    """The cache of a run, with one ``ModelCache`` per model."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._models: list[ModelCache] = []

    def for_model(
        self, spec: ModelSpec, info: Model, warn: Callable[[str], None]
    ) -> ModelCache | None:
        """None if the model cannot be identified across runs."""
        identity = identity_of(spec, info)
        if identity is None:
            return None
        self._models.append(ModelCache(self._cache, spec.model, identity, warn))
        return self._models[-1]

    def stats(self) -> dict[str, Any]:
        return {
            "path": str(self._cache.path),
            "bytes": self._cache.size(),
            "asked": sum(each.n_lookups for each in self._models),
            "known": sum(each.n_hits for each in self._models),
        }


def identity_of(spec: ModelSpec, info: Model) -> dict[str, Any] | None:
    """Everything a model's answers depend on; None if its weights cannot be identified."""
    # Recorded and fake answers cost nothing, and do not depend on the images alone.
    if not family(spec).reads_images or spec.checkpoint == LOADED:
        return None
    weights = fingerprint(family(spec).files(spec)) or [info.checkpoint, info.revision]
    dump = spec.model_dump(
        mode="json", exclude={"model", "checkpoint", "revision", *ModelSpec.descriptive()}
    )
    dump["args"].pop("device", None)
    commits = info.details.get("commits")  # of processor and tokenizer too
    return {
        **({"commits": commits} if commits else {}),
        "weights": weights,
        "spec": dump,
        "dtype": info.dtype,
        "device": (info.device or "").partition(":")[0],
        "versions": {"vlm_harness": __version__, **versions()},
    }


def _is_sampled(text: str) -> bool:
    """Whether a decoding samples text at random."""
    name, arguments = decoding.parse(text)
    return bool(decoding.DECODINGS.get(name)(**arguments).get("do_sample"))


def _finite(response: Response) -> bool:
    values = [response.pair_cosine]
    for option in response.scores or ():
        values += [option.score, option.sum_logprob]
    return all(value is None or math.isfinite(value) for value in values)


def _response(value: bytes) -> Response | None:
    """The cached response; None if the entry is damaged."""
    try:
        fields = json.loads(value)
        if fields["scores"] is not None:
            fields["scores"] = tuple(OptionScore(**option) for option in fields["scores"])
        return Response(**fields)
    except (ValueError, KeyError, TypeError):
        return None


def _to_json(value: Any) -> str:
    return to_json(value, sort_keys=True)
