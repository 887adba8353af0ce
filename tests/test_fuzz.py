"""Fuzzing: random task files, logs, templates and model answers.

By default each test runs about a hundred examples. To fuzz until stopped:

    HYPOTHESIS_PROFILE=fuzz timeout 600 pytest tests/test_fuzz.py -k filters
"""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.bench import TASK, write_sides
from helpers.runs import go
from vlm_harness import cli
from vlm_harness.errors import InputError
from vlm_harness.logs.lines import read_lines
from vlm_harness.logs.rescore import rescore
from vlm_harness.protocols.extractors import EXTRACTORS
from vlm_harness.protocols.reading import Extraction
from vlm_harness.specs.filters import FILTERS
from vlm_harness.specs.templates import TemplateError, compile_template

several = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# --- task files ----------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just([]),
    st.just({}), st.just("{{ nope }}"), st.just("{{ 1 / 0 }}"), st.just("{% if %}"),
    st.just([[]]), st.just({"a": 1}), st.just("../x"), st.just("\0"), st.just("\ud800"),
    st.just(10**30), st.just("9" * 5000), st.just({"": ""}), st.just({"a": {"b": {"c": []}}}),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths in a task: keys of mappings, positions in lists."""
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value)
    found = [at] if at else []
    for key, each in inner:
        found += places(each, (*at, key))
    return found


TREE = yaml.safe_load(TASK)
PLACES = places(TREE)


@st.composite
def misshapen(draw: Any) -> str:
    """A task with entries removed, renamed, wrapped, or replaced by another type."""
    tree = json.loads(json.dumps(TREE))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(PLACES))
        holder: Any = tree
        for key in above:
            holder = holder[key] if isinstance(holder, dict) and key in holder else None
        if not isinstance(holder, dict) or last not in holder:
            continue
        change = draw(st.sampled_from(("drop", "rename", "replace", "wrap")))
        value = holder.pop(last)
        if change == "rename":
            holder[draw(st.text("abcdefghijklmnop_", min_size=1, max_size=9))] = value
        elif change == "replace":
            holder[last] = draw(ODD)
        elif change == "wrap":
            holder[last] = [value] if draw(st.booleans()) else {"x": value}
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=False))


@st.composite
def scribbled(draw: Any) -> str:
    """The text of a task with characters removed, duplicated or inserted."""
    text = TASK
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        between = draw(
            st.sampled_from(
                (
                    "",
                    text[start:end] * 2,
                    "\n",
                    "\t",
                    ": ",
                    "- ",
                    '"',
                    "{{",
                    "}}",
                    "{%",
                    "&a ",
                    "*a",
                    "!x ",
                    "#",
                    "|",
                    "\0",
                    "é",
                    "[",
                )
            )
        )
        text = text[:start] + between + text[end:]
    return text  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield write_sides(Path(folder), pairs=2)


def called(*args: str) -> tuple[int, str]:
    """Exit code and messages of the command."""
    messages = io.StringIO()
    with (
        patch.object(sys, "argv", ["vlm-harness", *args]),
        patch("signal.signal"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(messages),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), messages.getvalue()
        return 0, messages.getvalue()


@settings(several, max_examples=min(50, settings.default.max_examples))
@given(text=misshapen() | scribbled())
def test_task_files(text: str, data: Path) -> None:
    check_task_file(text, data)


@pytest.mark.slow
@settings(several, max_examples=max(500, settings.default.max_examples))
@given(text=misshapen() | scribbled())
def test_many_task_files(text: str, data: Path) -> None:
    check_task_file(text, data)


def check_task_file(text: str, data: Path) -> None:
    """The task runs, or is refused with a message that names the file."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sides.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for args in (
            ["validate", str(path)],
            ["run", "--model", "fake:oracle", "--tasks", "sides", "--include-path", str(path),
             "--data-dir", str(data), "--output-dir", f"{place}/out"],
        ):  # fmt: skip
            code, messages = called(*args)
            assert "Traceback" not in messages
            assert code in (0, 2), messages
            if code == 2:
                assert "sides" in messages
                assert len(messages) < 5000


# --- logs ----------------------------------------------------------------------------------------


class Finished(NamedTuple):
    folder: Path
    log: Path
    lines: bytes
    manifest: bytes

    def __repr__(self) -> str:  # hypothesis prints all of it otherwise
        return "a finished run"


@pytest.fixture(scope="module")
def finished() -> Iterator[Finished]:
    with tempfile.TemporaryDirectory() as place:
        bench = Path(place)
        (bench / "specs").mkdir()
        (bench / "specs" / "sides.yaml").write_text(TASK)
        write_sides(bench / "data", pairs=3)
        run = go(bench, protocol=["choice"])
        (log,) = (run.path / "samples").glob("*.jsonl")
        yield Finished(run.path, log, log.read_bytes(), (run.path / "manifest.json").read_bytes())


