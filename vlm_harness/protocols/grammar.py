"""Patterns over the sketch of an answer: how English sentences choose, reject or compare options.

In a sketch, one private character stands for every mention of an option, whatever its words or
label: "I would rule out A and B, so C" becomes "I would rule out ① and ②, so ③". So the
patterns need not know the options, and are compiled once. ``O`` is any mention.
"""

import re

FIRST, LAST = 0xE000, 0xF8FF
"""Range of the private characters."""
O = f"[{chr(FIRST)}-{chr(LAST)}]"  # noqa: E741
SKIP = f"[^\\w{chr(FIRST)}-{chr(LAST)}]{{0,8}}"
"""Punctuation and spaces at the start; private characters are no word characters either."""
NOT_O = f"[^{chr(FIRST)}-{chr(LAST)}]"


def _compile(pattern: str) -> re.Pattern[str]:
    # "@" stands for a mention, "~" for the words that may stand before one.
    words = (
        r"(?:(?:the|an?|that|this|those|these|of|in|for|on|at|by|to|with|its|my|other|one|both|either"
        r"|option|choice|answer|caption|label|labell?ed|as|point|box|image|picture|figure|letter"
        r"|bounding|circle|red|object|statement|description|candidate|number)[ ]){0,6}[\"'(\[]{0,3}"
    )
    return re.compile(
        pattern.replace("~", words).replace("%", SKIP).replace("@", O), re.IGNORECASE | re.VERBOSE
    )


_GOOD = r"""(?:correct|right|best|better|true|accurate|appropriate|suitable|likely|plausible
        |probable
    |fitting|closest|final|valid|proper|ideal|accurate|reasonable|logical|apt|matching
        |preferred)"""
_VERY = r"""(?:(?:the|most|more|single|only|a|an|my|our|your|very|also|indeed|clearly|probably
        |likely)[ ]){0,4}"""
_NOUN = r"""(?:answer|choice|option|solution|response|caption|description|letter|selection
        |conclusion
    |guess|pick|candidate|match|judgment|judgement|assessment|verdict|prediction|result
        |statement)"""
_IS = r"""(?:is|would[ ]be|should[ ]be|must[ ]be|will[ ]be|seems[ ]to[ ]be|appears[ ]to[ ]be
        |remains
    |has[ ]to[ ]be|might[ ]be|may[ ]be|could[ ]be|was)\b"""

