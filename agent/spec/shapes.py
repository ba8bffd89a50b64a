"""Ways to put a rule that leave no doubt which way it goes, though its cue words say otherwise.

"Tables belong only where numbers are compared" allows something in order to forbid it elsewhere; "we like it when the
unit is named" asks for what would else be told as a habit; "we hate it when it does not" asks for the opposite of what
is hated. What likes or dislikes a thing that is there already ("we love how it explains") wishes to keep it, and what
names a wish to keep behind it ("…, so keep numbering") is left to the classifier, which reads the whole sentence.
"""

from __future__ import annotations

import re

from premortem.interp.records import Direction

Shape = tuple[Direction, re.Pattern[str]]

WHEN = r"(?:when|whenever|if|where|wherever|while|after|before|during|once|on request|at the request|by request)"
_PLACE = rf"(?:{WHEN}|in|inside|within|for|on|at|to|with|under|as|between)"
LIMITING = r"(?:only|solely|exclusively|nowhere (?:but|except|else than))"
_PERMITTED = (
    r"(?:welcome|allowed|permitted|fine|ok|okay|acceptable|appropriate|tolerated|justified|excusable|wanted|needed"
    r"|necessary|called for|in place|reserved|meant)"
)
_GIVEN = r"(?:used|shown|offered|given(?: out)?|mentioned|told|made|added|included|brought up|suggested)"
_BE = r"(?:is|are|may be|can be|should be|must be|shall be|ought to be)"
ALLOWED_ONLY = re.compile(
    r"^(?!(?:the |an |our |every |all )?(?:\w+ )?(?:answers?|repl(?:y|ies)|responses?)\b|it\b|they\b)"
    r"(?P<what>[^,;:]{2,60}?) "
    r"(?:"
    rf"belongs?(?<!not belong) (?:(?!only)[^,;:]{{1,30}} )?{LIMITING} (?={_PLACE}\b)"
    rf"|{LIMITING} belongs? (?={_PLACE}\b)"
    rf"|(?:has|have) (?:a|their|its) place {LIMITING} (?={_PLACE}\b)"
    rf"|{_BE} (?:{_PERMITTED} (?:(?!only)[^,;:]{{1,30}} )?{LIMITING}|{LIMITING} {_PERMITTED}) (?={_PLACE}\b)"
    rf"|{_BE} {LIMITING} (?=for\b)"
    rf"|{_BE} (?:{_GIVEN} {LIMITING}|{LIMITING} (?:to be )?{_GIVEN}) (?={WHEN}\b)"
    rf"|{_BE} reserved (?=for\b)"
    r")(?P<where>.+)",
    re.IGNORECASE | re.DOTALL,
)
"""A rule that allows `what` under the condition `where`, and so forbids it elsewhere."""

_WRITING = (
    r"(?:chats?|answers?|repl(?:y|ies)|responses?|e?-?mails?|letters?|conversations?|messages?|posts?|texts?|stor(?:y|ies)"
    r"|poems?|songs?|jokes?|lists?|tables?|guides?|tutorials?|titles?|headings?|code|contexts?|cases?|situations?"
    r"|emergenc(?:y|ies)|documents?|reports?|essays?|summar(?:y|ies))"
)
THERE = rf"(?:{WHEN}|for|in (?:[\w-]+ ){{0,3}}{_WRITING})\b"
_SHARE = r"(?:at (?:the )?most|up to|(?:no|not) more than|less than|fewer than|under|below) [^,;:]{0,12}(?:%|per ?cent)"
_LABEL = (
    r"^(?!(?:the |an |our |every |all )?(?:answers?|repl(?:y|ies)|responses?)\b)"
    r"(?!(?:always|keep|use|please|do|if|when)\b)"
    r"(?P<what>(?:[^\W\d_][\w'/&-]*|<quote>)(?: [\w'/&-]+| <quote>){0,3})(?:\s*[:.]| [-–—])\s+"
)
_LABELLED = re.compile(
    rf"{_LABEL}(?:(?:never|none|not at all|off[- ]limits|forbidden|banned|nowhere|sparingly|rarely|seldom|in moderation"
    rf"|(?:kept )?to a minimum)[.!]*$|(?:please )?{LIMITING} (?P<where>{THERE}.+)|(?:never|not) (?P<there>{THERE}.+)"
    rf"|(?P<limit>{_SHARE}.*))",
    re.IGNORECASE | re.DOTALL,
)
"""A rule that names something and says behind it that it is forbidden, or where."""
_LABELLED_WANTED = re.compile(rf"{_LABEL}(?:always|every time|in every (?:answer|reply|response))[.!]*$", re.IGNORECASE)
LABELLED: tuple[Shape, ...] = (("avoid", _LABELLED), ("encourage", _LABELLED_WANTED))
"""Shapes of a name and what is said of it ("Emojis: never.")."""
SAYS_OF_LABEL = re.compile(
    rf"(?:please )?(?:{LIMITING}|never|not) {THERE}|(?:sparingly|rarely|seldom|in moderation|to a minimum)\W*$"
    rf"|{_SHARE}",
    re.IGNORECASE,
)
"""How a sentence begins that needs the label before it to be about anything."""

