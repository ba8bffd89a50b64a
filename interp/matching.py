"""Matching: which concepts of a dataset stand for a clause of the spec, without an LLM.

A clause brings evidence about single responses: its detector, the phrases it quotes, its words where they stand in a
response and not in the prompt, and the everyday behaviours whose names it uses (each a set of minimal pairs that the
lens has read). Evidence is weak: words miss paraphrases, a minimal-pair readout confuses neighbours. So it never
becomes a concept as it is. It either picks a concept that discovery found blind, whose rows it agrees with, or it
labels the responses for a readout of its own, which must recognise responses that it was not fitted on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from premortem.interp.discover import Discovery, grow
from premortem.interp.growth import MIN_ROWS
from premortem.interp.learner import Learner
from premortem.interp.readout import Bag, Bools, Floats, Part, Readout, sign_z, signed_rows
from premortem.interp.records import LEAST_EXAMPLES, Clause
from premortem.interp.sides import Responses
from premortem.interp.words import SPACELESS, spaced

RECOGNISED = 0.8
"""AUROC by which a readout must recognise evidence on responses that it was not fitted on."""
RANKED = 0.85
"""AUROC by which a behaviour's scores must pick out the responses of a discovered concept to claim it."""
PAIRED = 0.95
"""Share of a discovered concept's pairs in which the side that shows it must have the higher score."""
CONFIRMED = 0.75
"""AUROC by which a concept must tell a behaviour's own examples from their counterparts to stand for it."""
ANSWERS = 1 / 3
"""How much more often a concept must fire on a behaviour's examples than on their counterparts to be that behaviour."""
AGREEMENT = 0.5
"""Share of a discovered concept's rows that a clause's evidence must mark to claim it."""
EXPLAINED = 0.3
"""Share of the pairs that a clause's evidence marks on one side that discovered concepts must hold to stand alone."""
LIFT = 3.0
"""How much denser the evidence must be in those rows than in all pairs."""
HEARD = 1.5
"""Deviations above the data's usual text at which a concept answers to a clause's own words."""
SAME = 0.5
"""Share of the smaller one's rows from which two discoveries are about the same pairs."""
EXACT = ("detector", "quoted")
"""Sources that say exactly what is meant."""
OWN_WORDS = (*EXACT, "words")
"""Sources that are the clause's own."""
HELD = 0.8
"""Share of a discovery's rows that a wider one must hold."""
LEAST_OF_WIDER = 0.4
"""Share of the wider one's rows that the narrower one must hold in turn."""
COMMONPLACE = 0.25
"""A word that stands in a larger share of responses says nothing about a behaviour."""


@dataclass(frozen=True)
class Texts:
    """The words of a dataset, row for row with its `Responses`."""

    responses: Sequence[str]
    """`2 * n_pairs` response texts, chosen first."""
    prompts: Sequence[str]
    """`n_pairs` prompt texts."""


@dataclass(frozen=True)
class Evidence:
    """What one source says about every response."""

    source: str
    """`detector`, `quoted`, `words`, or the id of an everyday behaviour."""
    marks: Bools
    """`(2 * n_pairs,)`: responses marked as showing the behaviour."""
    literal: bool
    """Whether the source names the behaviour itself (a detector, a quotation, an everyday behaviour); the words of a
    clause may only describe it."""
    scores: Floats | None = None
    """`(2 * n_pairs,)`: how much each response shows it, where the source ranks rather than marks."""
    examples: Bag | None = None
    """Responses that show the behaviour, followed by as many like them that do not, if the source has any."""


@dataclass(frozen=True)
class Match:
    """A concept that stands for a clause."""

    readout: Readout
    signs: NDArray[np.int64]
    source: str
    """The evidence that led to it."""
    discovered: bool
    """Whether discovery had found it blind."""


