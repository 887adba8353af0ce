"""Prompts that share images and words: the same numbers as each alone, from far fewer tokens."""

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
    "instructblip": None,  # puts its image before the prompt by itself
    "blip2": None,
    "qwen2_vl": "images",
    "qwen2_5_vl": "images",
    "idefics3": "images",
    "smolvlm": "images",
    "paligemma": "prompt",  # a prompt's tokens see those behind them
    "gemma3": None,  # the tiny one sees 8 tokens back in some layers
    "internvl": "images",
}

PATHS = st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12)


@given(PATHS)
def test_a_tree_holds_every_path_and_every_beginning_once(paths: list[list[int]]) -> None:
    tree = TokenTree()
    nodes = [tree.add(path) for path in paths]
    beginnings = {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    assert len(tree.tokens) == len(beginnings)
    sees = tree.sees()
    for path, of_path in zip(paths, nodes, strict=True):
        assert [tree.tokens[node] for node in of_path] == path
        assert [tree.depths[node] for node in of_path] == list(range(len(path)))
        for place, node in enumerate(of_path):
            assert set(sees[node].nonzero()[0]) == set(of_path[: place + 1])


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=6))
def test_common_prefix(sequences: list[list[int]]) -> None:
    length = common_prefix(sequences)
    assert len({tuple(sequence[:length]) for sequence in sequences}) == 1
    longer = [tuple(sequence[: length + 1]) for sequence in sequences]
    assert len(set(longer)) > 1 or min(map(len, sequences)) == length


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = vlms.VLM_FAMILIES[name](tmp_path_factory.mktemp("vlm") / name)
        return made[name]

    return make


def load(path: Path, **args: bool) -> HfVlm:
    spec = ModelSpec(model="tiny", backend="hf_vlm", checkpoint=str(path), args=args)
    return HfVlm(spec, LoadOptions(device="cpu"))


def grid() -> list[Request]:
    """Three loader of different shapes, each under the same five prompts of two questions."""
    prompts = [
        f"Is the {thing} to the {words} of it?{command}"
        for thing in ("armchair", "beer bottle")
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
def test_shared_scores_are_those_of_the_plain_path(
    name: str, folder: Callable[[str], Path]
) -> None:
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    shared, plain = load(folder(name)), load(folder(name), share_prefixes=False)
    assert shared._sharing.unit("score", with_images=True) == SHARES[name]
    requests = grid()
    expected = plain.respond(requests, ImageLoader())
    check_same(shared.respond(requests, ImageLoader()), expected)
    # In another order and other batches: rows of unequal numbers of prompts.
    by_request = dict(zip(requests, expected, strict=True))
    mixed = [*requests[1::2], *requests[::2]]
    for batch in (mixed[:4], mixed[4:11], mixed[11:]):
        check_same(shared.respond(batch, ImageLoader()), [by_request[request] for request in batch])


@pytest.mark.parametrize("name", [name for name, unit in SHARES.items() if unit == "images"])
def test_texts_behind_a_shared_beginning(name: str, folder: Callable[[str], Path]) -> None:
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    shared, plain = load(folder(name)), load(folder(name), share_prefixes=False)
    assert shared._sharing.unit("generate", with_images=True) == "images"
    read: list[int] = []
    shared.loaded.model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for decoding in ("greedy", "m3id:alpha=1.0,lambda=0.5"):
        requests = [
            replace(each, kind="generate", max_new_tokens=6, decoding=decoding) for each in grid()
        ]
        expected = plain.respond(requests, ImageLoader())
        read.clear()
        assert shared.respond(requests, ImageLoader()) == expected
        # Three loader were read, not fifteen.
        first = plain.loaded.inputs([plain.loaded.query(requests[0], [picture(requests[0])])])
        assert read[0] < 5 * first["input_ids"].numel()
        assert len({response.text for response in expected if response}) > 1


def picture(request: Request) -> Image.Image:
    return ImageLoader().get(request.images[0]).pixels


def test_a_model_that_refuses_is_read_the_plain_way(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    plain = load(folder("llava"), share_prefixes=False).respond(grid()[:4], ImageLoader())
    monkeypatch.setattr("vlm_harness.backends.hf.prefix_tree.score", refuse)
    model = load(folder("llava"))
    check_same(model.respond(grid()[:4], ImageLoader()), plain)
    assert "cannot share it (RuntimeError: CUDA out of memory)" in caplog.text
    assert len({model.row_of(request) for request in grid()[:4]}) == 4


def test_a_prompt_longer_than_the_window_stands_alone(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path = vlms.tiny_gemma3(tmp_path / "wider")
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["sliding_window"] = 90
    (path / "config.json").write_text(json.dumps(config))
    shared, plain = load(path), load(path, share_prefixes=False)
    assert shared._sharing.unit("score", with_images=True) == "images"
    image = (memory_ref("grey.png", IMAGES["grey.png"]),)
    requests = [
        Request("score", image, "Is it left or right?" + " Answer." * n, ("left", "A"))
        for n in (1, 2, 40)
    ]
    check_same(shared.respond(requests, ImageLoader()), plain.respond(requests, ImageLoader()))
    # A row of nothing but such a prompt beside others, whose trunk is not to be read.
    other = (memory_ref("wide.png", IMAGES["wide.png"]),)
    mixed = [requests[0], replace(requests[2], images=other), requests[1]]
    check_same(shared.respond(mixed, ImageLoader()), plain.respond(mixed, ImageLoader()))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "idefics3", "gemma3"])
def test_half_precision_neither_hides_a_difference_nor_makes_one(
    name: str, folder: Callable[[str], Path]
) -> None:
    """What a model shares is not decided by rounding: it is as in float32."""
    model = HfVlm(
        ModelSpec(model=name, backend="hf_vlm", checkpoint=str(folder(name))),
        LoadOptions(dtype="bfloat16"),
    )
    assert model._sharing.unit("score", with_images=True) == SHARES[name]
    # Of the window of 8 tokens, padding between the beginning and the rest would take some.
    expected = None if name == "gemma3" else "images"
    assert model._sharing.unit("generate", with_images=True) == expected


def test_a_wrong_tree_is_found_out(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either precision: answers that see each other, and words at another place."""
    sees = prefix_tree.TokenTree.sees
    for dtype in ("float32", "bfloat16"):
        model = HfVlm(
            ModelSpec(model="m", backend="hf_vlm", checkpoint=str(ROOT / "models" / "tiny-llava")),
            LoadOptions(dtype=dtype),
        )
        assert model._sharing.unit("score", with_images=True) == "images"
        model._sharing._found.clear()
        monkeypatch.setattr(prefix_tree.TokenTree, "sees", lambda tree: np.ones_like(sees(tree)))
        assert model._sharing.unit("score", with_images=True) is None
        monkeypatch.undo()


def test_prompts_without_images_are_rows_of_their_own(folder: Callable[[str], Path]) -> None:
    """They begin with a few tokens alike: one row of all would be one batch of all."""
    model = load(folder("llava"))
    requests = [replace(each, images=()) for each in grid()]
    assert len({model.row_of(request) for request in requests}) == len(requests)
    plain = load(folder("llava"), share_prefixes=False)
    check_same(model.respond(requests, ImageLoader()), plain.respond(requests, ImageLoader()))
