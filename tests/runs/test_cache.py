"""``--cache``: cached answers are reused, and only for the same question and model."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.bench import ROOT, Tool
from helpers.images import drawing, file_bytes
from helpers.runs import difference
from vlm_harness.backends.decoding import DECODINGS
from vlm_harness.backends.dual_encoder import DualEncoder
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.runs.cache import Cache, ModelCache, identity_of
from vlm_harness.runs.fingerprint import fingerprint
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import ImageRef, Model, OptionScore, Request, Response


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "kept" / "cache.sqlite")


@pytest.fixture
def known(cache: Cache) -> ModelCache:
    return ModelCache(cache, "some", {"weights": "w"}, pytest.fail)


def image(content: bytes) -> ImageRef:
    return ImageRef("a.png", read=lambda: content)


REQUEST: dict[str, Any] = {
    "kind": "score", "images": (image(b"red"),), "prompt": "Left?", "candidates": ("left", "right"),
}  # fmt: skip
SCORED = Response(scores=(OptionScore(-0.25, -0.5, 2), OptionScore(-1e-9, -1e-9, 1)))


def found(known: ModelCache, **changes: Any) -> Response | None:
    return known.responses([Request(**{**REQUEST, **changes})], ImageLoader())[0]


def test_cached_answers_are_unchanged(known: ModelCache) -> None:
    for response, kind in (
        (SCORED, "score"),
        (Response(text='"left"\n\u202e☃'), "generate"),
        (Response(scores=(OptionScore(0.1),), pair_cosine=0.99), "similarity"),
    ):
        request = Request(**{**REQUEST, "kind": kind})
        assert known.responses([request], ImageLoader()) == [None]
        known.store([request], [response], ImageLoader())
        assert known.responses([request], ImageLoader()) == [response]
    assert (known.n_hits, known.n_lookups) == (3, 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "Left? "},
        {"candidates": ("right", "left")},
        {"candidates": ("left",)},
        {"images": (image(b"blue"),)},
        {"images": ()},
        {"images": (image(b"red"), image(b"red"))},
        {"kind": "similarity"},
        {"kind": "similarity", "partner": image(b"red")},
        {"max_new_tokens": 8},
        {"decoding": "m3id"},
    ],
    ids=str,
)
def test_nothing_is_found_for_another_question(known: ModelCache, changes: Any) -> None:
    known.store([Request(**REQUEST)], [SCORED], ImageLoader())
    assert found(known) == SCORED
    assert found(known, images=(ImageRef("moved.png", read=lambda: b"red"),)) == SCORED
    assert found(known, **changes) is None


def test_failures_are_not_cached(known: ModelCache) -> None:
    gone = ImageRef("gone.png", read=Path("/nowhere/gone.png").read_bytes)
    nan = Response(scores=(OptionScore(float("nan")), OptionScore(0.0)))
    for changes, response in (
        ({}, Response(error="out of memory")),
        ({}, nan),
        ({}, None),
        ({"images": (gone,)}, SCORED),
    ):
        known.store([Request(**{**REQUEST, **changes})], [response], ImageLoader())
        assert found(known, **changes) is None


def test_sampled_text_is_not_cached(known: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = Request(**{**REQUEST, "kind": "generate"})
    assert known.request_key(sampled, ImageLoader()) is not None
    monkeypatch.setattr(DECODINGS, "get", lambda *_: lambda: {"do_sample": True})
    assert known.request_key(sampled, ImageLoader()) is None


# --- identity of the model -----------------------------------------------------------------------


def checkpoint(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_any_change_of_the_weights_changes_the_fingerprint(tmp_path: Path) -> None:
    """Including a change of a single layer in the middle of the file."""
    weights = {name: torch.zeros(600, 1024) for name in "abcdef"}  # 2.4 MB each
    one = checkpoint(tmp_path / "one", **weights)
    same = checkpoint(tmp_path / "same", **weights)
    assert fingerprint([one]) == fingerprint([same])
    for name in weights:
        tuned = checkpoint(tmp_path / name, **weights | {name: torch.full((600, 1024), 1e-4)})
        assert fingerprint([tuned]) != fingerprint([one])


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 9, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"]
)
def test_broken_weights_have_a_fingerprint(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(header)
    assert fingerprint([tmp_path])


def test_identity_covers_what_answers_depend_on(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", a=torch.zeros(3))
    spec = ModelSpec(model="one", backend="hf_vlm", checkpoint=str(folder))
    info = Model("one", "hf_vlm", str(folder), dtype="float32")
    same = spec.model_copy(update={"model": "two", "description": "x", "args": {"device": "cpu"}})
    assert identity_of(same, info) == identity_of(spec, info)
    for changes in ({"args": {"quantization": "8bit"}}, {"answer_prefix": " "}):
        assert identity_of(spec.model_copy(update=changes), info) != identity_of(spec, info)
    half = Model("one", "hf_vlm", str(folder), dtype="bfloat16")
    assert identity_of(spec, half) != identity_of(spec, info)
    of_hub = spec.model_copy(update={"checkpoint": "owner/name"})
    then = Model("one", "hf_vlm", "owner/name", revision="0123", dtype="float32")
    now = Model("one", "hf_vlm", "owner/name", revision="4567", dtype="float32")
    assert identity_of(of_hub, then) != identity_of(of_hub, now)


def test_models_that_cannot_be_identified_are_not_cached() -> None:
    for backend, name in (("fake", "oracle"), ("replay", "x.jsonl"), ("hf_vlm", "(loaded)")):
        spec = ModelSpec(model="m", backend=backend, checkpoint=name)
        assert identity_of(spec, Model("m", backend, name)) is None


# --- the file ------------------------------------------------------------------------------------


def test_two_models_share_the_file(cache: Cache) -> None:
    one, other = (ModelCache(cache, name, {"weights": name}, pytest.fail) for name in "ab")
    one.put({one.key("x"): b"1"})
    other.put({other.key("x"): b"2", other.key("y"): b"3"})
    assert one.get([one.key("x"), one.key("y")]) == {one.key("x"): b"1"}
    assert cache.by_model() == {"a": 1, "b": 2}
    assert cache.clear("b") == 2
    assert cache.by_model() == {"a": 1}
    assert cache.clear() == 1
    assert cache.by_model() == {}


def test_more_keys_than_fit_into_one_query(cache: Cache) -> None:
    entries = {str(n).encode(): b"v" * n for n in range(2500)}
    cache.put("m", entries)
    assert cache.get([*entries, b"unknown"]) == entries
    size = cache.size()
    cache.clear()
    assert cache.size() < size / 10


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vlm_harness.runs.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "for n in range(100): cache.put(sys.argv[2], {f'{sys.argv[2]}{n}'.encode(): b'v'})"
    )
    path = tmp_path / "cache.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=ROOT) for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert Cache(path).by_model() == {"a": 100, "b": 100, "c": 100}


def test_a_failing_cache_does_not_stop_a_run(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise InputError("the cache cannot be used: database or disk is full")

    warnings: list[str] = []
    known = ModelCache(cache, "some", {}, warnings.append)
    monkeypatch.setattr(cache, "put", full)
    for n in range(3):
        known.put({known.key(n): b"v"})
    assert len(warnings) == 1
    assert "disk is full" in warnings[0]


# --- the command ---------------------------------------------------------------------------------

TINY = ["--model", "tiny-clip,tiny-llava", "--protocol", "similarity,choice,generate"]


def logged(folder: Path) -> list[Any]:
    files = sorted((folder / "samples").glob("*.jsonl"))
    return sorted(line for file in files for line in file.read_text().splitlines())


def parsed(folder: Path) -> list[Any]:
    """Log lines in an order that does not depend on the answers."""
    lines = map(json.loads, logged(folder))
    return sorted(lines, key=lambda line: (line["model"], line["protocol"], line["sample_id"]))


def test_the_second_run_computes_nothing(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_HARNESS_CACHE", str(tmp_path / "kept.sqlite"))
    assert tool("cache").out.startswith(f"{tmp_path / 'kept.sqlite'}: 0.0 MB")
    first = tool.run(*TINY, "--cache", "--limit", "6", "--run-id", "first")
    assert first.code == 0, first.err
    # 6 images and 6 captions of 3 pairs; 6 samples under 2 protocols.
    assert "0 of 24 answers (0%) came from the cache" in first.out
    plain = tool.run(*TINY, "--limit", "6", "--run-id", "plain")
    assert "cache:" not in plain.out

    def computed(*_: object) -> None:
        raise AssertionError("it was computed")

    monkeypatch.setattr(HfVlm, "respond", computed)
    monkeypatch.setattr(DualEncoder, "_encode_texts", lambda *_: None)
    monkeypatch.setattr("vlm_harness.images.load", computed)
    second = tool.run(*TINY, "--cache", "--limit", "6", "--run-id", "second", "--json")
    assert second.code == 0, second.err
    use = json.loads(second.out)["cache"]
    assert (use["asked"], use["known"]) == (24, 24)
    results = tool.bench / "results"
    assert logged(results / "second") == logged(results / "first")
    assert difference(parsed(results / "second"), parsed(results / "plain")) is None
    monkeypatch.undo()
    monkeypatch.chdir(tool.bench)
    monkeypatch.setenv("VLM_HARNESS_CACHE", str(tmp_path / "kept.sqlite"))
    entries = json.loads(tool("cache", "--json").out)["entries"]
    assert entries == {"tiny-clip": 12, "tiny-llava": 12}

    more = tool.run(*TINY, "--cache", "--limit", "8", "--run-id", "more")
    assert "24 of 32 answers (75%) came from the cache" in more.out
    message = tool("cache", "clear", "--model", "tiny-clap").err
    assert "did you mean 'tiny-clip'?" in message
    assert "16 cached answers" in tool("cache", "clear", "--model", "tiny-clip").out
    assert "16 cached answers" in tool("cache", "clear").out


def test_changed_images_are_evaluated_again(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_HARNESS_CACHE", str(tmp_path / "kept.sqlite"))
    tool.run(*TINY, "--cache", "--limit", "4", "--run-id", "first")
    data = tool.bench / "data" / "sides"
    (data / "thing0-left.png").write_bytes((data / "thing1-right.png").read_bytes())
    second = tool.run(*TINY, "--cache", "--limit", "4", "--run-id", "second")
    # The encoder has the new content cached from another image; the two answers are not cached.
    assert "13 of 15 answers (87%) came from the cache" in second.out
    plain = tool.run(*TINY, "--limit", "4", "--run-id", "plain")
    assert plain.code == 0
    results = tool.bench / "results"
    assert difference(parsed(results / "second"), parsed(results / "plain")) is None


def test_an_invalid_cache_file_is_refused(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "text", tmp_path):
        if path != tmp_path:
            path.write_text("not a database, but long enough to be looked at as one " * 40)
        monkeypatch.setenv("VLM_HARNESS_CACHE", str(path))
        for message in (tool.refused("--cache"), tool("cache").err, tool("cache", "clear").err):
            assert str(path) in message
            assert "Run without --cache" in message


@pytest.mark.parametrize("value", [b"{not json", b'{"a": 1}', b"[]", b"abc", b"", b"\xff" * 7])
def test_damaged_entries_are_computed_again(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    path = tmp_path / "kept.sqlite"
    monkeypatch.setenv("VLM_HARNESS_CACHE", str(path))
    tool.run(*TINY, "--cache", "--limit", "4", "--run-id", "first")
    with sqlite3.connect(path) as database:
        key = "SELECT min(key) FROM entries WHERE model = ?"
        for model in ("tiny-clip", "tiny-llava"):
            database.execute(f"UPDATE entries SET value = ? WHERE key = ({key})", (value, model))
    second = tool.run(*TINY, "--cache", "--limit", "4", "--run-id", "second")
    assert second.code == 0, second.err
    results = tool.bench / "results"
    lines = [[json.loads(line) for line in logged(results / run)] for run in ("first", "second")]
    assert [line["prediction"] for line in lines[0]] == [line["prediction"] for line in lines[1]]


def test_non_finite_embeddings_are_not_cached(known: ModelCache) -> None:
    class Odd(DualEncoder):
        def info(self) -> Model:
            raise NotImplementedError

        def preprocess(self, image: Any) -> Any:
            return image

        def embed_prepared(self, images: Any) -> Any:
            return np.full((len(images), 4), np.nan, np.float32)

        def embed_texts(self, texts: Any) -> Any:
            return np.ones((len(texts), 4), np.float32)

    data = file_bytes(drawing(1, (8, 8)))
    request = Request("similarity", (ImageRef("a", read=lambda: data),), candidates=("x",))
    for n_hits in (0, 1):  # the caption
        encoder = Odd()
        encoder.recall(known, [request], ImageLoader())
        assert known.n_hits == n_hits
        (response,) = encoder.respond([request], ImageLoader())
        assert response is not None
        assert response.scores is not None
