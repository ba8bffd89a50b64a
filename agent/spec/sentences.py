"""Which sentences of a spec are rules, and what they ask for.

People state rules in more ways than cue words can list: "quit the apologies", "dates are written out", "the calm manner
must survive", a bare "promises of refunds" under "Not wanted". So the text is laid out first (`layout`), every
sentence with the heading or the line that leads to it, and then a small classifier (`interp.text_model`, learned from
794 specs of all kinds) says of each sentence whether it is background or a rule, and which way. Cue words are among its
features, and a few shapes leave no doubt and decide alone.

A rule that only points back ("Keep it.") takes the sentence that it points to along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from premortem.agent.spec.layout import Sentence
from premortem.agent.spec.negations import LACKING, LOSE, NEGATIONS, SUBJECT
from premortem.agent.spec.quotes import PREFERRED
from premortem.agent.spec.rations import RATIONS
from premortem.agent.spec.shapes import ALLOWED_ONLY, LABELLED, MORE, OPINIONS, WISHES
from premortem.agent.spec.words import SINGLE, without_emphasis
from premortem.interp.records import Direction
from premortem.interp.text_model import shipped

LABELS: tuple[Direction | None, ...] = (None, "avoid", "keep", "encourage")
"""What the classifier tells apart; None: background."""
RULE = 0.5
"""Probability from which a sentence counts as a rule."""
NEARLY = 0.2
"""Probability from which prose that counts as background may yet be a rule: 12 of the 21 lost ones in the held-out
labelled specs reach it, and 38 of 216 sentences that are background."""
SCOPE = re.compile(
    r"\b((?:when|whenever|if|unless|even (?:when|if)|above all|especially|except|in (?:answers?|replies|response)|"
    r"on (?:health|medical|legal|sensitive|topics|questions)|about (?:health|medical|legal))\b.*)$",
    re.IGNORECASE | re.DOTALL,
)
"""A condition at the end of a rule."""
OPENING_SCOPE = re.compile(
    r"(?:when|whenever|if|where|wherever|for|in|on|with|after|before|once|unless|between|as|at|by|during|since)\b"
    r"[^,:]*[,:]\s*",
    re.IGNORECASE,
)
"""A condition at its beginning."""
_HOW = (
    r"(?:answer|reply|respond|write|speak|talk|explain|describe|summari[sz]e|help|refuse|decline|begin|start|open|close"
    r"|end|finish|conclude|greet|be|stay)\b"
)
_THINGS_SAID = (
    r"(?:answers?|repl(?:y|ies)|responses?|truth|facts?|advice|information|help|explanations?|directions|instructions"
    r"|steps|sums?|problems?|questions?)"
)
WITHOUT = re.compile(
    r"^(?:please )?(?:just |always )?"
    rf"(?:{_HOW}|(?=(?:give|tell|provide|solve|offer|keep)\b[^,;:]* (?:{_THINGS_SAID} without\b|without \w+ing\b))\w+)"
    r"(?!.*(?:\bno\b|\bnot\b|\bnever\b|n't\b|\bnobody\b|\bnone\b))[^;:]*?(?<!with and )(?<!with or )\bwithout "
    r"(?:any |ever )?(?!being (?:asked|told))(?P<what>.+)",
    re.IGNORECASE | re.DOTALL,
)
"""A rule that says how to answer and means what not to do."""

_POINTS_BACK = re.compile(r"(?:\w+ ){0,4}(?:this|that|it|them|these|those)\W*|no change\W*", re.IGNORECASE)
_TOKEN = re.compile(r"<\w+>|[a-z]+(?:'[a-z]+)?|[%:;?!.\"*]")
_TYPO = re.compile(r"\b(do|does|should|must|wo|ca|is|are)nt\b")
_MASKS = ((re.compile(r"[\"“][^\"”]*[\"”]"), " <quote> "), (SINGLE, " <quote> "), (re.compile(r"`[^`]*`"), " <code> "))
_NUMBER = re.compile(r"\d[\d.,]*")
_PRONOUNS = frozenset("we i our my us you your they it he she".split())
_CERTAIN: tuple[tuple[Direction, re.Pattern[str]], ...] = (
    ("keep", re.compile(r"\b(?:keep|go on|carry on|continue)(?: on)? doing (?:that|this|so|it)\b")),
    *NEGATIONS,
    *RATIONS,
    *PREFERRED,
    (
        "encourage",
        re.compile(r"^(?:and |please )*(?:never|no|do not|don't|nothing|not)\b[^;]{1,60}" + LACKING),
    ),
    (
        "keep",
        re.compile(
            rf"^(?:please )?(?:{SUBJECT} )?(?:must |should |shall )?(?:also )?(?:keep|continue|go on|carry on)s?"
            r"(?: to)? (?:\w+ly )?\w+ing\b(?!.*\b(?:stop|quit|end)\b)"
        ),
    ),
    (
        "avoid",
        re.compile(
            rf"^(?:and |but |also,? |please,? |so )*(?:do not|don't|never|avoid)(?: ever)? (?!{LOSE}|.*{LACKING})\w"
        ),
    ),
    (
        "avoid",
        re.compile(
            rf"\b(?!you\b){SUBJECT} (?:also )?(?:must|should|shall|may)(?: not|n't| never)(?: to)? "
            rf"(?!{LOSE}|.*{LACKING})"
        ),
    ),
    ("avoid", WITHOUT),
    ("avoid", ALLOWED_ONLY),
    *LABELLED,
    *OPINIONS,
    *WISHES,
    *MORE,
    ("avoid", re.compile(r"\bkeep\b.{1,60}\b(?:free|clear) (?:of|from)\b|\bkeep\b.{1,40}\b(?:out of|away from)\b")),
)
"""Shapes that leave no doubt: nearly all sentences of `specs.jsonl` that have one are such rules."""
_EXPLAINS = re.compile(r"^(?:this|that) (?!is to\b|has to\b|needs to\b)\w+s\b(?!.*\b(?:stop|stay|remain|go)\b)")
"""How a sentence begins that says more about the rule before it ("This matters most for …")."""
_SHAPES = {
    "told to": re.compile(rf"^{SUBJECT} (?:must|should|shall|has to|have to|needs? to)\b(?! not| never|n't)"),
    "does not": re.compile(rf"^{SUBJECT} (?:also )?(?:never|does not|doesn't|do not|don't)\b"),
}
_CUES = {
    "avoid": re.compile(
        r"\b(?:never|no|not|n't|don'?t|avoid\w*|without|stop|stops|quit|refrain|forbid\w*|banned?|off[- ]limits|spared?"
        r"|cut|drop|lose|ditch|skip|hate|tired|sick|fed up|annoy\w*|nobody|nothing|none|zero|neither|nor|fewer|less"
        r"|rather than|instead of|free of|at most|no more than|refuse\w*|declin\w*|left out|leave out"
        r"|has no (?:place|business)|is out|are out|too (?:much|many|often)|enough of|away)\b|n't\b"
    ),
    "keep": re.compile(
        r"\b(?:keep\w*|continue\w*|remain\w*|stay\w*|maintain\w*|preserve\w*|retain\w*|protect\w*|survive\w*|uph[eo]ld"
        r"|today|currently|already|at present|as (?:it )?is|go(?:es)? on|carr(?:y|ies) on|still"
        r"|(?:do not|don'?t|never) (?:touch|lose|change|break|remove)|hands off|hang on|love how|lost"
        r"|persist|intact|unchanged|no change|as now|the way it|please leave|fine)\b"
    ),
    "encourage": re.compile(
        r"\b(?:always|should|must|shall|please|every|each|make sure|ensure|want|wants|would like|'d like|'d love"
        r"|prefer\w*|ought|needs? to|ha(?:s|ve) to|is to|are to|first|aim|at least|more)\b"
    ),
}


def read_directions(sentences: Sequence[Sentence]) -> list[Direction | None]:
    """Return what each sentence asks for; None: it is no rule."""
    chances = _chances(sentences)
    likely = [LABELS[1 + int(row[1:].argmax())] if 1.0 - row[0] >= RULE else None for row in chances]
    told: list[Direction | None] = []
    for sentence, direction in zip(sentences, likely, strict=True):
        masked = _masked(sentence.text).strip(" *_")
        certain = next((asked for asked, pattern in _CERTAIN if pattern.search(masked)), None)
        background = sentence.signed or (certain is None and _EXPLAINS.search(masked))
        told.append(None if background else certain or direction)
    return told


def nearly_rules(sentences: Sequence[Sentence]) -> frozenset[str]:
    """Return the texts of prose that may be meant as a rule, though it can read as background."""
    chances = _chances(sentences)
    prose = [(one, row) for one, row in zip(sentences, chances, strict=True) if one.kind == "prose" and not one.signed]
    return frozenset(one.text for one, row in prose if NEARLY <= 1.0 - row[0] < RULE)


def _chances(sentences: Sequence[Sentence]) -> npt.NDArray[np.float64]:
    """Return the probability of each of `LABELS`, one row per sentence."""
    chances: npt.NDArray[np.float64] = softmax(shipped("spec").log_odds([features(one) for one in sentences]), axis=1)
    return chances


def rules(sentences: Sequence[Sentence]) -> list[tuple[Sentence, Direction | None]]:
    """Return the sentences with what they ask for, those that belong together joined.

    Where prose holds no rule at all, it is read once more as if each sentence stood in a list: somebody means it.
    """
    told = read_directions(sentences)
    if not any(told):
        told = read_directions([sentence._replace(kind="bullet", listed=True) for sentence in sentences])
    joined: list[tuple[Sentence, Direction | None]] = []
    for sentence, direction in zip(sentences, told, strict=True):
        before = joined[-1] if joined else None
        tail = before is not None and before[0].text.endswith(";") and direction is None
        if before is not None and (tail or (direction is not None and _points_back(sentence.text))):
            whole = before[0]._replace(text=f"{before[0].text} {sentence.text}")
            joined[-1] = (whole, before[1] if tail else direction)
        else:
            joined.append((sentence, direction))
    return [(sentence._replace(text=sentence.text.rstrip("; ")), direction) for sentence, direction in joined]


def features(sentence: Sentence) -> list[str]:
    """Return what the classifier sees of a sentence."""
    text, lead = _masked(sentence.text), _masked(sentence.lead)
    tokens, leading = _TOKEN.findall(text), _TOKEN.findall(lead)
    opening = OPENING_SCOPE.match(text)
    head = _TOKEN.findall(text[opening.end() :]) if opening else tokens
    closing = SCOPE.search(text)
    main = text[: closing.start()] if closing and closing.start() > 8 else text
    cues, lead_cues = "+".join(_cues(main)), "+".join(_cues(lead))
    return [
        *(f"1:{token}" for token in tokens),
        *(f"2:{' '.join(pair)}" for pair in pairwise(tokens)),
        *(f"^{' '.join(head[:n])}" for n in (1, 2, 3)),
        *(f"${' '.join(tokens[-n:])}" for n in (2, 3)),
        *(f"cue:{cue}" for cue in _cues(text)),
        *(f"word:{found}" for pattern in _CUES.values() for found in pattern.findall(main)),
        *(f"pronoun:{token}" for token in tokens if token in _PRONOUNS),
        *(f"lead:{token}" for token in leading),
        *(f"lead:{' '.join(pair)}" for pair in pairwise(leading)),
        *("scoped" for _ in [opening] if opening),
        *(f"shape:{name}" for name, pattern in _SHAPES.items() if pattern.search(text)),
        f"cues:{cues}",
        f"cues:{cues} {sentence.kind}",
        f"lead cues:{lead_cues}",
        f"lead cues:{lead_cues} cues:{cues}",
        f"kind:{sentence.kind}",
        f"order:{min(sentence.order, 5)}",
        f"listed:{sentence.listed} {sentence.kind}",
        f"listed:{sentence.listed} {sentence.kind} order:{min(sentence.order, 5)}",
        f"{sentence.kind} ^{' '.join(head[:1])}",
        f"length:{min(len(tokens) // 5, 6)}",
    ]


def _points_back(text: str) -> bool:
    return _POINTS_BACK.fullmatch(text) is not None


def _masked(text: str) -> str:
    for pattern, name in _MASKS:
        text = pattern.sub(name, text)
    text = without_emphasis(text)
    return _NUMBER.sub(" <number> ", _TYPO.sub(r"\1n't", text.lower().replace("’", "'")))


def _cues(text: str) -> list[str]:
    return [name for name, pattern in _CUES.items() if pattern.search(text)]
