"""How requests become batches, and images are read ahead of them."""

import io
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.runs.batches import BatchSize
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.types import ImageRef, Model, Request


def test_a_batch_grows_while_memory_is_free() -> None:
    size = BatchSize("auto", 8, iter([0.2, 0.89, 0.95]).__next__)
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
    with ImageLoader(keep=8, workers=workers, prepare=lambda pixels: pixels.size) as loader:
        loader.prefetch(map(ref, [*names, "a"]))
        for name in ("a", "bb", "ccc", "a"):
            assert loader.get(ref(name)).prepared == (4, 4)
        with pytest.raises(SampleError, match="no such file"):
            loader.get(ref("broken"))
        loader.prefetch([ref("a")])  # read before
        assert sorted(read) == sorted(names)


def test_what_was_read_ahead_and_never_asked_for_is_dropped() -> None:
    """That of the batch at hand is kept; of what was before it, nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    read: list[str] = []

    def ref(name: str) -> ImageRef:
        def data() -> bytes:
            read.append(name)
            return buffer.getvalue()

        return ImageRef(name, read=data)

    with ImageLoader(keep=3, workers=1) as loader:
        for number in range(5):
            loader.prefetch(ref(f"{number} {n}") for n in range(40))
            if number:
                loader.get(ref(f"{number - 1} 0"))
        loader.get(ref("3 1"))
        loader.get(ref("4 39"))
        assert len(loader._coming) == 40 * 2 - 3
    assert len(read) == len(set(read))


def test_of_a_photograph_that_was_made_ready_the_pixels_are_dropped() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "PNG")
    loader = ImageLoader(prepare=lambda pixels: pixels.size)
    picture = loader.get(ImageRef("a", read=buffer.getvalue))
    assert picture.prepared == (400, 300)
    assert picture.pixels.size == (1, 1)


def test_what_is_made_ready_is_what_is_answered(bench: Path) -> None:
    """Whatever becomes of batch sizes; a failure to prepare is told once and costs nothing."""

    class Prepares(FakeBackend):
        def __init__(self, fails_from: int) -> None:
            super().__init__(oracle, "toy")
            self.prepared: list[int] = []
            self.fails_from = fails_from

        def info(self) -> Model:
            return Model(name="toy", backend="hf_vlm", checkpoint="(loaded)")

        def prepare(self, requests: list[Request], loader: ImageLoader) -> list[Request]:
            self.prepared.append(len(requests))
            if len(self.prepared) > self.fails_from:
                raise AttributeError("no deep copy")
            return requests

        def respond_to(self, prepared: list[Request]) -> object:
            if len(prepared) > 4:
                raise RuntimeError("CUDA out of memory")
            return super().respond(prepared, ImageLoader())

        def respond(self, requests: object, loader: ImageLoader) -> object:
            if len(requests) > 4:  # type: ignore[arg-type]
                raise RuntimeError("CUDA out of memory")
            return super().respond(requests, loader)  # type: ignore[arg-type]

    expected = sorted(map(str, lines(go(bench, FakeBackend(oracle, "toy"), protocol=["choice"]))))
    for size, fails_from, prepared in ((4, 9, [4, 4]), (6, 9, [6, 3, 3, 3]), (4, 0, [4])):
        backend = Prepares(fails_from)
        run = go(bench, backend, protocol=["choice"], batch_size=size, workers=1,
                 run_id=f"{size}-{fails_from}")  # fmt: skip
        assert sorted(map(str, lines(run))) == expected
        assert backend.prepared == prepared
