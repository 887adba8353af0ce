"""Runs that stop early: by a signal, a time limit, a full disk, or failing samples."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT, Tool, python, write_sides
from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import TooManyErrors
from vlm_harness.logs.rescore import rescore
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.types import OptionScore, Request, Response

# --- signals -------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.runs import oracle
from vlm_harness import cli
from vlm_harness.backends import BACKENDS, fake
def slowly(request):
    Path("begun").touch()
    time.sleep(0.2)
    return oracle(request)
fake.HANDLERS["oracle"] = lambda seed: slowly
cli.main()
"""


def started(bench: Path, *args: str) -> "subprocess.Popen[str]":
    """Start the command in a separate process; a batch of four takes 0.8 s."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW.format(tests=str(ROOT / "tests")), "run",
         "--model", "fake:oracle", "--tasks", "sides", "--protocol", "choice", "--batch-size", "4",
         "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
         "--run-id", "stopped", *args],
        cwd=bench, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} was missing within 30 s")


def log(bench: Path) -> list[str]:
    path = bench / "results" / "stopped" / "samples" / "oracle__sides__choice.jsonl"
    return path.read_text().splitlines(keepends=True) if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_batch(bench: Path, number: int) -> None:
    run = started(bench)
    wait_for(bench / "begun")
    run.send_signal(number)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopping after this batch; press Ctrl-C again to stop immediately" in messages
    assert "Interrupted. Finished samples are saved; run the same command to resume." in messages
    assert "Traceback" not in messages
    assert len(log(bench)) == 4
    results = json.loads((bench / "results" / "stopped" / "results.json").read_text())
    assert not results["results"][0]["complete"]

    (bench / "begun").unlink()
    again = started(bench)
    _, messages = again.communicate(timeout=60)
    assert again.returncode == 0, messages
    assert len(log(bench)) == 12
    assert all(json.loads(line)["correct"] for line in log(bench))


def test_the_second_signal_stops_immediately(bench: Path) -> None:
    run = started(bench, "--batch-size", "12")  # which takes 2.4 s
    wait_for(bench / "begun")
    begun = time.monotonic()
    run.send_signal(signal.SIGINT)
    time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, messages = run.communicate(timeout=60)
    assert time.monotonic() - begun < 2.0
    assert run.returncode == 130
    assert "Traceback" not in messages
    assert log(bench) == []


def test_a_signal_between_batches_stops_immediately() -> None:
    interrupts = Interrupts()
    with interrupts.deferred("this batch"):
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupts._handle(signal.SIGINT, None)


# --- time limits ---------------------------------------------------------------------------------


def test_a_sample_that_exceeds_the_time_limit_fails(bench: Path) -> None:
    def hangs(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing3-left":
            time.sleep(30)
        return oracle(request)

    begun = time.monotonic()
    run = go(bench, hangs, protocol=["choice"], timeout=0.05, batch_size=4)
    assert time.monotonic() - begun < 10
    failed = [line for line in lines(run) if line["status"] == "error"]
    assert [line["sample_id"] for line in failed] == ["thing3-left"]
    assert failed[0]["error"] == "timed out: no answer within 0.05 s"
    assert run.results[0]["n_errors"] == 1
    assert run.results[0]["metrics"]["individual_accuracy"]["value"] == pytest.approx(11 / 12)


def ignores_all_exceptions() -> None:
    with deadline(0.02):
        for _ in range(100):
            with suppress(Exception):
                time.sleep(0.05)


def test_libraries_cannot_swallow_the_time_limit() -> None:
    with pytest.raises(TimedOut):
        ignores_all_exceptions()
    with deadline(0.02):
        pass
    time.sleep(0.05)  # the alarm was cancelled
    with deadline(None):
        pass


# --- failing samples -----------------------------------------------------------------------------


def fails(request: Request) -> Any:
    raise RuntimeError("the weights are broken")


def test_a_model_that_always_fails_stops_early(bench: Path) -> None:
    write_sides(bench / "data", pairs=200)
    with pytest.raises(TooManyErrors) as caught:
        go(bench, FakeBackend(fails, "toy"), protocol=["choice"], batch_size=8)
    message = str(caught.value)
    assert "the first 16 samples of toy all failed" in message
    assert "RuntimeError: the weights are broken" in message
    (log,) = (bench / "results").glob("*/samples/*.jsonl")
    assert len(log.read_text().splitlines()) == 16


def test_one_early_success_continues_the_run(bench: Path) -> None:
    write_sides(bench / "data", pairs=200)

    def nearly(request: Request) -> Any:
        assert request.sample is not None
        return oracle(request) if request.sample.id == "thing100-left" else fails(request)

    with pytest.raises(TooManyErrors, match="more than --max-errors 10% allows"):
        go(bench, nearly, protocol=["choice"], batch_size=8)


def test_max_errors_of_100_percent_evaluates_all_samples(bench: Path) -> None:
    write_sides(bench / "data", pairs=20)
    with pytest.raises(TooManyErrors, match="every sample failed"):
        go(bench, FakeBackend(fails, "toy"), protocol=["choice"], max_errors="100%")
    (log,) = (bench / "results").glob("*/samples/*.jsonl")
    assert len(log.read_text().splitlines()) == 40


# --- full disk -----------------------------------------------------------------------------------

FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.argv = ["vlm-harness", *sys.argv[1:]]
from vlm_harness import cli
cli.main()
"""


