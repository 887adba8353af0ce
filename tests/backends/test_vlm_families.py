"""VLM families, compared with transformers used as documented.

The references use only transformers: one sample at a time, without padding, and for scores one full
forward pass over prompt, answer and EOS.
"""

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import helpers.models as tiny
import helpers.vlms as vlms
from helpers.images import memory_ref, varied_images
from helpers.runs import check_same
from helpers.tokenizers import CORPUS, byte_tokenizer, llama_tokenizer
from helpers.vlm_reference import Reference, pixels
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Kind, Request, Response

IMAGES = varied_images()
QUESTIONS = (
    "Is the beer bottle to the left of or to the right of the armchair? Answer left or right.",
    "What's in the picture?",
    "Are the butterfly's wings closer to being open or closed? (a) Open (b) Closed",
    "yes or no? the dog",
    "A cat, a dog?\nAnswer with A or B.",
)
ANSWERS = ("left", "to the right of the armchair", "A", "(b) Closed")
CANNOT_WITHOUT_IMAGE = {"blip2", "instructblip", "paligemma"}
ONE_IMAGE_ONLY = {"blip2", "instructblip"}
FAMILIES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "smolvlm" and importlib.util.find_spec("num2words") is None,
            reason="SmolVLM's processor needs num2words; idefics3 stands in for it",
        ),
    )
    for name in vlms.VLM_FAMILIES
]


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("vlm")

    @cache
    def build(name: str) -> Path:
        return vlms.VLM_FAMILIES[name](root / name)

    return build


@pytest.fixture(scope="session")
def reference(folder: Callable[[str], Path]) -> Callable[[str], Reference]:
    @cache
    def load(name: str) -> Reference:
        path = folder(name)
        model = AutoModelForImageTextToText.from_pretrained(path).eval()
        return Reference(name, model, AutoProcessor.from_pretrained(path))

    return load


@pytest.fixture(scope="session")
def backend(folder: Callable[[str], Path]) -> Callable[[str], HfVlm]:
    return cache(lambda name: vlm(folder(name)))


def vlm(path: Path, **spec: Any) -> HfVlm:
    return HfVlm(model_spec(path, **spec), LoadOptions(device="cpu"))


def model_spec(path: Path, **spec: Any) -> ModelSpec:
    return ModelSpec(model=path.name, backend="hf_vlm", checkpoint=str(path), **spec)


def with_eos(source: Path, path: Path, *more: int) -> Path:
    """A copy of a checkpoint that declares additional EOS tokens, as a list."""
    shutil.copytree(source, path)
    file = path / "generation_config.json"
    settings = json.loads(file.read_text())
    eos = settings["eos_token_id"]
    settings["eos_token_id"] = [eos if isinstance(eos, int) else eos[0], *more]
    file.write_text(json.dumps(settings))
    return path


Case = tuple[str, tuple[str, ...]]
"""A question and the names of its images."""
CASES: list[Case] = [
    (question, (image,)) for question, image in zip(QUESTIONS, IMAGES, strict=False)
] + [(QUESTIONS[0], ("tall.jpg",)), (QUESTIONS[1], ("sideways.jpg",))]


def files(case: Case) -> list[bytes]:
    return [IMAGES[name] for name in case[1]]


def request(case: Case, kind: Kind, answers: Sequence[str] = ANSWERS) -> Request:
    refs = tuple(memory_ref(name, IMAGES[name]) for name in case[1])
    if kind == "generate":
        return Request("generate", refs, prompt=case[0], max_new_tokens=8)
    return Request("score", refs, prompt=case[0], candidates=tuple(answers))


def respond(
    model: HfVlm, cases: Sequence[Case], kind: Kind, size: int = 8, **kwargs: Any
) -> list[Response]:
    found: list[Response] = []
    for start in range(0, len(cases), size):
        batch = [request(case, kind, **kwargs) for case in cases[start : start + size]]
        found.extend(response for response in model.respond(batch, ImageLoader()) if response)
    assert [response.error for response in found] == [None] * len(cases)
    return found