MARKER = _compile(
    rf"""\b(?:{_GOOD}[ ]){{0,3}}{_NOUN}\b(?:[ ](?:to|for|of|among|from|in|here|is|that
        |which)\b{NOT_O}{{0,60}}?)?
        ["']?[ ]?(?:[:=]|{_IS})[ ]?:?
    | \b{_VERY}{_GOOD}[ ]{_NOUN}\b(?=[ ]?["'(]?@)
    | \bI(?:[ ](?:will|would|must|should|can|do|am)|'(?:ll|d|m))?[ ](?:\w+ly[ ])?(?:have[ ]to[ ])?
        (?:choose|select|pick|go(?:ing)?[ ](?:with|for)|opt[ ]for|vote[ ]for
        |lean(?:ing)?[ ]towards?
        |choosing|selecting|picking|chose|selected|picked|conclude|guess|bet[ ]on
        |say(?![ ]that))\b
    | \b(?:if[ ])?(?:I[ ])?(?:forced|have|had|need|must|were)[ ]to[ ](?:choose|select|pick
        |guess)\b
    | \banswer(?=[ ]?["'(]?@)
    | \bassistant: | <answer> | \\boxed\{{
    | \b(?:la[ ]respuesta|la[ ]réponse|die[ ](?:richtige[ ])?antwort|a[ ]resposta|la[ ]risposta)
        (?:[ ](?:correcta|correcte|correta|corretta))?[ ](?:es|est|ist|é|è)\b | 정답은 | 答えは
    | (?:正确)?(?:答案|选项)(?:应该|应当|就)?[是为:选]?[ ]?:?[ ]?(?=["'(\[]?@)
    | (?:我|应|应该|故|所以|因此)?选(?:择)?[ ]?:?[ ]?(?=["'(\[]?@)"""
)
"""An announced answer; the mention follows."""
PROPOSES = _compile(
    r"""\b(?:if|whether|assuming|suppose|might|may)\b
    | \b(?:an?|another|first|second|third|initial|least|worst|wrong|next)[ ](?:\w+[ ]){0,3}\Z"""
)
"""Before an announcement: "a more accurate caption would be" does not choose."""
CONCEDES = _compile(r"\b(?:while|whereas|although|though|even[ ]if)\b[^,;]*\Z")
"""Before a mention: "while ① is plausible, ② is better" does not choose the first."""
RIGHTED = _compile(
    rf"""@["')\]]*{NOT_O}{{0,60}}?[ ](?:is|are|was|as|be|seems|appears|being)(?:[ ]to[ ]be)?[ ]
        (?:{_VERY}(?:{_GOOD}[ ]?){{1,3}}(?:{_NOUN}|one)?
        |(?:\w+ly[ ])?(?:the|a)[ ]{_VERY}(?:{_GOOD}[ ]?){{1,3}}(?:[a-z]+ing[ ])?\w+)
        (?=[ ]*(?:[.,;:!?)]|\Z|(?:because|since|as|for|to|among|from|based|given|in|here|if|when
        |and)\b))"""
)
"""A mention that is called the correct one."""
COMPLEMENT = _compile(
    rf"""(?:\b{_IS}|:)[ ]?(?:(?:most[ ]likely|likely|probably|therefore|thus|the|option|choice
        |point|picture
        |image|box|figure|caption|number|answer|circle)[ ]){{0,4}}["'(\[]{{0,3}}(@)[\"')\]]{{0,3}}
        (?=[.,;:]|\Z|[ ](?:in|on|of|because|as|since|for|at|from)\b)"""
)
"""A mention that ends a clause after "is": "the matching point is ①"."""
INTERROGATIVE = _compile(
    r"\A%(?:is|are|was|does|do|did|can|could|would|should|which|what|who|where|why|how|or|so|then)\b"
)
TURNS = _compile(r"\b(?:other[ ]hand|(?:in|by)[ ]contrast|meanwhile|conversely)\b")
CONTRAST = _compile(
    r"""\b(?:other[ ]hand|while|whereas|however|although|though|in[ ]contrast|by[ ]contrast
        |meanwhile|too|less|but)\b"""
)
EXPLAINS = _compile(
    r"""\A%(?:this|that|these|it)[ ](?:is|can[ ]be|was|indicates|suggests|shows|means|choice
        |option)\b
    |\A%(?:both|because|since|here(?:'s|[ ]is|[ ]are)|explanation|reason(?:ing|s)?|the[ ]reason
        |justification|rationale)\b"""
)
"""The beginning of an explanation."""
ASIDE = _compile(
    r"""\b(?:while|whereas|although|though|but|because|since|despite|even[ ]though|however
        |as[ ](?:the|it|this|that|both|they|its?|there|in|a)
    |even[ ]accounting|when[ ]compared)\b|[ ](?:making|indicating|suggesting|with[ ]the)\b"""
)
"""The beginning of a subordinate clause that explains or contrasts."""
FINAL = _compile(r"\b(?:final|ultimate)[ly]*[ ](?:answer|choice|conclusion)\b|\\boxed|<answer>")
CONCLUDES = _compile(
    r"""\A%(?:and[ ]|but[ ])?(?:therefore|thus|hence|so|consequently|accordingly|ergo|finally
    |in[ ](?:conclusion|summary|short)|to[ ](?:conclude|summari[sz]e|sum[ ]up)|conclusion|overall
    |ultimately|all[ ]in[ ]all|as[ ]a[ ]result|for[ ](?:this|these)[ ]reasons?|this[ ]means
    |(?:based|going)[ ]on[ ](?:this|these|the[ ]above|that|my|our)|given[ ](?:this|these|that)
    |(?:from|with)[ ](?:this|these)|because[ ]of[ ](?:this|these)|it[ ]follows|we[ ]can[ ]conclude
    |taking[ ]all|considering[ ](?:this|these|all)|after[ ](?:comparing|examining|analy[sz]ing)
    |by[ ]comparing|upon[ ](?:comparing|closer|examin\w*))\b
    |\A%(?:因此|所以|综上|故)"""
)
SO = _compile(r"(?:[,;][ ]|[ ]-[ ]|\band[ ])(?:and[ ])?(?:so|therefore|thus|hence)\b(?![ ]that)")
REVISES = _compile(
    r"\b(?:wait|actually|however|but|correction|instead|on[ ]second[ ]thought|sorry|rather|hmm)\b"
)

