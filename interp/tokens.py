"""The token ids that TRL's `DPOTrainer` trains on, and where each response token stands in the text.

A forecast is about training, so it must read the very tokens of training. TRL 1.16 renders three strings per pair: the
prompt with the template's opening of an answer, and the prompt followed by each response. It tokenises each on its own
and takes as the prompt what all three share from the start, in tokens. Plain text gets the end-of-sequence token after
each response that lacks it. A sequence beyond `max_length` loses its end, and a pair whose prompt alone fills it is
dropped without a word. A test holds these ids against TRL's own.

Nothing here loads a tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from premortem.interp.errors import DataError, ModelError
from premortem.interp.records import Content, Message, Pair, Side

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_LENGTH = 1024
"""TRL's default for the longest sequence, in tokens."""

_BATCH = 256
_MARK = "\ue000premortem\ue001"


class PairTokens(NamedTuple):
    """Token ids of one pair; each response follows the prompt without a gap."""

    prompt: list[int]
    """Ids that both sequences share from the start."""
    chosen: list[int]
    """Ids of the chosen response, closing tokens included."""
    rejected: list[int]
    """Ids of the rejected response, closing tokens included."""

    def side(self, side: Side) -> list[int]:
        """Return the ids of one response."""
        return self.chosen if side == "chosen" else self.rejected

    def cut(self, max_length: int) -> PairTokens | None:
        """Return what is left at `max_length` tokens per sequence; None when the prompt alone fills it."""
        room = max_length - len(self.prompt)
        return PairTokens(self.prompt, self.chosen[:room], self.rejected[:room]) if room > 0 else None


def tokenize(pair: Pair, tokenizer: PreTrainedTokenizerBase, max_length: int = MAX_LENGTH) -> PairTokens | None:
    """Return the ids that DPO would train on; None where TRL would drop the pair.

    Raises DataError when the tokenizer's chat template cannot render the pair.
    """
    return next(tokenize_all([pair], tokenizer)).cut(max_length)


def tokenize_all(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> Iterator[PairTokens]:
    """Yield the ids of each pair at full length, tokenised in batches; `PairTokens.cut` applies a limit."""
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        rendered = [_render_pair(pair, tokenizer) for pair in batch]
        ids: dict[int, list[list[int]]] = {}
        for conversational in (False, True):
            group = [i for i, pair in enumerate(batch) if pair.conversational == conversational]
            texts = [text for i in group for text in rendered[i]]
            encoded = _ids(texts, tokenizer, add_special_tokens=not conversational)
            ids.update({i: encoded[3 * at : 3 * at + 3] for at, i in enumerate(group)})
        yield from (_split(*ids[i]) for i in range(len(batch)))


def refusals(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return, by row, why the tokenizer's chat template cannot render some of `pairs`."""
    found: dict[int, str] = {}
    for pair in pairs:
        try:
            _render_pair(pair, tokenizer)
        except DataError as error:
            found[pair.row] = str(error).removeprefix(f"row {pair.row}: ")
    return found


def response_offsets(
    pair: Pair, side: Side, tokens: PairTokens, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, int]]:
    """Return for each token of `tokens.side(side)` its (start, end) in `pair.text(side)`.

    A token outside that text (the template's closing, an earlier message of a response of several) has an empty span.
    Raises ModelError when the tokenizer cannot tell offsets.
    """
    if not tokenizer.is_fast:
        raise ModelError("the tokenizer cannot tell where its tokens stand in the text; use its fast version.")
    full = _render_pair(pair, tokenizer)[1 if side == "chosen" else 2]
    encoded = tokenizer(full, add_special_tokens=not pair.conversational, return_offsets_mapping=True)
    first = len(tokens.prompt)
    spans = encoded["offset_mapping"][first : first + len(tokens.side(side))]
    at, start, length = _locate(pair, side, full, tokenizer)
    return [_moved(low - at, high - at, start, length) for low, high in spans]


def _moved(low: int, high: int, start: int, length: int) -> tuple[int, int]:
    """Clip a span relative to the shown text of `length` characters, and shift it to where that text starts."""
    low, high = max(low, 0), min(high, length)
    return (start + low, start + high) if low < high else (0, 0)


def _locate(pair: Pair, side: Side, full: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """Return where the response's text stands in `full`, which of its characters comes first, and how many follow.

    A template may trim a message. So the conversation is rendered once more with a mark for content: what surrounds
    the mark is the template's, the rest is the text.
    """
    text = pair.text(side)
    if isinstance(pair.prompt, str):
        return len(pair.prompt), 0, len(text)
    marked = _render_messages(pair, _conversation(pair.with_text(side, _MARK), side), tokenizer)
    before, _, after = marked.partition(_MARK)
    if full.startswith(before) and full.endswith(after) and len(before) + len(after) <= len(full):
        body = full[len(before) : len(full) - len(after)]
        if (start := text.find(body)) >= 0:
            return len(before), start, len(body)
    at = full.rfind(text.strip()) if text.strip() else -1
    return (at, text.find(text.strip()), len(text.strip())) if at >= 0 else (0, 0, 0)


def _render_pair(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """Return the prompt and the two full sequences as the strings that TRL tokenises."""
    if isinstance(pair.prompt, str):
        prompt = pair.prompt
        return prompt, prompt + _closed(pair.chosen, tokenizer), prompt + _closed(pair.rejected, tokenizer)
    return (
        _render_messages(pair, list(pair.prompt), tokenizer, add_generation_prompt=True),
        _render_messages(pair, _conversation(pair, "chosen"), tokenizer),
        _render_messages(pair, _conversation(pair, "rejected"), tokenizer),
    )


def _closed(response: Content, tokenizer: PreTrainedTokenizerBase) -> str:
    assert isinstance(response, str)
    end = tokenizer.eos_token or ""
    return response if response.endswith(end) else response + end


def _conversation(pair: Pair, side: Side) -> list[Message]:
    response = pair.chosen if side == "chosen" else pair.rejected
    assert not isinstance(pair.prompt, str) and not isinstance(response, str)
    return [*pair.prompt, *response]


def template_options(pair: Pair) -> dict[str, Any]:
    """Return what a pair's messages are rendered with beside themselves: its tools, and options of its own."""
    return {"tools": list(pair.tools) if pair.tools is not None else None, **pair.template_kwargs}


def _render_messages(pair: Pair, messages: list[Message], tokenizer: PreTrainedTokenizerBase, **options: Any) -> str:
    try:
        rendered = tokenizer.apply_chat_template(messages, **{**options, **template_options(pair), "tokenize": False})
    except Exception as error:  # a chat template is a program of the model's author: it may raise anything
        raise DataError(f"row {pair.row}: the model's chat template cannot render it: {error}") from error
    return str(rendered)


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def _split(prompt: list[int], chosen: list[int], rejected: list[int]) -> PairTokens:
    shared = 0
    for first, second, third in zip(prompt, chosen, rejected, strict=False):
        if not first == second == third:
            break
        shared += 1
    return PairTokens(prompt[:shared], chosen[shared:], rejected[shared:])
