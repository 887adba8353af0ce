"""Jinja: types of values, unknown names, and operations that the sandbox rejects."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_harness.specs.templates import TemplateError, compile_template, render_tree

CONTEXT: dict[str, Any] = {
    "word": "abc",
    "items": [1, 2],
    "map": {"k": [1], "sub": {"x": "y"}},
    "number": 7,
    "nothing": None,
}


def render(source: str, **context: Any) -> Any:
    return compile_template(source)({**CONTEXT, **context})


def refusal(source: str, **context: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        render(source, **context)
    return str(caught.value)


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ number }}", 7),
        ("{{- number -}}", 7),
        ("{{ number + 0.5 }}", 7.5),
        ("{{ items }}", [1, 2]),
        ("{{ items | map('string') }}", ["1", "2"]),  # a Jinja generator becomes a list
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ map.keys() }}", ["k", "sub"]),
        ("{{ nothing }}", None),
        ("{{ word == 'abc' }}", True),
        ("{{ word | tojson }}", '"abc"'),
        ("{{ '}}' }}", "}}"),
        ("{{ number }} ", "7 "),
        ("{{ number }}{{ number }}", "77"),
        ("{{ 1 }}{# a comment #}", "1"),
        ("plain", "plain"),
        ("", ""),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ],
)
def test_a_lone_expression_keeps_its_type(source: str, value: Any) -> None:
    found = render(source)
    assert found == value
    assert type(found) is type(value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
))  # fmt: skip
def test_a_value_passes_through_unchanged(value: Any) -> None:
    assert compile_template("{{ value }}")({"value": value}) == value


def test_render_tree() -> None:
    tree = {"a": ["{{ number }}", 3, None], "b": "n={{ number }}"}
    assert render_tree(tree, CONTEXT) == {"a": [7, 3, None], "b": "n=7"}


def test_a_value_is_not_rendered_again() -> None:
    assert render("{{ word }}", word="{{ number }}") == "{{ number }}"


# --- strictness -----------------------------------------------------------------------------------


def test_an_unknown_name_is_an_error_with_a_suggestion() -> None:
    assert refusal("{{ wrod }}") == "'wrod' is undefined; did you mean 'word'?"
    assert refusal("so {{ wrod }} it is") == "'wrod' is undefined; did you mean 'word'?"
    assert refusal("{{ zzzzzz }}").startswith("'zzzzzz' is undefined; defined names: word, items")


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{{ map.nope }}", "no attribute 'nope'"),
        ("{{ map['nope'] }}", "no attribute 'nope'"),
        ("{{ map.sub.nope.deeper }}", "no attribute 'nope'"),
        ("{{ word if false }}", "no value"),
        ("{{ [wrod] }}", "'wrod' is undefined"),
        ("{% if wrod %}{% endif %}", "'wrod' is undefined"),
        ("{{ word.upper }}", "call it with ()"),
        ("{{ word + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ items[9] }}", "has no element 9"),
        ("{% include 'a' %}", "no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "Macro blocks are not allowed"),
        ("{% call word() %}a{% endcall %}", "CallBlock blocks are not allowed"),
        ("{% set a %}a{% endset %}{{ a }}", "AssignBlock blocks are not allowed"),
        ("{% filter upper %}a{% endfilter %}", "FilterBlock blocks are not allowed"),
    ],
)
def test_failures_are_template_errors(source: str, part: str) -> None:
    assert part in refusal(source)


def test_an_unknown_name_may_have_a_default() -> None:
    assert render("{{ wrod | default(number) }}") == 7


@pytest.mark.parametrize(
    ("source", "line"),
    [("{{ x", 1), ("a\nb {{ x | nofilter }}", 2), ("\n\n{% if %}", 3), ("{% for x in y %}", 1)],
)
def test_a_syntax_error_has_its_line(source: str, line: int) -> None:
    with pytest.raises(TemplateError, match="invalid Jinja template") as caught:
        compile_template(source)
    assert caught.value.line == line


def doubled(expression: str, first: str = "'a'") -> str:
    """Double a value forty times: 2**40 items."""
    return f"{{% set a = {first} %}}" + f"{{% set a = {expression} %}}" * 40 + "{{ a | length }}"


# --- the sandbox ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ word['__class__'] }}",
        "{{ word | attr('__class__') }}",
        "{{ word.__class__.__mro__[1].__subclasses__() }}",
        "{{ word.format.__globals__ }}",
        "{{ [word] | map(attribute='__class__') | list }}",
        "{{ ['x'] | map('attr', '__class__') | list }}",
        "{{ '{0.__class__}'.format(word) }}",
        "{{ '{a.__class__}'.format_map({'a': word}) }}",
        "{{ '{0.__class__.__mro__}'.format(items) }}",
        "{{ items.append(3) }}",
        "{{ items.clear() }}",
        "{{ map.update({'a': 1}) }}",
        "{{ map.pop('k') }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ namespace() }}",
        "{{ items | random }}",  # not repeatable
    ],
)
def test_refused(source: str) -> None:
    before = repr(CONTEXT)
    refusal(source)
    assert repr(CONTEXT) == before


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ 9**9**9 }}",
        "{{ 10**10**10 }}",
        "{% set a = 10**99 %}{% set b = a*a*a %}{{ b*b*b*b*b*b }}",
        "{{ range(10**9) }}",
        "{{ range(10**9) | list }}",
        "{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ '{:{}d}'.format(1, 10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ ('\t' * 99999).expandtabs(99999) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
        "{{ ('b' * 99999).join('a' * 99999) }}",
        "{{ ('a' * 99999) | list | join('b' * 99999) }}",
        "{{ ['a' * 99999] * 99999 | join }}",
        "{{ (1).to_bytes(10**9, 'big') }}",
        "{{ ('a'.encode() * 10**9) | length }}",
        "{{ ('{0:99999}' * 100000).format('x') }}",
        "{{ ('%(a)99999d' * 60000) % {'a': 1} }}",
        "{{ '{:{}}'.format('x', '1500000000') }}",
        "{{ ('x' * 999999).join(range(9999) | map('string')) }}",
        "{{ ('a' * 9999) | regex_replace('a', 'b' * 999999) }}",
        "{{ ('a' * 99999) | regex_findall('(?=(.*))') }}",
        "{{ range(9999) | list | tojson(indent=999999) }}",
        "{{ ('a' * 9999).translate({97: 'x' * 999990}) }}",
        "{% for a in [[1]] recursive %}{{ loop(a) }}{% endfor %}",
        doubled("a ~ a"),
        doubled("a + a"),
        doubled("[a, a]"),
        doubled("(a, a)"),
        doubled("{'x': a, 'y': a}"),
        doubled("a | replace('a', 'aa')"),
        doubled("'%s%s' % (a, a)"),
        doubled("'%s%s' | format(a, a)"),
        doubled("'{}{}'.format(a, a)"),
        doubled("'{0}{0}'.format(a)"),
        doubled("a.join([a, a])"),
        doubled("[a, a] | join"),
        doubled("a.replace('a', 'aa')"),
        doubled("a | regex_replace('a', 'aa')"),
        doubled("[a, a] | sum(start=[])", "['a']"),
        doubled("[a, a] | list"),
        doubled("[a] * 2"),
        doubled("[[a], [a]] | sum(start=[])"),
        doubled("[a, a] | map('string') | join(a)"),
        doubled("[a, a] | tojson"),
        doubled("[a, a] | string | upper"),
    ],
)
def test_nothing_huge_is_built(source: str) -> None:
    assert len(refusal(source)) < 200


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    ],
)
def test_rendering_has_a_time_limit(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_harness.specs.templates._MAX_SECONDS", 0.1)
    start = time.monotonic()
    assert refusal(source) == "rendering took longer than 0.1 seconds"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ word ~ 1 ~ none ~ [2] }}", "abc1None[2]"),
        ("{{ [1, (2, 3), {'a': [4]}] }}", [1, (2, 3), {"a": [4]}]),
        ("{% set a, b = 1, 2 %}{{ a + b }}", "3"),
        ("{% for a, b in [(1, 2)] %}{{ b }}{% endfor %}", "2"),
        ("{{ ['b', 'a'] | sort | map('upper') | join('-') }}", "A-B"),
    ],
)
def test_size_checks_do_not_change_values(source: str, value: Any) -> None:
    assert render(source) == value


# --- filters --------------------------------------------------------------------------------------

CAPTIONS = ["A mug in front of a plate", "A mug on a plate", "A mug behind a plate"]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ 'data/a b/c.d.jpeg' | basename }}", "c.d.jpeg"),
        ("{{ 'data/a b/c.d.jpeg' | stem }}", "c.d"),
        ("{{ 'name' | stem }}", "name"),
        ("{{ 'data/data/x' | remove_prefix('data/') }}", "data/x"),
        ("{{ 'x' | remove_prefix('data/') }}", "x"),
        ("{{ 'x.jpg.jpg' | remove_suffix('.jpg') }}", "x.jpg"),
        ("{{ 'a_left_of_b' | regex_group('_(left|right)_') }}", "left"),
        ("{{ 'a_left_of_b' | regex_group('_(?P<r>left)_', 'r') }}", "left"),
        ("{{ 'a_left_of_b' | regex_group('left', 0) }}", "left"),
        ("{{ 12 | regex_group('(.)$') }}", "2"),
        ("{{ 'a-b-c' | regex_replace('-', ' ') }}", "a b c"),
        ("{{ 'ab' | regex_replace('(a)(b)', '\\\\2\\\\1') }}", "ba"),
        ("{{ 'a1b22' | regex_findall('[0-9]+') }}", ["1", "22"]),
        ("{{ 'a' | regex_findall('[0-9]+') }}", []),
        ("{{ 'on' | caption_with(captions) }}", CAPTIONS[1]),  # not the one with `front`
        ("{{ 'Front' | caption_with(captions) }}", CAPTIONS[0]),
        ("{{ 'b' | index_of(['a', 'b', 'b']) }}", 1),
        ("{{ '(a) Open' | without_letter }}", "Open"),
        ("{{ 'B. Closed' | without_letter }}", "Closed"),
        ("{{ 'left' | without_letter }}", "left"),
        ("{{ '(a)' | letter_index }}", 0),
        ("{{ 'B' | letter_index }}", 1),
        ("{{ ' c. ' | letter_index }}", 2),
        ("{{ '{\"a\": [1]}' | from_json }}", {"a": [1]}),
        ("{{ 1 | ceil_div(2) }}", 1),
        ("{{ 2 | ceil_div(2) }}", 1),
        ("{{ '3' | ceil_div(2) }}", 2),
        ("{{ 300 | ceil_div(2) }}", 150),
        ("{{ 'a b' | replace(' ', '-') }}", "a-b"),
        ("{{ 'a b c' | replace(' ', '-', 1) }}", "a-b c"),
        ("{{ items | join(', ') }}", "1, 2"),
        ("{{ [map.sub] | join('-', attribute='x') }}", "y"),
        ("{{ '%03d' | format(number) }}", "007"),
        ("{{ '%03d%%' % number }}", "007%"),
        ("{{ 7 % 4 }}", 3),
        ("{{ 'x' * 3 }}", "xxx"),
        ("{{ '{:>3}|{}'.format(1, 2) }}", "  1|2"),
    ],
)
def test_filters(source: str, value: Any) -> None:
    assert render(source, captions=CAPTIONS) == value


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 'x' | regex_group('(y)') }}", "does not match 'x'"),
        ("{{ 'x' | regex_group('(') }}", "invalid pattern '('"),
        ("{{ 'a' | caption_with(captions) }}", "3 captions contain 'a', expected exactly one"),
        (
            "{{ 'left' | caption_with(captions) }}",
            "0 captions contain 'left', expected exactly one",
        ),
        ("{{ 'c' | index_of(['a', 'b']) }}", "'c' is not in ['a', 'b']"),
        ("{{ '(ab)' | letter_index }}", "expected one letter such as (a), B or c., got '(ab)'"),
        ("{{ '' | letter_index }}", "expected one letter such as (a), B or c., got ''"),
        ("{{ '{' | from_json }}", "JSONDecodeError"),
        ("{{ ('[' * 99999) | from_json }}", "RecursionError"),
        ("{{ 1 | ceil_div(0) }}", "ZeroDivisionError"),
        ("{{ 'x' | ceil_div(2) }}", "invalid literal"),
    ],
)
def test_filters_that_fail(source: str, message: str) -> None:
    assert message in refusal(source, captions=CAPTIONS)


# --- blocks ---------------------------------------------------------------------------------------


def test_block_lines_leave_no_blank_lines() -> None:
    source = "Q?\n{% for x in items %}\n  {% if x %}\n{{ x }}\n  {% endif %}\n{% endfor %}\nend\n"
    assert render(source) == "Q?\n1\n2\nend\n"


def test_nothing_is_escaped() -> None:
    assert render("{{ word }}!", word="<b> & 'c'") == "<b> & 'c'!"
