"""The split of a validation where several conversations end in one message, and where none do."""

import hashlib
from collections.abc import Callable

import pytest

from premortem.interp.errors import NoPairs
from premortem.interp.records import Pair
from premortem.interp.validation import ENOUGH_TEXTS, HELD_OUT, MOST_HELD_OUT, Split, split_by_prompt
from tiny import chat_pair


def conversation(row: int, before: str, last: str) -> Pair:
    """Return a pair whose prompt has one turn before its last message."""
    said = [{"role": "user", "content": before}, {"role": "assistant", "content": "Yes."}]
    pair = chat_pair(row, last, "yes", "no")
    return pair.model_copy(update={"prompt": (*said, *pair.prompt)})


def by_units(pairs: list[Pair], key: Callable[[Pair], str], seed: int) -> Split:
    """Split as it is done where no two prompts are of one unit: the first fifth of the units, MOST_HELD_OUT at most."""
    units = {key(pair) for pair in pairs}
    ordered = sorted(units, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
    aside = set(ordered[: min(MOST_HELD_OUT, round(HELD_OUT * len(ordered)))])
    return Split(
        tuple(pair for pair in pairs if key(pair) not in aside), tuple(pair for pair in pairs if key(pair) in aside)
    )


def distinct(pairs: tuple[Pair, ...]) -> int:
    return len({pair.prompt_key() for pair in pairs})


@pytest.mark.parametrize("n", [23, ENOUGH_TEXTS, 333, 6 * MOST_HELD_OUT])
def test_where_each_prompt_has_a_last_message_of_its_own_the_first_fifth_is_put_aside(n: int) -> None:
    alone = [chat_pair(row, f"Tell me of {row}.", "yes", "no") for row in range(n)]
    after = [conversation(row, f"Say {row % 7}.", f"Tell me of {row}.") for row in range(n)]
    key = Pair.prompt_text if n >= ENOUGH_TEXTS else Pair.prompt_key
    for pairs in (alone, after, [*alone, *(pair.model_copy(update={"row": n + pair.row}) for pair in alone[::2])]):
        for seed in (0, 3):
            assert split_by_prompt(pairs, seed) == by_units(pairs, key, seed)


def test_a_last_message_of_most_conversations_is_trained_on_beside_others() -> None:
    many = [conversation(row, f"Tell me of {row}.", "Continue.") for row in range(900)]
    others = [chat_pair(900 + row, f"Tell me of {row}.", "yes", "no") for row in range(100)]
    for seed in range(20):
        split = split_by_prompt([*many, *others], seed)
        assert {pair.row for pair in split.held_out}.isdisjoint(range(900))
        assert len(split.held_out) == round(HELD_OUT * 101)


def test_prompts_are_counted_where_conversations_share_their_last_message() -> None:
    pairs = [conversation(row, f"Tell me of {row}.", f"And {row % 60}?") for row in range(1200)]
    split = split_by_prompt(pairs)
    assert distinct(split.held_out) == MOST_HELD_OUT
    assert {pair.prompt_text() for pair in split.train}.isdisjoint(pair.prompt_text() for pair in split.held_out)
    assert split_by_prompt(pairs[::-1]).held_out == split.held_out[::-1]


def test_last_messages_that_each_end_too_many_prompts_are_told() -> None:
    pairs = [conversation(row, f"Tell me of {row}.", f"And {row % 50}?") for row in range(50 * (MOST_HELD_OUT + 1))]
    with pytest.raises(NoPairs, match="6050 different ones with 50 last messages are too few"):
        split_by_prompt(pairs)
