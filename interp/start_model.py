"""The model before training, asked two things: how likely it finds a response, and what it would say itself.

Likelihood tells whether an edited response still answers its prompt. Samples give the rewriter fresh text, and tell how
often the model shows a behaviour already. With a `Suppression` the model answers with a concept switched off: at one
layer the concept's features are read from the residual stream and their decoder directions subtracted again.

Both answers depend on their own content only, never on what was asked before. A sample is the argmax of logits plus
Gumbel noise (an exact draw from the softmax) whose generator is seeded by seed, prompt and the prompt's count in the
call; batches are laid out from all prompts of a call, cached or not, so that padding rounds the same way each time.
Results are kept on disk by the hash of all that determines them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from premortem.interp.errors import DataError
from premortem.interp.line_cache import LineCache
from premortem.interp.messages import plain
from premortem.interp.models import LoadedModel, decoder_layers
from premortem.interp.progress import NullProgress, Progress
from premortem.interp.records import Message, Pair, Prompt, content_id
from premortem.interp.scores import BATCH_TOKENS, ON_GPU, Scorer, Tokens
from premortem.interp.sentences import without_broken_end
from premortem.interp.tokens import template_options, tokenize

if TYPE_CHECKING:
    from premortem.interp.lens import Lens

MAX_PROMPT = 1024
"""Tokens of a prompt that a sample can see; a longer one loses its beginning."""
BATCH_ROWS = 32
"""Most samples drawn side by side."""
DECIMALS = 5
"""Log-likelihoods are kept to this, below what padding may change."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """Features of one lens to switch off while the model speaks."""

    layer: int
    """Index of the decoder block whose output the lens reads."""
    features: tuple[int, ...]
    """Indices into the SAE."""
    decoder: NDArray[np.float32]
    """Decoder directions of those features, (n_features, d_in)."""
    acts: Callable[[Tensor], Tensor]
    """Residual stream (n_tokens, d_in) to the activations of those features (n_tokens, n_features)."""
    ref: str
    """What identifies the encoder behind `acts`, as the lens id: samples are kept under it."""

    @classmethod
    def of_lens(cls, lens: Lens, features: Sequence[int]) -> Suppression:
        """Return what switches off `features` of `lens`, which must be `possible`."""
        sae, wanted = lens.sae, list(features)
        one_each = torch.zeros(len(wanted) + 1, lens.d_sae, device=sae.W_dec.device)
        one_each[torch.arange(len(wanted)), torch.tensor(wanted, dtype=torch.long)] = 1.0
        with torch.inference_mode():
            decoded = sae.decode(one_each)
        decoder = (decoded[:-1] - decoded[-1]).float().cpu().numpy()

        def acts(states: Tensor) -> Tensor:
            found = sae.encode(states.to(sae.W_dec.device, torch.float32))
            return (found.to_dense() if found.is_sparse else found)[:, wanted].to(states.device)

        return cls(lens.layer, tuple(wanted), decoder, acts, lens.lens_id)

    @staticmethod
    def possible(lens: Lens) -> bool:
        """Whether a feature of `lens` adds the same direction to every token: not where each is scaled by its own."""
        return lens.sae.cfg.normalize_activations not in ("layer_norm", "constant_norm_rescale")

    def key(self) -> str:
        """Return a hash of what this does to a model."""
        weights = hashlib.sha256(np.ascontiguousarray(self.decoder, dtype=np.float32).tobytes()).hexdigest()
        return content_id(self.layer, self.features, weights, self.ref)


class _Draw(NamedTuple):
    """One answer to draw."""

    prompt: list[int]
    noise: int
    """Seed of its noise; the same with and without a suppression, so that the two answers can be compared."""


class _Answer(NamedTuple):
    text: str
    cut: bool
    """Whether the limit of tokens ended it."""


class StartModel:
    """The full model, language-model head included, before any training."""

    def __init__(self, loaded: LoadedModel, seed: int = 0, cache_dir: Path | None = None) -> None:
        self.model: Any = loaded.model
        self.tokenizer: Any = loaded.tokenizer
        self._scorer = Scorer(loaded)
        held = next(self.model.parameters())
        usual = held.dtype == torch.float32 and held.device.type == "cpu"
        self._batch = 1 if held.device.type == "cpu" else ON_GPU
        self.digest = loaded.digest if usual else f"{loaded.digest} {held.dtype} {held.device.type}"
        """What identifies the answers: the weights, and how they are held where that is not float32 on a CPU."""
        self.seed, self.cache_dir = seed, cache_dir
        self.tokens_used = 0
        """Tokens that went through the model, cached answers not counted."""
        self._likelihoods = LineCache(cache_dir / "likelihood.jsonl" if cache_dir else None)
        self._samples = LineCache(cache_dir / "samples.jsonl" if cache_dir else None)

    def log_likelihood(self, items: Sequence[Tokens], progress: Progress | None = None) -> NDArray[np.float64]:
        """Return (n,) mean log-probabilities per response token, in nats.

        NaN where nothing can be scored: an empty response, or one token that nothing precedes.
        """
        scored = (token[np.isfinite(token)] for token in self.token_log_likelihoods(items, progress))
        return np.array([each.mean() if len(each) else np.nan for each in scored], dtype=np.float64)

    def token_log_likelihoods(
        self, items: Sequence[Tokens], progress: Progress | None = None
    ) -> list[NDArray[np.float64]]:
        """Return the log-probability of each token of each response, `(n_tokens,)` an item, in nats.

        NaN for a token that nothing precedes.
        """
        keys = [content_id("token likelihoods", self.digest, *item) for item in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self._likelihoods}
        with (progress or NullProgress()).stage("Likelihood", len(missing)) as stage:
            for batch in self._scorer.batches(missing):
                found = self._log_probs([missing[key] for key in batch])
                self._likelihoods.add(dict(zip(batch, found, strict=True)))
                stage.advance(len(batch))
        known = (np.asarray(self._likelihoods[key], dtype=np.float64) for key in keys)
        return [
            np.pad(each, (len(response) - len(each), 0), constant_values=np.nan)
            for each, (_, response) in zip(known, items, strict=True)
        ]

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        seed: int | None = None,
        suppress: Suppression | None = None,
        system: str | None = None,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Return one answer per prompt; a prompt that comes twice gets two independent answers.

        `whole` answers lack the sentence or list item in which the limit of tokens cut them off, and are empty where
        that was all.

        Messages go through the chat template, a plain prompt goes in as it is. `system` is a rule put before the
        conversation (before a plain prompt, or where a template knows no system message, with an empty line between).
        Temperature 0 takes the likeliest token. Raises DataError when the chat template cannot render a prompt.
        """
        chance, what = self.seed if seed is None else seed, (max_new_tokens, temperature, suppress and suppress.key())
        counts: Counter[str] = Counter()
        draws = [_draw(self.prompt_ids(prompt, system), chance, counts) for prompt in prompts]
        ends = self._other_ends()
        keys = [content_id("answer", self.digest, *what, draw, *ends) for draw in draws]
        rows = dict(zip(keys, draws, strict=True))
        with (progress or NullProgress()).stage("Sampling", len(rows)) as stage:
            for batch in _sample_batches(rows, max_new_tokens, self._batch):
                if any(key not in self._samples for key in batch):
                    answers = self._generate([rows[key] for key in batch], max_new_tokens, temperature, suppress)
                    self._samples.add(dict(zip(batch, answers, strict=True)))
                stage.advance(len(batch))
        answers = [_Answer(*self._samples[key]) for key in keys]
        return [without_broken_end(answer.text) if whole and answer.cut else answer.text for answer in answers]

    def answer_ids(self, text: str) -> list[int]:
        """Return the ids of an answer as the model would have said it, without its end."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def end_id(self, asked: Pair) -> int:
        """Return the token by which the model ends an answer to the prompt of `asked`.

        That is the one which the template writes there, of those that end a sample.
        """
        said = tokenize(asked.with_text("chosen", "So.").with_text("rejected", "So."), self.tokenizer)
        ends = self._end_ids()
        return next((token for token in (said.chosen if said else ()) if token in ends), ends[0])

    def prompt_ids(self, asked: Prompt, system: str | None = None) -> list[int]:
        """Return the ids of a prompt, ready to be answered; MAX_PROMPT at most."""
        prompt = asked.prompt if isinstance(asked, Pair) else asked
        if isinstance(prompt, str):
            text = f"{system}\n\n{prompt}" if system else prompt
            return list(self.tokenizer(text, verbose=False)["input_ids"])[-MAX_PROMPT:]
        messages, options = list(prompt), template_options(asked) if isinstance(asked, Pair) else {}
        try:
            text = self._open(_with_system(messages, system), options)
        except DataError:
            if not system:
                raise
            text = self._open(_with_rule(messages, system), options)
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])[-MAX_PROMPT:]

    def _open(self, messages: list[Message], options: dict[str, Any]) -> str:
        """Return a conversation as text, ready to be answered."""
        begun = bool(messages) and messages[-1].get("role") == "assistant"
        kept = {**options, "tokenize": False, "add_generation_prompt": not begun, "continue_final_message": begun}
        try:
            return str(self.tokenizer.apply_chat_template(messages, **kept))
        except Exception as error:  # a chat template is a program of the model's author: it may raise anything
            raise DataError(f"the model's chat template cannot render a prompt: {error}") from error

    @torch.inference_mode()
    def _log_probs(self, items: Sequence[Tokens]) -> list[list[float]]:
        """Return the log-probabilities of each response's tokens."""
        self.tokens_used += sum(len(prompt) + len(response) for prompt, response in items)
        return [[round(x, DECIMALS) for x in part.double().cpu().tolist()] for part in self._scorer.scores(items)]

    @torch.inference_mode()
    def _generate(
        self, draws: list[_Draw], length: int, temperature: float, suppress: Suppression | None
    ) -> list[_Answer]:
        device, ends, rows = self.model.device, self._end_ids(), [draw.prompt for draw in draws]
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else ends[0]
        width = max(len(row) for row in rows)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        starts = torch.tensor([width - len(row) for row in rows], device=device)
        mask = (torch.arange(width, device=device) >= starts[:, None]).long()
        config = GenerationConfig(
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=pad,
            repetition_penalty=1.0,
            num_beams=1,
        )
        noise = LogitsProcessorList(
            [_Gumbel([draw.noise for draw in draws], temperature, device)] if temperature > 0 else []
        )
        with suppressed(self.model, suppress, starts):
            out = self.model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=noise)
        self.tokens_used += int(mask.sum()) + out[:, width:].numel()
        return [self._decode(row, ends) for row in out[:, width:].tolist()]

    def _end_ids(self) -> list[int]:
        """Return the tokens that end an answer: the tokenizer's and the generation config's."""
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return sorted({end for end in (self.tokenizer.eos_token_id, *listed) if end is not None})

    def _other_ends(self) -> list[int]:
        """Return the tokens that end an answer beside the tokenizer's own."""
        return [end for end in self._end_ids() if end != self.tokenizer.eos_token_id]

    def _decode(self, row: list[int], ends: list[int]) -> _Answer:
        stop = next((i for i, token in enumerate(row) if token in ends), len(row))
        return _Answer(str(self.tokenizer.decode(row[:stop], skip_special_tokens=True)), stop == len(row))


