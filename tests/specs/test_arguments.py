"""Arguments on one line: white space, quotes, commas and apostrophes are kept as written."""

from pathlib import Path
from typing import Any

import pytest

from vlm_harness.backends.resolve import OVERRIDABLE, resolve
from vlm_harness.errors import InputError
from vlm_harness.specs.arguments import key_values
from vlm_harness.specs.registry import Registry

MODEL = "model: m\nbackend: fake\ncheckpoint: oracle\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,b=x", {"a": 1, "b": "x"}),
        (" a = 0.5, b=true,, c=null,", {"a": 0.5, "b": True, "c": None}),
        ("a= ", {"a": " "}),
        ("a=", {"a": ""}),
        ("a=\n,b=1", {"a": "\n", "b": 1}),
        ("a= The answer is ,b=1", {"a": " The answer is ", "b": 1}),
        ('a=" "', {"a": " "}),
        ("a=' '", {"a": " "}),
        ("a=\"\",b=''", {"a": "", "b": ""}),
        ('a="x, y",b=2', {"a": "x, y", "b": 2}),
        ("a='x, y' , b=2", {"a": "x, y", "b": 2}),
        ('a="x, y=z",b=2', {"a": "x, y=z", "b": 2}),
        ('a="5"', {"a": "5"}),
        (r'a="x\n\"y\""', {"a": 'x\n"y"'}),
        (r'a="\d, C:\models"', {"a": r"\d, C:\models"}),
        ("a='it''s, b'", {"a": "it's, b"}),
        ("a='it's, b'", {"a": "it's, b"}),
        ("a=Bob's,b=false", {"a": "Bob's", "b": False}),
        ("a='tis,b=Bob's", {"a": "'tis", "b": "Bob's"}),
        ('a=5",b=x', {"a": '5"', "b": "x"}),
        ("a=x=y,b==", {"a": "x=y", "b": "="}),
        ("a=Answer: x", {"a": "Answer: x"}),
        ("a=- x", {"a": "- x"}),
        ("a=x # y,b=5 # z", {"a": "x # y", "b": "5 # z"}),
        ("a={k: true},b=[x]", {"a": {"k": True}, "b": ["x"]}),
        ("revision=12e5,answer_prefix=[A]", {"revision": "12e5", "answer_prefix": "[A]"}),
    ],
)
def test_values_are_kept_as_written(text: str, expected: dict[str, Any]) -> None:
    assert key_values(text, "--model-args", OVERRIDABLE) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "expected key=value, got 'a'"),
        ("=1", "expected key=value, got '=1'"),
        ("a=USER, {{ prompt }}", "expected key=value, got '{{ prompt }}'\nPut a value"),
        ('a="x, b=1', "the value of 'a' has no closing quote"),
        ("a='tis,b='x'", "the value of 'a' may end at a comma or at the last apostrophe"),
    ],
)
def test_unclear_arguments_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        key_values(text, "--model-args")
    assert str(caught.value).startswith(f"--model-args: {message}")


@pytest.mark.parametrize("prefix", [" ", "\n", " Answer, in short: ", "'tis "])
def test_a_prefix_is_the_same_in_a_model_file_and_as_an_override(
    tmp_path: Path, prefix: str
) -> None:
    import yaml

    (tmp_path / "m.yaml").write_text(MODEL + yaml.safe_dump({"answer_prefix": prefix}))
    registry = Registry.standard([str(tmp_path)])
    assert resolve("m", registry).answer_prefix == prefix
    written = key_values(f'answer_prefix="{prefix}"', "--model-args", OVERRIDABLE)
    assert resolve("fake:oracle", registry, written).answer_prefix == prefix


def test_overrides_given_in_python_are_texts_or_absent() -> None:
    registry = Registry.standard()
    assert resolve("clip", registry, {"revision": None}).revision is None
    assert resolve("clip", registry, {"revision": 12}).revision == "12"
    for value in ([" "], {"a": 1}, True):
        with pytest.raises(InputError, match="answer_prefix must be a text"):
            resolve("clip", registry, {"answer_prefix": value})