def stem(word: str) -> str:
    """Cut the commonest English endings, so that a clause's plural finds the singular."""
    for ending, least in (("iness", 4), ("ies", 3), ("ing", 4), ("ers", 4), ("ed", 4), ("es", 4), ("ly", 4), ("s", 3)):
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return word[: -len(ending)]
    return word


def word_marks(words: Sequence[str], texts: Texts) -> Bools:
    """Mark the responses in which a word of `words` stands that its own prompt does not hold, by stem."""
    marks = np.zeros(len(texts.responses), dtype=bool)
    for word in words:
        inflected = rf"\b{re.escape(stem(word))}\w{{0,4}}\b"
        pattern = re.compile(phrase_pattern(word) if spaced(word) != word else inflected, re.IGNORECASE)
        hits = np.asarray([bool(pattern.search(text)) for text in texts.responses])
        if hits.mean() > COMMONPLACE:
            continue
        asked = np.asarray([bool(pattern.search(text)) for text in texts.prompts])
        marks |= hits & ~np.concatenate([asked, asked])
    return marks


def phrase_pattern(example: str) -> str:
    """Return the pattern of a quoted phrase, which no letters may go on before it or behind it.

    Scripts without spaces and Korean, which joins particles to its words, know no such borders.
    """
    letter = rf"[^\W{SPACELESS}\uac00-\ud7a3]"
    before, after = (rf"(?<!{letter})", rf"(?!{letter})")
    starts, ends = (re.fullmatch(letter, edge) for edge in (example[:1], example[-1:]))
    return f"{before if starts else ''}{re.escape(example)}{after if ends else ''}"


def gather(clause: Clause, texts: Texts, behaviours: Sequence[Evidence]) -> list[Evidence]:
    """Return the evidence of `clause`, the most trustworthy source first.

    `behaviours` is what the everyday behaviours that the clause names say.
    """
    found: list[Evidence] = []
    if clause.detector:
        pattern = re.compile(clause.detector)
        marks = np.asarray([bool(pattern.search(text)) for text in texts.responses])
        found.append(Evidence("detector", marks, literal=True))
    if clause.examples:
        quoted = re.compile("|".join(map(phrase_pattern, clause.examples)), re.IGNORECASE)
        marks = np.asarray([bool(quoted.search(text)) for text in texts.responses])
        found.append(Evidence("quoted", marks, literal=True))
    found += behaviours
    if clause.words:
        found.append(Evidence("words", word_marks(clause.words, texts), literal=False))
    return [evidence for evidence in found if evidence.marks.any()]


def match_clause(
    clause: Clause, evidence: Sequence[Evidence], learner: Learner, discoveries: Sequence[Discovery]
) -> list[Match]:
    """Return the concepts that stand for a clause with this `evidence`; empty when none covers it.

    A concept that discovery found is preferred to a readout of the evidence's own, where it explains the evidence: a
    few rows that happen to agree are no reason to look no further. Mere words get a readout only where nothing names
    the behaviour in enough responses and the clause forbids it: "be friendly" does not mean the word.
    """
    matches = [
        Match(discovery.readout, discovery.signs, item.source, True)
        for discovery in discoveries
        if (item := claims(evidence, learner.responses, discovery)) is not None
    ]
    named = any(item.literal and item.marks.sum() >= MIN_ROWS for item in evidence)
    for item in evidence:
        if _explained(item, matches) or not (item.literal or (not named and clause.direction == "avoid")):
            continue
        own = own_readout(item, learner)
        matches += [] if own is None else [own]
    return sorted(matches, key=lambda match: -abs(sign_z(match.signs)))


def _explained(evidence: Evidence, matches: Sequence[Match]) -> bool:
    """Whether `matches` hold enough of the pairs that `evidence` marks on one side, or were grown from evidence."""
    if not matches or not all(match.discovered for match in matches):
        return bool(matches)
    signs = signed_rows(evidence.marks, len(matches[0].signs))
    marked = signs * np.sign(sign_z(signs)) > 0
    held = np.logical_or.reduce([_rows(match) for match in matches])
    return bool((marked & held).sum() >= EXPLAINED * marked.sum())


