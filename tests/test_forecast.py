"""A forecast of a few made-up pairs, everywhere and within topics."""

import numpy as np
import pytest

from premortem.interp.forecast import NamedReadout, Reading, _stands_out, forecast, name_readout
from premortem.interp.forecasters import Own
from premortem.interp.names import Vocabulary
from premortem.interp.readout import Part, Readout
from premortem.interp.records import Pair, Topic
from premortem.interp.topics import group_prompts
from synthetic import responses

N = 120
LIKED = [5, 17, 31]
INSIDE_ROWS = tuple(range(40))


def reading(*topics: Topic) -> Reading:
    """Return pairs whose chosen responses show LIKED in every second pair of the first 40."""
    made = responses(N, dict.fromkeys(range(0, 40, 2), LIKED))
    pairs = tuple(Pair(row=row, prompt=f"what of {row}?", chosen="one way", rejected="another") for row in range(N))
    texts = [text for side in ("chosen", "rejected") for text in [getattr(pair, side) for pair in pairs]]
    vocabulary = Vocabulary(texts, np.tile(np.arange(N), 2))
    own = Own(responses(40, dict.fromkeys(range(0, 40, 3), LIKED), seed=1).bag, np.tile(np.arange(40), 2))
    return Reading("lens", pairs, made, vocabulary, topics, answers=lambda: own)


def concepts(read: Reading) -> list[NamedReadout]:
    by_token = Readout(Part(tuple(LIKED), (1.0,) * 3), Part(), 2.0, "tokens")
    return [name_readout(read, each, "group") for each in (by_token, Readout(by_token.whole, Part(), 3.0))]


def topic(name: str, rows: tuple[int, ...]) -> Topic:
    return Topic(topic_id=name, name=name, rows=rows)


def test_inside_its_topic_a_group_is_forecast_nearly_as_everywhere_and_a_response_as_it_is_there() -> None:
    read = reading(topic("first", INSIDE_ROWS))
    found = {(effect.unit, effect.topic): effect for effect in forecast(read, concepts(read), "calibrated").concepts}
    assert set(found) == {(unit, place) for unit in ("tokens", "responses") for place in (None, "first")}
    everywhere, inside = (found["tokens", place].effect for place in (None, "first"))
    values = read.values("calibrated", [concepts(read)[0].readout])[:, 0]
    assert inside == pytest.approx(0.9 * values.mean() + 0.1 * values[:40].mean(), abs=1e-5)
    assert everywhere < inside < 1.3 * everywhere
    assert found["responses", "first"].effect > 2 * found["responses", None].effect


def test_a_topic_of_which_no_pair_is_left_is_not_forecast() -> None:
    read = reading(topic("gone", (500, 501)))
    found = forecast(read, concepts(read), "calibrated").concepts
    assert {effect.topic for effect in found} == {None}
    assert all(np.isfinite([effect.effect, effect.low, effect.high, effect.q]).all() for effect in found)


def test_pairs_of_one_prompt_do_not_make_a_topic_stand_out_by_chance() -> None:
    """No topic differs from the others; ten pairs share each prompt, and a third of their spread."""
    rng = np.random.default_rng(0)
    groups, certain = np.repeat(np.arange(60), 10), np.zeros(50)
    inside, found = groups < 20, 0
    for _ in range(20):
        shared, own = rng.normal(0, 0.3**0.5, (60, 50))[groups], rng.normal(0, 0.7**0.5, (600, 50))
        found += int(_stands_out(1.0 + shared + own, groups, inside, certain).sum())
    assert found <= 10  # of 1,000; 39 where pairs count as independent
    marked = np.where(inside[:, None], 2.0, 0.2) + shared + own
    assert _stands_out(marked, groups, inside, certain).all()
    assert not _stands_out(marked, np.where(inside, 0, groups), inside, certain).any()  # all of one prompt


def test_prompts_that_share_no_word_with_others_belong_to_no_topic() -> None:
    themes = ["tea and cups of tea", "trains on rails and trains", "bread from an oven, bread"]
    told = [f"{themes[i % 3]} {themes[i % 3].split()[i // 3 % 2]}" for i in range(60)]
    alone = ["为什么天空是蓝色的" + chr(0x4E00 + i) for i in range(30)]
    topics = group_prompts([*told, *alone], range(90))
    assert topics
    assert max(row for topic in topics for row in topic.rows) < 60


def test_prompts_in_chinese_have_topics_and_concepts_names() -> None:
    kinds = ("写一首关于{}的诗", "请计算{}的平方根", "推荐{}附近的餐厅", "怎样学会弹{}", "翻译{}这个词语")
    things = "春夏秋冬山水花鸟鱼虫风雨雪月星云"
    prompts = [kind.format(thing) for thing in things for kind in kinds]
    topics = group_prompts(prompts, range(len(prompts)))
    assert len(topics) >= 3
    for topic in topics:
        about = [row % len(kinds) for row in topic.rows]
        assert max(about.count(kind) for kind in range(len(kinds))) >= 0.9 * len(about)
    texts = ["请关注公众号" if i % 3 == 0 else "今天天气很好" for i in range(120)]
    name = Vocabulary(texts, np.arange(120)).name(np.arange(120) % 3 == 0)
    assert name.tested
    assert "公众" in name.text or "关注" in name.text
