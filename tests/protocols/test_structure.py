"""What an answer chooses, by its structure: conclusions, denials, markup, chains, properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_harness.protocols.extractors import EXTRACTORS, confused, extract, keyword
from vlm_harness.protocols.reading import Extraction
from vlm_harness.specs.extraction import Step

LR = ["left", "right"]
YN = ["Yes", "No"]

SIX = ["left", "right", "above", "below", "near", "far"]
ON = ["on", "under"]
ELEVEN = [f"({n}) thing {n} of many" for n in range(1, 13)]
CJK = ["左边", "右边"]
CHAINED = [
    # labels are labels only if they stand like labels
    ("Box A fits more tightly. Box B, on the other hand, is too large.", SIX, 0),
    ("point A is nearer than point B", SIX, 0),
    ("Vitamin A is good for the eyes.", SIX, "nothing"),
    ("Let's go through each option:", SIX, "nothing"),
    ("The correct answer is:\n(A) left\n(B) right\n(C) above", SIX, "ambiguous"),
    ("(N/A)", SIX, "refusal"),
    ("None of the above.", SIX, "refusal"),
    ("B, not C", SIX, 1),
    ("B because A is wrong", SIX, 1),
    ("The answer is B because A is incorrect.", SIX, 1),
    ("I would rule out A and B, so C", SIX, 2),
    ("B rather than A", SIX, 1),
    ("Option A is wrong.", SIX, "nothing"),
    ("The options are A, B, C and D.", SIX, "ambiguous"),
    ("A, B", SIX, "ambiguous"),
    # conclusions
    ("A looks right at first. Therefore, the answer is B.", SIX, 1),
    ("The answer is A... no, wait, the answer is B.", SIX, 1),
    ("A. Wait, actually B.", SIX, 1),
    ("The answer is A. Let me reconsider. The answer is B.", SIX, 1),
    ("While A is plausible, B is the better answer.", SIX, 1),
    ("My second choice would be A.", SIX, 0),
    ("(B) Note that C might be plausible too.", SIX, 1),
    ("Since A is farther than B, B is closer.", SIX, 1),
    ("A) Incorrect\nB) Correct\nC) Incorrect", SIX, 1),
    ("B. left", SIX, "ambiguous"),
    ("b\n\nThere is also something near.", SIX, 1),
    ("Anything but B", SIX, "nothing"),
    ("La respuesta es B.", SIX, 1),
    ("정답은 B입니다.", SIX, 1),
    ("There is nothing left.", SIX, "nothing"),
    ("B\n\nA would be wrong because the cup is there.", SIX, 1),
    ("A: too far\nB: fits\nC: too near\n\nAnswer: B", SIX, 1),
    ("Option A puts it on the left. Option B puts it on the right.\n\n(B) right", SIX, 1),
    ("I am not sure, but I'd say B.", SIX, 1),
    ("So the point is (A). So the point is (B). So the point is (C).", SIX, "ambiguous"),
    # thinking
    ("<think>First A. But no</think>\nB", SIX, 1),
    ("<think>The answer is A.", SIX, "cut_off"),
    ("It may be A.</think>B", SIX, 1),
    ("<thinking>left</thinking> right", SIX, 1),
    ("◁think▷A◁/think▷B", SIX, 1),
    # markup and scripts
    ("$\\boxed{\\text{B}}$", SIX, 1),
    ("| Answer | B |", SIX, 1),
    ("> **B. right**", SIX, 1),
    ("【B】", SIX, 1),
    ("Ｂ", SIX, 1),
    ("答案是B", SIX, 1),
    ("因此，选C。", SIX, 2),
    ("不是A，是B", SIX, 1),
    ("杯子在盘子的左边。", CJK, 0),
    # prepositions
    ("Based on the image, the mug is under the table", ON, 1),
    ("underneath", ON, 1),
    ("The mug is on the floor.", ON, "nothing"),
    ("On the other hand, it is under", ON, 1),
    ("The mug is on top of the table.", ON, 0),
    # labels of several characters
    ("(10)", ELEVEN, 9),
    ("Answer: 12", ELEVEN, 11),
    ("Option 11", ELEVEN, 10),
    ("There are 12 dogs", ELEVEN, "nothing"),
    # initials are no labels
    ("K. Smith", ["J. Smith", "K. Smith"], 1),
    ("E. coli", ["E. coli", "S. aureus"], 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "expected"), CHAINED)
def test_letter_then_keyword(text: str, options: list[str], expected: int | str) -> None:
    found = extract([("letter", {}), ("keyword", {})], text, options)[1]
    assert (found.reason if found.index is None else found.index) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is no dog in the image.", 1),
        ("The image does not contain a dog.", 1),
        ("I do not see a dog in this image.", 1),
        ("It moves forward, not backward.", "nothing"),
        ("I don't have specific data on this.", "refusal"),
        ("Yes... wait, no.", 1),
        ("Yes, I can help! The answer is no.", 1),
        ("No worries! Yes, there is a dog.", 0),
        ("oui", 0),
        ("Nein, das ist kein Hund.", 1),
        ("是的", 0),
        ("没有", 1),
        ("いいえ、ありません", 1),
        ("Sí.", 0),
    ],
)
def test_yes_no_sentences_and_languages(text: str, expected: int | str) -> None:
    found = extract([("yes_no", {})], text, YN)[1]
    assert (found.reason if found.index is None else found.index) == expected


def test_pope_official() -> None:
    """The official script has no refusals: what is not denied in the first sentence is yes."""
    official = EXTRACTORS.get("pope_official")
    texts = ["Yes.", "No, there is none.", "There is not a dog. Yes.", "I cannot tell.", ""]
    assert [official(text, YN).index for text in texts] == [0, 1, 1, 0, 0]


def test_first_and_last_keyword() -> None:
    text = "left or right"
    assert keyword(text, LR).reason == "ambiguous"
    assert keyword(text, LR, which="first").index == 0
    assert keyword(text, LR, which="last").index == 1


def test_steps_of_a_chain_are_skipped_or_passed() -> None:
    assert extract([("yes_no", {}), ("keyword", {})], "left", LR)[1].index == 0
    with pytest.raises(ValueError, match="one option like yes"):
        extract([("yes_no", {}), ("number", {})], "left", LR)
    passes = [Step("keyword", {}, True), Step("keyword", {"which": "first"})]
    assert extract(passes, "left or right", LR) == ("keyword", Extraction(0, "found", "left"))


@pytest.mark.parametrize(
    ("chain", "options", "expected"),
    [
        ([Step("keyword", {})], LR, None),
        ([Step("letter", {}), Step("keyword", {})], ["left", "Left"], None),
        ([Step("keyword", {})], ["left", "Left"], ("left", "several options")),
        ([Step("contains", {})], ["on", "front"], ("front", "several options")),
        ([Step("contains", {"exclude": {"on": ["front"]}})], ["on", "front"], None),
    ],
)
def test_options_that_cannot_be_told_apart(
    chain: list[Step], options: list[str], expected: tuple[str, str] | None
) -> None:
    assert confused(chain, options) == expected


# --- properties -----------------------------------------------------------------------------------

WRAPPED = [
    "{}", "**{}**", "`{}`", '"{}"', "“{}”", "> {}", "- {}", "{}</s>", "Answer: {}",
    "**Answer:** {}", "The answer is {}.", "<think>A or B? left? yes?</think>{}",
    "<answer>{}</answer>", "\\boxed{{{}}}",
]  # fmt: skip
EXPLANATIONS = [
    "",
    "\n\nExplanation: the image shows a mug next to a plate.",
    "\nThe other options do not fit what is shown.",
    "\n\nThe mug is to the left of the plate in the picture.",
    "\nOption A is not supported by the image.",
    "\n\nB would be wrong because the plate is there.",
    "\nReasoning: I looked at both objects and compared their positions.",
    "\n\nAlthough B may seem plausible at first sight, it does not match.",
    "\n\nOne might also think of right, but the photo rules it out.",
    "\n\nIn the picture, there is a mug on the right and a plate on the left.",
    "\n\nI chose this since A is farther away than B.",
]


@given(
    st.integers(0, 3),
    st.sampled_from(["{0}", "({0})", "{0}.", "{0}. {1}", "({0}) {1}", "{1}"]),
    st.sampled_from(WRAPPED),
    st.sampled_from(EXPLANATIONS),
)
def test_wrapping_an_answer_does_not_change_it(
    index: int, form: str, wrapper: str, explanation: str
) -> None:
    options = ["left", "right", "above", "below"]
    text = wrapper.format(form.format("ABCD"[index], options[index])) + explanation
    assert extract([("letter", {}), ("keyword", {})], text, options)[1].index == index


@given(st.text("cefghijkmnopqrstuvwxz .,:;!?'\"\n*_-", max_size=120))
def test_a_text_without_letters_or_words_of_the_options_chooses_none(text: str) -> None:
    assert extract([("letter", {}), ("keyword", {})], text, ["bad", "dull"])[1].index is None