_STAYS = (
    r"(?!.*(?:[,;:—–]|\b(?:and|so|but|please)\b).*\b(?:keep\w*|stay\w*|remain\w*|continue|go(?:es)? on|carry on|lose"
    r"|lost|leave|retain|preserve|touch|change|train|intact|as (?:it|they) (?:is|are))\b)"
)
_NOT = (
    r"(?:\w+ ){1,5}?(?:not|never|\w+n't|no|nobody|nothing|without|no longer|free of|spares?|avoids?|refrains?"
    r"|leaves? out|skips?)"
)
_WHO = (
    r"^(?:and |but |also,? )?(?:we|i|people|users|customers|readers|everyone|everybody|"
    r"(?:our|my|the|most|many|all|all our|most of our) (?:\w+ )?\w+)"
)
_PEOPLE = rf"(?:{_WHO}|^[a-z]{{3,}}s)"
"""Any plural may like it when something is done; with other objects "words like …" would be taken for it."""
_MUCH = r"(?:(?:really|all|always|also|do|very much|truly|especially|particularly) )*"
_LIKES = (
    rf"{_MUCH}(?:(?:like|love|enjoy|appreciate|prefer|welcome)s?|(?:am|are|is) {_MUCH}(?:happy|glad|pleased|grateful))"
)
_WOULD = "(?:'d| would)?"
_DISLIKES = (
    rf"{_MUCH}(?:(?:hate|dislike|detest|loathe|resent)s?"
    r"|(?:do not|does not|don't|doesn't) (?:like|love|enjoy|want|need)|can(?:not|'t) (?:stand|bear)"
    r"|(?:am|are|is) (?:tired of|sick of|fed up with|annoyed by))"
)
_IT_WHEN = r" (?:it|this)(?: best| most| a lot| very much| too)? (?:when|whenever|if)\b"
_HOW = r"(?: best| most)? (?:how|that|the way)\b"
_IT = (
    r"(?:it|its|she|he|(?:the|its|an?) (?:\w+ )?(?:model|assistant|bot|helper|system|agent|answers?"
    r"|repl(?:y|ies)|responses?))"
)
_SAID = (
    r"(?:answers?|repl(?:y|ies)|responses?|sentences?|words?|wording|language|paragraphs?|lists?|tables?|examples?|numbers?"
    r"|steps?|sources?|links?|headings?|summar(?:y|ies)|explanations?|questions?|greetings?|openings?|endings?|units?"
    r"|details?|jokes?|puns?|humou?r|advice|tips|warnings?|quotations?|quotes?|phrases?|emoji|emojis|metaphors?|jargon"
    r"|lectures?|flattery|apologies|compliments?|titles?)"
)
_ANY = rf"(?!(?:it|its|the|this|that|these|those|how|what|our|my|your|to)\b)(?:[\w-]+ ){{0,3}}{_SAID}\b"
OPINIONS: tuple[Shape, ...] = (
    ("avoid", re.compile(rf"{_PEOPLE}{_WOULD} {_LIKES}{_IT_WHEN}(?= {_NOT}\b){_STAYS}")),
    ("encourage", re.compile(rf"{_PEOPLE}{_WOULD} {_LIKES}{_IT_WHEN}(?! {_NOT}\b){_STAYS}")),
    ("encourage", re.compile(rf"{_PEOPLE} {_DISLIKES}{_IT_WHEN}(?= {_NOT}\b){_STAYS}")),
    ("avoid", re.compile(rf"{_PEOPLE} {_DISLIKES}{_IT_WHEN}(?! {_NOT}\b){_STAYS}")),
    (
        "keep",
        re.compile(rf"{_WHO} {_LIKES}{_HOW} {_IT}\b(?! (?:should|must))"),
    ),
    ("encourage", re.compile(rf"{_WHO} {_LIKES} {_ANY}(?! (?:that |which |who )?{_NOT}\b){_STAYS}")),
    ("avoid", re.compile(rf"{_WHO} {_DISLIKES} {_ANY}(?! (?:that |which |who )?{_NOT}\b){_STAYS}")),
)
"""What those who write the spec, or their readers, like and dislike."""
_ALSO = r"^(?:and |but |also,? |ideally,? )*"
_WANT = (
    r"(?:want|like|love|need|prefer|welcome|appreciate|enjoy|wish for|hope for)(?: it)?"
    r"(?: to (?:see|have|get|read|hear|find))?"
)
_MORE = r"(?: (?:a lot|a bit|a little|lots|much|far|even|some|many|still))?"
_LESS = (
    r"(?:fewer|less|stop(?:s|ped)?|avoid(?:s|ed|ing)?|skip(?:s|ped)?|refrain(?:s|ed)?|drop(?:s|ped)?|quit"
    r"|remov(?:es?|ed)|gone|got rid|free of|against)"
)
_ONCE = r"(?!.*\b(?:not|never|\w+n't|more|than|fewer .* and|less .* and)\b)"
_ALONE = (
    r"(?!.*\b(?:more|less|fewer|few|little|not|no|none|never|nobody|nothing|\w+n't|without|than|instead|rid|stop\w*"
    r"|avoid\w*|skip\w*|refrain\w*|drop\w*|cut\w*|quit\w*|gone|went|disappear\w*|vanish\w*|remov\w*|free of|left out"
    r"|leav\w* out|left away|against|control\w*|restraint\w*|caution\w*|care\w*|limit\w*|reduc\w*|spar\w*|ban\w*"
    r"|ceas\w*|keep\w* (?:out|from|away)|kept (?:out|from|away))\b)"
)
"""A wish with one of these words may mean less of what it names; the classifier reads the whole of it."""
_NICE = (
    rf"{_ALSO}it(?:'d| would) (?:also |really |even )*be (?:nice|good|great|lovely|better|best|ideal|wonderful|helpful"
    r"|useful|kind|perfect) (?:if|when|whenever)\b"
)
MORE: tuple[Shape, ...] = (
    ("encourage", re.compile(rf"{_WHO}{_WOULD} {_MUCH}{_WANT}{_MORE} more\b{_ALONE}{_STAYS}")),
    ("avoid", re.compile(rf"{_WHO}{_WOULD} {_MUCH}{_WANT}{_MORE} more\b(?=.*\b{_LESS}\b){_ONCE}{_STAYS}")),
    ("avoid", re.compile(rf"{_WHO}{_WOULD} {_MUCH}{_WANT}{_MORE} (?:less|fewer)\b{_ALONE}{_STAYS}")),
)
"""What those who write the spec wish there were more or less of."""
WISHES: tuple[Shape, ...] = (
    ("encourage", re.compile(rf"{_NICE}(?! {_NOT}\b){_ALONE}{_STAYS}")),
    ("avoid", re.compile(rf"{_NICE}(?= {_NOT}\b){_STAYS}")),
    ("avoid", re.compile(rf"{_NICE}(?=.*\b{_LESS}\b){_ONCE}{_STAYS}")),
)
"""What would be nice."""
_OPENING = re.compile(
    rf"{_PEOPLE}{_WOULD} (?:{_LIKES}|{_DISLIKES})(?:{_IT_WHEN}|{_HOW}|(?! (?:it|this)\b)) |{_NICE} ",
    re.IGNORECASE,
)


def told_by_shape(rule: str, direction: Direction) -> tuple[str, str] | None:
    """Return what a rule of one of these shapes is about and its scope; None where it has none that asks for that."""
    plain = rule.replace("’", "'")
    allowed = ALLOWED_ONLY.match(plain) if direction == "avoid" else None
    if allowed:
        return allowed["what"], f"except {allowed['where'].strip(' .')}"
    labelled = next((found for asked, shape in LABELLED if asked == direction and (found := shape.match(plain))), None)
    if labelled:
        told = labelled.groupdict()
        scope = f"except {told['where']}" if told.get("where") else told.get("there") or ""
        return labelled["what"], scope.strip(" .")
    opening = _OPENING.match(plain)
    if opening and direction == "encourage" and re.search(rf"\b{_DISLIKES}\b", opening[0], re.IGNORECASE):
        return None  # what it is about stands there with a "not", which examples of it would follow
    if opening and any(asked == direction and shape.match(plain.lower()) for asked, shape in (*OPINIONS, *WISHES)):
        return rule[opening.end() :], ""
    return None