CORRECTS = _compile(
    r"\A%(?:wait|actually|correction|on[ ]second[ ]thought|sorry|hmm|no)\b(?:[,. :]|\Z)"
)
"""The beginning of a statement that takes back what was said before."""
RECONSIDERS = _compile(r"\b(?:reconsider|re-?think|double[ -]?check|look[ ]again|wait)\b")

PRELUDE = _compile(r"\A%(?:since|because|while|although|though|whereas|given[ ]that)\b[^,\n]*,")
"""A subordinate clause before the main one: "since ① is far, ② is closer"."""
QUESTION_WORD = _compile(r"\b(?:whether|if)\b")
NEGATION = _compile(
    r"""\bnot\b(?![ ](?:only|just)\b) | \bno\b(?![ ](?:doubt|question)\b) | n't\b | \b(?:is|does
        |ca)nt\b
    | \b(?:cannot|never|nor|neither|none|without|hardly|unlikely|incorrect|wrong|except|excluding
    |exclude[sd]?|eliminat(?:e|es|ed|ing)|reject(?:s|ed|ing)?|dismiss(?:es|ed|ing)?|discard(?:ed
        |ing)?)\b
    | \brul(?:e|es|ed|ing)[ ]out\b | \b(?:anything|everything|all)[ ]but\b | \bfar[ ]from\b
    | \b(?:the[ ])?opposite[ ]of\b | \bdisagree[ ]with\b | \bI[ ]doubt\b
    | 不是|不选|不在|不对|不应|并非|而非|没有"""
)
NEITHER = _compile(r"\bneither\b")
CLAUSE = _compile(
    r"""(?P<comma>,(?!\d)) | (?P<stop>[;–—:]|[ ]-[ ]|\b(?:but|however|although|though|while
        |whereas
    |because|since|yet|so|therefore|thus|hence)\b|\band[ ](?:is|it|sits|stands|lies|so|that
        |this)\b)"""
)
_GAP = (
    r"(?:(?!\b(?:because|since|while|whereas|although|though|but|so)\b)"
    r"[^.,;:!?\n\ue000-\uf8ff])"
)
DENIED = _compile(
    rf"""["')\]]{{0,2}}(?:,[ ](?:which|that|who|while|although
        |though|being|located|labell?ed|on|in|at|even)\b[^,.;!?\n]{{1,120}},
        |[ ]\([^()\n]{{1,60}}\))?{_GAP}{{0,40}}?["')\]]{{0,2}}[ ](?:(?:is|are|was|were|does|do
        |did|can|could|would|should|has|have|will)
        (?:n't|nt|[ ]not|not|[ ]never)\b | can't\b | cannot\b | fails?\b | lacks?\b | has[ ]no\b
        | can[ ]be[ ](?:ignored|eliminated|excluded|dismissed|ruled))
    | ["')\]]{{0,3}}[ ]?[:.–-]?[ ]?(?:incorrect|wrong|false|unlikely|[✗✘❌])(?=\W|\Z)
    | では?ない|じゃない|错误|不正确|不对
    | {_GAP}{{0,60}}?[ ](?:is|are|was|were|as|seems?|appears?|be)[ ](?:\w{{1,12}}[ ]){{0,2}}?
        (?:incorrect|wrong|false|inaccurate|unlikely|inconsistent|misleading|mistaken|worse
        |less[ ]\w+(?=[ ]than)|inferior|out\b|implausible|irrelevant|excluded|eliminated
        |ruled[ ]out|out[ ]of[ ]the[ ]question|impossible|(?:less|least)[ ](?:likely|accurate
        |plausible
        |suitable|appropriate|fitting|probable))\b"""
)
"""What follows a mention that is called wrong."""
COMPARED = _compile(
    r"""(?:\b(?:than|compar(?:ed|ing|ison)(?:[ ](?:to|with))?|rather[ ]than|instead[ ]of
        |as[ ]opposed[ ]to|unlike|versus|vs\.?|contrary[ ]to|in[ ]contrast[ ](?:to|with)
        |opposed[ ]to
        |differ(?:s|ent)?[ ]from|relative[ ]to|over)[ ]
        (?:(?!(?:other|others|rest|remaining|all|any)\b)[\w'-]+[ ]){0,9}?
      | \b(?:(?:other|remaining)[ ](?:\w+[ ])?\w+s|others|the[ ]rest)\b[ ]?(?:[,(:]|like\b
        |such[ ]as\b)?[ ]?)
      ~@(?:[\"')\]]{0,3}[ ]?(?:,[ ]?)?(?:and|or|&)[ ]~@)*"""
)
"""Mentions that something is only compared with."""
LISTED = _compile(
    r"""@(?:[\"')\]]{0,3}[ ]?(?:[,/&;|]|\band\b|\bor\b|\bto\b|\bvs\b\.?)[ ]?(?:and[ ]
        |or[ ])?~@)+"""
)
"""An enumeration of mentions."""
SUPERLATIVE = _compile(
    r"""\b(?:most|best|closest|more|better|closer|clearly|(?<!at[ ])least|largest|larger
    |(?:near|dark|light|bright|small|tall|short|high|low|tight|long|strong)(?:est|er))\b"""
)
MOST = _compile(r"\b(?:most|best|closest)\b")
FILLER = re.compile(
    r"""[^\w\ue000-\uf8ff]|\b(?:the|an?|answer|option|choice|final|correct|right|is|it|it's|its
        |so|my|therefore
    |letter|caption|output|would|be|should|image|picture|point|box|label|best|response|therefore
        |thus
    |hence|and|i|choose|select|say|to|on|of|in|this)\b|答案|正确|选项|选|是""",
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand beside the mention in a line that is nothing but an answer."""

REFUSAL = r"""(?P<refusal>(?i:
    \b(?:can(?:not|'t|[ ]not)[ ](?:be[ ])?|(?:un|not[ ])able[ ]to[ ]
        |(?:not[ ]|im)possible[ ]to[ ]|(?:hard|difficult|challenging)[ ]to[ ])
        (?:\w{1,20}ly[ ])?(?:be[ ]sure|(?:see|view)[ ](?:the|this|any|your)[ ](?:image|pic|photo)
        |(?:determin|tell|say|know|answer|assist|help|identif|verif|confirm|comply|provid
        |judge)\w*)
    | \b(?:unclear|unsure|uncertain|not[ ](?:clear|sure|certain))\b
    | \b(?:don't|do[ ]not)[ ]know\b | \bno[ ]idea\b | \bas[ ]an?[ ](?:ai|language[ ]model)\b
    | \b(?:don't|do[ ]not|didn't|did[ ]not)[ ](?:\w{1,12}[ ]){0,2}(?:have|possess
        |find)[ ](?:\w{1,12}[ -]){0,6}?
        (?:data|information|values?|projections?|details?|figures?|statistics|access|context
        |knowledge)\b
    | \b(?:doesn't|don't|does[ ]not|do[ ]not|didn't|did[ ]not)[ ](?:conclusively|clearly
        |definitively|explicitly)\b
    | \b(?:you(?:[ ]would|'d|[ ]will)?[ ](?:need|have)[ ]to[ ]consult|my[ ]last[ ](?:training
        |update|knowledge))\b
    | \b(?:not[ ]|n't[ ]\w{1,12}[ ])enough[ ](?:information|context|detail)
    | \bsorry\W{1,3}(?:but[ ])?i(?:[ ]ca|'m[ ](?:not|un)|[ ]am[ ](?:not|un))
    | \b(?:none|neither|both|all|either)[ ](?:of[ ](?:the[ ]above|them|these|those)
            # not "all of these men": what follows is a verb, or nothing
            (?:(?![ ]\w)|(?=[ ](?:is|are|seems?|appl(?:y|ies)|fits?|match(?:es)?|describes?)\b))
        |(?:of[ ])?(?:(?:the|these|those)[ ])?(?:(?:given|provided|listed|two)[ ])?
        (?:caption|option|answer|choice|statement)s?)\b
    | \b(?:none|neither|both)[ ](?:is|are|seems?)\b
    | \A\W{0,8}(?:both|neither|none|unknown|n/a)\W{0,8}\Z
))"""
REFUSES = re.compile(REFUSAL, re.VERBOSE)
