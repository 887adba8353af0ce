"""Incomplete checkpoints, adapters, lost chat templates and unknown activations are not ignored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import helpers.models as tiny
import helpers.vlms as vlms
from helpers.bench import ROOT
from vlm_harness import evaluate
from vlm_harness.backends.embeddings import open_encoder
from vlm_harness.backends.hf.dual_encoder import HfDualEncoder
from vlm_harness.backends.hf.prompt_format import PromptFormatter, prompt_formatter
from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.backends.open_clip.encoder import OpenClip
from vlm_harness.backends.resolve import family, resolve
from vlm_harness.errors import InputError
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Request

TASK = "whatsup_rendered_b_left_right"
BUILD: dict[str, Callable[[Path], Path]] = {
    "clip": tiny.tiny_clip,
    "siglip": tiny.tiny_siglip,
    "open_clip": tiny.tiny_open_clip,
    "open_clip_siglip": tiny.tiny_open_clip_siglip,
    "llava": vlms.tiny_llava,
    "qwen2_vl": vlms.tiny_qwen2_vl,
    "gemma3": vlms.tiny_gemma3,
    "idefics3": vlms.tiny_idefics3,
    "internvl": vlms.tiny_internvl,
    "paligemma": vlms.tiny_paligemma,
    "blip2": vlms.tiny_blip2,
}
FACTORIES: dict[str, Callable[[ModelSpec, LoadOptions], Backend]] = {
    "hf_dual_encoder": HfDualEncoder,
    "hf_vlm": HfVlm,
    "open_clip": OpenClip,
}
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints that were made, by family."""
    return {"root": tmp_path_factory.mktemp("checkpoints")}