@st.composite
def changed(draw: Any, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(0, 40))
        new = draw(st.one_of(
            st.binary(max_size=8),
            st.sampled_from([b"null", b"[]", b"{}", b"1e999", b"-1", b'""', b"NaN", b"\n", b"true",
                             b"\xff\xfe", b"\\ud800", b"9" * 5000]),
        ))  # fmt: skip
        data[at:end] = new
    return bytes(data)


def refusal(call: Callable[[], Any]) -> str | None:
    """The message of an InputError; any other error is a bug."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@several
@given(choose=st.data())
def test_logs(choose: Any, finished: Finished) -> None:
    """Reading or rescoring a changed log works, or the refusal names the file."""
    folder, log, original, _ = finished
    if choose.draw(st.booleans()):
        data = choose.draw(changed(original))
    else:  # well-formed lines with other values
        lines = [json.loads(line) for line in original.splitlines()]
        for _ in range(choose.draw(st.integers(1, 3))):
            line = choose.draw(st.sampled_from(lines))
            line[choose.draw(st.sampled_from(sorted(line)))] = choose.draw(JSON)
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    log.write_bytes(data)
    try:
        for read in (lambda: list(read_lines(log)), lambda: rescore(folder)):
            assert str(folder) in (refusal(read) or str(folder))
    finally:
        log.write_bytes(original)


@several
@given(choose=st.data())
def test_manifests(choose: Any, finished: Finished) -> None:
    folder, _, _, manifest = finished
    (folder / "manifest.json").write_bytes(choose.draw(changed(manifest)))
    try:
        assert str(folder) in (refusal(lambda: rescore(folder)) or str(folder))
    finally:
        (folder / "manifest.json").write_bytes(manifest)


# --- templates -----------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8)
    | st.sampled_from(["left", "(a) Open", "A.", "a/b_left_of_c.jpg", "{", "[1]", "(", "\\1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)  # fmt: skip


def rendered(source: str, **values: Any) -> Any:
    """The output of a template. It may raise a TemplateError, but nothing else."""
    with contextlib.suppress(TemplateError):
        return compile_template(source)(values)


@several
@given(name=st.sampled_from(sorted(FILTERS)), value=VALUES, arguments=st.lists(VALUES, max_size=3))
def test_filters(name: str, value: Any, arguments: list[Any]) -> None:
    given = {f"a{n}": each for n, each in enumerate(arguments)}
    call = f"value | {name}({', '.join(given)})" if given else f"value | {name}"
    for source in (f"{{{{ {call} }}}}", f"x{{{{ {call} }}}}"):
        rendered(source, value=value, **given)


JINJA = """{{ }} {% %} {# #} if else endif for in endfor set value | ~ + * ( ) [ ] ' " , . : = == 1
    join upper map select x not is defined range(3) loop.index - %"""
PIECES = st.sampled_from([*JINJA.split(), " ", "\n"])


@several
@given(parts=st.lists(PIECES, max_size=14), value=VALUES)
def test_templates(parts: list[str], value: Any) -> None:
    rendered("".join(parts), value=value)
    rendered("{{ " + " ".join(parts) + " }}", value=value)


# --- answers -------------------------------------------------------------------------------------

OPTIONS = st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=5, unique=True) | (
    st.sampled_from(
        [["left", "right"], ["(a) Open", "(b) Closed"], ["Yes", "No"], ["0", "1", "2"], ["a", "A"]]
    )
)
ANSWER_PARTS = (
    "left|right|not |the answer is|(a)|A.|B|yes|No,|two|10|either| or |?|\n|**|</think>|<answer>|"
    "\\boxed{|}|sorry|cannot|:|=|isn't|neither|Option |²|½|İ|ß|\u200b|\u0301|٣|\0"
)
WORDS = st.sampled_from(ANSWER_PARTS.split("|"))


@several
@given(
    text=st.text(max_size=40) | st.lists(WORDS, max_size=12).map("".join), options=OPTIONS,
    name=st.sampled_from(sorted(EXTRACTORS.names())),
)  # fmt: skip
def test_extractors(text: str, options: list[str], name: str) -> None:
    """The extracted answer is one of the options or none, and deterministic."""
    extractor = EXTRACTORS.get(name)
    arguments = {"pattern": r"(\w+)"} if name == "regex" else {}
    try:
        found = extractor("", options, **arguments)
    except (ValueError, TypeError):
        assume(False)  # the plan refuses an extractor that does not support the options
    found = extractor(text, options, **arguments)
    assert isinstance(found, Extraction)
    assert (found.index is not None) == (found.reason == "found")
    assert found.index is None or 0 <= found.index < len(options)
    assert extractor(text, options, **arguments) == found
