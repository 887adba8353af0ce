"""The commit of a hub repository is part of a run's identity, unless a commit is given."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from helpers.bench import ROOT
from helpers.runs import lines
from vlm_harness import evaluate, open_run
from vlm_harness.backends import hub
from vlm_harness.backends.hub import Repository
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.open_clip.checkpoint import repositories
from vlm_harness.backends.resolve import family, resolve
from vlm_harness.errors import InputError
from vlm_harness.runs.cache import identity_of
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec

TASK = "whatsup_rendered_b_left_right"
FIRST, SECOND = "1" * 40, "2" * 40
Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put a bundled model into the cache of the hub, as a commit of a repository."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(commit: str, name: str = "toys/clip", model: str = "tiny-clip") -> None:
        folder = cache / f"models--{name.replace('/', '--')}"
        if not (folder / "snapshots" / commit).exists():
            shutil.copytree(ROOT / "models" / model, folder / "snapshots" / commit)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)

    return add


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    def go(model: str = "hf_dual_encoder:toys/clip", **options: Any) -> Any:
        return evaluate(model, TASK, limit=2, output_dir=tmp_path / "runs", **options)

    return go


def test_a_moved_branch_is_a_new_run(publish: Publish, run: Callable[..., Any]) -> None:
    publish(FIRST)
    first = run()
    assert first.manifest.identity.commits == {"toys-clip": {"toys/clip": FIRST}}
    assert first.manifest.models["toys-clip"].revision == FIRST
    assert run().path == first.path
    publish(SECOND)
    second = run()
    assert second.path != first.path
    assert second.n_new == 2
    assert second.manifest.models["toys-clip"].revision == SECOND
    publish(FIRST)  # moved back: the first run is found again
    again = run()
    assert (again.path, again.n_new) == (first.path, 0)


def test_a_run_of_the_same_name_is_not_resumed(publish: Publish, run: Callable[..., Any]) -> None:
    publish(FIRST)
    run(run_id="r")
    publish(SECOND)
    with pytest.raises(InputError, match=f"the commit of toys/clip \\({FIRST} -> {SECOND}\\)"):
        run(run_id="r")


@pytest.mark.parametrize("revision", [None, "main", "v1"])
def test_branches_and_tags_are_resolved(
    revision: str | None, publish: Publish, tmp_path: Path
) -> None:
    publish(FIRST)
    (tmp_path / "hub" / "models--toys--clip" / "refs" / "v1").write_text(FIRST)
    assert hub.commits([Repository("toys/clip", revision)]) == {"toys/clip": FIRST}


def test_a_pinned_commit_keeps_the_run_id(publish: Publish, run: Callable[..., Any]) -> None:
    """The identity is that of earlier versions, which had no commits."""
    publish(FIRST)
    pinned = run(model_args={"revision": FIRST})
    identity = pinned.manifest.identity.to_dict()
    assert "commits" not in identity
    assert set(identity) == {
        "schema", "models", "checkpoints", "tasks", "cells", "seed", "limit", "samples", "dtype",
    }  # fmt: skip
    publish(SECOND)
    again = run(model_args={"revision": FIRST})
    assert (again.path, again.n_new) == (pinned.path, 0)
    assert lines(again)


@pytest.mark.parametrize("name", ["tiny-clip", "folder"])
def test_local_models_have_no_commits(name: str, tmp_path: Path, run: Callable[..., Any]) -> None:
    path = tmp_path / "own"
    shutil.copytree(ROOT / "models" / "tiny-clip", path)
    found = run(name if name == "tiny-clip" else str(path))
    assert "commits" not in found.manifest.identity.to_dict()


def test_the_hub_is_asked_before_the_cache(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(FIRST)
    asked: list[Any] = []

    def model_info(self: Any, name: str, **options: Any) -> Any:
        asked.append((name, options["revision"]))
        return SimpleNamespace(sha=SECOND, siblings=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    pinned = Repository("toys/other", FIRST)
    assert hub.commits([Repository("toys/clip", "v1"), pinned]) == {"toys/clip": SECOND}
    assert asked == [("toys/clip", "v1")]


def test_a_commit_that_appears_while_loading_is_refused(
    publish: Publish, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(FIRST)
    answers: Iterator[dict[str, str]] = iter([{"toys/clip": SECOND}])
    monkeypatch.setattr(hub, "commits", lambda _: next(answers))
    with pytest.raises(InputError, match="toys/clip changed on the hub while it was loaded"):
        run()


def test_the_processor_is_a_repository_too(publish: Publish) -> None:
    publish(FIRST, "toys/llava", "tiny-llava")
    publish(SECOND, "toys/processor", "tiny-llava")
    spec = resolve("hf_vlm:toys/llava", Registry.standard(), {"processor": "toys/processor"})
    expected = {"toys/llava": FIRST, "toys/processor": SECOND}
    assert hub.commits(family(spec).repositories(spec)) == expected
    info = family(spec).load(spec, LoadOptions(device="cpu")).info()
    assert (info.revision, info.details["commits"]) == (FIRST, expected)


def test_cached_answers_belong_to_a_commit(publish: Publish) -> None:
    spec = ModelSpec(model="m", backend="hf_dual_encoder", checkpoint="toys/clip")
    found = []
    for commit in (FIRST, SECOND):
        publish(commit)
        info = family(spec).load(spec, LoadOptions(device="cpu")).info()
        found.append(identity_of(spec, info))
    assert found[0] != found[1]


def test_the_repositories_of_open_clip() -> None:
    def names(checkpoint: str, **args: Any) -> list[str]:
        spec = ModelSpec(model="m", backend="open_clip", checkpoint=checkpoint, args=args)
        return [each.name for each in repositories(spec)]

    assert names("hf-hub:toys/clip") == ["toys/clip"]
    assert names("ViT-B-32:openai") == ["timm/vit_base_patch32_clip_224.openai"]
    assert names("ViT-B-32:openai", weights="w.pt") == []
    assert names(str(ROOT / "models")) == []
    weights, tokenizer = names("ViT-L-16-SigLIP-384:webli")
    assert weights == "timm/ViT-L-16-SigLIP-384"
    assert tokenizer == "timm/ViT-B-16-SigLIP"


@pytest.mark.parametrize("cached", [True, False])
def test_an_adapter_on_the_hub_is_refused(
    cached: bool, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["adapter_config.json", "adapter_model.safetensors", "README.md"]
    if cached:
        publish(FIRST)
        folder = tmp_path / "hub" / "models--toys--clip" / "snapshots" / FIRST
        shutil.rmtree(folder)
        folder.mkdir()
        for name in names:
            (folder / name).write_text('{"base_model_name_or_path": "openai/clip"}')
    else:
        siblings = [SimpleNamespace(rfilename=name) for name in names]
        info = SimpleNamespace(sha=FIRST, siblings=siblings)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    spec = resolve("hf_dual_encoder:toys/clip", Registry.standard())
    with pytest.raises(InputError, match="toys/clip: the checkpoint contains an adapter"):
        family(spec).check(spec)


def test_a_run_of_an_earlier_version_is_read() -> None:
    older = open_run(ROOT / "tests" / "data" / "run_0_1_0" / "runs" / "finished")
    assert older.manifest.identity.commits == {}
