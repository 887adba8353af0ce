"""How requests become batches, and images are read ahead of them."""

import io
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from helpers_runs import go, lines, oracle
from PIL import Image

from vlm_harness.backends import Pictures
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import SampleError
from vlm_harness.evaluator import BatchSize, evaluate
from vlm_harness.types import ImageRef, Request


def test_a_batch_grows_while_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.1, 0.2, 0.5])
    monkeypatch.setattr("vlm_harness.evaluator.memory_used", lambda: next(used))
    size = BatchSize("auto", 8)
    size.went_well(5)  # not full: tells nothing
    assert size.size == 8
    for expected in (16, 32, 32):
        size.went_well(size.size)
        assert size.size == expected
    size.was_too_much(30)
    size.went_well(15)
    assert size.size == 15
    asked = BatchSize(3, 8)
    asked.went_well(3)
    assert asked.size == 3


def test_a_batch_on_the_cpu_does_not_grow() -> None:
    size = BatchSize("auto", 8)
    size.went_well(8)
    assert size.size == 8


def test_requests_about_the_same_images_lie_together_whatever_task_asks(bench: Path) -> None:
    text = (bench / "specs" / "sides.yaml").read_text()
    (bench / "specs" / "more.yaml").write_text(text.replace("task: sides", "task: more"))
    backend = FakeBackend(oracle, "toy")
    run = evaluate(
        [backend], ["sides", "more"], protocol=["choice", "likelihood"], order="both",
        data_dir=str(bench / "data"), include_path=[str(bench / "specs")],
        output_dir=str(bench / "results"),
    )  # fmt: skip
    asked = [request.images for call in backend.calls for request in call]
    assert len(asked) == len(lines(run)) == 12 * 2 * 2 * 2
    changes = sum(one != other for one, other in pairwise(asked))
    assert changes == len(set(asked)) - 1


def test_rows_make_a_batch(bench: Path) -> None:
    class Rows(FakeBackend):
        def row_of(self, request: Request) -> Hashable:
            return request.images

    backend = Rows(oracle, "toy")
    go(bench, backend, protocol=["choice", "likelihood"], order="both", batch_size=5)
    assert [len({request.images for request in call}) for call in backend.calls] == [5, 5, 2]
    assert [len(call) for call in backend.calls] == [20, 20, 8]


def test_no_image_is_read_for_a_model_that_reads_none(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr("vlm_harness.images.load", lambda ref: read.append(ref.path))
    go(bench, protocol=["choice"], batch_size=2, workers=2)
    assert read == []


@pytest.mark.parametrize("workers", [0, 3])
def test_images_are_read_once_ahead_or_not(workers: int) -> None:
    read: list[str] = []

    def ref(name: str) -> ImageRef:
        def data() -> bytes:
            read.append(name)
            if name == "broken":
                raise OSError("no such file")
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4), (9, 9, len(name))).save(buffer, "PNG")
            return buffer.getvalue()

        return ImageRef(name, read=data)

    names = ["a", "bb", "broken", "ccc"]
    with Pictures(keep=8, workers=workers, prepare=lambda pixels: pixels.size) as pictures:
        pictures.ahead(map(ref, [*names, "a"]))
        for name in ("a", "bb", "ccc", "a"):
            assert pictures.get(ref(name)).prepared == (4, 4)
        with pytest.raises(SampleError, match="no such file"):
            pictures.get(ref("broken"))
        pictures.ahead([ref("a")])  # read before
        assert sorted(read) == sorted(names)


def test_no_more_is_read_ahead_than_is_kept() -> None:
    started = []
    gate = Event()

    def ref(number: int) -> ImageRef:
        def data() -> bytes:
            started.append(number)
            gate.wait(5)
            return b""

        return ImageRef(str(number), read=data)

    with Pictures(keep=3, workers=8) as pictures:
        pictures.ahead(map(ref, range(10)))
        gate.set()
    assert len(started) <= 3
