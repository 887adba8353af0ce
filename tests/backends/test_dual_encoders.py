"""Dual encoders, compared with the libraries used as documented.

The references use only transformers and open_clip.
"""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import helpers.models as tiny
import helpers.vlms as vlms
from helpers.images import memory_ref, varied_images
from vlm_harness.backends.dual_encoder import DualEncoder
from vlm_harness.backends.hf.dual_encoder import HfDualEncoder
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.open_clip.encoder import OpenClip
from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Request, Response

IMAGES = varied_images()
CAPTIONS = (
    "a cat",
    "A beer bottle to the left of an armchair.",
    "A beer bottle to the right of an armchair.",
    "wings closed",
    "the dog under the armchair, above the picture, to the right of the bottle, or to the left",
)


@dataclass(frozen=True)
class Case:
    build: Callable[[Path], Path]
    backend: str = "hf_dual_encoder"
    # Arguments of the processor in the family's documentation.
    text: tuple[tuple[str, Any], ...] = (("padding", True),)
    images: tuple[tuple[str, Any], ...] = ()
    lower: bool = False


CASES = {
    "clip": Case(tiny.tiny_clip),
    "siglip": Case(tiny.tiny_siglip, text=(("padding", "max_length"),)),
    "siglip2_fixed": Case(
        tiny.tiny_siglip2_fixed, text=(("padding", "max_length"), ("max_length", 64)), lower=True
    ),
    "siglip2": Case(
        tiny.tiny_siglip2,
        text=(("padding", "max_length"), ("max_length", 64)),
        images=(("max_num_patches", 16), ("patch_size", 14)),
    ),
    "align": Case(tiny.tiny_align, text=()),
    "altclip": Case(tiny.tiny_altclip),
    "open_clip": Case(tiny.tiny_open_clip, backend="open_clip"),
    "open_clip_siglip": Case(tiny.tiny_open_clip_siglip, backend="open_clip"),
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dual_encoders")
    return {name: case.build(root / name) for name, case in CASES.items()}


@pytest.fixture(params=CASES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(name: str, path: Path, **args: Any) -> DualEncoder:
    backend = CASES[name].backend
    spec = ModelSpec(model=name, backend=backend, checkpoint=str(path), args=args)
    factory = OpenClip if backend == "open_clip" else HfDualEncoder
    return factory(spec, LoadOptions(device="cpu"))


def requests(
    names: Sequence[str] = tuple(IMAGES), captions: Sequence[str] = CAPTIONS
) -> list[Request]:
    """One request per image, whose partner is the previous image."""
    refs = [memory_ref(name, IMAGES[name]) for name in names]
    return [
        Request("similarity", (ref,), candidates=tuple(captions), partner=refs[i - 1])
        for i, ref in enumerate(refs)
    ]


def scores(responses: Sequence[Response | None]) -> np.ndarray:
    assert all(r is not None and r.error is None and r.scores is not None for r in responses)
    return np.array([[option.score for option in r.scores] for r in responses])  # type: ignore[union-attr]


def pixels(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@torch.inference_mode()
def reference(
    name: str,
    path: Path,
    texts: Sequence[str] = CAPTIONS,
    files: Sequence[bytes] = tuple(IMAGES.values()),
    **overrides: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised embeddings of images and of texts, computed as documented."""
    case = CASES[name]
    images = [pixels(data) for data in files]
    if case.backend == "open_clip":
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
        model.eval()
        stacked = torch.stack([preprocess(image) for image in images])
        return (
            model.encode_image(stacked, normalize=True).numpy(),
            model.encode_text(tokenizer(list(texts)), normalize=True).numpy(),
        )
    model = AutoModel.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    inputs = processor(
        text=[text.lower() for text in texts] if case.lower else list(texts),
        images=images,
        return_tensors="pt",
        **{**dict(case.text), **dict(case.images), **overrides},
    )
    output = model(**inputs)
    return output.image_embeds.numpy(), output.text_embeds.numpy()


def test_cosines_match_the_documented_usage(family: str, checkpoints: dict[str, Path]) -> None:
    path = checkpoints[family]
    images, texts = reference(family, path)
    responses = load(family, path).respond(requests(), ImageLoader())
    expected = images @ texts.T
    np.testing.assert_allclose(scores(responses), expected, atol=1e-5)
    pairs = [response.pair_cosine for response in responses if response]
    np.testing.assert_allclose(pairs, (images * np.roll(images, 1, 0)).sum(-1), atol=1e-5)
    # The test can fail: images and captions differ by far more than the tolerance.
    assert np.ptp(expected, axis=0).min() > 0.01
    assert np.ptp(expected, axis=1).min() > 0.01
    assert max(pair for pair in pairs if pair is not None) < 0.9999


@pytest.mark.parametrize("family", ["siglip", "siglip2_fixed", "siglip2", "align"])
def test_padding_to_the_longest_would_differ(family: str, checkpoints: dict[str, Path]) -> None:
    _, correct = reference(family, checkpoints[family])
    _, incorrect = reference(family, checkpoints[family], padding="longest", max_length=None)
    if family == "align":  # its padding is masked, so it has no effect
        np.testing.assert_allclose(correct, incorrect, atol=1e-5)
    else:
        assert np.abs(correct - incorrect).max() > 0.01


@pytest.mark.parametrize("family", ["siglip", "siglip2_fixed", "siglip2"])
def test_siglip_ignores_the_mask_and_padding_side_of_the_checkpoint(
    family: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    expected = scores(load(family, checkpoints[family]).respond(requests(), ImageLoader()))
    folder = tmp_path / family
    shutil.copytree(checkpoints[family], folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    settings["padding_side"] = "left"
    file.write_text(json.dumps(settings))
    assert "attention_mask" in AutoProcessor.from_pretrained(folder).tokenizer("a")
    found = scores(load(family, folder).respond(requests(), ImageLoader()))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("family", ["siglip", "siglip2_fixed", "siglip2"])
def test_siglip_lower_cases_texts(family: str, checkpoints: dict[str, Path]) -> None:
    model = load(family, checkpoints[family])
    upper = scores(model.respond(requests(captions=[c.upper() for c in CAPTIONS]), ImageLoader()))
    lower = scores(model.respond(requests(captions=[c.lower() for c in CAPTIONS]), ImageLoader()))
    np.testing.assert_allclose(upper, lower, atol=1e-6)


def test_a_tokenizer_that_keeps_case_would_differ(checkpoints: dict[str, Path]) -> None:
    cased = load("siglip2_fixed", checkpoints["siglip2_fixed"], lowercase=False)
    path = checkpoints["siglip2_fixed"]
    upper = tuple(caption.upper() for caption in CAPTIONS)
    found = scores(cased.respond(requests(captions=upper), ImageLoader()))
    images, texts = reference("siglip2_fixed", path, upper)  # lower-cases
    assert np.abs(found - images @ texts.T).max() > 0.01


def test_captions_longer_than_the_text_encoder_are_truncated(
    family: str, checkpoints: dict[str, Path]
) -> None:
    long = ("the cat left of the dog, " * 60, "a cat")
    found = scores(
        load(family, checkpoints[family]).respond(requests(captions=long), ImageLoader())
    )
    assert np.isfinite(found).all()


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batch_size_does_not_change_results(
    size: int, family: str, checkpoints: dict[str, Path]
) -> None:
    path = checkpoints[family]
    todo = [
        Request("similarity", request.images, candidates=candidates, partner=request.partner)
        for request in requests()
        for candidates in (CAPTIONS[1:3], CAPTIONS[::-1])
    ]
    single = load(family, path).respond(todo, ImageLoader())
    batched = load(family, path)
    loader = ImageLoader(keep=2)
    parts = [
        response
        for start in range(0, len(todo), size)
        for response in batched.respond(todo[start : start + size], loader)
    ]
    for one, other in zip(single, parts, strict=True):
        assert one is not None
        assert other is not None
        a, b = scores([one])[0], scores([other])[0]
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert a.argmax() == b.argmax()
        assert one.pair_cosine == pytest.approx(other.pair_cosine, abs=1e-5)


def test_an_image_and_a_caption_are_encoded_once(
    family: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(family, checkpoints[family])
    seen_images: list[bytes] = []
    seen_texts: list[str] = []
    preprocess, embed_texts = model.preprocess, model.embed_texts

    def count_images(image: Image.Image) -> Any:
        seen_images.append(image.tobytes())
        return preprocess(image)

    def count_texts(texts: Sequence[str]) -> Any:
        seen_texts.extend(texts)
        return embed_texts(texts)

    monkeypatch.setattr(model, "preprocess", count_images)
    monkeypatch.setattr(model, "embed_texts", count_texts)
    one, two = IMAGES["wide.png"], IMAGES["tall.jpg"]
    refs = [
        memory_ref("a/one.png", one),
        memory_ref("b/same.png", one),
        memory_ref("two.jpg", two),
    ]
    todo = [
        Request("similarity", (ref,), candidates=captions, partner=partner)
        for ref, partner in zip(refs, [refs[2], None, refs[1]], strict=True)
        for captions in (CAPTIONS[:2], CAPTIONS[1:3])
    ]
    first = model.respond(todo[:3], ImageLoader())
    second = model.respond(todo, ImageLoader())
    assert len(seen_images) == len(set(seen_images)) == 2
    assert sorted(seen_texts) == sorted(CAPTIONS[:3])
    np.testing.assert_array_equal(scores(first), scores(second[:3]))
    np.testing.assert_array_equal(scores(second[:2]), scores(second[2:4]))  # same content


def test_a_corrupt_image_fails_only_its_own_sample(
    family: str, checkpoints: dict[str, Path]
) -> None:
    model = load(family, checkpoints[family])
    good = requests(["wide.png", "tall.jpg"])
    truncated = memory_ref("truncated.jpg", IMAGES["tall.jpg"][:200])
    text = memory_ref("text.png", b"no image at all")
    bad = [Request("similarity", (ref,), candidates=CAPTIONS) for ref in (truncated, text)]
    bad_partner = Request("similarity", good[0].images, candidates=CAPTIONS, partner=truncated)
    responses = model.respond([bad[0], good[0], bad[1], good[1], bad_partner], ImageLoader())
    errors = [response.error for response in responses if response]
    assert errors[1] is errors[3] is errors[4] is None
    assert errors[0] is not None
    assert "truncated.jpg" in errors[0]
    assert errors[2] is not None
    assert "text.png" in errors[2]
    assert responses[0] is not None
    assert responses[0].scores is None
    assert responses[4] is not None
    assert responses[4].pair_cosine is None
    np.testing.assert_allclose(
        scores([responses[1], responses[3]]), scores(model.respond(good, ImageLoader())), atol=1e-5
    )


def test_equal_captions_and_equal_images_tie_exactly(
    family: str, checkpoints: dict[str, Path]
) -> None:
    model = load(family, checkpoints[family])
    ref = memory_ref("x", IMAGES["wide.png"])
    same = Request("similarity", (ref,), candidates=("a cat", "a cat"), partner=ref)
    (response,) = model.respond([same], ImageLoader())
    assert response is not None
    assert response.scores is not None
    assert response.scores[0].score == response.scores[1].score
    assert response.pair_cosine == pytest.approx(1.0, abs=1e-6)


def test_generating_models_are_refused(tmp_path: Path) -> None:
    path = vlms.tiny_llava(tmp_path / "llava")
    with pytest.raises(InputError, match="hf_vlm"):
        load("clip", path)


@pytest.mark.parametrize("family", ["clip"])
def test_device_map_is_passed_to_transformers(family: str, checkpoints: dict[str, Path]) -> None:
    path = checkpoints[family]
    plain = scores(load(family, path).respond(requests(), ImageLoader()))
    mapped = scores(load(family, path, device_map="auto").respond(requests(), ImageLoader()))
    np.testing.assert_allclose(plain, mapped, atol=1e-6)


# --- open_clip: activation, preprocessing and weights ---------------------------------------------


@pytest.fixture
def architecture(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adds a built-in architecture ``tiny`` with three tags; returns a file with its weights."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", tiny.OPEN_CLIP_TINY)
    siglip = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    tags = {
        "openai": {"url": "", "quick_gelu": True},
        "laion": {"url": "", "quick_gelu": False},
        "webli": {"url": "", **siglip, "resize_mode": "squash"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    return checkpoints["open_clip"] / "open_clip_model.safetensors"


def _of_tag(tag: str, weights: Path, **args: Any) -> OpenClip:
    spec = ModelSpec(
        model="m", backend="open_clip", checkpoint=tag, args={"weights": str(weights), **args}
    )
    return OpenClip(spec, LoadOptions(device="cpu"))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("tag", "args", "quick"),
    [
        ("tiny:openai", {}, True),
        ("tiny:laion", {}, False),
        ("tiny:openai", {"quick_gelu": False}, False),
        ("tiny:laion", {"quick_gelu": True}, True),
    ],
)
def test_quick_gelu_is_taken_from_the_tag(
    tag: str, args: dict[str, Any], quick: bool, architecture: Path
) -> None:
    found = scores(_of_tag(tag, architecture, **args).respond(requests(), ImageLoader()))

    def expected(quick: bool) -> np.ndarray:
        model, _, preprocess = open_clip.create_model_and_transforms(
            "tiny", pretrained=str(architecture), force_quick_gelu=quick
        )
        model.eval()
        stacked = torch.stack([preprocess(pixels(data)) for data in IMAGES.values()])
        tokens = open_clip.get_tokenizer("tiny")(list(CAPTIONS))
        texts = model.encode_text(tokens, normalize=True)
        return (model.encode_image(stacked, normalize=True) @ texts.T).numpy()

    np.testing.assert_allclose(found, expected(quick), atol=1e-5)
    assert np.abs(found - expected(not quick)).max() > 1e-3


def test_the_real_openai_tags_are_quick_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}

    def create(name: str, **kwargs: Any) -> Any:
        arguments.update(kwargs, name=name)
        return torch.nn.Linear(1, 1), None

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    for checkpoint, quick in {
        "ViT-L-14-336:openai": True,
        "ViT-B-32:openai": True,
        "ViT-L-14:laion2b_s32b_b82k": False,
    }.items():
        spec = ModelSpec(model="m", backend="open_clip", checkpoint=checkpoint)
        OpenClip(spec, LoadOptions(device="cpu"))
        assert arguments["force_quick_gelu"] is quick
        assert f"{arguments['name']}:{arguments['pretrained']}" == checkpoint


@pytest.mark.parametrize(("tag", "mean"), [("tiny:webli", 0.5), ("tiny:openai", 0.48145466)])
def test_preprocessing_is_the_tags_own_if_weights_come_from_a_file(
    tag: str, mean: float, architecture: Path
) -> None:
    model = _of_tag(tag, architecture)
    assert model.model.visual.preprocess_cfg["mean"][0] == pytest.approx(mean)
    wide = model.preprocess(pixels(IMAGES["wide.png"]))
    squashed = torch.equal(wide, model.preprocess(pixels(IMAGES["wide.png"]).resize((41, 41))))
    assert wide.shape == (3, 28, 28)
    assert not squashed
    assert (model.model.visual.preprocess_cfg["resize_mode"] == "squash") == (mean == 0.5)


def test_a_folder_without_weights_is_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(checkpoints["open_clip"] / "open_clip_config.json", tmp_path)
    with pytest.raises(InputError, match="cannot be loaded"):
        load("open_clip", tmp_path)