@pytest.fixture
def checkpoint(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the checkpoint of a family, which a test may change."""

    def copy(name: str) -> Path:
        if name not in made:
            made[name] = BUILD[name](made["root"] / name)
        return Path(shutil.copytree(made[name], tmp_path / name, dirs_exist_ok=True))

    return copy


def load(path: Path | str, **args: Any) -> Backend:
    spec = resolve(str(path), Registry.standard(), args)
    family(spec).check(spec)
    return FACTORIES[spec.backend](spec, LoadOptions(device="cpu"))


def edit(folder: Path, change: Callable[[State], None]) -> Path:
    """Change the weights of a checkpoint."""
    (path,) = folder.glob("*.safetensors")
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})
    return folder


def without(*names: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name in names:
            del state[name]

    return change


# --- weights --------------------------------------------------------------------------------------

# The last part of a weight's name; the first such weight is removed.
REMOVED = [
    ("clip", "text_projection.weight"),
    ("clip", "layer_norm1.bias"),
    ("siglip", "probe"),
    ("open_clip", "text_projection"),
    ("open_clip", "positional_embedding"),
    ("open_clip_siglip", "mlp.c_fc.bias"),
    ("llava", "linear_1.weight"),
    ("llava", "norm.weight"),
    ("llava", "lm_head.weight"),
    ("qwen2_vl", "q_proj.bias"),
    ("blip2", "query_tokens"),
    ("paligemma", "embed_tokens.weight"),
]


def first_name(state: State, end: str) -> str:
    return next(name for name in sorted(state) if name.endswith(end))


@pytest.mark.parametrize(("name", "end"), REMOVED)
def test_missing_weights_are_refused_by_name(
    name: str, end: str, checkpoint: Callable[[str], Path]
) -> None:
    removed: list[str] = []

    def change(state: State) -> None:
        removed.append(first_name(state, end))
        del state[removed[0]]

    path = edit(checkpoint(name), change)
    with pytest.raises(InputError, match=r"weights missing from the checkpoint \(\d\): ") as caught:
        load(path)
    assert removed[0].rpartition("model.")[2] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "end", "shapes"),
    [
        ("clip", "text_projection.weight", "(16x5, not 16x32)"),
        ("llava", "linear_2.weight", "(32x5, not 32x32)"),
        ("open_clip", "visual.positional_embedding", "(5x5, not 5x64)"),
    ],
)
def test_weights_of_another_size_are_refused(
    name: str, end: str, shapes: str, checkpoint: Callable[[str], Path]
) -> None:
    def change(state: State) -> None:
        weight = first_name(state, end)
        state[weight] = state[weight][:, :5].contiguous()

    path = edit(checkpoint(name), change)
    with pytest.raises(InputError, match=r"of a different shape in the checkpoint \(1\)") as caught:
        load(path)
    assert f"{end} {shapes}" in str(caught.value)


def test_position_embeddings_of_another_resolution_are_refused(
    checkpoint: Callable[[str], Path],
) -> None:
    """open_clip would interpolate them."""

    def change(state: State) -> None:
        state["visual.positional_embedding"] = torch.zeros(1 + 9, 64)

    path = edit(checkpoint("open_clip"), change)
    with pytest.raises(InputError, match=r"visual.positional_embedding \(10x64, not 5x64\)"):
        load(path)


def test_long_lists_of_weights_are_shortened(checkpoint: Callable[[str], Path]) -> None:
    names = list(load_file(checkpoint("llava") / "model.safetensors"))
    path = edit(checkpoint("llava"), without(*names[3:]))
    with pytest.raises(InputError, match=r"weights missing .*, \.\.\. \(\d+ more\)") as caught:
        load(path)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["clip", "open_clip", "llava"])
def test_unexpected_weights_are_recorded(name: str, checkpoint: Callable[[str], Path]) -> None:
    def change(state: State) -> None:
        state.update({f"value_head.layers.{i}.weight": torch.ones(2) for i in range(30)})

    complete, changed = load(checkpoint(name)), edit(checkpoint(name), change)
    assert "unexpected_weights" not in complete.info().details
    assert "notes" not in complete.info().to_dict()
    found = load(changed).info()
    recorded = found.details["unexpected_weights"]
    assert recorded["n"] == 30
    assert len(recorded["names"]) == 20
    assert recorded["names"][0] == "value_head.layers.0.weight"
    (note,) = found.notes
    assert note.startswith("weights of the checkpoint that the model does not have (30): ")


def test_a_run_names_unexpected_weights(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlm_harness.cli.console import notes_on_models

    path = edit(checkpoint("clip"), lambda state: state.update({"extra.weight": torch.ones(2)}))
    run = evaluate(str(path), TASK, limit=2, output_dir=tmp_path / "runs")
    manifest = json.loads((run.path / "manifest.json").read_text())
    details = manifest["models"]["clip"]["details"]
    assert details["unexpected_weights"] == {"n": 1, "names": ["extra.weight"]}
    assert list(notes_on_models(run)) == ["clip"]
    assert "LOAD REPORT" not in capsys.readouterr().err


def test_a_run_with_missing_weights_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    path = edit(checkpoint("clip"), without("visual_projection.weight"))
    with pytest.raises(InputError, match=r"visual_projection\.weight"):
        evaluate(str(path), TASK, limit=2, output_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_tied_and_computed_weights_may_be_absent(checkpoint: Callable[[str], Path]) -> None:
    """The output layer of PaliGemma is tied to its embeddings, and not in its checkpoint."""
    path = checkpoint("paligemma")
    state = load_file(path / "model.safetensors")
    assert not any("lm_head" in name for name in state)
    load(path)

    def computed(state: State) -> None:
        state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    assert not load(edit(checkpoint("clip"), computed)).info().notes


def test_a_vision_model_needs_only_the_weights_of_its_embedding(tmp_path: Path) -> None:
    """A classifier is saved without the pooling layer that AutoModel adds."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    path = tmp_path / "vit"
    processor = ViTImageProcessor(size={"height": 28, "width": 28})
    tiny.save(ViTForImageClassification(config), processor, path)

    def opened() -> Any:
        return open_encoder(str(path), Registry([]), LoadOptions(device="cpu"), "--similar")

    opened()
    edit(path, without("vit.layernorm.bias"))
    with pytest.raises(InputError, match=r"weights missing .*: layernorm\.bias"):
        opened()


# --- adapters -------------------------------------------------------------------------------------


def add_adapter(folder: Path, base: str = "llava-hf/llava-1.5-7b-hf") -> None:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["llava", "clip", "open_clip"])
def test_an_adapter_beside_the_weights_is_refused(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    path = checkpoint(name)
    spec = resolve(str(path), Registry.standard())
    add_adapter(path)
    with pytest.raises(InputError, match="contains an adapter") as caught:
        family(spec).check(spec)
    for text in ("adapter_config.json", "llava-hf/llava-1.5-7b-hf", "merge_and_unload"):
        assert text in str(caught.value)
    (path / "adapter_config.json").unlink()  # the weights of an adapter alone
    with pytest.raises(InputError, match=r"adapter, which .*: adapter_model.safetensors"):
        family(spec).check(spec)


@pytest.mark.parametrize("text", ["{}", "hf_vlm:{}", "hf_dual_encoder:{}"])
def test_an_adapter_alone_is_refused(text: str, tmp_path: Path) -> None:
    add_adapter(tmp_path / "lora")
    with pytest.raises(InputError, match=r"base model: llava-hf/llava-1\.5-7b-hf"):
        load(text.format(tmp_path / "lora"))


def test_an_adapter_within_the_weights_is_refused(checkpoint: Callable[[str], Path]) -> None:
    """As saved by a model that was not merged: the adapter's weights are in its layers."""

    def change(state: State) -> None:
        layer = first_name(state, "q_proj.weight").removesuffix(".weight")
        state[f"{layer}.lora_A.default.weight"] = torch.ones(2, 32)
        state[f"{layer}.lora_B.default.weight"] = torch.ones(32, 2)

    path = edit(checkpoint("llava"), change)
    with pytest.raises(InputError, match=r"contains an adapter, .*lora_A") as caught:
        load(path)
    assert "merge_and_unload" in str(caught.value)


def test_an_adapter_that_transformers_loads_is_refused(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With peft installed, ``from_pretrained`` looks for adapters on the hub by itself."""
    from transformers import AutoModel

    plain = AutoModel.from_pretrained

    def adapted(*args: Any, **kwargs: Any) -> Any:
        model, info = plain(*args, **kwargs)
        model._hf_peft_config_loaded = True
        return model, info

    monkeypatch.setattr(AutoModel, "from_pretrained", adapted)
    with pytest.raises(InputError, match="contains an adapter"):
        load(checkpoint("clip"))


# --- chat templates -------------------------------------------------------------------------------


def without_template(path: Path) -> Path:
    (path / "chat_template.jinja").unlink()
    return path


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "internvl", "idefics3"])
def test_a_lost_chat_template_is_refused(name: str, checkpoint: Callable[[str], Path]) -> None:
    path = without_template(checkpoint(name))
    for build in (load, lambda path: prompt_formatter(spec_of(path), LoadOptions())):
        with pytest.raises(InputError, match="the checkpoint has no chat template") as caught:
            build(path)
        for remedy in ("chat_template.jinja", "processor=", "prompt_format"):
            assert remedy in str(caught.value)


def spec_of(path: Path) -> ModelSpec:
    return ModelSpec(model="m", backend="hf_vlm", checkpoint=str(path))


@pytest.mark.parametrize("name", ["paligemma", "blip2"])
def test_base_models_need_no_chat_template(name: str, checkpoint: Callable[[str], Path]) -> None:
    load(checkpoint(name))


def test_the_remedies_restore_the_prompt(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    whole = checkpoint("llava")
    lost = without_template(Path(shutil.copytree(whole, tmp_path / "lost")))
    request = Request("generate", (), "Left?")
    expected = load(whole).formatter.text(request)  # type: ignore[attr-defined]
    assert load(lost, processor=str(whole)).formatter.text(request) == expected  # type: ignore[attr-defined]
    own = load(lost, prompt_format="Q: {{ prompt }}").formatter.text(request)  # type: ignore[attr-defined]
    assert own == "Q: Left?"


def test_the_template_of_the_tokenizer_is_used(checkpoint: Callable[[str], Path]) -> None:
    """Older checkpoints have it in tokenizer_config.json, where processors do not look for it."""
    path = checkpoint("qwen2_vl")
    request = Request("generate", (), "Left?")
    expected = PromptFormatter(spec_of(path), LoadOptions()).text(request)
    template = (path / "chat_template.jinja").read_text()
    config = path / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    without_template(path)
    config.write_text(json.dumps({**settings, "chat_template": template}))
    assert prompt_formatter(spec_of(path), LoadOptions()).text(request) == expected
    # A template for texts alone has no place for an image.
    text_only = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    config.write_text(json.dumps({**settings, "chat_template": text_only}))
    with pytest.raises(InputError, match="no chat template"):
        prompt_formatter(spec_of(path), LoadOptions())


def test_an_empty_template_is_no_template(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("llava")
    (path / "chat_template.jinja").write_text("\n")
    with pytest.raises(InputError, match="no chat template"):
        load(path)


# --- QuickGELU of weights from a file -------------------------------------------------------------


@pytest.fixture
def weights(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights file; adds architectures whose tags use QuickGELU always, sometimes and never."""
    quick = {**tiny.OPEN_CLIP_TINY, "quick_gelu": True}
    for name, config, tags in (
        ("tiny", tiny.OPEN_CLIP_TINY, {"openai": True, "laion": False}),
        ("tiny-quickgelu", quick, {"openai": True}),
        ("tiny-plain", tiny.OPEN_CLIP_TINY, {"laion": False}),
        ("tiny-own", tiny.OPEN_CLIP_TINY, {}),
    ):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        known = {tag: {"url": "", "quick_gelu": used} for tag, used in tags.items()}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, known)
    folder = checkpoint("open_clip")
    file = folder.parent / "weights.safetensors"
    shutil.copy(folder / "open_clip_model.safetensors", file)
    return file


def uses_quick_gelu(backend: Any) -> bool:
    return any("QuickGELU" in type(module).__name__ for module in backend.model.modules())


@pytest.mark.parametrize(
    ("architecture", "args", "quick", "known"),
    [
        ("tiny:openai", {}, True, True),
        ("tiny:laion", {}, False, True),
        ("tiny", {"quick_gelu": True}, True, True),
        ("tiny", {"quick_gelu": False}, False, True),
        ("tiny", {}, False, False),
        ("tiny-own", {}, False, False),
        ("tiny-plain", {}, False, True),
        ("tiny-quickgelu", {}, True, True),
        ("tiny-quickgelu", {"quick_gelu": False}, False, True),
    ],
)
def test_the_activation_is_known_or_noted(
    architecture: str, args: dict[str, Any], quick: bool, known: bool, weights: Path
) -> None:
    found = load(f"open_clip:{architecture}", weights=str(weights), **args)
    assert uses_quick_gelu(found) == quick
    assert found.info().details["quick_gelu"] == quick
    notes = " ".join(found.info().notes)
    assert ("quick_gelu=true" in notes and "quick_gelu=false" in notes) != known


def test_the_activation_is_read_from_a_configuration_beside_the_weights(weights: Path) -> None:
    config = {"model_cfg": {**tiny.OPEN_CLIP_TINY, "quick_gelu": True}}
    (weights.parent / "open_clip_config.json").write_text(json.dumps(config))
    found = load("open_clip:tiny", weights=str(weights))
    assert uses_quick_gelu(found)
    assert not found.info().notes


def test_an_unknown_tag_of_a_weights_file_is_refused(weights: Path) -> None:
    with pytest.raises(InputError, match=r"no pretrained tag 'opnai'; did you mean 'openai'"):
        load("open_clip:tiny:opnai", weights=str(weights))


def test_the_bundled_models_load_without_notes() -> None:
    for name in ("tiny-clip", "tiny-llava"):
        found = load(ROOT / "models" / name).info()
        assert not found.notes
        assert "unexpected_weights" not in found.details
