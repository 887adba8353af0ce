"""Training of the toy models: uses only the train split, and the loss matches the model."""

from random import Random

import pytest
import torch
from transformers import CLIPModel

from toy_models import data, dual_encoder, llava
from vlm_harness.datasets.rendered import RELATIONS, draw, make_scene, object_pairs


@pytest.fixture(scope="module")
def turns() -> dict[tuple[str, str, str, str], list[data.Turn]]:
    return data.task_turns(0)


def test_turns_are_of_the_train_split(turns: dict[tuple[str, str, str, str], object]) -> None:
    for subset in RELATIONS:
        pairs = {(key[1], key[2]) for key in turns if key[0] == subset}
        assert pairs == set(object_pairs(subset, "train"))


def test_images_match_the_processor_of_the_model() -> None:
    images = data.render_images(1, seed=3, processes=1)
    processor = data.image_processor()
    for scene, pixels in zip(images.scenes, images.pixels, strict=True):
        for relation, image in zip(RELATIONS[scene.subset], torch.from_numpy(pixels), strict=True):
            expected = processor(draw(scene, relation), return_tensors="pt")["pixel_values"][0]
            assert torch.allclose(dual_encoder.normalise(image, processor), expected, atol=1e-5)


def test_web_captions_rarely_state_the_relation() -> None:
    random = Random(0)
    scenes = [make_scene("a", "train", 0, index) for index in range(400)]
    states_relation = [
        any(word in data.web_caption(scene, "left", random) for word in ("left", "right"))
        for scene in scenes
        for _ in range(5)
    ]
    assert 0.005 < sum(states_relation) / len(states_relation) < 0.05
    assert "to the left of" in data.relation_caption(scenes[0], "left", random)


def test_the_loss_of_packed_turns_matches_the_model(
    turns: dict[tuple[str, str, str, str], list[data.Turn]],
) -> None:
    torch.manual_seed(0)
    random = Random(0)
    corpus = data.corpus(turns, 0)
    clip, _ = dual_encoder.build(dual_encoder.text_tokenizer(corpus))
    model, processor = llava.build(CLIPModel(clip.config).eval(), llava.text_tokenizer(corpus))
    model.eval()
    images = data.render_images(1, seed=0, processes=1)
    features = llava.patch_features(model, images, processor)[:2].float()
    scene = images.scenes[0]
    rows = [
        [(data.other_turn(scene, relation, random), blind) for blind in (False, True, False)]
        for relation in ("left", "right")
    ]
    tokenizer = llava.TurnTokenizer(processor.tokenizer, model.config.image_token_id)
    packed = llava.pack(tokenizer, rows, features.shape[1])
    with torch.no_grad():
        losses = llava.answer_loss(model, packed, features).tolist()
    expected = []
    for row, relation in zip(rows, ("left", "right"), strict=True):
        for (question, answer), blind in row:
            text = (
                f"USER: {question} ASSISTANT:" if blind else f"USER: <image>\n{question} ASSISTANT:"
            )
            image = None if blind else draw(scene, relation)
            start = processor(text=text, images=image, return_tensors="pt")["input_ids"].shape[1]
            inputs = processor(text=f"{text} {answer}</s>", images=image, return_tensors="pt")
            with torch.no_grad():
                logprobs = model(**inputs).logits[0].log_softmax(-1)
            ids = inputs["input_ids"][0]
            expected += [-logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]
    # Features are rounded to bfloat16 for training.
    assert losses == pytest.approx(expected, abs=2e-2)
