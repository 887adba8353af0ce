"""Images as data sets hold them: columns of images, lists, bytes and base64; and no image."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets import Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature
from helpers.images import file_bytes
from helpers.tasks import dataset, make, png, refusal
from vlm_harness.datasets.embedded import is_image_text
from vlm_harness.errors import InputError, SampleError
from vlm_harness.images import checksum, load
from vlm_harness.types import Sample

RED, GREEN, BLUE = png((255, 0, 0)), png((0, 255, 0)), png((0, 0, 255))
PARQUET = "{reader: parquet, path: rows.parquet}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def stored(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def samples(root: Path, section: str, images: str = '"{{ image }}"') -> list[Sample]:
    return list(make(root, dataset(section, sample_part(images))).samples)


def sample_part(images: str) -> str:
    return f'  target: "{{{{ side }}}}"\n  images: {images}'


def contents(sample: Sample) -> list[bytes]:
    return [ref.read() for ref in sample.images]


def write_parquet(root: Path, image: pa.Array, n: int = 2) -> None:
    names = [f"s{k}" for k in range(n)]
    pq.write_table(
        pa.table({"name": names, "side": [0] * n, "image": image}), root / "rows.parquet"
    )


# --- columns of images ---------------------------------------------------------------------------


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("images", ['"{{ image }}"', '["{{ image }}"]', '"{{ image | list }}"'])
def test_a_column_of_lists_of_images(tmp_path: Path, with_metadata: bool, images: str) -> None:
    rows = [[stored(RED), stored(BLUE)], [stored(GREEN), None, stored(RED)], []]
    kind = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    if with_metadata:
        features = Features(
            {"name": Value("string"), "side": Value("int64"), "image": Sequence(ImageFeature())}
        )
        columns = {"name": ["s0", "s1", "s2"], "side": [0] * 3, "image": rows}
        Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    else:
        write_parquet(tmp_path, pa.array(rows, kind), 3)
    found = samples(tmp_path, PARQUET, images)
    assert [contents(sample) for sample in found] == [[RED, BLUE], [GREEN, RED], []]
    paths = [ref.path for sample in found for ref in sample.images]
    assert len(set(paths)) == len(paths)
    assert paths[0] == "rows.parquet#0/image/0"


def test_images_inside_objects(tmp_path: Path) -> None:
    kind = pa.struct(
        {"view": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "side": pa.int64()}
    )
    write_parquet(tmp_path, pa.array([{"view": stored(RED), "side": 1}] * 2, kind))
    found = samples(tmp_path, PARQUET, '"{{ image.view }}"')
    assert contents(found[1]) == [RED]
    assert found[0].fields["image"]["side"] == 1


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.list_(pa.binary())])
@pytest.mark.parametrize("images", ['"{{ image }}"', '"{{ [image] }}"'])
def test_a_column_of_bytes(tmp_path: Path, kind: pa.DataType, images: str) -> None:
    several = pa.types.is_list(kind)
    write_parquet(tmp_path, pa.array([[RED], [BLUE]] if several else [RED, BLUE], kind))
    assert [contents(sample) for sample in samples(tmp_path, PARQUET, images)] == [[RED], [BLUE]]


def test_only_columns_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([RED, BLUE])}), tmp_path / "rows.parquet")
    text = dataset(PARQUET, '  target: 0\n  images: "{{ image }}"')
    task = make(tmp_path, text.replace("{{ name }}", "{{ row_index }}"))
    assert [contents(sample) for sample in task.samples] == [[RED], [BLUE]]


def test_bytes_of_a_plugin_reader_or_a_field(tmp_path: Path, monkeypatch: Any) -> None:
    from vlm_harness.datasets import READERS, Table

    rows = [{"name": "s0", "side": 0, "image": RED}]
    monkeypatch.setitem(READERS._loaded, "jsonl", lambda *_: Table(rows))
    (sample,) = samples(tmp_path, "{reader: jsonl, path: x}")
    assert contents(sample) == [RED]


def test_a_stored_path_is_below_the_data_directory(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "secret.png"
    (root / "pics").mkdir(parents=True)
    (root / "pics" / "a.png").write_bytes(RED)
    outside.write_bytes(BLUE)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})

    def write(path: str) -> None:
        write_parquet(root, pa.array([stored(None, path)], kind), 1)

    for path in ("pics/a.png", str(root / "pics" / "a.png")):
        write(path)
        (sample,) = samples(root, PARQUET)
        assert (sample.images[0].path, contents(sample)) == ("pics/a.png", [RED])
    for path in (str(outside), "../secret.png", "pics/../../secret.png", "https://x.org/a.png"):
        write(path)
        message = refusal(root, dataset(PARQUET, sample_part('"{{ image }}"')))
        assert message.startswith("rows.parquet#0, column 'image': ")
        assert "data directory" in message


# --- base64 --------------------------------------------------------------------------------------

NOISE = BytesIO()
Image.effect_noise((400, 400), 90).save(NOISE, "PNG")
LARGE = NOISE.getvalue()  # more than 128 KiB as base64

SPELLINGS = {
    "plain": text(LARGE),
    "data URI": f"data:image/png;base64,{text(LARGE)}",
    "no type": f"data:;base64,{text(LARGE)}",
    "upper case": f"DATA:IMAGE/PNG;charset=utf-8;BASE64,{text(LARGE)}",
    "in lines": base64.encodebytes(LARGE).decode(),
    "URL alphabet": base64.urlsafe_b64encode(LARGE).decode().rstrip("="),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("reader", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_base64_in_every_reader(tmp_path: Path, spelling: str, reader: str) -> None:
    image = SPELLINGS[spelling]
    assert len(image) > 131072
    row = {"name": "s0", "side": 0, "image": image}
    delimiter = "\t" if reader == "tsv" else ","
    section = f"{{reader: {reader}, path: rows}}"
    if reader in ("csv", "tsv"):
        cells = delimiter.join(["s0", "0", f'"{image}"'])
        (tmp_path / "rows").write_text(delimiter.join(row) + f"\n{cells}\n")
        section = f"{{reader: csv, path: rows, delimiter: {json.dumps(delimiter)}}}"
    elif reader == "parquet":
        pq.write_table(pa.table({k: [v] for k, v in row.items()}), tmp_path / "rows")
    else:
        (tmp_path / "rows").write_text(json.dumps([row] if reader == "json" else row))
    for images in ('"{{ image }}"', '["{{ image }}"]', '"{{ [image, image] }}"'):
        (sample,) = samples(tmp_path, section, images)
        assert set(contents(sample)) == {LARGE}
    assert sample.images[0].path == "rows#0/image"
    assert "iVBO" not in str(sample.fields)


def test_lists_of_base64(tmp_path: Path) -> None:
    """As JSON, or written as the text of a list, as in the tables of VLMEvalKit."""
    both = [text(RED), f"data:image/png;base64,{text(BLUE)}"]
    rows = [both, str(both), json.dumps(both), [stored_text(RED), stored_text(BLUE)]]
    for image in rows:
        (tmp_path / "x").write_text(json.dumps({"name": "a", "side": 0, "image": image}))
        (sample,) = samples(tmp_path, "{reader: jsonl, path: x}")
        assert contents(sample) == [RED, BLUE]
        assert len({ref.path for ref in sample.images}) == 2


def stored_text(data: bytes) -> dict[str, Any]:
    return stored(None) | {"bytes": text(data)}


def test_base64_made_by_a_template(tmp_path: Path) -> None:
    payload = json.dumps({"picture": text(RED)})
    (tmp_path / "x").write_text(json.dumps({"name": "a", "side": 0, "payload": payload}))
    images = '"{{ (payload | from_json).picture }}"'
    (sample,) = samples(tmp_path, "{reader: jsonl, path: x}", images)
    assert contents(sample) == [RED]


@pytest.mark.parametrize(
    "other",
    [
        "a" * 64, "0f" * 32, "images/GIF89a/photo.png", "Is there a dog in the image? " * 20,
        "iVBORw0KGgo", text(b"some text that is long enough to be one" * 3), "data:image/png",
        "Qk0=", f"see {text(RED)}",
    ],
)  # fmt: skip
def test_other_texts_are_no_images(other: str) -> None:
    assert not is_image_text(other)


def test_every_supported_format_is_recognised() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        assert is_image_text(text(file_bytes(Image.new("RGB", (20, 20), "red"), kind))), kind


def test_a_broken_data_uri_is_the_error_of_its_sample(tmp_path: Path) -> None:
    for image in (f"data:image/png;base64,{'%' * 60}", f"data:image/png;base64,{text(b'x' * 60)}"):
        (tmp_path / "x").write_text(json.dumps({"name": "a", "side": 0, "image": image}))
        (sample,) = samples(tmp_path, "{reader: jsonl, path: x}")
        with pytest.raises(
            SampleError, match=r"x#0/image: (not valid base64|the file is not an im)"
        ):
            load(sample.images[0])


def test_text_around_an_image_column(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps({"name": "a", "side": 0, "image": text(RED)}))
    images = '"data:image/png;base64,{{ image }}"'
    message = refusal(tmp_path, dataset("{reader: jsonl, path: x}", sample_part(images)))
    assert "write only {{ column }}" in message


# --- no image, and several -----------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["null", '""', "NaN", "[]", "[null]", '" "'])
def test_an_empty_column_is_no_image(tmp_path: Path, missing: str) -> None:
    (tmp_path / "x").write_text(
        f'{{"name": "a", "side": 0, "image": "a.png", "other": {missing}}}\n'
    )
    images = '["{{ image }}", "{{ other }}", {any_of: ["{{ other }}"]}]'
    (sample,) = samples(tmp_path, "{reader: jsonl, path: x}", images)
    assert [ref.path for ref in sample.images] == ["a.png"]


def test_an_empty_csv_field_and_null_columns_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("name,side,image\na,0,\nb,0,b.png\n")
    found = samples(tmp_path, "{reader: csv, path: x}")
    assert [[ref.path for ref in sample.images] for sample in found] == [[], ["b.png"]]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for column in (
        pa.array([None, stored(RED)], kind),
        pa.array([stored(None), stored(RED)], kind),
        pa.array([None, RED]),
        pa.array([b"", RED]),
    ):
        write_parquet(tmp_path, column)
        assert [contents(sample) for sample in samples(tmp_path, PARQUET)] == [[], [RED]]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ('"pics/{{ files }}"', ["pics/x.png", "pics/y.png"]),
        ('["pics/{{ files }}", z.png]', ["pics/x.png", "pics/y.png", "z.png"]),
        ('"{{ folder }}/{{ files }}.jpg"', ["f/x.png.jpg", "f/y.png.jpg"]),
        ("\"pics/{{ line.split(';') }}\"", ["pics/u.png", "pics/v.png"]),
        ("\"pics/{{ files | map('stem') | list }}.jpg\"", ["pics/x.jpg", "pics/y.jpg"]),
        ('[{any_of: ["none/{{ files }}", "pics/{{ files }}"]}]', ["pics/x.png", "pics/y.png"]),
    ],
)
def test_a_list_of_names_below_a_folder(tmp_path: Path, images: str, expected: list[str]) -> None:
    row = {
        "name": "a",
        "side": 0,
        "files": ["x.png", "y.png"],
        "folder": "f",
        "line": "u.png;v.png",
    }
    (tmp_path / "x").write_text(json.dumps(row))
    (tmp_path / "pics").mkdir()
    for name in row["files"]:
        (tmp_path / "pics" / str(name)).write_bytes(RED)
    (sample,) = samples(tmp_path, "{reader: jsonl, path: x}", images)
    assert [ref.path for ref in sample.images] == expected


# --- EXIF orientation ----------------------------------------------------------------------------

TURNED = file_bytes(Image.new("RGB", (40, 24), "red"), "JPEG", 6)


def write_turned(root: Path) -> dict[str, str]:
    """The same photograph for every reader; the ``dataset`` section by the name of the reader."""
    row = {"name": "s0", "side": 0}
    (root / "a.jpg").write_bytes(TURNED)
    (root / "path.jsonl").write_text(json.dumps(row | {"image": "a.jpg"}))
    (root / "text.jsonl").write_text(json.dumps(row | {"image": text(TURNED)}))
    columns = {"name": ["s0"], "side": [0], "image": [stored(TURNED)]}
    features = Features({"name": Value("string"), "side": Value("int64"), "image": ImageFeature()})
    data = Dataset.from_dict(columns, features=features)
    data.to_parquet(str(root / "rows.parquet"))
    data.save_to_disk(str(root / "saved"))
    listed = Features({**features, "image": Sequence(ImageFeature())})
    Dataset.from_dict(columns | {"image": [[stored(TURNED)]]}, features=listed).to_parquet(
        str(root / "lists.parquet")
    )
    pq.write_table(
        pa.table({"name": ["s0"], "side": [0], "image": pa.array([TURNED])}),
        root / "bytes.parquet",
    )
    return {
        "a path": "{reader: jsonl, path: path.jsonl}",
        "base64": "{reader: jsonl, path: text.jsonl}",
        "bytes": "{reader: parquet, path: bytes.parquet}",
        "parquet": PARQUET,
        "lists": "{reader: parquet, path: lists.parquet}",
        "hub": "{reader: hub, path: saved}",
        "arrow": "{reader: arrow, path: saved}",
    }


UPRIGHT = {"parquet", "lists", "hub", "arrow"}


def test_orientation_is_that_of_the_official_loader(tmp_path: Path) -> None:
    """Image columns are upright, as ``datasets`` decodes them; other images are as stored."""
    for name, section in write_turned(tmp_path).items():
        for exif, upright in (
            ("", name in UPRIGHT), ("by_reader", name in UPRIGHT), ("ignore", False),
            ("apply", True),
        ):  # fmt: skip
            task = dataset(section, sample_part('"{{ image }}"'))
            task += f"exif: {exif}\n" if exif else ""
            (sample,) = make(tmp_path, task).samples
            assert load(sample.images[0]).pixels.size == ((24, 40) if upright else (40, 24)), name
    official = Dataset.load_from_disk(str(tmp_path / "saved"))[0]["image"]
    assert official.size == (24, 40)
    assert Image.open(tmp_path / "a.jpg").size == (40, 24)


@pytest.mark.parametrize(
    ("reader", "exif", "recorded"),
    [
        ("jsonl", None, "ignore"), ("jsonl", "ignore", "ignore"), ("jsonl", "by_reader", "ignore"),
        ("image_folder", None, "ignore"), ("jsonl", "apply", "apply"), ("hub", "ignore", "ignore"),
        ("hub", None, "by_reader"), ("parquet", None, "by_reader"),
    ],
)  # fmt: skip
def test_the_identity_of_tasks_with_files_is_unchanged(
    tmp_path: Path, reader: str, exif: str | None, recorded: str
) -> None:
    from vlm_harness.specs import schemas, validation, yamlfile

    task = dataset(f"{{reader: {reader}, path: x}}") + (f"exif: {exif}\n" if exif else "")
    spec = validation.parse(schemas.TaskSpec, yamlfile.loads(task, Path("t.yaml")))
    assert spec.model_dump(mode="json")["exif"] == spec.essence()["exif"] == recorded
    again = schemas.TaskSpec.model_validate(spec.model_dump(mode="json"))
    assert again.model_dump(mode="json") == spec.model_dump(mode="json")


# --- messages ------------------------------------------------------------------------------------

LONG = "x y z " * 50_000


@pytest.mark.parametrize(
    "part",
    [
        'options: "{{ long }}"', 'target: "{{ long }}"', "target: \"{{ long | index_of(['a']) }}\"",
        'target: "{{ long | letter_index }}"', 'images: ["{{ long }}"]', 'images: "../{{ long }}"',
        "id: \"{{ long | regex_group('q', 0) }}\"", 'target: "{{ long | int + none }}"',
        "options: \"{{ ['a'] | map('caption_with', [long]) | list }}\"",
        'images: "{{ [[1, long]] }}"',
        'target: "{{ long.nothing }}"', 'target: "{{ 0 if long == 1 }}"',
        'options: "{{ [long, long] }}"', 'target: "{{ long | from_json }}"',
    ],
)  # fmt: skip
def test_messages_show_at_most_200_characters_of_a_value(tmp_path: Path, part: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"name": "a", "side": 0, "long": LONG}))
    key = part.partition(":")[0]
    lines = dataset("{reader: jsonl, path: rows.jsonl}").splitlines()
    kept = [line for line in lines if not line.startswith(f"  {key}:")]
    kept.insert(kept.index("sample:") + 1, f"  {part}")
    message = refusal(tmp_path, "\n".join(kept))
    assert "row 0 of rows.jsonl" in message
    assert message.count("x y z") <= 70  # twice 200 characters: the value, and its row
    assert len(message) < 1200


def test_too_large_an_embedded_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_harness.images.MAX_BYTES", 50)
    write_parquet(tmp_path, pa.array([RED, BLUE]))
    with pytest.raises(SampleError, match="bytes; the limit is 50"):
        checksum(samples(tmp_path, PARQUET)[0].images[0])


def test_an_error_of_a_row_names_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"name": "a", "side": 0, "image": 5}')
    with pytest.raises(InputError, match=r"an image must be a path or an image column, not int: 5"):
        samples(tmp_path, "{reader: jsonl, path: x}")
