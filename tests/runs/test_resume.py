"""Resuming runs: results equal those of an uninterrupted run; other runs are refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.bench import Tool, python
from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import InputError, SampleError, TooManyErrors
from vlm_harness.logs.rescore import rescore
from vlm_harness.runs.evaluator import Run, evaluate
from vlm_harness.runs.fingerprint import fingerprint
from vlm_harness.types import Model, Request


def interrupt_and_resume(folder: Path, *args: str) -> Any:
    done = python("-m", "helpers.resume", str(folder), *args)
    assert done.code == 0, done.err
    return json.loads(done.out.splitlines()[-1])


def test_resume_after_a_few_kills_and_truncations(tmp_path: Path) -> None:
    found = interrupt_and_resume(tmp_path, "4", "3", "0", "fake")
    assert found["lines"] > 400
    assert found["hit"] >= 2
    assert found["different"] == []


@pytest.mark.slow
def test_resume_after_a_hundred_kills_and_truncations_of_the_tiny_models(tmp_path: Path) -> None:
    found = interrupt_and_resume(tmp_path, "100", "100", "1")
    assert found["hit"] >= 80
    assert found["different"] == []


# --- rerunning a command resumes ------------------------------------------------------------------


def test_a_run_interrupted_after_its_last_line_is_finished(bench: Path) -> None:
    run = go(bench, oracle, protocol=["choice"])
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "finished": None}))
    assert go(bench, oracle, protocol=["choice"]).n_new == 0
    assert json.loads(path.read_text())["finished"]


def test_an_interrupted_run_is_resumed(bench: Path) -> None:
    asked: list[str] = []

    def handler(request: Request) -> Any:
        assert request.sample is not None
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(request.sample.id)
        return oracle(request)

    with pytest.raises(KeyboardInterrupt):
        go(bench, handler, protocol=["choice"], batch_size=1)
    backend = FakeBackend(oracle, "toy")
    run = go(bench, backend, protocol=["choice"])
    assert sum(map(len, backend.calls)) == 7
    assert run.results[0]["complete"]
    unused = FakeBackend(oracle, "toy")
    finished = go(bench, unused, protocol=["choice"])
    assert unused.calls == []
    assert finished.n_new == 0
    assert finished.results == run.results


def test_all_answers_of_a_batch_are_logged_when_the_run_stops(bench: Path) -> None:
    def handler(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing0-left":
            raise SampleError("broken")
        return oracle(request)

    with pytest.raises(TooManyErrors, match="broken"):
        go(bench, handler, protocol=["choice"], max_errors="0")
    (folder,) = (bench / "results").iterdir()
    (log,) = (folder / "samples").iterdir()
    assert len(log.read_text().splitlines()) == 12


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 4000), batch_size=st.sampled_from([1, 3, 8]))
def test_resume_from_a_log_truncated_anywhere(bench: Path, cut: int, batch_size: int) -> None:
    """Whatever byte the log ends at, the resumed run has the same lines and results."""
    run_id = f"truncated-{cut}-{batch_size}"
    complete = go(bench, protocol=["choice"], order="both", run_id="complete")
    first = go(bench, protocol=["choice"], order="both", run_id=run_id)
    (path,) = (first.path / "samples").glob("*.jsonl")
    data = path.read_bytes()
    path.write_bytes(data[: cut % (len(data) + 1)])
    again = go(bench, protocol=["choice"], order="both", run_id=run_id, batch_size=batch_size)
    assert again.results == complete.results
    key = lambda line: (line["sample_id"], line["order"])  # noqa: E731
    assert sorted(lines(again), key=key) == sorted(lines(complete), key=key)


def test_resume_from_a_log_truncated_within_a_character(bench: Path) -> None:
    run = go(bench, lambda request: "gauche – é", protocol=["generate"])
    (path,) = (run.path / "samples").iterdir()
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex("é".encode()) + 1])
    again = go(bench, lambda request: "gauche – é", protocol=["generate"])
    assert again.n_new == 1
    assert len(lines(again)) == 12


def test_showing_a_finished_run_does_not_change_its_manifest(bench: Path) -> None:
    first = go(bench, protocol=["choice"])
    path = first.path / "manifest.json"
    path.write_text(path.read_text().replace('"python": "', '"python": "0.'))
    before = path.read_text()
    go(bench, protocol=["choice"])
    assert path.read_text() == before


def test_fresh_deletes_only_runs(bench: Path) -> None:
    mine = bench / "results" / "precious" / "samples"
    mine.mkdir(parents=True)
    (mine / "data.txt").write_text("keep")
    with pytest.raises(InputError, match=r"this folder has no manifest\.json"):
        go(bench, protocol=["choice"], run_id="precious", fresh=True)
    assert (mine / "data.txt").read_text() == "keep"


def test_fresh_deletes_all_results_of_the_old_run(bench: Path) -> None:
    run = go(bench, protocol=["choice"], run_id="r")
    rescore(run.path, "original")
    go(bench, protocol=["choice"], run_id="r", fresh=True)
    assert not (run.path / "results.original.json").exists()


# --- a different run is refused, or has another run id --------------------------------------------


def test_a_changed_task_is_a_different_run(bench: Path) -> None:
    first = go(bench, protocol=["choice"])
    spec = bench / "specs" / "sides.yaml"
    spec.write_text(spec.read_text().replace("on the left", "at the left"))
    assert go(bench, protocol=["choice"]).path != first.path
    rows = bench / "data" / "sides" / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"k1"', '"k2"'))
    assert go(bench, protocol=["choice"]).path != first.path


def test_the_run_id_of_a_different_run_is_refused(bench: Path) -> None:
    go(bench, protocol=["choice"], run_id="mine")
    changed = "a different run; changed settings: seed (0 -> 3); protocol (choice -> likelihood)"
    with pytest.raises(InputError, match=re.escape(changed)):
        go(bench, protocol=["likelihood"], seed=3, run_id="mine")
    run = go(bench, protocol=["likelihood"], seed=3, run_id="mine", fresh=True)
    assert {line["protocol"] for line in lines(run)} == {"likelihood"}


def test_an_unknown_device_is_refused_before_the_run_folder_is_created(bench: Path) -> None:
    before = sorted(bench.rglob("*"))
    with pytest.raises(InputError, match=r"^--device: 'gpu' is not a device; use cpu, "):
        go(bench, protocol=["choice"], device="gpu")
    assert sorted(bench.rglob("*")) == before
    assert go(bench, protocol=["choice"], device="cuda:1").results  # a toy ignores it


def test_the_run_id_does_not_depend_on_descriptions_or_paths(bench: Path, tmp_path: Path) -> None:
    first = go(bench, protocol=["choice"])
    spec = bench / "specs" / "sides.yaml"
    spec.write_text(spec.read_text().replace("Two-way toy pairs.", "Pairs."))
    shutil.move(bench / "data", tmp_path / "moved")
    (bench / "data").symlink_to(tmp_path / "moved")
    backend = FakeBackend(oracle, "toy")
    assert go(bench, backend, protocol=["choice"], device="cpu", batch_size=2).path == first.path
    assert backend.calls == []


def test_a_local_checkpoint_is_identified_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "model.safetensors").write_bytes(bytes(3 << 20))
    shutil.copytree(one, other)
    assert fingerprint([one]) == fingerprint([other])
    (other / "model.safetensors").write_bytes(bytes((3 << 20) - 1) + b"x")
    assert fingerprint([one]) != fingerprint([other])
    assert fingerprint([]) is None


def test_other_recorded_answers_are_a_different_run(bench: Path, tmp_path: Path) -> None:
    """Including a file of answers next to the model spec, outside the working directory."""
    record = bench / "specs" / "answers.jsonl"
    (bench / "specs" / "rec.yaml").write_text(
        "model: rec\nbackend: replay\ncheckpoint: answers.jsonl\n"
    )

    def run(answer: str) -> Run:
        names = [f"thing{n}-{side}" for n in range(6) for side in ("left", "right")]
        rows = [json.dumps({"sample_id": name, "text": answer}) for name in names]
        record.write_text("\n".join(rows))
        return evaluate(
            ["rec"],
            ["sides"],
            include_path=[str(bench / "specs")],
            data_dir=str(bench / "data"),
            output_dir=str(bench / "results"),
        )

    first, second = run("left"), run("right")
    assert first.path != second.path
    assert second.n_new == 12


class Sighted(FakeBackend):
    """A backend of a family that reads images."""

    def info(self) -> Any:
        return Model(name="sighted", backend="hf_vlm", checkpoint="(loaded)")


def test_other_images_are_a_different_run(bench: Path) -> None:
    first = go(bench, Sighted(oracle), protocol=["choice"])
    image = bench / "data" / "sides" / "thing0-left.png"
    image.write_bytes(image.read_bytes() + b"more")
    assert go(bench, Sighted(oracle), protocol=["choice"]).path != first.path


def test_a_run_is_not_resumed_in_another_dtype(bench: Path) -> None:
    class Typed(FakeBackend):
        dtype = "float32"

        def info(self) -> Any:
            return Model(name="toy", backend="fake", checkpoint="x", dtype=self.dtype)

    def stops(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing3-left":
            raise KeyboardInterrupt
        return oracle(request)

    with pytest.raises(KeyboardInterrupt):
        go(bench, Typed(stops), protocol=["choice"], batch_size=1)
    other = Typed(oracle)
    other.dtype = "bfloat16"
    with pytest.raises(InputError, match="loaded in float32 before, and is now in bfloat16"):
        go(bench, other, protocol=["choice"])
    assert go(bench, Typed(oracle), protocol=["choice"]).results[0]["complete"]


# --- data that changed in between -----------------------------------------------------------------


def interrupted(bench: Path, **options: Any) -> None:
    answered = 0

    def stops(request: Request) -> Any:
        nonlocal answered
        answered += 1
        if answered > 5:
            raise KeyboardInterrupt
        return oracle(request)

    backend = FakeBackend(stops, "toy")
    with pytest.raises(KeyboardInterrupt):
        go(bench, Reading(backend.handler, "toy"), protocol=["choice"], batch_size=1, **options)


class Reading(FakeBackend):
    """A backend that reads its images, so that their checksums are logged."""

    def respond(self, requests: Any, loader: Any) -> Any:
        for request in requests:
            loader.get(request.images[0])
        return super().respond(requests, loader)


def test_resume_with_a_changed_image_is_refused(bench: Path) -> None:
    interrupted(bench, run_id="r")
    path = bench / "data" / "sides" / "thing0-left.png"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # as large as before
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        go(bench, Reading(oracle, "toy"), protocol=["choice"], run_id="r")
    assert "started with different images: sides/thing0-left.png" in str(caught.value)
    assert "--fresh" in str(caught.value)
    run = go(bench, Reading(oracle, "toy"), protocol=["choice"], run_id="r", fresh=True,
             max_errors="100%")  # fmt: skip
    assert run.n_new == 12


def test_resume_with_unchanged_images(bench: Path) -> None:
    interrupted(bench, run_id="r")
    run = go(bench, Reading(oracle, "toy"), protocol=["choice"], run_id="r")
    assert run.n_new == 7


# --- edited files ---------------------------------------------------------------------------------


def finished(tool: Tool, *args: str) -> Path:
    done = tool.run("--protocol", "choice", "--run-id", "r", *args)
    assert done.code == 0, done.err
    return tool.bench / "results" / "r"


def test_a_refused_command_does_not_change_a_finished_run(tool: Tool) -> None:
    """Its failed sample is retried only once the model is loaded."""
    data = tool.bench / "data" / "sides"
    (data / "thing5-left.png").write_bytes(b"cut short")
    args = [
        "--model",
        "tiny-clip",
        "--protocol",
        "similarity",
        "--max-errors",
        "50%",
        "--run-id",
        "r",
    ]
    assert tool.run(*args).code == 0
    folder = tool.bench / "results" / "r"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    image = bytearray((data / "thing0-left.png").read_bytes())
    image[-5] ^= 1
    (data / "thing0-left.png").write_bytes(image)
    assert "started with different images" in tool.refused(*args)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("options", ["left", "up"]), ("order_index", 1), ("pair", "thing9"), ("target_original", 1)],
)
def test_an_edited_line_is_refused(tool: Tool, field: str, value: Any) -> None:
    (log,) = finished(tool).glob("samples/*.jsonl")
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    lines[0][field] = value
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    message = tool.refused("--protocol", "choice", "--run-id", "r")
    assert f"{field} is" in message
    assert "jsonl" in message


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"NaN",
        b'{"schema": 1, "pair_cosine": NaN}',
        b'{"schema": 1, "pair_cosine": 1e999}',
        b"\xff",
        b"{}",
        b"[]",
        b"null",
    ],
    ids=lambda line: str(line[:9]),
)
def test_an_invalid_line_is_refused_with_its_line_number(tool: Tool, line: bytes) -> None:
    (log,) = finished(tool).glob("samples/*.jsonl")
    log.write_bytes(log.read_bytes() + line + b"\n")
    message = tool.refused("--protocol", "choice", "--run-id", "r")
    assert f"{log.name}:13: invalid log line" in message


def test_duplicate_and_unknown_lines_are_removed(tool: Tool) -> None:
    (log,) = finished(tool).glob("samples/*.jsonl")
    original = log.read_bytes()
    other = json.loads(original.splitlines()[0]) | {"sample_id": "someone else's"}
    log.write_bytes(original + original + json.dumps(other).encode() + b"\n")
    assert tool.run("--protocol", "choice", "--run-id", "r").code == 0
    assert sorted(log.read_bytes().splitlines()) == sorted(original.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        {"models": 5},
        {"identity": 5},
        {"identity_sha256": "0", "identity": {"models": 5}},
        {"identity_sha256": "0", "identity": {"cells": [{"variant": {"zz": 1}}]}},
        {"config": []},
        {"schema": 2},
    ],
    ids=str,
)
def test_an_invalid_manifest_is_refused(tool: Tool, change: dict[str, Any]) -> None:
    path = finished(tool) / "manifest.json"
    manifest = json.loads(path.read_text())
    for key, value in change.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(manifest))
    assert "manifest.json" in tool.refused("--protocol", "choice", "--run-id", "r")
