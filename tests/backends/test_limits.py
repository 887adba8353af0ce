"""Texts that exceed a limit are counted and reported; placeholders in questions are only text."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import helpers.models as tiny
import helpers.vlms as vlms
from helpers.bench import Edit
from helpers.images import memory_ref, varied_images
from helpers.runs import check_same, first, go, lines
from helpers.tokenizers import word_tokenizer
from vlm_harness import evaluate, open_run
from vlm_harness.backends.hf.dual_encoder import HfDualEncoder
from vlm_harness.backends.hf.loaded import context_length
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.backends.open_clip.encoder import OpenClip
from vlm_harness.images import ImageLoader
from vlm_harness.logs.labels import caveats
from vlm_harness.logs.rescore import rescore
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Request, Response

IMAGES = varied_images()
REF = memory_ref("wide.png", IMAGES["wide.png"])
WORDS = "left right above below open closed".split()  # noqa: SIM905
OPTIONS = LoadOptions(device="cpu")


def spec(path: Path, backend: str, **fields: Any) -> ModelSpec:
    return ModelSpec(model="m", backend=backend, checkpoint=str(path), **fields)


def respond(model: Backend, *requests: Request) -> list[Response]:
    found = [each for each in model.respond(requests, ImageLoader()) if each is not None]
    assert [each.error for each in found] == [None] * len(requests)
    return found


def words(n: int, every: Sequence[str] = WORDS) -> str:
    return " ".join(every[i % len(every)] for i in range(n))


# --- captions -------------------------------------------------------------------------------------

ENCODERS: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    # The number of words that fit beside the special tokens.
    "clip": (tiny.tiny_clip, "hf_dual_encoder", 40 - 2),
    "siglip2_fixed": (tiny.tiny_siglip2_fixed, "hf_dual_encoder", 64 - 1),
    "align": (tiny.tiny_align, "hf_dual_encoder", 64 - 2),
    "open_clip": (tiny.tiny_open_clip, "open_clip", 77 - 2),
    "open_clip_siglip": (tiny.tiny_open_clip_siglip, "open_clip", 64 - 1),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_captions_longer_than_the_limit_are_marked(name: str, tmp_path: Path) -> None:
    build, backend, fits = ENCODERS[name]
    factory = OpenClip if backend == "open_clip" else HfDualEncoder
    model = factory(spec(build(tmp_path / name), backend), OPTIONS)
    for n, too_long in ((1, False), (fits, False), (fits + 1, True), (3 * fits, True)):
        request = Request("similarity", (REF,), candidates=("left", words(n)))
        (found,) = respond(model, request)
        assert found.over_limit == too_long, n
    (found,) = respond(model, Request("similarity", (REF,), candidates=("left", "")))
    assert not found.over_limit


@pytest.mark.parametrize("end", ["!", "!!!", "left!"])
def test_an_exclamation_mark_has_the_token_of_the_padding(end: str, tmp_path: Path) -> None:
    """In CLIP's vocabulary its number is 0."""
    model = OpenClip(spec(tiny.tiny_open_clip(tmp_path / "m"), "open_clip"), OPTIONS)
    n = 75 - len(model.tokenizer.encode(end))
    assert model.over_limit([f"{words(n)} {end}", f"{words(n + 1)} {end}"]) == [False, True]


def test_every_tokenizer_of_open_clip_is_measured(tmp_path: Path) -> None:
    from open_clip.tokenizer import HFTokenizer

    model = OpenClip(spec(tiny.tiny_open_clip(tmp_path / "m"), "open_clip"), OPTIONS)
    cases: list[tuple[str | None, str, dict[str, Any], int]] = [
        ("[CLS]", "right", {}, 6),
        ("[CLS]", "left", {}, 6),
        ("[CLS]", "right", {"strip_sep_token": True}, 6),
        ("[CLS]", "right", {"tokenizer_mode": "clips"}, 5),
        (None, "right", {}, 7),
    ]
    for number, (bos, side, settings, fits) in enumerate(cases):
        own = word_tokenizer(lower=True, bos=bos, eos="[SEP]", pad="[PAD]", length=99)
        own.padding_side = side
        own.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
        own.save_pretrained(tmp_path / str(number))
        model.tokenizer = HFTokenizer(str(tmp_path / str(number)), context_length=8, **settings)
        found = model.over_limit([words(n) for n in range(1, 10)])
        assert found == [n > fits for n in range(1, 10)], settings


# --- contexts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., HfVlm]:
    root = tmp_path_factory.mktemp("vlm")

    @cache
    def load(name: str = "llava", **changes: Any) -> HfVlm:
        path = vlms.VLM_FAMILIES[name](root / f"{name}{len(changes)}")
        config = json.loads((path / "config.json").read_text())
        config["text_config"].update(changes)
        (path / "config.json").write_text(json.dumps(config))
        return HfVlm(spec(path, "hf_vlm"), OPTIONS)

    return load


