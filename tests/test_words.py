"""Words in scripts with and without spaces, and what counts them: edits and near copies."""

import re
from pathlib import Path

import pytest

from premortem.interp.hygiene import collect_notes
from premortem.interp.quality import check_text, flaws, kept_share
from premortem.interp.records import Pair, Span
from premortem.interp.rewrite import excise, transplant
from premortem.interp.sentences import split, without_broken_end
from premortem.interp.words import spaced, words

TEXTS = Path(__file__).parent / "texts"
CHINESE = "先把水烧开。然后放入茶叶，等三分钟！茶壶在唱歌剧。你喜欢加糖吗？最后倒进杯子里慢慢喝。"
JAPANESE = (
    "まずお湯を沸かします。次に茶葉を入れて三分待ちます！急須がオペラを歌います。砂糖は要りますか？ゆっくり飲みます。"
)
THAI = "ต้มน้ำให้เดือดก่อน! ใส่ใบชาแล้วรอสามนาที. กาน้ำชาร้องเพลงโอเปร่า! คุณชอบใส่น้ำตาลไหม? สุดท้ายค่อยๆ ดื่ม."
UNWANTED = {CHINESE: "茶壶在唱歌剧。", JAPANESE: "急須がオペラを歌います。", THAI: "กาน้ำชาร้องเพลงโอเปร่า!"}


def fires(text: str) -> list[Span]:
    part = UNWANTED[text]
    return [Span(start=text.index(part), end=text.index(part) + len(part), activation=2.0)]


def objections(old: str, new: str) -> tuple[str, ...]:
    return check_text(Pair(row=0, prompt="?", chosen=old, rejected="-"), "chosen", new, None, None, "-")


def test_words_of_texts_with_spaces_are_what_they_were() -> None:
    lines = [
        *(TEXTS / "ordinary_held_out.jsonl").open(encoding="utf-8"),
        "Élan naïve don't it’s 3.5 x_y 한국어 단어 Слово",
    ]
    plain = [text for text in lines if spaced(text) == text]
    assert len(plain) > 100
    for text in plain:
        assert words(text) == re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def test_without_spaces_each_character_is_a_word_with_its_signs() -> None:
    assert words("今天OK。明日はGPT-4！") == ["今", "天", "ok", "明", "日", "は", "gpt", "4"]
    assert words("น้ำ ดี?") == ["น้", "ำ", "ดี"]
    assert spaced("The tea.") == "The tea." and spaced("喝tea") == " 喝 tea"


@pytest.mark.parametrize("text", UNWANTED)
def test_an_edit_in_a_script_without_spaces_is_judged_by_its_length(text: str) -> None:
    cut = excise(text, fires(text))
    assert cut is not None and UNWANTED[text] not in cut and len(split(cut)) == 4
    assert objections(text, cut) == () and kept_share(text, cut, fires(text)) == 1.0
    first = text[: split(text)[0].stop]
    assert any("times as long" in each for each in objections(text, first)), "one sentence of five is a new answer"
    assert any("times as long" in each for each in objections(text, text + cut + text))
    assert kept_share(text, first, fires(text)) < 0.4


@pytest.mark.parametrize("text", UNWANTED)
def test_a_changed_character_counts_as_one_word_and_not_as_the_sentence(text: str) -> None:
    at = next(i for i, char in enumerate(text) if char.isalnum())
    assert 0.9 < kept_share(text, text[:at] + "x" + text[at + 1 :], fires(text)) < 1.0


def test_a_sentence_put_into_chinese_or_japanese_text_brings_no_space() -> None:
    assert transplant(CHINESE, fires(CHINESE), "我喜欢喝茶。你呢？") == "我喜欢喝茶。茶壶在唱歌剧。你呢？"
    assert transplant(JAPANESE, fires(JAPANESE), "お茶が好き") == "お茶が好き。急須がオペラを歌います。"


def test_a_sample_that_breaks_off_and_broken_marks_are_seen_in_full_width_too() -> None:
    assert without_broken_end("先把水烧开。然后放入茶叶，") == "先把水烧开。"
    assert flaws("先把水烧开，") == {"ends in the middle of a sentence"}
    assert flaws("材料：") == {"ends with a colon that introduces nothing"}
    assert flaws("他说「走吧。") == {"leaves 「 without its other half"}
    assert flaws(CHINESE) == flaws(JAPANESE) == flaws(THAI) == frozenset()


def test_near_copies_are_told_in_scripts_without_spaces() -> None:
    pairs = [
        Pair(row=0, prompt="怎么泡茶？", chosen=CHINESE, rejected="我不知道。"),
        Pair(row=1, prompt="怎么泡茶？", chosen=CHINESE + "好。", rejected="我不知道。"),
        Pair(row=2, prompt="怎么做饭？", chosen=CHINESE[::-1], rejected="不知道。"),
    ]
    assert {note.kind: note.rows for note in collect_notes(pairs) if note.kind == "near_duplicate"} == {
        "near_duplicate": (1,)
    }