class Heard(NamedTuple):
    """A concept that answers to a clause's own words."""

    discovery: Discovery
    clause: int
    """Which clause."""
    strength: float
    """Deviations above the data's usual text, the mean of both forms."""


def heard(discoveries: Sequence[Discovery], led: Sequence[Discovery], responses: Responses, spoken: Bag) -> list[Heard]:
    """Return which discoveries are about which clause by the lens alone, the strongest first, one for each clause.

    `spoken` holds each clause twice: its words one after the other, then its behaviour as a sentence. A concept is
    about the clause that it answers to in both forms more than to any other, and clearly more than to the usual text of
    the data. So a rule on astrology that names no star sign finds the features of star signs. What stands for the
    clause is the widest of `discoveries` that is still about the same rows; those that the clauses have `led` to are
    surer to be about the clause, and less sure of their rows.
    """
    n = len(spoken) // 2
    answers: list[Heard] = []
    for discovery in (*discoveries, *led):
        readout = Readout(Part(), discovery.readout.local, 0.0)
        usual = readout.score(responses.bag)[~responses.fires(discovery.readout)]
        forms = (readout.score(spoken).reshape(2, n) - usual.mean()) / (usual.std() + 1e-9)
        best = int(forms.sum(0).argmax())
        if discovery.z > 0 and (forms.argmax(1) == best).all() and forms[:, best].mean() >= HEARD:
            answers.append(Heard(discovery, best, float(forms[:, best].mean())))
    return _one_each(sorted(answers, key=lambda answer: -answer.strength), discoveries)


def _one_each(answers: Sequence[Heard], discoveries: Sequence[Discovery]) -> list[Heard]:
    """Take one answer for each clause, and none whose rows another clause has been given."""
    taken: dict[int, Heard] = {}
    for answer in answers:
        if answer.clause in taken or any(shared(answer.discovery, t.discovery) > SAME for t in taken.values()):
            continue
        wider = [other for other in discoveries if _is_wider(other, answer.discovery)]
        widest = max(wider or [answer.discovery], key=lambda discovery: discovery.z)
        taken[answer.clause] = answer._replace(discovery=widest)
    return list(taken.values())


def _is_wider(one: Discovery, other: Discovery) -> bool:
    """Whether `one` holds nearly all rows of `other` and not many times more."""
    a, b = _rows(one), _rows(other)
    return bool(one.z > 0 and (a & b).sum() >= HELD * b.sum() and b.sum() >= LEAST_OF_WIDER * a.sum())


def _rows(found: Discovery | Match) -> Bools:
    return np.asarray(found.signs * np.sign(sign_z(found.signs)) > 0)


def shared(one: Discovery | Match, other: Discovery | Match) -> float:
    """Return which part of the smaller one's rows both hold, 0 to 1."""
    a, b = _rows(one), _rows(other)
    return float((a & b).sum() / max(min(a.sum(), b.sum()), 1))


def assign(matches: Mapping[str, Sequence[Match]], heard_for: Mapping[str, Discovery]) -> dict[str, list[Match]]:
    """Return the matches of each clause (by clause_id) after the lens has heard `heard_for` some of them.

    What was heard comes first and takes the place of a readout that evidence has grown, unless that is exact. Where
    everyday behaviours have given the same rows to another clause, they go: a behaviour as wide as "some unrelated
    subject" fits many concepts.
    """
    assigned: dict[str, list[Match]] = {}
    for clause_id, own in matches.items():
        elsewhere = [discovery for other, discovery in heard_for.items() if other != clause_id]
        kept = [m for m in own if m.source in OWN_WORDS or not any(shared(m, d) > SAME for d in elsewhere)]
        if (found := heard_for.get(clause_id)) is not None:
            kept = [m for m in kept if (m.discovered or m.source in EXACT) and shared(m, found) <= SAME]
            kept.insert(0, Match(found.readout, found.signs, "lens", True))
        assigned[clause_id] = kept
    return assigned