@contextmanager
def suppressed(model: Any, suppress: Suppression | None, starts: Tensor) -> Iterator[None]:
    """Switch the features off while the block runs: h becomes h - acts(h) @ decoder.

    `starts` (n_rows,) is each row's first real token. That token and the padding before it stay as they are: the first
    token only holds attention, far outside what an SAE was trained on.
    """
    if suppress is None:
        yield
        return
    decoder = torch.as_tensor(suppress.decoder)
    seen = 0

    def subtract(_module: Any, _args: Any, output: Any) -> Any:
        nonlocal seen
        states = output[0] if isinstance(output, tuple) else output
        directions = decoder.to(states.device, states.dtype)
        off = (suppress.acts(states.flatten(0, 1)).to(states.dtype) @ directions).view_as(states)
        places = seen + torch.arange(states.shape[1], device=states.device)
        seen += states.shape[1]
        states = states - off * (places > starts[:, None].to(states.device))[..., None]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = decoder_layers(model)[suppress.layer].register_forward_hook(subtract)
    try:
        yield
    finally:
        handle.remove()


class _Gumbel(LogitsProcessor):
    """Turns the argmax into a draw from the softmax: each row has noise of its own."""

    def __init__(self, noise: Sequence[int], temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in noise]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - noise.log()