def check_scores(
    ref: Reference,
    responses: Sequence[Response],
    cases: Sequence[Case],
    answers: Sequence[Sequence[int]],
) -> list[list[float]]:
    """Compare with the slow reference; returns the sums."""
    sums = []
    for case, response in zip(cases, responses, strict=True):
        assert response.scores is not None
        assert len(response.scores) == len(answers)
        sums.append([])
        for answer, option in zip(answers, response.scores, strict=True):
            total, n = ref.score(case[0], files(case), answer)
            assert option.n_tokens == n
            assert option.sum_logprob == pytest.approx(total, rel=1e-4, abs=1e-5)
            assert option.score == pytest.approx(total / n, rel=1e-4, abs=1e-5)
            sums[-1].append(total)
    return sums


# --- M3ID -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [family for family in FAMILIES if family.values[0] not in CANNOT_WITHOUT_IMAGE]
)
def test_m3id_generates_the_text_of_the_slow_loop(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    ref, model = reference(name), backend(name)
    changed = 0
    for alpha, rate in ((1.0, 0.5), (0.1, 0.15)):
        requests = [
            replace(request(case, "generate"), decoding=f"m3id:alpha={alpha},lambda={rate}")
            for case in CASES
        ]
        found = [each for each in model.respond(requests, ImageLoader()) if each]
        for case, response in zip(CASES, found, strict=True):
            ids, gap = ref.m3id_ids(case[0], files(case), alpha, rate)
            if gap > 1e-4:
                assert response.text is not None
                assert response.text.startswith(ref.text(ids))
            changed += response.text != ref.generate(case[0], files(case))
    assert changed  # otherwise the test shows nothing


def test_m3id_with_lambda_zero_is_greedy(backend: Callable[[str], HfVlm]) -> None:
    model = backend("llava")
    requests = [request(case, "generate") for case in CASES]

    def decoded(decoding: str) -> Sequence[Response | None]:
        return model.respond([replace(each, decoding=decoding) for each in requests], ImageLoader())

    greedy = model.respond(requests, ImageLoader())
    assert decoded("m3id:lambda=0") == greedy == decoded("m3id:alpha=1e-9")


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_inputs_match_the_documented_usage(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    ref, formatter = reference(name), backend(name).formatter
    for case in CASES:
        expected = ref.inputs(case[0], files(case))
        text = formatter.text(request(case, "generate"))
        found = formatter.inputs([text], [[pixels(data) for data in files(case)]])
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, msg=lambda m, key=key: f"{key}: {m}")
        ids = found["input_ids"][0].tolist()
        bos = formatter.tokenizer.bos_token_id
        assert bos is None or ids.count(bos) == 1
        image_token = getattr(ref.model.config, "image_token_id", None)
        assert ids.count(image_token) >= 4


def test_bos_occurs_once_if_the_template_contains_it(tmp_path: Path) -> None:
    path = vlms.tiny_llava(tmp_path / "m", "{{ bos_token }}" + vlms.LLAVA_TEMPLATE)
    formatter = PromptFormatter(model_spec(path), LoadOptions(device="cpu"))
    case = CASES[0]
    text = formatter.text(request(case, "generate"))
    assert text.startswith("<s>")
    images = [pixels(data) for data in files(case)]
    for batch in (1, 2):
        ids = formatter.inputs([text] * batch, [images] * batch)["input_ids"][-1].tolist()
        assert ids.count(1) == 1
        processor = AutoProcessor.from_pretrained(path)
        expected = Reference("llava", None, processor).inputs(case[0], files(case))
        assert ids == expected["input_ids"][0].tolist()


def test_a_prompt_format_replaces_the_template(tmp_path: Path) -> None:
    path = vlms.tiny_llava(tmp_path / "m")
    processor = AutoProcessor.from_pretrained(path)
    prompt_format = "USER: {% for _ in images %}<image>\n{% endfor %}{{ prompt }} ASSISTANT:"
    spec = model_spec(path, prompt_format=prompt_format)
    formatter = PromptFormatter(spec, LoadOptions(device="cpu"))
    case = CASES[0]
    text = formatter.text(request(case, "generate"))
    assert text == f"USER: <image>\n{case[0]} ASSISTANT:"
    images = [pixels(data) for data in files(case)]
    expected = processor(images=images, text=text, return_tensors="pt")
    found = formatter.inputs([text], [images])
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert formatter.text(request((case[0], ()), "generate")) == f"USER: {case[0]} ASSISTANT:"


def test_without_a_chat_template_the_prompt_is_bare(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "base"
    shutil.copytree(folder("idefics3"), path)
    (path / "chat_template.jinja").unlink()
    processor = AutoProcessor.from_pretrained(path)
    assert processor.chat_template is None
    formatter = PromptFormatter(model_spec(path), LoadOptions(device="cpu"))
    text = formatter.text(request(CASES[0], "generate"))
    images = [pixels(data) for data in files(CASES[0])]
    expected = processor(images=[images], text=["<image>" + CASES[0][0]], return_tensors="pt")
    assert torch.equal(formatter.inputs([text], [images])["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("name", ["llava", "paligemma", "qwen2_vl", "instructblip"])
def test_padding_is_masked_whatever_the_checkpoint_says(
    name: str, folder: Callable[[str], Path], reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    path = tmp_path / name
    shutil.copytree(folder(name), path)
    file = path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(
        json.dumps({**settings, "model_input_names": ["input_ids"], "padding_side": "right"})
    )
    assert "attention_mask" not in AutoProcessor.from_pretrained(path).tokenizer("a")
    ref = reference(name)
    found = [response.text for response in respond(vlm(path), CASES[:3], "generate")]
    assert found == [ref.generate(case[0], files(case)) for case in CASES[:3]]


def test_max_pixels_bounds_the_image_tokens(folder: Callable[[str], Path]) -> None:
    def grid(**args: Any) -> list[int]:
        spec = model_spec(folder("qwen2_vl"), args=args)
        formatter = PromptFormatter(spec, LoadOptions(device="cpu"))
        text = formatter.text(request(CASES[0], "generate"))
        inputs = formatter.inputs([text], [[pixels(data) for data in files(CASES[0])]])
        sizes: list[int] = inputs["image_grid_thw"][0].tolist()
        return sizes

    assert grid() == [1, 4, 12]
    assert grid(max_pixels=28 * 28) == [1, 2, 6]
    assert grid(min_pixels=84 * 84, max_pixels=112 * 112) == [1, 8, 20]


# --- generation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_match_one_sample_at_a_time(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    ref = reference(name)
    expected = [ref.generate(case[0], files(case)) for case in CASES]
    assert len(set(expected)) > 2  # the test can fail
    for size in (1, 3, 8):
        found = [r.text for r in respond(backend(name), CASES, "generate", size)]
        assert found == expected, f"batch size {size}"


@pytest.mark.parametrize("name", FAMILIES)
def test_sampling_settings_of_the_checkpoint_have_no_effect(
    name: str,
    folder: Callable[[str], Path],
    backend: Callable[[str], HfVlm],
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    shutil.copytree(folder(name), path)
    file = path / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **tiny.UNWANTED_SAMPLING}))
    changed = vlm(path)
    expected, found = (respond(m, CASES, "generate") for m in (backend(name), changed))
    assert [r.text for r in found] == [r.text for r in expected]
    expected, found = (respond(m, CASES[:2], "score") for m in (backend(name), changed))
    check_same(found, expected)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl"])
def test_any_of_the_eos_tokens_ends_an_answer(
    name: str,
    folder: Callable[[str], Path],
    reference: Callable[[str], Reference],
    tmp_path: Path,
) -> None:
    """A generated token that is declared as a second EOS ends the text."""
    ref = reference(name)
    ids = ref.generate_ids(CASES[0][0], files(CASES[0]))
    stop = ids[2]
    stopped = vlm(with_eos(folder(name), tmp_path / name, stop))
    (response,) = respond(stopped, CASES[:1], "generate")
    assert response.text == ref.text(ids[: ids.index(stop) + 1])
    assert response.text != ref.text(ids)


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_match_full_forward_passes(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    ref = reference(name)
    answers = [ref.answer_ids(answer) for answer in ANSWERS]
    assert len({len(answer) for answer in answers}) > 2
    found = respond(backend(name), CASES, "score", 3)
    sums = torch.tensor(check_scores(ref, found, CASES, answers))
    # The test can fail: a different image or question changes every score by far more.
    assert (sums.max(0).values - sums.min(0).values).min() > 0.05
    same_question = [sums[0], sums[5]]  # with two images
    assert (same_question[0] - same_question[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_do_not_depend_on_the_batch(name: str, backend: Callable[[str], HfVlm]) -> None:
    one, three, eight = (respond(backend(name), CASES, "score", size) for size in (1, 3, 8))
    for a, b, c in zip(one, three, eight, strict=True):
        assert a.scores is not None
        for x, y, z in zip(a.scores, b.scores or (), c.scores or (), strict=True):
            assert y.score == pytest.approx(x.score, rel=1e-4)
            assert z.score == pytest.approx(x.score, rel=1e-4)
            assert x.n_tokens == y.n_tokens == z.n_tokens


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "instructblip"])
def test_an_answer_may_contain_an_eos_token(
    name: str,
    folder: Callable[[str], Path],
    reference: Callable[[str], Reference],
    tmp_path: Path,
) -> None:
    """Some checkpoints also stop at a newline or a common token; scoring continues after it."""
    ref = reference(name)
    tokens = ref.answer_ids("to the right of the armchair")
    model = vlm(with_eos(folder(name), tmp_path / name, tokens[0]))
    assert model.loaded.eos_ids == [tokens[-1], tokens[0]]
    answers = ("to the right of the armchair",)
    found = respond(model, CASES[:2], "score", answers=answers)
    check_scores(ref, found, CASES[:2], [tokens])


def test_the_answer_prefix_is_inferred_from_the_end_of_the_prompt(
    folder: Callable[[str], Path],
) -> None:
    def prefix(name: str, text: str, **spec: Any) -> str:
        formatter = PromptFormatter(model_spec(folder(name), **spec), LoadOptions(device="cpu"))
        return formatter.answer_prefix(text)

    assert prefix("llava", "USER: hello ASSISTANT:") == " "
    assert prefix("llava", "USER: hello ASSISTANT: ") == ""
    assert prefix("llava", "USER: hello ASSISTANT:", answer_prefix="\n") == "\n"
    assert prefix("llava_next", "[INST] hello [/INST]") == " "
    assert prefix("qwen2_vl", "<|im_start|>assistant\n") == ""
    assert prefix("qwen2_vl", "hello<|im_end|>") == ""
    assert prefix("gemma3", "<start_of_turn>model\n") == ""
    assert prefix("idefics3", "hello<end_of_utterance>\nAssistant:") == " "


def test_an_answer_that_merges_with_the_prompt_is_an_error(tmp_path: Path) -> None:
    """With a BPE in which ``ASSISTANT: left`` is a single token."""
    corpus = [*CORPUS, *["ASSISTANT: left"] * 500]
    tokenizer = byte_tokenizer(["<image>"], corpus=corpus, split=False)
    path = vlms.tiny_llava(tmp_path / "m", tokenizer=tokenizer)
    todo = [
        request(CASES[0], "score", ("left", "no")),
        request(CASES[1], "score", ("no", "yes")),
    ]
    merged, fine = vlm(path).respond(todo, ImageLoader())
    assert merged is not None
    assert merged.scores is None
    assert "tokens of the answer 'left' merge" in str(merged.error)
    assert "answer_prefix" in str(merged.error)
    assert fine is not None
    assert fine.error is None
    respond(vlm(path, answer_prefix="\n"), CASES[:1], "score", answers=("left", "no"))


def test_an_empty_answer_is_an_error(backend: Callable[[str], HfVlm]) -> None:
    (response,) = backend("qwen2_vl").respond([request(CASES[0], "score", ("",))], ImageLoader())
    assert response is not None
    assert "adds no tokens" in str(response.error)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_without_images(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    cases: list[Case] = [(question, ()) for question in QUESTIONS]
    kinds: tuple[Kind, ...] = ("generate", "score")
    if name in CANNOT_WITHOUT_IMAGE:
        for kind in kinds:
            with pytest.raises(InputError, match="without images"):
                backend(name).respond([request(case, kind) for case in cases], ImageLoader())
        return
    ref = reference(name)
    found = [response.text for response in respond(backend(name), cases, "generate")]
    assert found == [ref.generate(question, []) for question, _ in cases]
    answers = [ref.answer_ids(answer) for answer in ANSWERS]
    check_scores(ref, respond(backend(name), cases[:2], "score"), cases[:2], answers)


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_with_different_numbers_of_images_in_one_batch(
    name: str, reference: Callable[[str], Reference], backend: Callable[[str], HfVlm]
) -> None:
    cases: list[Case] = [
        (QUESTIONS[0], ("wide.png",)),
        (QUESTIONS[1], ("tall.jpg", "wide.png")),
        (QUESTIONS[2], ("grey.png",)),
        (QUESTIONS[3], ("alpha.png", "small.png")),
    ]
    if name in ONE_IMAGE_ONLY:
        responses = backend(name).respond([request(c, "generate") for c in cases], ImageLoader())
        errors = [response.error for response in responses if response]
        assert errors[0] is errors[2] is None
        assert "one image" in str(errors[1])
        assert "one image" in str(errors[3])
        return
    ref = reference(name)
    found = [response.text for response in respond(backend(name), cases, "generate")]
    assert found == [ref.generate(case[0], files(case)) for case in cases]
    answers = [ref.answer_ids(answer) for answer in ANSWERS[:2]]
    check_scores(ref, respond(backend(name), cases, "score", answers=ANSWERS[:2]), cases, answers)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["generate", "score"])
def test_a_corrupt_image_fails_only_its_own_sample(
    name: str, kind: Kind, backend: Callable[[str], HfVlm]
) -> None:
    good = [request(case, kind) for case in CASES[:2]]
    truncated = memory_ref("truncated.jpg", IMAGES["tall.jpg"][:150])
    bad = Request(
        kind, (truncated,), prompt=QUESTIONS[0], candidates=good[0].candidates, max_new_tokens=8
    )
    first, failed, second = backend(name).respond([good[0], bad, good[1]], ImageLoader())
    assert failed is not None
    assert "truncated.jpg" in str(failed.error)
    assert failed.text is failed.scores is None
    without_bad = backend(name).respond(good, ImageLoader())
    check_same([first, second], without_bad)


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "device_map"),
    [("llava", "auto"), ("instructblip", "auto"), ("qwen2_vl", {"": "cpu"}), ("gemma3", "auto")],
)
def test_device_map(
    name: str, device_map: Any, folder: Callable[[str], Path], backend: Callable[[str], HfVlm]
) -> None:
    mapped = vlm(folder(name), args={"device_map": device_map})
    assert mapped.info().device == "cpu"
    for kind in ("generate", "score"):
        check_same(respond(mapped, CASES[:2], kind), respond(backend(name), CASES[:2], kind))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3"])
def test_bfloat16_scores_are_close(
    name: str, folder: Callable[[str], Path], backend: Callable[[str], HfVlm]
) -> None:
    half = vlm(folder(name), args={"dtype": "bfloat16"})
    assert half.info().dtype == "bfloat16"
    exact = respond(backend(name), CASES[:3], "score")
    for a, b in zip(exact, respond(half, CASES[:3], "score"), strict=True):
        for x, y in zip(a.scores or (), b.scores or (), strict=True):
            assert y.score == pytest.approx(x.score, rel=0.1)


@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_early_revisions_without_image_tokens(
    name: str, folder: Callable[[str], Path], reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    """Revisions of BLIP-2 and InstructBLIP from before transformers 4.46 have no image token."""
    ref = reference(name)
    path = tmp_path / name
    shutil.copytree(folder(name), path)
    model = AutoModelForImageTextToText.from_pretrained(path)
    vocabulary = model.config.image_token_index
    model.resize_token_embeddings(vocabulary)
    model.config.image_token_index = None
    model.save_pretrained(path)
    file = path / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_query_tokens": None}))
    old = vlm(path)
    for case, response in zip(CASES, respond(old, CASES, "score"), strict=True):
        for answer, option in zip(ANSWERS, response.scores or (), strict=True):
            total, _ = ref.score(case[0], files(case), ref.answer_ids(answer), vocabulary)
            assert option.sum_logprob == pytest.approx(total, rel=1e-4)
    respond(old, CASES, "generate")


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    llama_tokenizer().save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="no processor for images"):
        vlm(path)


def test_a_dual_encoder_is_refused(tmp_path: Path) -> None:
    path = tiny.tiny_clip(tmp_path / "clip")
    with pytest.raises(InputError, match="cannot be loaded"):
        vlm(path)