def test_a_full_disk_gives_one_message_and_loses_nothing(bench: Path) -> None:
    """A limit on the file size fails in the middle of a line, like a full disk."""
    write_sides(bench / "data", pairs=30)
    args = [
        "--model", "fake:oracle", "--tasks", "sides", "--protocol", "choice", "--run-id", "r",
        "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
    ]  # fmt: skip
    done = python("-c", FULL, *args, cwd=bench)
    assert done.code == 2, done.err
    assert "oracle__sides__choice.jsonl: cannot be written: File too large" in done.err
    assert "Traceback" not in done.err
    log = bench / "results" / "r" / "samples" / "oracle__sides__choice.jsonl"
    n_complete = log.read_bytes().count(b"\n")
    assert 20 < n_complete < 60
    assert not log.read_bytes().endswith(b"\n")  # truncated
    again = python("-m", "vlm_harness", *args, cwd=bench)
    assert again.code == 0, again.err
    assert f"({n_complete} of 60 already done)" in again.err
    assert len({json.loads(line)["sample_id"] for line in log.read_bytes().splitlines()}) == 60


@pytest.mark.parametrize("place", ["/proc/results", "/sys/results", "data/sides/rows.jsonl"])
def test_an_output_folder_that_is_not_writable(tool: Tool, place: str) -> None:
    message = tool.refused("--protocol", "choice", "--output-dir", place)
    assert len(message.splitlines()) <= 3


# --- invalid responses ---------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Response(scores=(OptionScore(NAN, NAN, 1), OptionScore(0.0, 0.0, 1))), "not finite"),
        (
            Response(scores=(OptionScore(float("inf")), OptionScore(0.0)), pair_cosine=NAN),
            "not fin",
        ),
        (Response(scores=(OptionScore(0.5),)), "returned 1 scores for 2 candidates"),
        (Response(scores=()), "returned 0 scores for 2 candidates"),
    ],
    ids=str,
)
def test_invalid_scores(bench: Path, answer: Response, reason: str) -> None:
    """For one sample in twelve: logged, counted, and rescored."""

    def once(request: Request) -> Any:
        assert request.sample is not None
        return answer if request.sample.id == "thing2-left" else oracle(request)

    for protocol in ("choice", "similarity"):
        run = go(bench, once, protocol=[protocol], run_id=protocol)
        failed = [line for line in lines(run) if line["status"] == "error"]
        assert [line["sample_id"] for line in failed] == ["thing2-left"]
        assert reason in failed[0]["error"]
        assert rescore(run.path) == run.results


def test_a_batch_with_too_few_responses(bench: Path) -> None:
    class Short(FakeBackend):
        def respond(self, requests: Any, loader: Any) -> Any:
            return super().respond(requests, loader)[1:] if len(requests) > 1 else [None] * 2

    with pytest.raises(TooManyErrors, match="2 responses to 1 requests"):
        go(bench, Short(oracle, "toy"), protocol=["choice"])
