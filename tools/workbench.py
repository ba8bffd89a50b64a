"""The workbench: what the tools work on, and what they have worked out so far.

It holds a dataset, the clauses of a spec, two lenses that read together, and the start model; everything else (the
readings, the concepts, the findings, the edits) is worked out on first use and kept. A bench is never saved: a resumed
run builds it again, and because encodings, samples and likelihoods are cached by content, that costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from premortem.interp.addressed import addressed_pairs
from premortem.interp.directions import Directions
from premortem.interp.discover import Discovery
from premortem.interp.edits import edit_pair, edits_by_row, new_pairs
from premortem.interp.encode import Fit, Reader
from premortem.interp.errors import NoPairs, ToolError
from premortem.interp.first_order import FirstOrder
from premortem.interp.forecast import (
    NamedReadout,
    Reading,
    after_edits,
    discovered,
    group_concepts,
    prompts_of,
    read,
    reread,
    without_prompts,
)
from premortem.interp.forecasters import DEFAULT, ForecasterName, Own, parts_agree
from premortem.interp.lens import Lens
from premortem.interp.matching import Texts
from premortem.interp.pooling import EncodedPairs
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.quality import QualityBounds
from premortem.interp.readout import Bag, Readout, bag_of
from premortem.interp.records import Clause, Dataset, Edit, Finding, LensSummary, Pair, Prompt, Record, content_id
from premortem.interp.sides import Edited, TokenFacts, responses_of
from premortem.interp.start_model import StartModel
from premortem.interp.told_apart import told_apart
from premortem.interp.verify import VerifyBounds, teach
from premortem.prompts.behaviours import Behaviour, load_behaviours
from premortem.tools.author import Author

OWN_ANSWERS = 160
"""Answers that the start model gives itself where a forecaster asks, at most: to as many different prompts as there
are, since answers to one prompt are much alike. The prompts' text alone says which."""
OWN_TIMES = 2
"""Answers to one prompt, at most."""
OWN_TOKENS = 64
"""Tokens of an answer, at most."""


class BenchSettings(Record):
    """What shapes the work, apart from data, spec and lenses."""

    forecaster: ForecasterName = DEFAULT
    """The forecaster whose effects decide."""
    seed: int = 0
    """Seed of samples and random controls."""
    max_surprises: int = 12
    """Surprises reported at most, the most one-sided first."""
    quality: QualityBounds = QualityBounds()
    """How far an edited text may go from the old one."""
    verify: VerifyBounds = VerifyBounds()
    """What a set of edits may cost."""


