"""Runs sent to Weights & Biases, in the library's offline mode."""

import json
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Tool
from helpers.exports import Go, change
from helpers.runs import first
from helpers.runs import laconic as oracle
from vlm_harness.errors import InputError
from vlm_harness.export import wandb_logger


def test_missing_wandb_is_reported_before_anything_is_computed(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ModuleSpec("wandb", None)  # a folder that wandb created in the current one
    for found in (None, folder):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        message = tool.refused("--wandb-args", "project=p")
        assert (
            'wandb is not installed\nInstall it with: pip install "vlm-harness[wandb]"' in message
        )
        assert not Path("results").exists()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModuleSpec("wandb", None, origin="wandb/__init__.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)


@pytest.mark.usefixtures("installed")
def test_arguments_of_wandb() -> None:
    found = wandb_logger.arguments(["project=7, name=a=b", "tags=x; y;,mode=offline"])
    assert found == {"project": "7", "name": "a=b", "tags": ["x", "y"], "mode": "offline"}
    for text, message in (
        ("projct=x", "'projct'; did you mean 'project'?"),
        ("config=x", "unknown argument 'config'"),
        ("mode=ofline", "did you mean 'offline'?; allowed: disabled, offline, online"),
        ("project", "expected key=value, found 'project'"),
        ("project=", "expected key=value"),
        ("dir=/no/where", "folder not found: '/no/where'"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as error:
            wandb_logger.arguments([text])
        assert error.value.where == "--wandb-args"


@pytest.mark.usefixtures("installed")
def test_results_are_printed_before_a_failure_of_wandb(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(wandb_logger, "_log", fail)
    done = tool.run("--run-id", "r", "--protocol", "generate", "--json", "--wandb-args", "name=x")
    assert done.code == 2
    assert json.loads(done.out)["results"]
    assert "the run is finished, but wandb failed: no network\nNo results are lost" in done.err
    assert "Traceback" not in done.err
    assert done.err.count("error: ") == 1


def records(path: Path) -> list[Any]:
    """The records of an offline run: a log of LevelDB's kind, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, found, parts = path.read_bytes(), 7, [], b""
    while at < len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block has no space for a header
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def test_a_run_is_sent_to_wandb(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(wandb_logger, "MOST_ROWS", 10)
    monkeypatch.setattr(wandb_logger, "MOST_TEXT", 20)
    (tmp_path / "w").mkdir()
    done = tool.run(
        "--run-id", "r", "--protocol", "generate", "--command", "all",
        "--wandb-args", f"project=p,tags=a;b,dir={tmp_path / 'w'}",
    )  # fmt: skip
    wandb.teardown()
    assert done.code == 0, done.err
    assert (
        "only the first 10 samples of sides/generate/command-default, "
        "sides/generate/command-short" in done.err
    )
    (path,) = tmp_path.glob("w/wandb/offline-run-*/*.wandb")
    assert f"to send the run, use `wandb sync {path.parent}`" in done.err
    found = records(path)
    run = next(each.run for each in found if each.HasField("run"))
    assert (run.project, run.display_name, list(run.tags)) == ("p", "r", ["a", "b"])
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    manifest = json.loads(Path("results/r/manifest.json").read_text())
    assert config["identity_sha256"] == manifest["identity_sha256"]
    assert config["command"] == ["all"]
    summary = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for each in found
        if each.HasField("summary")
        for item in each.summary.update
    }
    name = "sides/generate/command-short/pair_accuracy"
    assert summary[name] == 1.0
    assert summary[f"{name}/ci_low"] == pytest.approx(0.60967, abs=1e-5)
    assert summary[f"{name}/ci_high"] == 1.0
    (results,) = path.parent.glob("files/media/table/results*.json")
    table = json.loads(results.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 2 * 4
    assert {row["value"] for row in rows if row["metric"] == "pair_accuracy"} == {1.0}
    (samples,) = path.parent.glob("files/media/table/samples/sides/generate/command-short*.json")
    table = json.loads(samples.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 10
    assert rows[0]["prompt"] == "Is the thing0 on the... (40 more characters)"
    assert (rows[0]["target"], rows[0]["prediction"], rows[0]["correct"]) == ("left", "left", True)
    files = {
        entry.path
        for each in found
        if each.HasField("request") or each.HasField("artifact")
        for artifact in (each.artifact, each.request.log_artifact.artifact)
        for entry in artifact.manifest.contents
    }
    assert files >= {"results.json", "manifest.json"}


def test_unusual_names_stay_in_the_folder_of_wandb(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    run = go("r+1", models={"a": first, "b": oracle})
    names = iter(["../../x", "org/b:c"])
    change(run, lambda row: row.update(model=next(names)))
    (tmp_path / "w").mkdir()
    wandb_logger.log(run, {"dir": str(tmp_path / "w")})
    wandb.teardown()
    found = sorted(
        path.relative_to(tmp_path).parts[6:-1] for path in tmp_path.rglob("*.table.json")
    )
    assert found == [(), ("samples", "org-b-c", "sides"), ("samples", "x", "sides")]
