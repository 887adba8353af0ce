"""Whether a record belongs to the sample that it joins: its question and its image agree.

Ids repeat between data sets and splits (all files of POPE count from 1), so equal ids do not prove
that an answer was given to the sample's question.
"""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from vlm_harness.backends.interface import Question
from vlm_harness.backends.replay.recording import Record, Recording
from vlm_harness.backends.replay.rows import value_of
from vlm_harness.errors import InputError, shown

QUESTION_COLUMNS = ("question", "prompt", "query", "statement")
IMAGE_COLUMNS = (
    "image", "images", "image_path", "image_file", "image_name", "image_url", "file_name",
    "filename",
)  # fmt: skip


@dataclass(frozen=True)
class Join:
    """What is asked about a sample, and a record with the sample's key."""

    question: Question
    record: Record


def check_same(recording: Recording, task: str, joins: Sequence[Join]) -> None:
    """Raise an InputError if records have another question or image than their samples."""
    asked = [join for join in joins if _repeats_question(recording, join)]
    if len(asked) * 2 > len(joins):
        raise InputError(
            f"the column {recording.text!r} holds the questions, not the answers",
            where=f"{recording.path}: row {asked[0].record.number}",
            hint="Name the column of the answers: --model-args text=COLUMN.",
        )
    for column in recording.columns_besides_answers(QUESTION_COLUMNS):
        recorded = [str(text) for row in recording.rows if (text := value_of(row, column))]
        same = _same_question(column, recorded, joins)
        _check(recording, task, joins, column, same, _prompt)
    for column in recording.columns_besides_answers(IMAGE_COLUMNS):
        _check(recording, task, joins, column, partial(_same_image, column), _image_paths)


def _check(
    recording: Recording,
    task: str,
    joins: Sequence[Join],
    column: str,
    same: Callable[[Join], bool],
    asked: Callable[[Join], str],
) -> None:
    other = [join for join in joins if not same(join)]
    if other:
        _refuse(recording, task, column, other[0], len(other), len(joins), asked(other[0]))


def _refuse(
    recording: Recording, task: str, column: str, join: Join, n: int, of: int, asked: str
) -> NoReturn:
    raise InputError(
        f"{n} of the {of} recorded answers that join task {task} were given to something else: the "
        f"record with {recording.named(join.record.key)} has the {column} "
        f"{shown(value_of(join.record.row, column))}, its sample {shown(asked)}",
        where=f"{recording.path}: row {join.record.number}",
        hint="The file belongs to other data with the same ids. Join on columns that tell them "
        "apart (args.keys). If only the wording or the file names differ, pass --model-args "
        "verify=false.",
    )


def _repeats_question(recording: Recording, join: Join) -> bool:
    text = value_of(join.record.row, recording.text)
    return (
        isinstance(text, str)
        and len(text) > 1
        and _squashed(text)
        in (
            _squashed(join.question.question),
            _squashed(join.question.request.prompt),
        )
    )


# --- questions -----------------------------------------------------------------------------------


def _same_question(
    column: str, recorded: Sequence[str], joins: Sequence[Join]
) -> Callable[[Join], bool]:
    """The rule by which recorded questions are compared with those of the samples.

    They agree if one contains the other, apart from case and white space. If not, they disagree if
    the recorded one is the question of another sample. Else the wording differs, and of the words
    that tell the recorded questions apart, at least half must occur in the sample's prompt, options
    or row. This also holds if most samples have the same question.
    """
    questions = Counter(_squashed(join.question.question) for join in joins)
    counts = Counter(word for text in set(recorded) for word in _words(text))
    limit = len(set(recorded)) / 2

    def same(join: Join) -> bool:
        text = value_of(join.record.row, column)
        if not isinstance(text, str) or not text.strip():
            return True
        one, asked = _squashed(text), _squashed(join.question.question)
        prompt = _squashed(join.question.request.prompt)
        contained = (asked in one if asked else False) or one in asked or one in prompt
        telling = {word for word in _words(text) if counts[word] <= limit}
        if contained and (not telling or questions[asked] * 2 <= len(joins)):
            return True
        if not contained and not questions.keys().isdisjoint(_parts(text)):
            return False
        words = telling or _words(text)
        context = _squashed(" ".join(_texts_of(join.question)))
        known = _words(context)
        found = sum(word in known or (not word.isascii() and word in context) for word in words)
        return found * 2 >= len(words)

    return same


def _parts(text: str) -> Iterator[str]:
    """The text, and parts of it without further instructions: lines, and up to a question mark."""
    yield _squashed(text)
    yield _squashed(text.split("?")[0])
    yield from map(_squashed, text.split("\n"))


def _texts_of(question: Question) -> Iterator[str]:
    sample = question.request.sample
    assert sample is not None
    yield from (question.question, question.request.prompt, *sample.options)
    yield from sample.captions or ()
    yield from _strings(sample.fields.get("row"))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _squashed(text: str) -> str:
    """The words of a text with single spaces; case and punctuation at its ends are ignored."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.split()).strip(" .?!:;\"'")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


# --- images --------------------------------------------------------------------------------------


def _prompt(join: Join) -> str:
    return join.question.request.prompt or join.question.question


def _image_paths(join: Join) -> str:
    return ", ".join(ref.path for ref in join.question.request.images)


def _same_image(column: str, join: Join) -> bool:
    """Whether the record names images of its sample; True if either side names none."""
    sample = join.question.request.sample
    assert sample is not None
    recorded = set(_names(_named(value_of(join.record.row, column))))
    shown_images = join.question.request.images
    known = set(_names(ref.path for ref in shown_images if "#" not in ref.path))
    if shown_images == sample.images:  # not those of the other sample of the pair
        row = sample.fields.get("row") or {}
        known |= {name for each in IMAGE_COLUMNS for name in _names(_named(row.get(each)))}
    if not recorded or not known:
        return True
    numbers = {int(match[0]) for name in known if (match := re.search(r"\d+$", name))}
    return all(name in known or (name.isdecimal() and int(name) in numbers) for name in recorded)


def _named(value: Any) -> Iterable[str]:
    """The paths, names or URLs in a value; not images themselves in base64."""
    values = value if isinstance(value, list | tuple) else [value]
    for item in values:
        item = item.get("path") if isinstance(item, Mapping) else item
        if isinstance(item, int) and not isinstance(item, bool):
            yield str(item)
        elif isinstance(item, str) and 0 < len(item) <= 1000:
            yield item


def _names(paths: Iterable[str]) -> Iterator[str]:
    """File names without folder and extension."""
    for path in paths:
        plain = unquote(urlsplit(path).path) if "://" in path else path
        name = posixpath.basename(plain.replace("\\", "/").rstrip("/"))
        yield posixpath.splitext(name)[0].casefold()