class Workbench:
    """Dataset, clauses and lenses, with everything derived from them on first use."""

    def __init__(
        self,
        dataset: Dataset,
        clauses: Sequence[Clause],
        reader: Reader,
        main: Lens,
        second: Lens | None,
        start_model: Callable[[], StartModel],
        settings: BenchSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Work on `dataset` through `main`; `second` judges edits, `start_model` is loaded when it is first needed."""
        self.dataset = dataset
        self._clauses = tuple(clauses)
        self.reader, self.main, self.second = reader, main, second
        self._make_start_model = start_model
        self.settings = settings or BenchSettings()
        self.progress: Progress = progress or NullProgress()
        self.concepts: dict[str, NamedReadout] = {}
        self.findings: dict[str, Finding] = {}
        self.edits: dict[str, Edit] = {}
        self.author: Author | None = None
        """Who writes texts for the tools; None: the built-in rewriter works alone."""
        self.contrasts: dict[str, Behaviour] = {}
        """Contrastive examples that somebody wrote for a clause, by clause_id."""
        self.by_example: dict[str, Callable[[Reading], Readout]] = {}
        """How another lens learns a concept that was learnt from examples, by concept_id."""
        self._addressed: dict[int, str] = {}
        self._taught: dict[str, Readout] = {}
        self._fit = Fit(float("nan"), float("nan"))

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The rules of the spec; `concept_ids` are filled once the forecast has been made."""
        return self._clauses

    def set_clauses(self, clauses: Sequence[Clause]) -> None:
        """Take the clauses with the concepts that were found for them."""
        self._clauses = tuple(clauses)

    def rename(self, names: Mapping[str, tuple[str, bool, float]]) -> None:
        """Give concepts another name, by concept_id: the name, whether it passed its test, and its figure there."""
        for concept_id, (name, tested, score) in names.items():
            named = self.concepts[concept_id]
            update = {"name": name, "name_tested": tested, "name_score": round(score, 4)}
            self.concepts[concept_id] = replace(named, concept=named.concept.model_copy(update=update))
        self.findings = {
            finding_id: finding.model_copy(update={"name": names[finding.concept_id][0]})
            if finding.concept_id in names
            else finding
            for finding_id, finding in self.findings.items()
        }

    def link(self, linked: Mapping[str, Finding]) -> None:
        """Put findings of clauses in the place of surprises, by the surprise's finding_id, and note their concepts."""
        own: dict[str | None, tuple[str, ...]] = {}
        for finding in linked.values():
            own[finding.clause_id] = (*own.get(finding.clause_id, ()), finding.concept_id)
        self.set_clauses(
            [c.model_copy(update={"concept_ids": (*c.concept_ids, *own.get(c.clause_id, ()))}) for c in self._clauses]
        )
        known = [finding for finding in self.findings.values() if finding.kind != "surprise"]
        left = [f for f in self.findings.values() if f.kind == "surprise" and f.finding_id not in linked]
        self.findings = {finding.finding_id: finding for finding in (*known, *linked.values(), *left)}

    def knows(self, clause: Clause) -> bool:
        """Whether the library of everyday behaviours has examples of what a clause is about."""
        return any(behaviour.mentions(clause.behaviour) for behaviour in self.behaviours.values())

    def addressed(self, pair: Pair) -> str:
        """Return why a pair is not shown to an LLM: it addresses its reader; empty: it is ordinary text."""
        if pair.row not in self._addressed:
            known = self.dataset.pairs
            with self.progress.stage("Looking for text that addresses its reader"):
                self._addressed.update(zip((one.row for one in known), addressed_pairs(known), strict=True))
        return self._addressed[pair.row]

    @cached_property
    def start_model(self) -> StartModel:
        """The model before training, with its LM head."""
        return self._make_start_model()

    @cached_property
    def said(self) -> tuple[list[Pair], list[str], NDArray[np.int64]]:
        """Prompts of the data, what the start model answers to each, and the prompts' numbers."""
        distinct = {pair.prompt_key(): pair for pair in self.readable}
        by_text = sorted(distinct, key=lambda key: content_id("own", key))  # a file may be sorted by source
        drawn = (by_text * OWN_TIMES)[:OWN_ANSWERS]
        asked = [distinct[key] for key in drawn]
        texts = self.start_model.sample(asked, max_new_tokens=OWN_TOKENS, progress=self.progress)
        number = {key: i for i, key in enumerate(distinct)}
        return asked, texts, np.asarray([number[key] for key in drawn])

    @cached_property
    def own(self) -> Own:
        """Answers of the start model to prompts of the data, as the main lens reads them."""
        asked, texts, numbers = self.said
        return Own(self.heard(asked, texts, self.progress), numbers)

    @cached_property
    def _first_order(self) -> FirstOrder:
        """What tells what one step of DPO does."""
        return FirstOrder(self.main.model_ref, self.start_model.cache_dir)

    def _steps(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Return what a step of DPO on each of `pairs` does to the answers behind `own`; see `first_order`."""
        start, (asked, texts, _) = self.start_model, self.said
        answers = [(start.prompt_ids(one), start.answer_ids(text)) for one, text in zip(asked, texts, strict=True)]
        sides = self.reader.tokens(pairs)
        both = list(zip(sides[: len(pairs)], sides[len(pairs) :], strict=True))
        return self._first_order.steps(start.digest, both, answers, self.progress)

    def heard(self, prompts: Sequence[Prompt], answers: Sequence[str], progress: Progress | None = None) -> Bag:
        """Return `answers` to `prompts` as the main lens reads them."""
        pooled = self.reader.encode_texts(list(zip(prompts, answers, strict=True)), progress)[self.main.lens_id]
        closing = np.asarray([self.reader.closing_of(prompt) for prompt in prompts], dtype=np.int64)
        return bag_of(pooled, closing=closing)

    @cached_property
    def readable(self) -> tuple[Pair, ...]:
        """The pairs that DPO would train on, in order; TRL drops those whose prompt alone is too long."""
        encoded = self.reader.encode(self.dataset.pairs, self.progress, only=self.main.lens_id)[self.main.lens_id]
        self._fit = self.reader.fit[self.main.lens_id]  # later readings of edited pairs report theirs
        tokens = encoded.chosen.n_tokens + encoded.rejected.n_tokens
        kept = tuple(pair for pair, n in zip(self.dataset.pairs, tokens, strict=True) if n)
        if not kept:
            raise NoPairs("no pair is left: every prompt is longer than the model is trained on.")
        return kept

    @cached_property
    def reading(self) -> Reading:
        """The dataset as the main lens reads it."""
        directions = Directions(self.reader.model, self.main)
        reading = read(
            self.readable,
            self._encoded(self.main),
            self.main.lens_id,
            directions,
            self.reader.closing(self.readable),
            self._facts(self.readable),
        )
        return replace(reading, answers=lambda: self.own)

    @cached_property
    def second_reading(self) -> Reading | None:
        """The dataset as the second lens reads it."""
        if self.second is None:
            return None
        return reread(self.reading, self._encoded(self.second), self.second.lens_id)

    def _encoded(self, lens: Lens) -> EncodedPairs:
        return self.reader.encode(self.readable, self.progress, only=lens.lens_id)[lens.lens_id]

    @cached_property
    def discoveries(self) -> tuple[Discovery, ...]:
        """The one-sided concepts that were found blind."""
        return discovered(self.reading, self.progress)

    @cached_property
    def groups(self) -> list[NamedReadout]:
        """Groups of co-firing features."""
        return group_concepts(self.reading)

    @cached_property
    def told_apart(self) -> float | None:
        """How well the sides of the data as it is can be told apart; see `interp.told_apart`."""
        return told_apart(self.reading.responses)

    @cached_property
    def parts_agree(self) -> float | None:
        """How far the two parts of `calibrated` agree over the groups of features; see `forecasters.parts_agree`."""
        return parts_agree(self.reading.responses, [group.readout for group in self.groups], self.reading.answers)

    @cached_property
    def texts(self) -> Texts:
        """The words of the readable pairs."""
        pairs = self.readable
        responses = [pair.text("chosen") for pair in pairs] + [pair.text("rejected") for pair in pairs]
        return Texts(responses, [pair.prompt_text() for pair in pairs])

    @cached_property
    def behaviours(self) -> dict[str, Behaviour]:
        """The library of everyday behaviours, by id."""
        return {behaviour.id: behaviour for behaviour in load_behaviours()}

    def pair(self, row: int) -> Pair:
        """Return the pair of `row`; raises ToolError when there is none."""
        try:
            return self._by_row[row]
        except KeyError:
            raise ToolError(f"there is no pair in row {row}") from None

    @cached_property
    def _by_row(self) -> dict[int, Pair]:
        return {pair.row: pair for pair in self.dataset.pairs}

    @property
    def next_row(self) -> int:
        """The row that the next new pair gets: behind the data and the new pairs proposed so far."""
        added = sum(edit.kind == "synthesise" for edit in self.edits.values())
        return max(pair.row for pair in self.dataset.pairs) + 1 + added

    def finding(self, finding_id: str) -> Finding:
        """Return a finding; raises ToolError when this run has none of that id."""
        try:
            return self.findings[finding_id]
        except KeyError:
            known = ", ".join(self.findings) or "none yet; call forecast_concepts first"
            raise ToolError(f"there is no finding {finding_id!r}; there are: {known}") from None

    def clause_of(self, finding: Finding) -> Clause | None:
        """Return the clause that a finding breaks."""
        return next((clause for clause in self._clauses if clause.clause_id == finding.clause_id), None)

    def asked_for(self, clause: Clause) -> NDArray[np.int64]:
        """Return the prompts, by number (`Sides.prompts`), that a clause leaves out by its own condition."""
        return prompts_of(self.reading, clause.exempt_rows)

    def held_to(self, clause: Clause, reading: Reading | None = None) -> Reading:
        """Return the main reading, or that of edited data, without the pairs that a clause leaves out."""
        return without_prompts(reading or self.reading, self.asked_for(clause))

    def concept(self, concept_id: str) -> NamedReadout:
        """Return a concept of this run; raises ToolError when there is none of that id."""
        try:
            return self.concepts[concept_id]
        except KeyError:
            raise ToolError(f"there is no concept {concept_id!r} in this run") from None

    def remember(self, edits: Sequence[Edit]) -> None:
        """Keep `edits`, so that their ids can be verified; known ones change nothing."""
        for edit in edits:
            self.edits.setdefault(edit.edit_id, edit)

    def edits_of(self, edit_ids: Sequence[str]) -> list[Edit]:
        """Return the edits of `edit_ids`; raises ToolError for one that was never proposed."""
        unknown = [edit_id for edit_id in edit_ids if edit_id not in self.edits]
        if unknown:
            raise ToolError(f"no edit {unknown[0]!r} was proposed in this run")
        return [self.edits[edit_id] for edit_id in edit_ids]

    def edited(self, edits: Sequence[Edit], reading: Reading) -> Edited:
        """Return the responses of `reading` with `edits` applied; only what changed is encoded and measured anew."""
        return self._edited(edits, reading)[1]

    def reading_after(self, edits: Sequence[Edit]) -> Reading:
        """Return the main reading with `edits` applied."""
        return after_edits(self.reading, *self._edited(edits, self.reading))

    def _edited(self, edits: Sequence[Edit], reading: Reading) -> tuple[list[Pair], Edited]:
        """Return the pairs that no edit touches, then the changed and the new ones, and what the lens sees in them."""
        by_row = edits_by_row(edits)
        touched = [i for i, pair in enumerate(self.readable) if pair.row in by_row]
        kept = np.setdiff1d(np.arange(len(self.readable)), touched)
        after = [(i, edit_pair(self.readable[i], by_row[self.readable[i].row])) for i in touched]
        groups = reading.responses.groups
        changed = [(int(groups[i]), pair) for i, pair in after if pair is not None]
        fresh = new_pairs(edits)
        known = {p.prompt_key(): int(g) for p, g in zip(self.readable, groups, strict=True)} if fresh else {}
        for pair in fresh:
            changed.append((known.setdefault(pair.prompt_key(), len(known)), pair))
        pairs = [self.readable[i] for i in kept] + [pair for _, pair in changed]
        if not changed:
            return pairs, Edited(reading.whole, kept, None)
        encoded = self.reader.encode([pair for _, pair in changed], self.progress, only=reading.lens_id)
        numbers = np.asarray([group for group, _ in changed], dtype=np.int64)
        new = [pair for _, pair in changed]
        responses = responses_of(
            encoded[reading.lens_id], numbers, self.reader.closing(new), self._facts(new), reading.whole
        )
        return pairs, Edited(reading.whole, kept, responses)

    def _facts(self, pairs: Sequence[Pair]) -> TokenFacts:
        """Return what can be asked about the response tokens of `pairs`, the chosen sides first."""

        def ids() -> np.ndarray:
            read = [np.asarray(response, dtype=np.int64) for _, response in self.reader.tokens(pairs)]
            return np.concatenate(read)

        def likelihoods() -> np.ndarray:
            return np.concatenate(self.start_model.token_log_likelihoods(self.reader.tokens(pairs), self.progress))

        return TokenFacts(ids, likelihoods, partial(self._steps, pairs))

    def taught(self, named: NamedReadout) -> Readout | None:
        """Return the second lens's own readout of a concept, taught on the data as it was; None without a lens.

        A concept that was learnt from examples is taught by the same examples.
        What learning needs is large, so all findings' concepts are taught together and it is let go.
        """
        if self.second_reading is None:
            return None
        if named.concept.concept_id not in self._taught:
            concepts = {f.concept_id: self.concept(f.concept_id) for f in self.findings.values()}
            for concept_id, each in {**concepts, named.concept.concept_id: named}.items():
                if concept_id not in self._taught:
                    learn = self.by_example.get(concept_id) or partial(teach, each.readout, self.reading)
                    self._taught[concept_id] = learn(self.second_reading)
            self.second_reading.forget_learner()
        return self._taught[named.concept.concept_id]

    def lens_summary(self) -> LensSummary:
        """Return the main lens with its fit on these pairs."""
        _ = self.readable
        return LensSummary(
            model=self.main.model_ref,
            hook=self.main.hook,
            sae=self.main.sae_ref,
            fvu=round(self._fit.fvu, 4),
            l0=round(self._fit.l0, 2),
        )

    def tokens_encoded(self) -> int:
        """Return how many tokens went through the model since the bench was built."""
        return self.reader.tokens_encoded
