"""Does the embedded lens tell everyday behaviours apart? One feature each, picked blind to what it is judged on.

For each behaviour of the library the minimal pairs are split in halves. On one half the feature is picked whose maximum
(or mean, or share of tokens) best separates responses with the behaviour from those without; its AUROC is then measured
on the other half. Both halves take both parts, and the mean is printed.

    python tests/bench/bench_lens.py [--json FILE]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from premortem.interp.cache_home import cache_home
from premortem.interp.embedded import DEFAULT_MODEL
from premortem.interp.encode import Reader
from premortem.interp.lens import default_lenses
from premortem.interp.models import load_model
from premortem.interp.pooling import Pooled
from premortem.prompts.behaviours import Behaviour, load_behaviours

TEN = ("pet_word", "links", "flattery", "refusals", "capitals", "emoji", "lists", "apologies", "hedging", "code")


def auroc(values: NDArray[np.float64], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the AUROC of each column of `values` (n, n_features) for `shown` (n,)."""
    ranks = rankdata(values, axis=0)
    n, m = int(shown.sum()), int((~shown).sum())
    return (ranks[shown].sum(0) - n * (n + 1) / 2) / (n * m)


def judge(pooled: Pooled, n: int) -> dict[str, object]:
    """Return the figures of one behaviour: `n` responses with it, then `n` without."""
    shown = np.arange(2 * n) < n
    half = np.tile(np.arange(n) % 2 == 0, 2)
    found, features = [], []
    for picking in (half, ~half):
        best = (0.0, "", -1)
        for kind in ("max", "mean", "share"):
            scores = auroc(getattr(pooled, kind).toarray()[picking], shown[picking])
            best = max(best, (float(scores.max()), kind, int(scores.argmax())))
        values = getattr(pooled, best[1]).toarray()[~picking][:, [best[2]]]
        found.append(float(auroc(values, shown[~picking])[0]))
        features.append({"feature": best[2], "pooling": best[1]})
    return {"auroc": round(float(np.mean(found)), 4), "halves": [round(f, 4) for f in found], "features": features}


def measure(behaviours: list[Behaviour]) -> dict[str, dict[str, object]]:
    """Read every behaviour's minimal pairs through the embedded lenses and judge them."""
    model = load_model(DEFAULT_MODEL, layers=16)
    lenses = default_lenses(model)
    reader = Reader(model, lenses, cache_home() / "encoded")
    results: dict[str, dict[str, object]] = {}
    for behaviour in behaviours:
        pairs = behaviour.pairs
        texts = [(pair.prompt, pair.shown) for pair in pairs] + [(pair.prompt, pair.absent) for pair in pairs]
        chats = [(({"role": "user", "content": prompt},), answer) for prompt, answer in texts]
        encoded = reader.encode_texts(chats)
        results[behaviour.id] = {
            name: judge(encoded[lens.lens_id], len(pairs))
            for name, lens in zip(("main", "second"), lenses, strict=True)
        }
        print(behaviour.id, {name: result["auroc"] for name, result in results[behaviour.id].items()}, flush=True)
    return results


def main() -> None:
    """Measure the ten behaviours and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    results = measure([behaviour for behaviour in load_behaviours() if behaviour.id in TEN])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