@pytest.mark.parametrize("share", [True, False])
def test_prompts_beyond_the_context_are_marked(vlm: Callable[..., HfVlm], share: bool) -> None:
    model = vlm(max_position_embeddings=60)
    model.formatter.args = model.formatter.args.model_copy(update={"share_prefixes": share})
    for kind in ("score", "generate"):
        found = respond(
            model,
            *(
                Request(kind, (REF,), words(n), ("left", "right"), max_new_tokens=2)
                for n in (1, 50)
            ),
        )
        assert [each.over_limit for each in found] == [False, True], kind
    # The answer counts as well.
    n_prompt = len(model.loaded.prompt_ids(model.loaded.inputs([query(model, "left")]))[0])
    for more, expected in ((0, False), (1, True)):
        model.loaded._context = n_prompt + 4 - more
        (response,) = respond(model, Request("generate", (REF,), "left", max_new_tokens=4))
        assert response.finish_reason == "length"
        assert response.over_limit == expected
    model.loaded._context = 60


def query(model: HfVlm, prompt: str) -> Any:
    from vlm_harness.images import load

    return model.loaded.query(Request("generate", (REF,), prompt), [load(REF).pixels])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 32768, "rope_parameters": {"factor": 4.0,
          "original_max_position_embeddings": 32768}}, 131072),
        ({"max_position_embeddings": 131072, "rope_parameters": {"factor": 8.0,
          "original_max_position_embeddings": 8192}}, 131072),
        ({"max_position_embeddings": 2048, "rope_parameters": {"factor": 2.0}}, 4096),
        ({"rope_parameters": {}}, None),
    ],
)  # fmt: skip
def test_the_context_length(text: dict[str, Any], expected: int | None) -> None:
    class Config:
        def get_text_config(self) -> Any:
            return type("Text", (), text)

    assert context_length(Config()) == expected


def test_a_processor_does_not_truncate_prompts(tmp_path: Path) -> None:
    """Whatever the tokenizer's configuration says."""
    path = vlms.tiny_llava(tmp_path / "llava")
    expected = HfVlm(spec(path, "hf_vlm"), OPTIONS)
    file = path / "tokenizer_config.json"
    settings = {"truncation": True, "max_length": 8, "model_max_length": 8}
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    changed = HfVlm(spec(path, "hf_vlm"), OPTIONS)
    request = Request("score", (REF,), words(30), ("left", "right"))
    check_same(respond(changed, request), respond(expected, request))


# --- texts cut at max_new_tokens ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llava", "blip2", "qwen2_vl", "gemma3"])
def test_a_text_without_an_end_has_finish_reason_length(
    name: str, vlm: Callable[..., HfVlm]
) -> None:
    model = vlm(name)
    requests = [Request("generate", (REF,), prompt, max_new_tokens=12) for prompt in WORDS]
    queries = [query(model, prompt) for prompt in WORDS]
    # All 12 tokens of each prompt, whether or not one of them would end the text.
    rows = [
        model.loaded.generate(model.loaded.inputs([each]), max_new_tokens=12, min_new_tokens=12)
        for each in queries
    ]
    ids = [row[0].tolist() for row in rows]
    before = list(model.loaded.eos_ids)
    assert not any(set(before) & set(row) for row in ids)
    found = respond(model, *requests)
    text = model.formatter.tokenizer.batch_decode(ids, skip_special_tokens=True)
    same = [each.text == own.strip() for each, own in zip(found, text, strict=True)]
    assert any(same)
    assert {each.finish_reason for each, ok in zip(found, same, strict=True) if ok} == {"length"}
    # Declare the last token of a text as EOS: this text has ended.
    number = same.index(True)
    try:
        model.loaded.eos_ids.append(ids[number][-1])
        (again,) = respond(model, requests[number])
        assert again.finish_reason is None
    finally:
        model.loaded.eos_ids[:] = before


def test_cut_texts_and_long_prompts_are_logged_and_counted(bench: Path) -> None:
    def handler(request: Request) -> Any:
        sample = request.sample
        assert sample is not None
        text = sample.options[0]
        if sample.target:
            return Response(text=text, finish_reason="length", over_limit=True)
        return Response(text=text, finish_reason="stop")

    plain, run = go(bench, first, run_id="plain"), go(bench, handler, run_id="marked")
    responses = [line["response"] for line in lines(run)]
    assert sorted(map(str, responses))[0] == str(
        {"text": "left", "finish_reason": "length", "over_limit": True}
    )
    assert {"text": "left"} in responses
    (row,) = run.results
    assert (row.n_texts_cut, row.n_over_limit) == (6, 6)
    notes = "; ".join(caveats(row))
    assert "6 texts cut at max_new_tokens" in notes
    assert "6 of 12 samples with a prompt or caption longer than the model's limit" in notes
    # Absent where there is nothing to count.
    without = json.loads((plain.path / "results.json").read_text())["results"][0]
    assert not {"n_texts_cut", "n_over_limit"} & without.keys()
    written = json.loads((run.path / "results.json").read_text())["results"][0]
    assert written == {**without, "n_texts_cut": 6, "n_over_limit": 6}
    # Scored again from the log, they are counted again.
    assert rescore(run.path).to_dict()["results"] == [written]
    assert open_run(run.path).results[0].n_texts_cut == 6