def claims(evidence: Sequence[Evidence], responses: Responses, discovery: Discovery) -> Evidence | None:
    """Return the first evidence that picks out what `discovery` found.

    Marks must cover its rows on the side that shows the concept. Scores must rank the responses in which it fires above
    the others, and above the other side of their own pairs, where the prompt is the same.
    """
    direction = np.sign(discovery.z)
    rows = discovery.signs * direction > 0
    fires = responses.fires(discovery.readout)
    for item in evidence:
        if not confirms(item, discovery.readout):
            continue
        if item.scores is not None:
            chosen, rejected = responses.both(item.scores)
            paired = ((chosen - rejected) * direction > 0)[rows].mean()
            if paired >= PAIRED and roc_auc_score(fires, item.scores) >= RANKED:
                return item
            continue
        agrees = signed_rows(item.marks, len(rows)) * direction > 0
        inside, everywhere = agrees[rows].mean(), agrees.mean()
        if inside >= AGREEMENT and inside >= LIFT * max(everywhere * (1 - rows.mean()), 1e-9):
            return item
    return None


def confirms(evidence: Evidence, readout: Readout) -> bool:
    """Whether `readout` tells the evidence's own examples from their counterparts; True where it has none.

    Data in which the sides differ at large (one complies, one refuses) makes every search one-sided; what it brings up
    must still be the behaviour that was looked for.
    """
    return evidence.examples is None or _tells_apart(readout, evidence.examples)


def _tells_apart(readout: Readout, examples: Bag) -> bool:
    n = len(examples)
    return bool(roc_auc_score(np.arange(n) < n // 2, readout.score(examples)) >= CONFIRMED)


def answers_to(readout: Readout, examples: Bag) -> float:
    """Return how much more often `readout` fires on examples of a behaviour than on their counterparts, -1 to 1.

    `examples` holds those that show the behaviour, then as many that do not. The threshold is the one at which the
    concept was found in the data, so a concept that fires on text which somebody else wrote is about the behaviour.
    0 for fewer than LEAST_EXAMPLES.
    """
    n = len(examples) // 2
    if n < LEAST_EXAMPLES or not _tells_apart(readout, examples):
        return 0.0
    fires = readout.fires(examples)
    return float(fires[:n].mean() - fires[n:].mean())


def stands_for(readout: Readout, given: Bag, responses: Responses) -> float:
    """Return how much more often `readout` fires on examples that the user has `given` than on `responses`, -1 to 1.

    As in `answers_to`, but nobody has written counterparts: the data's own responses, which are longer and so show more
    of anything, stand for them. 0 for fewer than LEAST_EXAMPLES.
    """
    if len(given) < LEAST_EXAMPLES:
        return 0.0
    scores = [readout.score(bag) for bag in (given, responses.bag)]
    if roc_auc_score(np.repeat([True, False], [len(one) for one in scores]), np.concatenate(scores)) < CONFIRMED:
        return 0.0
    return float(readout.fires(given).mean() - responses.fires(readout).mean())


def own_readout(evidence: Evidence, learner: Learner) -> Match | None:
    """Grow a readout from `evidence`; None when the lens does not recognise what it marks."""
    marks = evidence.marks
    if not MIN_ROWS <= int(marks.sum()) <= len(marks) - MIN_ROWS:
        return None
    learnt = learner.fit(marks)
    if roc_auc_score(marks, learnt.scores) < RECOGNISED:
        return None
    grown = grow(learner, marks)
    readout = learnt.readout if grown is None else grown.readout
    if not confirms(evidence, readout):
        return None
    responses = learner.responses
    return Match(readout, signed_rows(responses.fires(readout), responses.n_pairs), evidence.source, False)