def _draw(prompt: list[int], seed: int, counts: Counter[str]) -> _Draw:
    """Return the next draw for `prompt`; `counts` tells how often it came before."""
    name = content_id(prompt)
    counts[name] += 1
    return _Draw(prompt, int(content_id(seed, name, counts[name]), 16) >> 1)


def _with_rule(messages: list[Message], rule: str) -> list[Message]:
    """Put `rule` before the first message."""
    if not messages:
        return [{"role": "user", "content": rule}]
    return [{**messages[0], "content": f"{rule}\n\n{plain(messages[0])}"}, *messages[1:]]


def _with_system(messages: list[Message], system: str | None) -> list[Message]:
    if not system:
        return messages
    if messages and messages[0].get("role") == "system":
        return [{**messages[0], "content": f"{messages[0].get('content', '')}\n\n{system}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def _sample_batches(draws: dict[str, _Draw], length: int, times: int) -> Iterator[list[str]]:
    """Yield keys in batches of like length, within so many `times` the bounds; the layout depends on the prompts."""
    batch: list[str] = []
    rows, tokens = times * BATCH_ROWS, times * BATCH_TOKENS
    for key in sorted(draws, key=lambda k: (len(draws[k].prompt), k)):
        if batch and (len(batch) == rows or (len(draws[key].prompt) + length) * (len(batch) + 1) > tokens):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch
