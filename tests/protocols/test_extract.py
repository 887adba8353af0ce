"""Extractors: hand-labelled answers, properties, and recorded answers of real models."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bench import ROOT
from vlm_harness.protocols.extractors import EXTRACTORS, extract, keyword
from vlm_harness.protocols.reading import Extraction
from vlm_harness.specs.labels import strip_label

LR = ["left", "right"]
FOUR = ["left", "right", "on", "under"]
FRONT = ["on", "in front of", "front", "behind"]
OPEN = ["(a) Open", "(b) Closed"]
VISIBLE = ["visible", "not visible"]
SIDES = ["The left side", "The right side"]
NINE = [f"option text {n}" for n in range(9)]
NUMBERED = ["(1) A cat on a dog.", "(2) A dog on a cat."]
UNFIT = "Neither caption fits. "
DIRECTIONS = ["left", "right", "front", "behind"]
YN = ["Yes", "No"]
TF = ["False", "True"]
N = ["3", "4", "12", "2.5", "1000"]

KEYWORD = [
    ("left", LR, 0),
    ("Left.", LR, 0),
    ("  LEFT \n", LR, 0),
    ("**Left**", LR, 0),
    ("_left_", LR, 0),
    ("`right`", LR, 1),
    ('"Right."', LR, 1),
    ("“left”", LR, 0),
    ("right</s>", LR, 1),
    ("right<|im_end|>", LR, 1),
    ("left<|eot_id|>\n", LR, 0),
    ("left<end_of_turn>", LR, 0),
    ("The mug is to the left of the plate.", LR, 0),
    ("The mug is on the left-hand side of the plate.", LR, 0),
    ("The mug is on the plate's right side.", LR, 1),
    ("The beer bottle is placed under the armchair.", FOUR, 3),
    ("On", FOUR, 2),
    ("In front of", FRONT, 1),
    ("The mug is in front of the knife.", FRONT, 1),
    ("Front", FRONT, 2),
    ("The dog is not visible in this picture.", VISIBLE, 1),
    ("The dog is clearly visible.", VISIBLE, 0),
    ("(b) Closed", OPEN, 1),
    ("The butterfly's wings are open.", OPEN, 0),
    ("the  left\nside", SIDES, 0),
    ("leftover", LR, "nothing"),
    ("The mug stands upright.", LR, "nothing"),
    ("In front, one can see a mug.", ["on", "under"], "nothing"),
    ("A hands-on approach.", ["on", "under"], "nothing"),
    ("x_left", LR, "nothing"),
    ("You can't.", ["can", "cup"], "nothing"),
    ("3.5", ["3", "5"], "nothing"),
    ("", LR, "nothing"),
    ("</s>", LR, "nothing"),
    ("The mug is next to the plate.", LR, "nothing"),
    ("It is not on the left.", LR, "nothing"),
    ("not left", LR, "nothing"),
    ("The mug isn't on the left.", LR, "nothing"),
    ("The mug isn’t on the left.", LR, "nothing"),
    ("It is not to the left of the plate", LR, "nothing"),
    ("It is no longer left.", LR, "nothing"),
    ("I don't think it is left.", LR, "nothing"),
    ("I don't think the answer is left.", LR, "nothing"),
    ("The answer is not A. Left", LR, "nothing"),
    ("The incorrect answer is left.", LR, "nothing"),
    ("Left is wrong.", LR, "nothing"),
    ("Is the mug on the left? No.", LR, "nothing"),
    ("not left but right", LR, 1),
    ("It's not left, it's right.", LR, 1),
    ("The mug is on the right rather than left of the plate.", LR, 1),
    ("Right instead of left.", LR, 1),
    ("Rather than left, it is right.", LR, 1),
    ("It is on the left, not the right.", LR, 0),
    ("It isn't left; it is right.", LR, 1),
    ("The mug is not broken and is on the left.", LR, 0),
    ("There is no doubt that the mug is on the left.", LR, 0),
    ("neither left nor right, but under", FOUR, 3),
    ("It is neither left, right, nor on, but under it.", FOUR, 3),
    ("neither left nor right", LR, "refusal"),
    ("The answer is left. It is neither left nor right, though.", LR, "refusal"),
    ("It is neither left nor right. Well, the answer is left.", LR, 0),
    ("I would choose left.", LR, 0),
    ("The plate is on the right, so I'd pick:\nleft", LR, 0),
    ("left and right are wrong", LR, "refusal"),
    ("Neither left nor right; a left shoe is shown.", LR, "refusal"),
    ("To see whether it is left or right, look at the plate: it is left.", LR, 0),
    ("I must check whether it is left.", LR, "nothing"),
    ("It could be left or right.", LR, "ambiguous"),
    ("not only left but also right", LR, "ambiguous"),
    ("Is it left or right? left", LR, 0),
    ("left\nright", LR, "ambiguous"),
    ("The answer is left or right.", LR, "ambiguous"),
    ("Answer: left", LR, 0),
    ("**Answer:** Left", LR, 0),
    ("Answer:\n\nLeft", LR, 0),
    ("The plate is right of it, so the answer is left.", LR, 0),
    ("The right answer is left.", LR, 0),
    ("left... wait, so the answer is right", LR, 1),
    ("The mug is left of the plate. Final answer: right.", LR, 1),
    ("Answer: left. The plate is to the right.", LR, 0),
    ('{"answer": "left", "other": 1}', LR, 0),
    ("<think>left or right?</think>\n\nleft", LR, 0),
    ("USER: left or right? ASSISTANT: left", LR, 0),
    ("<answer>right</answer>", LR, 1),
    (r"\boxed{left}", LR, 0),
    ("I'm not sure, but the answer is left.", LR, 0),
    ("I cannot determine whether the mug is on the left.", LR, "refusal"),
    ("I'm sorry, I can't assist with that request.", LR, "refusal"),
    ("As an AI, I am unable to see whether it is left.", LR, "refusal"),
    ("I cannot tell if the answer is left.", LR, "refusal"),
    ("It is unclear whether it is left or right.", LR, "refusal"),
    ("It's difficult to say, possibly left.", LR, "refusal"),
    ("There is not enough information. Maybe left.", LR, "refusal"),
    ("It is not possible to accurately determine the side; left perhaps.", LR, "refusal"),
    ("Neither caption (1) nor (2) fits, left is blue.", LR, "refusal"),
    ("none of the above", LR, "refusal"),
    ("none of these apply; left is blue", LR, "refusal"),
    ("All of these are left.", LR, "refusal"),
    ("All of these things are left.", LR, 0),
    (
        "two cats sit",
        ["Two cats sit.", "Cats sit"],
        0,
    ),  # not the second option, which the answer contains
    ("Cats sit.", ["Two cats sit.", "Cats sit"], 1),
    ('Below the word "stop."', ['Below the word "stop."', 'Above the word "stop."'], 0),
    ('It is above the word "stop."', ['Below the word "stop."', 'above the word "stop."'], 1),
    ("both", LR, "refusal"),
    ("Unknown", ["left", "unknown"], 1),
    ("It cannot be determined.", ["left", "cannot be determined"], 1),
    ("neither", ["left", "neither"], 1),
    ("left", ["left", "left"], "ambiguous"),
    ("There is no dog.", YN, "nothing"),
    ("Yes, there is no dog.", YN, 0),
]

LETTER = [
    ("A", OPEN, 0),
    ("A.", OPEN, 0),
    ("(a)", OPEN, 0),
    ("a", OPEN, 0),
    ("b.", OPEN, 1),
    ('"B"', OPEN, 1),
    ("'b'", OPEN, 1),
    ("**B**", OPEN, 1),
    ("**A** is correct", OPEN, 0),
    ("__b__ fits", OPEN, 1),
    ("*(b)*", OPEN, 1),
    ("B</s>", OPEN, 1),
    ("（B）", OPEN, 1),
    (r"\boxed{B}", OPEN, 1),
    ("answer: (b).", OPEN, 1),
    ("Answer: b", OPEN, 1),
    ("Option B", OPEN, 1),
    ("option a is right", OPEN, 0),
    ("B) Closed", OPEN, 1),
    ("(b) Closed", OPEN, 1),
    ("a. Open", OPEN, 0),
    ("A: Open", OPEN, 0),
    ("The answer is a", OPEN, 0),
    ("The answer is A because the door is ajar.", OPEN, 0),
    ("The correct option is B.", OPEN, 1),
    ("The gap shows light, so (b)", OPEN, 1),
    ("I would say B, since it is shut.", OPEN, 1),
    ("(b) Closed, not (a) Open", OPEN, 1),
    ("(b) Closed. Option (a) is incorrect.", OPEN, 1),
    ("A. Open\nB. Closed\nAnswer: B", OPEN, 1),
    ("I", NINE, 8),
    ("Option I.", NINE, 8),
    ("(i)", NINE, 8),
    ("a dog on a chair", OPEN, "nothing"),
    ("A dog on a chair", OPEN, "nothing"),
    ("The answer is a dog.", OPEN, "nothing"),
    ("The picture shows that this is a", OPEN, "nothing"),
    ("I think so", NINE, "nothing"),
    ("You and I, too", NINE, "nothing"),
    ("C", OPEN, "nothing"),
    ("(d)", OPEN, "nothing"),
    ("An A-frame and a B-movie", OPEN, "nothing"),
    ("the option(s)", ["x"] * 19, "nothing"),
    ("not (a)", OPEN, "nothing"),
    ("Open", OPEN, "nothing"),
    ("B", [], "nothing"),
    ("Neither (a) nor (b)", OPEN, "refusal"),
    ("I cannot determine whether (a) or (b).", OPEN, "refusal"),
    ("Both options (a) and (b) are incorrect.", OPEN, "refusal"),
    ("Neither", ["(a) Left", "(b) Neither"], "nothing"),  # the text of an option is left to keyword
    ("(1) All of these men sit.", ["(1) All of these men sit.", "(2) They stand."], 0),
    ("(a) Closed", OPEN, "ambiguous"),
    ("The door is open, so (b).", OPEN, "ambiguous"),
    ("(a) Open (b) Closed", OPEN, "ambiguous"),
    ("A or B", OPEN, "ambiguous"),
    ("A: Closed", ["(c) Open", "(d) Closed"], "nothing"),
    # options with numbers
    ("(1)", NUMBERED, 0),
    ("2", NUMBERED, 1),
    ("2.", NUMBERED, 1),
    ("**2**", NUMBERED, 1),
    ("Output (2).", NUMBERED, 1),
    ("Caption 2", NUMBERED, 1),
    ("The answer is 1.", NUMBERED, 0),
    ("The caption (2) fits better.", NUMBERED, 1),
    ("(1) A cat on a dog.", NUMBERED, 0),
    ("2. A dog on a cat.", NUMBERED, 1),
    ("(1) A dog on a cat.", NUMBERED, "ambiguous"),
    ("(1) or (2)", NUMBERED, "ambiguous"),
    ("There are 2 dogs.", NUMBERED, "nothing"),
    ("A. A cat on a dog.", NUMBERED, "nothing"),
    ("(3) A dog beside a cat.", NUMBERED, "nothing"),
    ("Neither (1) nor (2)", NUMBERED, "refusal"),
    # a reluctant answer counts: the final choice, not the comparison
    (f"{UNFIT}However, the correct caption would be:\n\n(1) A cat on a dog.", NUMBERED, 0),
    (f"{UNFIT}If I had to choose, I would select:\n\nOutput (2).", NUMBERED, 1),
    (f"{UNFIT}If I had to pick the closest, it would be:\n(1)\n\nBut no dog is seen.", NUMBERED, 0),
    (f"{UNFIT}I will choose the one that is less inaccurate:\n\n(2)", NUMBERED, 1),
    (f"{UNFIT}Forced to choose, (1).", NUMBERED, 0),
    (f"{UNFIT}I would not choose (1) or (2).", NUMBERED, "refusal"),
    (f"{UNFIT}You don't have to choose (1).", NUMBERED, "refusal"),
    (f"{UNFIT}If I had to choose, I could not.", NUMBERED, "refusal"),
    (f"{UNFIT}But (1) is closer.", NUMBERED, "refusal"),
    (f"{UNFIT}The correct caption would be:\n\n(3) A dog.", NUMBERED, "refusal"),
    ("If it is a dog, the correct caption would be:\n(2)\nBut neither (1) nor (2) fits.",
     NUMBERED, "refusal"),
]  # fmt: skip

YES_NO = [
    ("Yes", YN, 0),
    ("no.", YN, 1),
    ("**No**", YN, 1),
    ("YES</s>", ["no", "yes"], 1),
    ("No, there is no dog.", YN, 1),
    ("Yes, there is no doubt.", YN, 0),
    ("Yes, there is a dog and no cat.", YN, 0),
    ("No dog is visible.", YN, 1),
    ("Answer: no", YN, 1),
    ("The answer is yes.", YN, 0),
    ("I would say no.", YN, 1),
    ("The statement is true.", TF, 1),
    ("False.", TF, 0),
    ("(b) No", ["(a) Yes", "(b) No"], 1),
    ("not sure", YN, "refusal"),
    ("I don't know", YN, "refusal"),
    ("No idea.", YN, "refusal"),
    ("No, I cannot tell.", YN, "refusal"),
    ("Yes or no", YN, "ambiguous"),
    ("It may be yes, it may be no.", YN, "ambiguous"),
    ("There is no dog.", YN, 1),
    ("Nothing of note; yesterday", YN, "nothing"),
    ("The statement is not true.", TF, 0),
]

NUMBER = [
    ("3", N, 0),
    ("4.", N, 1),
    ("There are four circles.", N, 1),
    ("Twelve", N, 2),
    ("**12**", N, 2),
    ("2.50", N, 3),
    ("1,000", N, 4),
    ("twenty-one", ["21", "20"], 0),
    ("not 3 but 4", N, 1),
    ("I count 3, then 4. Answer: 4", N, 1),
    ("The one on the left shows 3", ["1", "3"], 1),
    ("3", ["(a) 3", "(b) 4"], 0),
    ("The three circles overlap.", N, 0),
    ("the one below", ["1", "2"], "nothing"),
    ("sıx", ["6"], "nothing"),
    ("13", N, "nothing"),
    ("the 3rd", N, "nothing"),
    ("3x4", N, "nothing"),
    ("3.2", N, "nothing"),
    ("4,5", N, "nothing"),
    ("COVID-12", N, "nothing"),
    ("freight", ["8"], "nothing"),
    ("three hundred", N, "nothing"),
    ("more than 3", N, "nothing"),
    ("7", N, "nothing"),
    ("-3", N, "nothing"),
    ("3 or 4", N, "ambiguous"),
    ("4 dogs and 7 cats", N, "ambiguous"),
    ("I cannot count them, so 3 is not certain", N, "refusal"),
]

CONTAINS = [
    ("Left", LR, 0),
    ("leftover", LR, 0),
    ("not left", LR, 0),
    ("left or right", LR, "ambiguous"),
    ("up", LR, "nothing"),
]

TABLE = [
    (name, *case)
    for name, cases in {
        "keyword": KEYWORD,
        "letter": LETTER,
        "yes_no": YES_NO,
        "number": NUMBER,
        "contains": CONTAINS,
    }.items()
    for case in cases
]


@pytest.mark.parametrize(("name", "text", "options", "expected"), TABLE)
def test_hand_labelled(name: str, text: str, options: list[str], expected: int | str) -> None:
    found = EXTRACTORS.get(name)(text, options)
    if isinstance(expected, str):
        assert (found.index, found.reason) == (None, expected)
    else:
        assert (found.index, found.reason) == (expected, "found")
        assert found.match


def test_keyword_arguments() -> None:
    assert keyword("Left", LR, ignore_case=False).reason == "nothing"
    assert keyword("It is beneath.", FOUR, synonyms={"under": ["beneath", "below"]}).index == 3
    assert keyword("It is ajar.", OPEN, synonyms={"Open": ["ajar"]}).index == 0
    both = {"left": ["beside"], "right": ["beside"]}
    assert keyword("beside", LR, synonyms=both).reason == "ambiguous"


def test_keyword_ignores_phrases_that_do_not_name_an_option() -> None:
    """ "On the floor" does not mean "on the chair"."""
    ignore = ["on the floor", "on the ground"]
    under = "The mug is on the carpet, under the chair."
    assert keyword(under, FOUR).reason == "ambiguous"
    assert keyword(under, FOUR, ignore=["on the carpet"]).index == FOUR.index("under")
    assert keyword("The mug is on the floor.", FOUR, ignore=ignore).reason == "nothing"
    assert keyword("The mug is on the\nground", FOUR, ignore=ignore).reason == "nothing"
    assert keyword("On the floorboards", FOUR, ignore=ignore).index == FOUR.index("on")
    assert keyword("On the chair.", FOUR, ignore=ignore).index == FOUR.index("on")
    assert keyword("Not on the floor but on the chair", FOUR, ignore=ignore).index == 2
    assert keyword("on the floor", ["on", "on the floor"], ignore=ignore).index == 1


def test_contains_excludes() -> None:
    options = ["on", "front"]
    contains = EXTRACTORS.get("contains")
    assert contains("Front", options).reason == "ambiguous"
    assert contains("Front", options, exclude={"on": ["front"]}).index == 1
    assert contains("On", options, exclude={"on": ["front"]}).index == 0


REGEX = [
    ("Answer: left", LR, {"pattern": r"answer: (\w+)"}, 0),
    ("<b> RIGHT </b>", LR, {"pattern": r"<b>(.*?)</b>"}, 1),
    ("Open", OPEN, {"pattern": r"\w+"}, 0),
    ("pick b!", OPEN, {"pattern": r"pick (?P<x>\w)", "group": "x"}, 1),
    ("left right", LR, {"pattern": r"\w+"}, "ambiguous"),
    ("left right", LR, {"pattern": r"\w+", "which": "first"}, 0),
    ("left right", LR, {"pattern": r"\w+", "which": "last"}, 1),
    ("LEFT", LR, {"pattern": r"\w+", "ignore_case": False}, "nothing"),
    ("none", LR, {"pattern": r"\d+"}, "nothing"),
]


@pytest.mark.parametrize(("text", "options", "arguments", "expected"), REGEX)
def test_regex(text: str, options: list[str], arguments: dict[str, str], expected: object) -> None:
    found = EXTRACTORS.get("regex")(text, options, **arguments)
    assert (found.reason if found.index is None else found.index) == expected


@pytest.mark.parametrize(
    ("name", "options", "arguments", "message"),
    [
        ("yes_no", LR, {}, "one option like yes"),
        ("number", LR, {}, "options that are numbers"),
        ("regex", LR, {"pattern": "("}, "invalid pattern"),
        ("regex", LR, {"pattern": "(a)", "group": 2}, "no group 2"),
        ("regex", LR, {"pattern": "a", "which": "best"}, "which must be"),
    ],
)
def test_invalid_arguments(
    name: str, options: list[str], arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EXTRACTORS.get(name)("text", options, **arguments)


def test_chain() -> None:
    chain = [("letter", {}), ("keyword", {})]
    assert extract(chain, "It is closed", OPEN) == ("keyword", Extraction(1, "found", "closed"))
    assert extract(chain, "(b)", OPEN)[0] == "letter"
    assert extract(chain, "(a) Closed", OPEN) == ("letter", Extraction(None, "ambiguous", "(a)"))
    assert extract(chain, "Neither.", ["(a) Left", "(b) Neither"])[1].index == 1
    assert extract(chain, "A door", OPEN) == ("keyword", Extraction(None, "nothing"))
    with pytest.raises(ValueError, match="no extractor"):
        extract([], "left", LR)


@pytest.mark.parametrize(
    ("option", "bare"),
    [
        ("(a) Open", "Open"),
        ("b) Closed", "Closed"),
        ("A. Left", "Left"),
        ("a dog", "a dog"),
        ("A", "A"),
        ("(a)", "(a)"),
        ("(2) two dogs", "two dogs"),
        ("2. Downing Street", "2. Downing Street"),
        ("A.M.", "A.M."),
        ("see (b) here", "see (b) here"),
    ],
)
def test_strip_label(option: str, bare: str) -> None:
    assert strip_label(option) == bare


WORD = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=5)
ANSWERS = st.lists(
    st.sampled_from(
        [*DIRECTIONS, "not", "neither", "nor", "but", ",", ".", "?", "\n", "the answer is", "mug",
         "in front of", "rather than", "I cannot tell"]
    ),
    max_size=12,
).map(" ".join)  # fmt: skip


@given(option=st.sampled_from(DIRECTIONS), before=WORD, after=WORD, side=st.integers(0, 2))
def test_an_option_inside_a_word_does_not_count(
    option: str, before: str, after: str, side: int
) -> None:
    word = (before if side != 1 else "") + option + (after if side != 0 else "")
    if word not in DIRECTIONS:
        assert keyword(f"it is {word} there", DIRECTIONS).index is None


@given(st.text("cdfgmnpvwxz .,:;!?()'\"\n*_-", max_size=80))
def test_a_text_without_an_option_has_no_answer(text: str) -> None:
    for name, options in [("keyword", LR), ("letter", OPEN), ("number", N), ("yes_no", TF)]:
        assert EXTRACTORS.get(name)(text, options).index is None


@given(ANSWERS, st.permutations(range(len(DIRECTIONS))))
def test_permuting_the_options_permutes_the_index(text: str, order: list[int]) -> None:
    plain = keyword(text, DIRECTIONS)
    shown = keyword(text, [DIRECTIONS[index] for index in order])
    assert shown.reason == plain.reason
    assert (None if shown.index is None else order[shown.index]) == plain.index


@given(st.text() | ANSWERS, st.lists(st.text(), max_size=4))
def test_arbitrary_text_never_raises(text: str, options: list[str]) -> None:
    for name in ("keyword", "letter", "contains"):
        found = EXTRACTORS.get(name)(text, options)
        assert (found.index is None) == (found.reason != "found")
    for name, given_options in (("number", N), ("yes_no", YN)):
        EXTRACTORS.get(name)(text, given_options)
    EXTRACTORS.get("regex")(text, options, pattern=r"\w+")


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "_", "(", "1", "1,", "not ", "left ", "(a) ", "left is a ", ".\n", "can't "],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    text = (unit * 100_000)[:100_000] + "x"
    for name, options in [("keyword", LR), ("letter", OPEN), ("number", N), ("yes_no", YN)]:
        start = time.perf_counter()
        EXTRACTORS.get(name)(text, options)
        assert time.perf_counter() - start < 5  # a quadratic scan takes minutes


def _real(*parts: str) -> Path:
    default = ROOT.parent / "shared" / "realdata"
    path = Path(os.environ.get("VLM_HARNESS_REALDATA", default), *parts)
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path


@pytest.mark.realdata
def test_pope_answers_of_llava() -> None:
    lines = _real("pope", "recorded", "llava-v1.5-13b.jsonl").read_text().splitlines()
    found = [EXTRACTORS.get("yes_no")(json.loads(line)["text"], YN).index for line in lines]
    assert len(found) == 8910
    assert sum(index is not None for index in found) >= 0.999 * len(found)


@pytest.mark.realdata
def test_sugarcrepe_refusals_of_gpt4v_are_not_answers() -> None:
    """The recorded choice is empty if GPT-4V declined, even if the text contains "(1)"."""
    answered = parsed = declined = 0
    for path in sorted(_real("sugarcrepe", "recorded", "gpt4v", "positive-first").glob("*.json")):
        for item in json.loads(path.read_text()).values():
            if not isinstance(item, dict):  # swap_obj.json also holds its accuracy
                continue
            text = item["answer"]["free_form_answer"]
            choice = item["answer"]["multiple_choice_answer"]
            index = keyword(text, ["(1)", "(2)"]).index
            if choice:
                answered += 1
                parsed += index is not None
                assert index in (None, int(choice == item["negative_caption"])), text
            else:
                declined += 1
                assert index is None, text
                if text.strip() != "1":  # the one bare "1" was recorded as no choice
                    assert EXTRACTORS.get("number")(text, ["1", "2"]).index is None, text
    assert (answered, declined) == (7346, 166)
    assert parsed >= 0.999 * answered


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "published"),
    [("A_baseline", FOUR, 60.303), ("B_baseline", DIRECTIONS, 73.0887)],
)
def test_whatsup_scores_of_llava(name: str, options: list[str], published: float) -> None:
    lines = _real("whatsup", "recorded_llava15", f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for extractor, use in (("keyword", {}), ("contains", {"exclude": {"on": ["front"]}})):
        found = [EXTRACTORS.get(extractor)(row["generation"], options, **use).index for row in rows]
        correct = [
            index == options.index(row["gold"].lower())
            for index, row in zip(found, rows, strict=True)
        ]
        assert 100 * sum(correct) / len(correct) == pytest.approx(published, abs=1e-4)
