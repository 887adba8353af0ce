"""Prompts with a shared prefix: same numbers as computed individually, from far fewer tokens."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import helpers.vlms as vlms
from helpers.bench import ROOT
from helpers.images import memory_ref, varied_images
from helpers.runs import check_same
from vlm_harness.backends.hf import prefix_tree
from vlm_harness.backends.hf.prefix_tree import TokenTree, common_prefix
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Request

IMAGES = varied_images()
SHARES = {
    "llava": "images",
    "llava_next": "images",
    "llava_onevision": "images",
    "instructblip": None,  # inserts the image before the prompt itself
    "blip2": None,
    "qwen2_vl": "images",
    "qwen2_5_vl": "images",
    "idefics3": "images",
    "smolvlm": "images",
    "paligemma": "prompt",  # prompt tokens attend to later ones
    "gemma3": None,  # the tiny model has a window of 8 tokens in some layers
    "internvl": "images",
}

PATHS = st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12)


@given(PATHS)
def test_a_tree_contains_every_path_and_every_prefix_once(paths: list[list[int]]) -> None:
    tree = TokenTree()
    nodes = [tree.add(path) for path in paths]
    prefixes = {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    assert len(tree.tokens) == len(prefixes)
    mask = tree.mask()
    for path, of_path in zip(paths, nodes, strict=True):
        assert [tree.tokens[node] for node in of_path] == path
        assert [tree.depths[node] for node in of_path] == list(range(len(path)))
        for place, node in enumerate(of_path):
            assert set(mask[node].nonzero()[0]) == set(of_path[: place + 1])


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=6))
def test_common_prefix(sequences: list[list[int]]) -> None:
    length = common_prefix(sequences)
    assert len({tuple(sequence[:length]) for sequence in sequences}) == 1
    longer = [tuple(sequence[: length + 1]) for sequence in sequences]
    assert len(set(longer)) > 1 or min(map(len, sequences)) == length


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = vlms.VLM_FAMILIES[name](tmp_path_factory.mktemp("vlm") / name)
        return folders[name]

    return make


def load(path: Path, **args: bool) -> HfVlm:
    spec = ModelSpec(model="tiny", backend="hf_vlm", checkpoint=str(path), args=args)
    return HfVlm(spec, LoadOptions(device="cpu"))


def grid() -> list[Request]:
    """Three images of different shapes, each with the same five prompts of two questions."""
    prompts = [
        f"Is the {name} to the {words} of it?{command}"
        for name in ("armchair", "beer bottle")
        for words, command in (
            ("left or to the right", " Answer left or right."),
            ("left or to the right", " Answer with A or B."),
            ("right or to the left", ""),
        )
    ][:-1]
    return [
        Request(
            "score",
            (memory_ref(name, IMAGES[name]),),
            prompt,
            ("left", "to the right of the armchair", "A"),
        )
        for name in ("wide.png", "tall.jpg", "grey.png")
        for prompt in prompts
    ]


@pytest.mark.parametrize("name", SHARES)
def test_shared_scores_match_the_plain_path(name: str, folder: Callable[[str], Path]) -> None:
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    shared, plain = load(folder(name)), load(folder(name), share_prefixes=False)
    assert shared._sharing.scope("score", with_images=True) == SHARES[name]
    requests = grid()
    expected = plain.respond(requests, ImageLoader())
    check_same(shared.respond(requests, ImageLoader()), expected)
    # In a different order and different batches: rows with different numbers of prompts.
    by_request = dict(zip(requests, expected, strict=True))
    mixed = [*requests[1::2], *requests[::2]]
    for batch in (mixed[:4], mixed[4:11], mixed[11:]):
        check_same(shared.respond(batch, ImageLoader()), [by_request[request] for request in batch])


@pytest.mark.parametrize("name", [name for name, scope in SHARES.items() if scope == "images"])
def test_generated_texts_after_a_shared_prefix(name: str, folder: Callable[[str], Path]) -> None:
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    shared, plain = load(folder(name)), load(folder(name), share_prefixes=False)
    assert shared._sharing.scope("generate", with_images=True) == "images"
    n_tokens: list[int] = []
    shared.loaded.model.register_forward_pre_hook(
        lambda _, __, kwargs: n_tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for decoding in ("greedy", "m3id:alpha=1.0,lambda=0.5"):
        requests = [
            replace(each, kind="generate", max_new_tokens=6, decoding=decoding) for each in grid()
        ]
        expected = plain.respond(requests, ImageLoader())
        n_tokens.clear()
        assert shared.respond(requests, ImageLoader()) == expected
        # Three images were processed, not fifteen.
        first = plain.loaded.inputs([plain.loaded.query(requests[0], [image_of(requests[0])])])
        assert n_tokens[0] < 5 * first["input_ids"].numel()
        assert len({response.text for response in expected if response}) > 1


def image_of(request: Request) -> Image.Image:
    return ImageLoader().get(request.images[0]).pixels


def test_a_model_that_fails_to_share_uses_the_plain_path(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    plain = load(folder("llava"), share_prefixes=False).respond(grid()[:4], ImageLoader())
    monkeypatch.setattr("vlm_harness.backends.hf.prefix_tree.score", fail)
    model = load(folder("llava"))
    check_same(model.respond(grid()[:4], ImageLoader()), plain)
    assert "cannot share its computation (RuntimeError: CUDA out of memory)" in caplog.text
    assert len({model.row_of(request) for request in grid()[:4]}) == 4


def test_a_prompt_longer_than_the_window_is_computed_individually(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path = vlms.tiny_gemma3(tmp_path / "wider")
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["sliding_window"] = 90
    (path / "config.json").write_text(json.dumps(config))
    shared, plain = load(path), load(path, share_prefixes=False)
    assert shared._sharing.scope("score", with_images=True) == "images"
    image = (memory_ref("grey.png", IMAGES["grey.png"]),)
    requests = [
        Request("score", image, "Is it left or right?" + " Answer." * n, ("left", "A"))
        for n in (1, 2, 40)
    ]
    check_same(shared.respond(requests, ImageLoader()), plain.respond(requests, ImageLoader()))
    # A row with only such a prompt, next to others: its prefix must not be computed.
    other = (memory_ref("wide.png", IMAGES["wide.png"]),)
    mixed = [requests[0], replace(requests[2], images=other), requests[1]]
    check_same(shared.respond(mixed, ImageLoader()), plain.respond(mixed, ImageLoader()))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "idefics3", "gemma3"])
def test_half_precision_neither_hides_nor_causes_a_difference(
    name: str, folder: Callable[[str], Path]
) -> None:
    """Rounding does not change what a model can share: it is the same as in float32."""
    model = HfVlm(
        ModelSpec(model=name, backend="hf_vlm", checkpoint=str(folder(name))),
        LoadOptions(dtype="bfloat16"),
    )
    assert model._sharing.scope("score", with_images=True) == SHARES[name]
    # Padding between prefix and rest would use up part of the window of 8 tokens.
    expected = None if name == "gemma3" else "images"
    assert model._sharing.scope("generate", with_images=True) == expected


def test_a_wrong_tree_mask_is_detected(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both precisions: with the wrong mask, nodes attend to other paths."""
    mask = prefix_tree.TokenTree.mask
    for dtype in ("float32", "bfloat16"):
        model = HfVlm(
            ModelSpec(model="m", backend="hf_vlm", checkpoint=str(ROOT / "models" / "tiny-llava")),
            LoadOptions(dtype=dtype),
        )
        assert model._sharing.scope("score", with_images=True) == "images"
        model._sharing._scopes.clear()
        monkeypatch.setattr(prefix_tree.TokenTree, "mask", lambda tree: np.ones_like(mask(tree)))
        assert model._sharing.scope("score", with_images=True) is None
        monkeypatch.undo()


def test_prompts_without_images_have_separate_rows(folder: Callable[[str], Path]) -> None:
    """Their common prefix is only a few tokens, and a single row would make a single batch."""
    model = load(folder("llava"))
    requests = [replace(each, images=()) for each in grid()]
    assert len({model.row_of(request) for request in requests}) == len(requests)
    plain = load(folder("llava"), share_prefixes=False)
    check_same(model.respond(requests, ImageLoader()), plain.respond(requests, ImageLoader()))
