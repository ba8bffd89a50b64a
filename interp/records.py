"""The records that cross every border: tool call, SQLite, file, person.

A run reads `Pair`s, makes a `Forecast` of `ConceptEffect`s, turns what the spec forbids into `Finding`s, proposes
`Edit`s, decides each with a `Verdict`, and waits for a person's `Review`. Each step is a new frozen value; none is
filled in later. Ids are content hashes (`content_id`), so the same work twice writes the same rows.

Nothing here holds a tensor, touches a file or knows about SQLite.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Side = Literal["chosen", "rejected"]
Direction = Literal["avoid", "encourage", "keep"]
EffectVerdict = Literal["amplified", "suppressed", "cannot_tell"]
FindingKind = Literal["forbidden", "missing", "surprise", "injection"]
EditKind = Literal["rewrite", "neutralise", "flip", "drop", "synthesise"]
Decision = Literal["accept", "modify", "reject"]

Message = dict[str, Any]
"""One chat message, `role` and `content` at least, kept as the dataset gave it."""

Content = str | tuple[Message, ...]
"""A prompt or a response: plain text (TRL's standard format) or messages (its conversational one)."""


def content_id(*parts: object) -> str:
    """Return a 16-digit hexadecimal id of `parts`, the same for the same content on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Record(BaseModel):
    """Base of all records: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Pair(Record):
    """One prompt with a chosen and a rejected response."""

    row: int
    """0-based line of the input (or row of a table); new pairs that an edit adds continue after the last row."""
    prompt: Content
    """What both responses answer."""
    chosen: Content
    """The preferred response."""
    rejected: Content
    """The other response."""
    tools: tuple[Any, ...] | None = None
    """Tool schemas for the chat template, if the row has any."""
    template_kwargs: dict[str, Any] = {}
    """`chat_template_kwargs` of the row."""
    extra: dict[str, Any] = {}
    """Every other column, untouched."""

    @property
    def conversational(self) -> bool:
        """Whether the pair is made of messages, which TRL renders with the chat template."""
        return not isinstance(self.prompt, str)

    def text(self, side: Side) -> str:
        """Return the response of `side` as plain text: the string, or the content of its last message."""
        content = self.chosen if side == "chosen" else self.rejected
        return content if isinstance(content, str) else _message_text(content[-1])

    def prompt_text(self) -> str:
        """Return the prompt as plain text: the string, or the content of its last user message."""
        if isinstance(self.prompt, str):
            return self.prompt
        users = [message for message in self.prompt if message.get("role") == "user"]
        return _message_text((users or list(self.prompt))[-1]) if self.prompt else ""

    def prompt_key(self) -> str:
        """Return what pairs with the same prompt have in common, all that stands before its last message included."""
        if isinstance(self.prompt, str) or (len(self.prompt) == 1 and not self.tools):
            return self.prompt_text()
        return content_id("prompt", self.prompt, self.tools)

    def with_text(self, side: Side, text: str) -> Pair:
        """Return a copy whose response of `side` says `text`; earlier messages of that side stay."""
        content = self.chosen if side == "chosen" else self.rejected
        if isinstance(content, str):
            return self.model_copy(update={side: text})
        said: Any = [{"type": "text", "text": text}] if isinstance(content[-1].get("content"), list) else text
        return self.model_copy(update={side: (*content[:-1], {**content[-1], "content": said})})

    def swapped(self) -> Pair:
        """Return a copy with the sides exchanged."""
        return self.model_copy(update={"chosen": self.rejected, "rejected": self.chosen})


Prompt = Content | Pair
"""What is asked: a prompt alone, or a pair for its prompt and the tools and template options that belong to it."""


def _message_text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


class Quarantined(Record):
    """One line of the input that could not be read as a pair."""

    row: int
    """0-based line of the input."""
    reason: str
    """What was seen there."""
    line: str
    """The line itself, cut to a safe length, undecodable bytes escaped."""


class DataNote(Record):
    """Something about the data itself that the user should know before training."""

    kind: Literal[
        "identical",
        "prefix",
        "empty",
        "duplicate",
        "near_duplicate",
        "truncated",
        "prompt_too_long",
        "special_tokens",
        "refused",
    ]
    """What was seen."""
    rows: tuple[int, ...]
    """The rows concerned, in order of the input."""
    text: str
    """One sentence for the user."""


class Dataset(Record):
    """A preference dataset, read."""

    path: str
    """The file or hub id, as the user gave it."""
    sha256: str
    """Hash of the input file's bytes (for a hub dataset: of the canonical rows)."""
    form: Literal["standard", "conversational"]
    """Whether responses are strings or message lists in the input; an export keeps it."""
    pairs: tuple[Pair, ...]
    """The readable pairs in order of the input."""
    quarantined: tuple[Quarantined, ...] = ()
    """The lines that could not be read."""
    notes: tuple[DataNote, ...] = ()
    """Findings about the data itself."""


LEAST_EXAMPLES = 3
"""Sentences that a clause needs as examples for the lens to be asked what fires on them."""
LEAST_WORDS = 3
"""Words of such a sentence, at least."""


class Clause(Record):
    """One rule of the spec."""

    clause_id: str
    """Content hash of the rule's text."""
    text: str
    """The rule as the user wrote it."""
    behaviour: str
    """What the rule is about, without the words that say whether it is wanted."""
    direction: Direction
    """`avoid`: DPO must not raise it; `encourage`: DPO should raise it; `keep`: DPO must not lower it."""
    scope: str = ""
    """Where the rule holds ("in medical answers"); empty: everywhere."""
    exempt_words: tuple[str, ...] = ()
    """Words of this data's prompts that free them from the rule by its scope ("unless asked"); see `interp.scope`."""
    exempt_rows: tuple[int, ...] = ()
    """The rows of those prompts."""
    limit: float = 0.0
    """The tolerated effect: a change in the share of responses that show the behaviour, 0 to 1, in the direction the
    clause guards against (for `encourage`, the least rise that is asked for)."""
    words: tuple[str, ...] = ()
    """Content words of the behaviour, lower case, as they may stand in a response."""
    examples: tuple[str, ...] = ()
    """Phrases and sentences that the user gave as examples of the behaviour."""
    detector: str = ""
    """An optional regular expression that marks responses showing the behaviour."""
    concept_ids: tuple[str, ...] = ()
    """The concepts that stand for the behaviour in this dataset; empty: no concept covers the clause."""
    about: str = ""
    """The behaviour in a few words without negation, as an LLM reads it; empty: nobody has said."""


class Concept(Record):
    """A feature or a group of features of a lens, with a tested name."""

    concept_id: str
    """Content hash of lens, features and weights."""
    name: str
    """What fires it, in the words of the data."""
    name_tested: bool
    """Whether the name held on contexts that took no part in finding it."""
    name_score: float
    """AUROC of the name's words on those held-out contexts, 0 to 1; 0.5 is chance."""
    features: tuple[int, ...]
    """Indices into the SAE: the features that weigh most, 32 at most."""
    weights: tuple[float, ...]
    """One weight per feature of `features`; positive: its firing speaks for the concept."""
    threshold: float
    """The concept fires in a response whose score exceeds it; see `interp.readout` for the score."""
    promotes: tuple[str, ...] = ()
    """Words of the data that go with the concept and that its decoder direction makes likelier, strongest first; see
    `interp.directions`. Empty where none is confirmed or the model's unembedding is not at hand."""


class Topic(Record):
    """A group of prompts."""

    topic_id: str
    """Content hash of its rows."""
    name: str
    """Words that tell its prompts from the others."""
    rows: tuple[int, ...]
    """The rows whose prompt belongs to it."""


ROWS_TOLD = 200
"""Rows that are told of an effect; a finding tells all of its own."""


class ConceptEffect(Record):
    """The forecast for one concept, everywhere or within one topic."""

    concept_id: str
    """The concept."""
    name: str
    """Its name, repeated for readers of JSON."""
    name_tested: bool
    """See `Concept.name_tested`."""
    features: tuple[int, ...]
    """See `Concept.features`."""
    topic: str | None
    """Name of the topic the effect is confined to; null: all pairs."""
    effect: float
    """Change in the share of responses where the concept fires, or of tokens, chosen minus rejected, -1 to 1; positive:
    DPO is expected to raise it."""
    low: float
    """Lower end of the 90% interval of `effect`."""
    high: float
    """Upper end of the 90% interval of `effect`."""
    verdict: EffectVerdict
    """`cannot_tell` unless the effect survives false-discovery control, both halves agree and length does not
    explain it."""
    split_half: float
    """The smaller of the two halves' effects by magnitude, signed; 0 where the halves disagree in sign."""
    rows: tuple[int, ...]
    """Rows that carry the effect, most responsible first, ROWS_TOLD at most."""
    q: float = 1.0
    """Benjamini-Hochberg adjusted p-value over all concepts and topics of the forecast."""
    promotes: tuple[str, ...] = ()
    """See `Concept.promotes`."""
    length_controlled: float = 0.0
    """The effect that remains at equal length of both responses (intercept of the regression on the length
    difference), same unit."""
    unit: Literal["responses", "tokens"] = "responses"
    """What the effect is a share of: responses that show the concept, or tokens on which its features fire."""


class Forecast(Record):
    """The effects of one dataset through one lens."""

    forecaster: str
    """Its name, as `agent forecast --forecaster` takes it."""
    n_pairs: int
    """Pairs that were read."""
    concepts: tuple[ConceptEffect, ...]
    """Strongest first, shares of responses before shares of tokens."""
    reliability: float | None = None
    """How far forecasts from random halves of the prompts agree over the groups of features, stepped up to all prompts,
    0 to 1: what other pairs of the same kind would be forecast to teach. Null: not worked out."""
    told_apart: float | None = None
    """Share of the pairs whose sides a linear probe tells apart under prompts it has not seen. Null: not worked out."""
    parts_agree: float | None = None
    """Correlation of the effects of the two parts of `calibrated` over the groups of features, -1 to 1: positive where
    they say the same. Null: not worked out; another forecaster, edited data, few groups."""


class Span(Record):
    """A stretch of a response where a concept fires."""

    start: int
    """First character, 0-based, in the response's text."""
    end: int
    """One past the last character."""
    activation: float
    """Largest weighted activation inside, in units of the concept's threshold; above 1 it fires on its own."""


class Cluster(Record):
    """Pairs that carry a concept's effect together."""

    cluster_id: str
    """Content hash of concept and rows."""
    concept_id: str
    """The concept."""
    name: str
    """Words that tell these pairs' prompts and spans from the others."""
    rows: tuple[int, ...]
    """The pairs, most responsible first."""
    contribution: tuple[float, ...]
    """Each pair's share of the effect, same order as `rows`; they sum to the cluster's part of the effect."""


class Finding(Record):
    """An effect that the spec forbids, misses or never thought of."""

    finding_id: str
    """Content hash of clause, concept and kind."""
    clause_id: str | None
    """The clause; null for a surprise."""
    concept_id: str
    """The concept."""
    kind: FindingKind
    """`forbidden`: against a clause; `missing`: a clause asks for it and the data does not teach it; `surprise`: no
    clause mentions it and the data would strongly teach it; `injection`: text that addresses whoever reads the data."""
    name: str
    """The concept's name."""
    topic: str | None
    """Name of the topic it is confined to; null: everywhere."""
    effect: float
    """Forecast effect, see `ConceptEffect.effect`; within the topic, if it is confined to one."""
    low: float
    """Lower end of its 90% interval."""
    high: float
    """Upper end of its 90% interval."""
    rows: tuple[int, ...]
    """All rows held responsible, most responsible first."""
    start_rate: float | None = None
    """Share of the start model's own samples that show the behaviour already; null: not measured."""
    note: str = ""
    """What the reader should know: a warning, or empty."""
    overall: float | None = None
    """The effect over all pairs, where the finding is confined to a topic; null: `effect` is that."""

    @property
    def everywhere(self) -> float:
        """The effect over all pairs."""
        return self.effect if self.overall is None else self.overall


class Edit(Record):
    """One proposed change to one pair."""

    edit_id: str
    """Content hash of finding, row, kind, side and text."""
    finding_id: str
    """The finding it answers."""
    row: int
    """The pair; for `synthesise` the row the new pair will get."""
    kind: EditKind
    """`rewrite`: one side gets another text; `neutralise`: the other side gets the behaviour too; `flip`: sides
    exchanged; `drop`: the pair leaves; `synthesise`: a new pair."""
    side: Side | None
    """The side whose text changes; null for `flip`, `drop` and `synthesise`."""
    before: str
    """The text of that side before; for `flip` and `drop` the chosen response; empty for `synthesise`."""
    after: str
    """The text after; for `flip` the new chosen response; empty for `drop`; for `synthesise` the chosen response."""
    rationale: str
    """Why, in one sentence."""
    pair: Pair | None = None
    """The new pair of a `synthesise` edit."""
    author: str = "built-in"
    """Who wrote its text: the built-in rewriter, or the LLM by its model name."""


class Collateral(Record):
    """A concept other than the target that an edit moves."""

    concept_id: str
    """The concept."""
    name: str
    """Its name."""
    before: float
    """Its effect before."""
    after: float
    """Its effect after."""
    breaks: bool
    """Whether the move exceeds the stated bound or leaves a clause's limit."""


class Verdict(Record):
    """The forecast before and after an edit, and what it decides."""

    edit_id: str
    """The edit."""
    passed: bool
    """True when no reason speaks against it."""
    effect_before: float
    """Effect of the finding's concept on the data as it is."""
    effect_after: float
    """Effect with the finding's edits applied."""
    control_after: float
    """Effect after the same number of random edits of the same kinds in any of the pairs that the finding is about
    (mean of the draws); the effect before where there are only new pairs, which nothing random is like."""
    collateral: tuple[Collateral, ...]
    """What else moved."""
    second_lens: float | None
    """Effect after the edits through a lens that the proposer never saw; null: no second lens at hand."""
    reasons: tuple[str, ...]
    """Why it passed or failed, one sentence each."""


class Review(Record):
    """A person's decision on an edit."""

    edit_id: str
    """The edit."""
    decision: Decision
    """`modify` carries the person's own text."""
    text: str | None
    """The text to use instead, for `modify`."""
    reviewer: str
    """Who decided."""
    at: str
    """When, ISO 8601 in UTC."""


class LensSummary(Record):
    """What a reader needs to know of a lens, with its fit on the data at hand."""

    model: str
    """The model that is about to be trained."""
    hook: str
    """Name of the module whose output is read, as Hugging Face names it."""
    sae: str
    """The SAE: a folder, or a release and id."""
    fvu: float
    """Fraction of variance unexplained on response tokens of the data; 0 is perfect."""
    l0: float
    """Mean number of features that fire on a token."""


class Cost(Record):
    """What a run has used, over all its attempts."""

    seconds: float
    """Wall-clock time."""
    tokens_encoded: int
    """Tokens that went through the model."""
    llm_calls: int
    """Requests to an LLM endpoint."""
    llm_tokens: int
    """Tokens of those requests, prompt and completion."""
    llm_seconds: float = 0.0
    """Time until their answers were there, added up over requests that run side by side."""
    llm_usd: float = 0.0
    """Their price in US dollars where it is known; 0 for models nobody lists a price for."""
