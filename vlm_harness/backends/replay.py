"""Recorded answers, joined to samples on declared keys.

A missing answer is not counted as incorrect: no line is logged for the sample, and the run stays
incomplete.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vlm_harness.backends.family import Family
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError, listing
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec, Spec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Model, OptionScore, Request, Response, Sample

Row = Mapping[str, Any]
_TEXT_COLUMNS = ("text", "response", "generation", "answer", "prediction")


class ReplayArgs(Spec):
    keys: str | list[str] | dict[str, str] | None = Field(
        None,
        description="key column(s) of the records, mapped to Jinja over the sample's fields if the "
        "names differ; default: the column sample_id or id, matched with the sample's id",
    )
    text: str | None = Field(None, description="column with the answer text")
    scores: str | None = Field(
        None, description="column with a score per option, or a list in canonical order"
    )
    compare: Literal["exact", "ignore_case"] = "exact"


class Replay:
    """Looks answers up in a JSONL or CSV file.

    Raises:
        InputError: the file is missing or cannot be parsed, a declared column is missing, or two
            rows with the same key have different answers.
    """

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self._spec = spec
        self._path = path_of(spec)
        self._args = ReplayArgs.model_validate(spec.args)
        rows = _read(self._path)
        self._keys = self._join_keys(rows)
        self._text, self._scores = self._answer_columns(rows)
        self._rows: dict[tuple[str, ...], Row] = {}
        for number, row in enumerate(rows, 1):
            key = tuple(self._normal(_value(row, column)) for column in self._keys)
            other = self._rows.setdefault(key, row)
            if other is not row and self._answer(other) != self._answer(row):
                raise InputError(
                    f"two rows with the key {dict(zip(self._keys, key, strict=True))} have "
                    "different answers",
                    where=f"{self._path}: row {number}",
                    hint="Add columns to keys until each row has a unique key.",
                )

    def info(self) -> Model:
        return Model(
            name=self._spec.model,
            backend="replay",
            checkpoint=self._spec.checkpoint,
            details={"rows": len(self._rows), "keys": dict(self._keys)},
        )

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        return [self._respond_one(request) for request in requests]

    def _respond_one(self, request: Request) -> Response | None:
        assert request.sample is not None  # the evaluator always sets it
        try:
            context = {**request.sample.fields, "id": request.sample.id}
            key = tuple(
                self._normal(compile_template(source)(context)) for source in self._keys.values()
            )
        except TemplateError as error:
            raise InputError(f"keys: {error}", where=self._spec.at("args", "keys")) from None
        row = self._rows.get(key)
        if row is None:
            return None
        if request.kind == "generate":
            text = _value(row, self._text) if self._text else None
            return None if text is None else Response(text=str(text))
        if self._scores is None:
            raise InputError(
                "the recorded answers are texts, but the protocol needs scores",
                where=self._path,
                hint="Use --protocol generate, or name the score column in args.scores.",
            )
        try:
            return Response(scores=_option_scores(_value(row, self._scores), request.sample))
        except SampleError as error:
            return Response(error=str(error))

    def _join_keys(self, rows: Sequence[Row]) -> dict[str, str]:
        keys = self._args.keys
        if keys is None:
            found = [c for c in ("sample_id", "id") if rows and c in rows[0]]
            if not found:
                raise InputError(
                    f"no column sample_id or id to join on; columns: {listing(rows[0])}",
                    where=self._path,
                    hint="Name the key columns in args.keys (or --model-args keys=COLUMN).",
                )
            return {found[0]: "{{ id }}"}
        if isinstance(keys, str):
            keys = [keys]
        return keys if isinstance(keys, dict) else {key: f"{{{{ {key} }}}}" for key in keys}

    def _answer_columns(self, rows: Sequence[Row]) -> tuple[str | None, str | None]:
        text, scores = self._args.text, self._args.scores
        if text is None and scores is None:
            text = next((c for c in _TEXT_COLUMNS if isinstance(rows[0].get(c), str)), None)
            if text is None:
                raise InputError(
                    f"cannot tell which column holds the answer; columns: {listing(rows[0])}",
                    where=self._path,
                    hint="Name it in args.text (or --model-args text=COLUMN).",
                )
        for column in (*self._keys, text, scores):
            if column is not None and column.split(".")[0] not in rows[0]:
                raise InputError(
                    f"no column {column!r}; columns: {listing(rows[0])}",
                    where=self._path,
                )
        return text, scores

    def _answer(self, row: Row) -> tuple[Any, Any]:
        return (
            _value(row, self._text) if self._text else None,
            _value(row, self._scores) if self._scores else None,
        )

    def _normal(self, value: Any) -> str:
        text = str(value).strip()
        return text.casefold() if self._args.compare == "ignore_case" else text


def path_of(spec: ModelSpec) -> Path:
    """The file of recorded answers; raises InputError if it is missing."""
    name = Path(spec.checkpoint).expanduser()
    folder = spec.path.parent if spec.path else Path()
    for path in (name, folder / name):
        if path.is_file():
            return path
    raise InputError(f"file of recorded answers not found: {name}", where=spec.at("checkpoint"))


def _read(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            rows: list[Row] = list(csv.DictReader(text.splitlines()))
        elif path.suffix == ".json":
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"cannot be parsed: {error}", where=path) from None
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        raise InputError("expected a non-empty list of records", where=path)
    return rows


def _value(row: Row, column: str) -> Any:
    """The value of a column, or a value nested in it: ``response.text``."""
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _option_scores(value: Any, sample: Sample) -> tuple[OptionScore, ...]:
    if isinstance(value, Mapping):
        by_option = {str(key).casefold(): score for key, score in value.items()}
        missing = [option for option in sample.options if option.casefold() not in by_option]
        if missing:
            raise SampleError(f"no recorded score for the options {missing}")
        value = [by_option[option.casefold()] for option in sample.options]
    if not isinstance(value, list) or len(value) != len(sample.options):
        raise SampleError(f"expected {len(sample.options)} recorded scores, got {value!r}")
    return tuple(
        OptionScore(**item) if isinstance(item, dict) else OptionScore(float(item))
        for item in value
    )


FAMILY = Family(
    summary="recorded answers from JSON, JSONL or CSV, joined on declared keys; needs no images",
    provides=frozenset({"generate", "score", "similarity"}),
    factory="vlm_harness.backends.replay:Replay",
    args=ReplayArgs,
    reads_images=False,
    default_batch=1024,
    checker="vlm_harness.backends.replay:path_of",
    locator="vlm_harness.backends.replay:path_of",
    answers="recorded",
)
