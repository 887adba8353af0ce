"""Sample records in a compact notation."""

from vlm_harness.metrics import Record
from vlm_harness.specs.schemas import GroupRules

RULES = GroupRules()


def records(text: str, **common: object) -> list[Record]:
    """Parse records: in ``a1+ a2- b1+``, pair a has a correct and an incorrect sample.

    Pair b has only one sample, which is correct. Capital letters are sets: ``Aa1+`` belongs to set
    A and pair Aa. ``yn`` is a sample whose correct option is yes and that was answered no; ``-``
    means no answer, ``o`` a third option.
    """
    parsed = []
    for number, word in enumerate(text.split()):
        if len(word) == 2:
            target, answer = "yno".index(word[0]), "yno-".index(word[1])
            prediction = None if answer == 3 else answer
            parsed.append(
                Record(
                    str(number), 0, 2, prediction == target,
                    target=target, prediction=prediction, positive=0,
                )
            )  # fmt: skip
            continue
        name, mark = word[:-1], word[-1]
        key = name.rstrip("0123456789")
        parsed.append(
            Record(
                sample_id=name,
                order_index=0,
                n_options=4 if key[0].isupper() else 2,
                correct=mark == "+",
                pair=key,
                set=key[0] if key[0].isupper() else None,
                **common,  # type: ignore[arg-type]
            )
        )
    return parsed