@pytest.mark.parametrize("fields", [{"finish_reason": 3}, {"over_limit": "yes"}])
def test_invalid_marks_are_errors_of_the_sample(bench: Path, fields: dict[str, Any]) -> None:
    def handler(request: Request) -> Any:
        bad = request.sample is not None and request.sample.id == "thing0-left"
        return Response(text="left", **(fields if bad else {}))

    errors = [line["error"] for line in lines(go(bench, handler, max_errors="100%"))]
    (name,) = fields
    (error,) = filter(None, errors)
    assert error.startswith(f"{name} is ")


def test_a_cached_answer_keeps_its_marks(
    bench: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_HARNESS_CACHE", str(tmp_path / "cache.sqlite"))
    path = tiny.tiny_clip(tmp_path / "clip")
    edit("captions:", f"captions: ['{words(60)}', left]  #")
    settings: dict[str, Any] = {
        "data_dir": bench / "data", "include_path": bench / "specs", "cache": True,
        "output_dir": tmp_path / "runs", "protocol": "similarity",
    }  # fmt: skip
    rows = [evaluate(str(path), "sides", run_id=name, **settings).results[0] for name in ("a", "b")]
    assert [row.n_over_limit for row in rows] == [12, 12]


# --- placeholders in a question -------------------------------------------------------------------

PLACEHOLDERS = {
    "llava": ["<image>"],
    "llava_next": ["<image>"],
    "llava_onevision": ["<image>", "<video>"],
    "qwen2_vl": ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"],
    "idefics3": ["<image>"],
    "gemma3": ["<start_of_image>", "<image_soft_token>"],
    "internvl": ["<IMG_CONTEXT>"],
    "paligemma": ["<image>"],
    "blip2": ["<image>"],
    "instructblip": ["<image>"],
}


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_placeholder_in_a_question_is_text(name: str, vlm: Callable[..., HfVlm]) -> None:
    model = vlm(name)
    ids = model.formatter.tokenizer.convert_tokens_to_ids

    def count(prompt: str) -> list[int]:
        inputs = model.loaded.inputs([query(model, prompt)])
        tokens = inputs["input_ids"][0].tolist()
        return [tokens.count(ids(token)) for token in PLACEHOLDERS[name]]

    for token in PLACEHOLDERS[name]:
        for question in (f"{token} left?", f"What does {token}{token} do?\n{token}"):
            assert count(question) == count("What does it do?")
            requests = [
                Request("generate", (REF,), prompt, max_new_tokens=2)
                for prompt in (question, "left?")
            ]
            respond(model, *requests)
            answers = ("left", f"the {token}")
            respond(model, Request("score", (REF,), question, answers))
    plain = "Is a < image> < b, \n\n or not?"
    assert model.formatter.escape(plain) == plain


def test_a_placeholder_without_an_image_is_text(vlm: Callable[..., HfVlm]) -> None:
    model = vlm("llava")
    for kind in ("generate", "score"):
        request = Request(kind, (), "The tag <image>?", ("left", "right"), max_new_tokens=2)
        respond(model, request)
    image = model.formatter.tokenizer.convert_tokens_to_ids("<image>")
    ids = model.formatter.inputs([model.formatter.text(request)], [[]])["input_ids"]
    assert image not in ids[0].tolist()


def test_a_format_without_a_place_for_images_leaves_it_to_the_question(tmp_path: Path) -> None:
    own = spec(vlms.tiny_llava(tmp_path / "m"), "hf_vlm", prompt_format="{{ prompt }}:")
    request = Request("generate", (REF,), "<image>\nleft or right", max_new_tokens=2)
    model = HfVlm(own, OPTIONS)
    assert model.formatter.text(request) == "<image>\nleft or right:"
    respond(model, request)


def test_one_question_with_a_placeholder_does_not_stop_a_run(
    bench: Path, edit: Edit, tmp_path: Path
) -> None:
    edit('question: "Is', "question: \"{{ 'What is <image>? ' if side == 'left' else '' }}Is")
    run = evaluate(
        str(vlms.tiny_llava(tmp_path / "llava")), "sides", data_dir=bench / "data",
        include_path=bench / "specs", output_dir=tmp_path / "runs",
        protocol=["generate", "choice"],
    )  # fmt: skip
    assert {line["status"] for line in lines(run)} <= {"ok", "unparsed"}
    assert sum("<image>" in line["prompt"] for line in lines(run)) == 12
