"""Mining pairs: against a plain loop, in bounded memory, and from image files."""

import itertools
import json
import shutil
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.bench import Command
from helpers.images import drawing
from helpers.models import randomise, tiny_clip
from helpers.vlms import tiny_llava
from vlm_harness.analysis.mining import first_copies, images_below, mine
from vlm_harness.backends.embeddings import embed, open_encoder
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError
from vlm_harness.images import file_ref
from vlm_harness.specs.registry import Registry

SIZES = [(60, 40), (33, 70), (48, 48)]


def unit(n: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow(
    similar: np.ndarray, different: np.ndarray, above: float, below: float
) -> list[tuple[int, int]]:
    """All pairs that pass both thresholds, in order, from a plain loop."""
    found = []
    for a, b in itertools.combinations(range(len(similar)), 2):
        near = np.float32(similar[a].astype(float) @ similar[b].astype(float))
        far = np.float32(different[a].astype(float) @ different[b].astype(float))
        if near > np.float32(above) and far < np.float32(below):
            found.append((float(far) - float(near), a, b))
    return [(a, b) for _, a, b in sorted(found)]


# --- the search -----------------------------------------------------------------------------------


def test_by_hand() -> None:
    similar = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    different = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    found = mine(similar, different, similar_above=0.5, different_below=0.7)
    # Cosines: (0, 1) 1 and 0; (0, 2) .8 and .6; (1, 2) .8 and .8, not below .7; (2, 3) .6 and -.6.
    assert [(pair.a, pair.b) for pair in found.pairs] == [(2, 3), (0, 1), (0, 2)]
    assert found.n == 3
    assert found.pairs[0][2:] == pytest.approx((0.6, -0.6))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_against_a_loop(seed: int, block: int) -> None:
    similar, different = unit(70, 5, seed), unit(70, 6, seed + 100)
    expected = slow(similar, different, 0.3, 0.1)
    assert len(expected) > 100
    for top in (1, 10, len(expected), 10_000):
        found = mine(
            similar, different, similar_above=0.3, different_below=0.1, top=top, block=block
        )
        assert [(pair.a, pair.b) for pair in found.pairs] == expected[:top]
        assert found.n == len(expected)


def test_blocks_do_not_change_a_digit() -> None:
    similar, different = unit(130, 64, 1), unit(130, 48, 2)
    one, *others = (
        mine(similar, different, similar_above=0, different_below=0, top=50, block=block)
        for block in (1000, 1, 13, 64)
    )
    assert all(other == one for other in others)


def test_ties_are_taken_in_order_of_the_folder() -> None:
    same = np.tile(np.array([[1, 0]], np.float32), (9, 1))
    other = np.tile(np.array([[0, 1]], np.float32), (9, 1))
    for block in (1, 4, 100):
        found = mine(same, other, similar_above=0.5, different_below=2, top=3, block=block)
        assert [(pair.a, pair.b) for pair in found.pairs] == [(0, 1), (0, 2), (0, 3)]
        assert found.n == 36


def test_memory_is_bounded() -> None:
    """Of 320,000 pairs that all pass, few are held at a time; the full matrix would take 5 MB."""
    embeddings = unit(800, 8, 3)
    mine(embeddings[:10], embeddings[:10])  # imports
    tracemalloc.start()
    found = mine(embeddings, embeddings, similar_above=-1.1, different_below=1.1, top=100, block=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.n == 800 * 799 // 2
    assert len(found.pairs) == 100
    assert peak < 1_500_000


def test_none_pass() -> None:
    embeddings = unit(20, 8, 3)
    assert mine(embeddings, embeddings, similar_above=0.9, different_below=0.1).pairs == []


def test_copies() -> None:
    assert first_copies(["x", "y", "x", "z", "y"]) == [0, 1, 3]


# --- encoders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder, a DINOv2, a vision tower without a CLS token, and models of other kinds."""
    from transformers import (
        BertConfig,
        BertModel,
        BitImageProcessor,
        Dinov2Config,
        Dinov2Model,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_clip(folder / "clip")
    tiny_llava(folder / "llava")
    size: dict[str, Any] = {"image_size": 28, "patch_size": 14, "num_hidden_layers": 2}
    size |= {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    processor = BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    for name, model in {
        "dinov2": Dinov2Model(Dinov2Config(**size)),
        "siglip_vision": SiglipVisionModel(SiglipVisionConfig(**size)),
        "bert": BertModel(BertConfig(vocab_size=30, **size)),
    }.items():
        randomise(model)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture
def loader(tmp_path: Path) -> Path:
    """Eight drawings in two folders; a copy, a broken file, a text, and an image of one pixel."""
    folder = tmp_path / "loader"
    (folder / "more").mkdir(parents=True)
    for seed in range(8):
        name = f"more/{seed}.jpg" if seed % 2 else f"{seed}.PNG"
        drawing(seed, SIZES[seed % 3]).save(folder / name)
    shutil.copy(folder / "0.PNG", folder / "more" / "copy.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def opened(path: Path) -> Any:
    return open_encoder(str(path), Registry([]), LoadOptions(device="cpu"), "--similar")[1]


def test_dinov2_gives_the_cls_token(checkpoints: Path, loader: Path) -> None:
    import torch
    from transformers import AutoImageProcessor, Dinov2Model

    refs = images_below(loader)
    made = embed(refs, [opened(checkpoints / "dinov2")], batch_size=3)
    assert made.failures.keys() == {"broken.png"}
    assert [ref.path for ref in made.refs] == [r.path for r in refs if r.path != "broken.png"]
    (vectors,) = made.by_encoder
    assert (vectors.dtype, vectors.shape) == (np.float32, (9, 16))
    model = Dinov2Model.from_pretrained(checkpoints / "dinov2").eval()
    processor = AutoImageProcessor.from_pretrained(checkpoints / "dinov2")
    with torch.inference_mode():
        inputs = processor(drawing(2, SIZES[2]), return_tensors="pt")
        cls = model(**inputs).last_hidden_state[0, 0].numpy()
    index = [ref.path for ref in made.refs].index("2.PNG")
    np.testing.assert_allclose(vectors[index], cls / np.linalg.norm(cls), atol=1e-5)


def test_without_a_cls_token_the_pooled_output(checkpoints: Path, loader: Path) -> None:
    encoder = opened(checkpoints / "siglip_vision")
    assert not encoder._has_cls
    (vectors,) = embed(images_below(loader), [encoder]).by_encoder
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_dual_encoder_and_batches(checkpoints: Path, loader: Path) -> None:
    refs = images_below(loader)
    encoders = [opened(checkpoints / "clip"), opened(checkpoints / "dinov2")]
    one, three = (embed(refs, encoders, batch_size=size) for size in (1, 3))
    assert one.sha256 == three.sha256
    for a, b in zip(one.by_encoder, three.by_encoder, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Picky:
    """Refuses narrow images, and with them the batch that they are in."""

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        if any(image.width == 33 for image in images):
            raise ValueError("too narrow")
        return unit(len(images), 4, 0)


def test_an_image_that_the_encoder_rejects(loader: Path) -> None:
    made = embed(images_below(loader), [Picky()])
    narrow = {"more/1.jpg", "4.PNG", "more/7.jpg"}
    assert made.failures.keys() == {"broken.png", *narrow}
    assert made.failures["4.PNG"] == "image 4.PNG: too narrow"
    assert len(made.refs) == len(made.by_encoder[0]) == 6


class Overflowing:
    """Gives NaN for one image, as half precision may."""

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        return np.array([[np.nan if image.width == 33 else 1] for image in images], np.float32)


def test_an_embedding_that_is_not_finite(loader: Path) -> None:
    made = embed(images_below(loader), [Overflowing()])
    assert len(made.refs) == 6
    assert made.failures["4.PNG"] == "image 4.PNG: the embedding is not finite"


def test_nothing_to_embed(tmp_path: Path) -> None:
    made = embed([file_ref(tmp_path, "missing.png")], [Picky()])
    assert (len(made.refs), len(made.by_encoder), len(made.failures)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert", "BertModel does not take images"),
        ("llava", "uses the backend hf_vlm, which has no image embeddings"),
        ("nowhere", "--similar: folder not found: "),
        ("", "neither config.json nor open_clip_config.json"),
    ],
)
def test_no_encoder(name: str, message: str, checkpoints: Path) -> None:
    with pytest.raises(InputError, match=message):
        opened(checkpoints / name)


def test_no_encoder_by_name() -> None:
    registry = Registry.standard()
    for text, message in (
        ("clipp", "--different: unknown model 'clipp'"),
        ("facebook/dinov2-large", "--different: .*'facebook/dinov2-large' are not on this machine"),
        ("fake:oracle", "uses the backend fake, which has no image embeddings"),
    ):
        with pytest.raises(InputError, match=message):
            open_encoder(text, registry, LoadOptions(), "--different")


# --- the command ----------------------------------------------------------------------------------


def test_from_files(checkpoints: Path, loader: Path, tmp_path: Path, command: Command) -> None:
    output = tmp_path / "pairs.jsonl"
    encoders = "--similar", checkpoints / "clip", "--different", checkpoints / "dinov2"
    limits = "--similar-above", -0.5, "--different-below", 0.9
    code, out, err = command("mine-pairs", loader, *encoders, *limits, "-o", output)
    assert code == 0, err
    assert "warning: 1 of 10 images cannot be read and are skipped: image broken.png" in err
    assert "8 images (1 duplicates skipped), 28 pairs; " in out
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    made = embed(
        [ref for ref in images_below(loader) if "copy" not in ref.path],
        [opened(checkpoints / "clip"), opened(checkpoints / "dinov2")],
    )
    names = [ref.path for ref in made.refs]
    expected = slow(*made.by_encoder, -0.5, 0.9)
    assert [(line["a"], line["b"]) for line in lines] == [(names[a], names[b]) for a, b in expected]
    assert 1 < len(lines) < 28
    a, b = (names.index(lines[0][key]) for key in "ab")
    for key, vectors in zip(("cosine_alike", "cosine_different"), made.by_encoder, strict=True):
        assert lines[0][key] == pytest.approx(float(vectors[a] @ vectors[b]), abs=1e-5)
    code, out, _ = command("mine-pairs", loader, *encoders, *limits, "-o", output, "--top", 1)
    assert code == 0
    assert "; kept the top 1 (--top)" in out
    assert [json.loads(line) for line in output.read_text().splitlines()] == lines[:1]


def test_options_by_their_old_names(
    checkpoints: Path, loader: Path, tmp_path: Path, command: Command
) -> None:
    files = []
    for name in ("similar", "alike"):
        output = tmp_path / f"{name}.jsonl"
        encoders = f"--{name}", checkpoints / "clip", "--different", checkpoints / "dinov2"
        limits = f"--{name}-above", -0.5, "--different-below", 0.9
        assert command("mine-pairs", loader, *encoders, *limits, "-o", output)[0] == 0
        files.append(output.read_text())
    assert files[0] == files[1] != ""
    code, out, _ = command("mine-pairs", "--help")
    assert code == 0
    assert "--similar-above" in out
    assert "--alike" not in out
    _, _, err = command("mine-pairs", loader, "--different", "x")
    assert "Missing option '--similar'" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["{tmp}/empty"], "empty: expected at least two image files, found 0"),
        (["{tmp}/loader", "-o", "nowhere/x.jsonl"], "--output: folder not found: 'nowhere'"),
        (["{tmp}/loader", "-o", "{tmp}"], "is a folder; expected a file name"),
        (["{tmp}/loader", "--similar-above", "1.5"], "--similar-above"),
        (["{tmp}/loader", "--top", "0"], "--top"),
        (
            ["{tmp}/bad"],
            "bad: expected at least two different readable images, found 0 in 2 image files",
        ),
    ],
)
def test_refused(
    args: Sequence[str],
    message: str,
    checkpoints: Path,
    loader: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for name in "ab":
        (tmp_path / "bad" / f"{name}.png").write_text("no image")
    encoders = "--similar", checkpoints / "clip", "--different", checkpoints / "dinov2"
    given = [arg.format(tmp=tmp_path) for arg in args]
    code, out, err = command("mine-pairs", *given, *encoders)
    assert (code, out) == (2, "")
    assert message in err
