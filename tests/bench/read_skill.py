"""Read out the documents of `bench_skill.py`: tables into `skill.md` between its marks, scatter plots into an SVG.

Run by `make bench-skill` after the runs; by itself it measures nothing.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from skill_data import LARGE, SETS
from sklearn.linear_model import Ridge

from premortem.agent.chart import Mark
from premortem.agent.diff import visible
from premortem.agent.scatter import SIDE, scatter
from premortem.agent.summary import groups_learned
from premortem.agent.validation_document import LEAST_RATE
from premortem.interp.forecasters import CALIBRATED, DEFAULT

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "skill"
SMALL, LATER, UNSEEN = RESULTS / "small", RESULTS / "later", RESULTS / "unseen"
AGAIN = RESULTS.parent / "forecast-again.json"
"""What `forecast_again.py` found."""
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
STYLE = """
svg { font-family: system-ui, sans-serif; font-size: 12px; background: #fff; }
.axis, .name { fill: #555; } .name { font-size: 16px; fill: #111; }
.grid { stroke: #e6e6e6; } .zero { stroke: #888; }
.reach { stroke: #bbb; } circle { fill: #2563a8; fill-opacity: .75; }
"""

RIDGE = 10.0
"""Penalty of the regression over forecasters, in groups."""

UNFITTED = "alpacaeval"
"""The source whose licence forbids that what ships is fitted on it."""

LEVELS = {
    "groups": "100 groups",
    "finer": "up to 300 groups",
    "topics": "groups within topics",
    "features": "single features",
    "elsewhere": "100 groups, everyday prompts",
}
"""Levels of the figures, and what tables call them."""

MOSTLY = 0.8
"""Share of a group's first rows that a planted behaviour fills where the group is about little else."""
Document = dict[str, Any]


def read(folder: Path = RESULTS) -> dict[str, Document]:
    """Return the documents in `folder` by run."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def short(run: str) -> str:
    """Return a run's name as the tables give it: its set without the size, and its seed."""
    return run.replace("-large", "").replace("-seed", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def runs(documents: dict[str, Document]) -> str:
    """Return what was trained and how far it went."""
    head = (
        "run",
        "pairs",
        "told apart",
        "steps",
        "seconds",
        "answers",
        "KL a token",
        "margin",
        "right held out",
        "tokens an answer",
    )
    return table(
        head,
        (
            (
                short(name),
                str(d["training"]["pairs"]),
                figure(d["told_apart"]),
                str(d["training"]["steps"]),
                f"{d['training']['seconds']:.0f}",
                f"{d['rollouts']['prompts']} x {d['rollouts']['per_prompt']}",
                figure(d["movement"]["kl_per_token"]),
                f"{d['movement']['margin']:+.1f}",
                f"{d['movement']['held_out_accuracy']:.0%}",
                f"{d['movement']['length_before']:.0f} → {d['movement']['length_after']:.0f}",
            )
            for name, d in documents.items()
        ),
    )


def rows_of(document: Document, level: str) -> list[Document]:
    """Return the skill of each forecaster on a level; `finer` and `elsewhere` count as levels."""
    if level == "finer":
        return list(document["finer"]["skill"])
    if level == "elsewhere":
        return [row for row in document["elsewhere"]["skill"] if row["level"] == "groups"]
    return [row for row in document["skill"] if row["level"] == level]


def forecasters(documents: dict[str, Document], level: str) -> str:
    """Return R2, and its share of the ceiling, of each forecaster on each run, with medians."""
    found = {name: {row["forecaster"]: row for row in rows_of(d, level)} for name, d in documents.items()}
    names = list(dict.fromkeys(forecaster for rows in found.values() for forecaster in rows))
    lines = []
    for forecaster in names:
        rows = [found[run].get(forecaster) for run in documents]
        shares = [row["r2"] / row["ceiling"] for row in rows if row and row["r2"] is not None and row["ceiling"] > 0]
        cells = ["–" if row is None or row["r2"] is None else figure(row["r2"]) for row in rows]
        called = [row for row in rows if row and row["sign_accuracy"] is not None]
        right = sum(row["sign_accuracy"] * row["n_called"] for row in called)
        count = sum(row["n_called"] for row in called)
        lines.append(
            [
                forecaster,
                *cells,
                figure(statistics.median(shares)) if shares else "–",
                figure(statistics.median(row["slope"] for row in rows if row and row["slope"] is not None)),
                f"{right / count:.0%} of {count}" if count else "none called",
                figure(statistics.median(row["coverage"] for row in rows if row)),
            ]
        )
    ceilings = [next(iter(found[run].values()))["ceiling"] if found[run] else None for run in documents]
    counts = [next(iter(found[run].values()))["n_concepts"] if found[run] else None for run in documents]
    swapped = [found[run].get(DEFAULT, {}).get("null") for run in documents]
    lines.append(["*a perfect forecast*", *map(figure, ceilings), "1.00", "", "", ""])
    lines.append([f"*`{DEFAULT}`, sides swapped at random, 95%*", *map(figure, swapped), "", "", "", ""])
    lines.append(["*concepts*", *(str(count) if count else "–" for count in counts), "", "", "", ""])
    if level in ("groups", "features"):
        lines += baselines(documents, level, ceilings)
    return table(
        [
            "forecaster",
            *map(short, documents),
            "median share of the ceiling",
            "median slope",
            "signs right",
            "median coverage",
        ],
        lines,
    )


def by_run(documents: dict[str, Document]) -> str:
    """Return the figures of DEFAULT on each run, level by level."""
    lines = []
    for name, document in documents.items():
        for level, title in LEVELS.items():
            row = next((one for one in rows_of(document, level) if one["forecaster"] == DEFAULT), None)
            if row is None or row["r2"] is None:
                continue
            called = row["n_called"]
            share = f"{row['r2'] / row['ceiling']:.0%}" if row["ceiling"] and row["ceiling"] > 0 else "–"
            lines.append(
                [
                    short(name),
                    title,
                    str(row["n_concepts"]),
                    figure(row["r2"]),
                    f"{figure(row['low'])} to {figure(row['high'])}",
                    share,
                    figure(row["slope"]),
                    f"{row['sign_accuracy']:.0%} of {called}" if called else "none called",
                    f"{row['coverage']:.0%}",
                ]
            )
    head = ["run", "level", "concepts", "R²", "90%", "of the ceiling", "slope", "signs right", "coverage"]
    return table(head, lines)


def baselines(documents: dict[str, Document], level: str, ceilings: Sequence[float | None]) -> list[list[str]]:
    """Return the R2 of each baseline on each run."""
    found = {
        run: {row["name"]: row["r2"] for row in d["baselines"] if row["level"] == level} for run, d in documents.items()
    }
    lines = []
    for name in dict.fromkeys(name for rows in found.values() for name in rows):
        r2s = [found[run].get(name) for run in documents]
        shares = [r2 / top for r2, top in zip(r2s, ceilings, strict=True) if r2 is not None and top]
        lines.append([f"baseline: {name}", *map(figure, r2s), figure(statistics.median(shares)), "", "", ""])
    return lines


def calibrated(documents: dict[str, Document]) -> str:
    """Return what `calibrated` reaches on sources that its weights were not fitted on, and those fitted on all.

    What holds pairs of AlpacaEval never takes part in a fit: its licence forbids that what ships is fitted on it.
    """
    parts, lines = tuple(CALIBRATED), []
    for run, document in documents.items():
        weights = fitted({other: each for other, each in documents.items() if source(other) != source(run)})
        cells = [f"{weight:.2f}" for weight in weights]
        for topics in (False, True):
            x, y = columns(document, (*parts, "calibrated"), topics=topics)
            forecasts = [*x.T, x[:, : len(parts)] @ weights]
            cells += [figure(explained(each, y)) if len(y) else "–" for each in forecasts]
        lines.append([short(run), *cells])
    told = ", ".join(f"{weight:.2f} `{name}`" for name, weight in zip(parts, fitted(documents), strict=True))
    levels = [f"{name}{place}" for place in ("", ", topics") for name in (*parts, "as it ships", "other sources")]
    return f"{table(['run', *(f'weight of {name}' for name in parts), *levels], lines)}\n\nFitted on all: {told}."


def fitted(documents: dict[str, Document]) -> np.ndarray:
    """Return the weights of `calibrated`, `(n_forecasters,)`: a ridge regression without intercept on groups.

    Each run counts alike: its shifts and forecasts are divided by the root mean square of its shifts.
    """
    pairs = [columns(each, tuple(CALIBRATED)) for run, each in documents.items() if source(run) != UNFITTED]
    scales = [float(np.sqrt((y**2).mean())) for _, y in pairs]
    x = np.concatenate([x / scale for (x, _), scale in zip(pairs, scales, strict=True)])
    y = np.concatenate([y / scale for (_, y), scale in zip(pairs, scales, strict=True)])
    spreads = np.sqrt((x**2).mean(0))
    return np.asarray(Ridge(RIDGE, fit_intercept=False).fit(x / spreads, y).coef_ / spreads)


def columns(document: Document, names: Sequence[str], *, topics: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return forecasts `(n_groups, n_forecasters)` and learned shifts `(n_groups,)`, everywhere or within topics."""
    groups = groups_seen(document, topics=topics)
    x = np.asarray([[group["forecasts"][name] for name in names] for group in groups])
    return x, np.asarray([group["learned"] for group in groups])


def groups_seen(document: Document, *, topics: bool = False) -> list[Document]:
    """Return the groups of features that answers show often enough, everywhere or within topics."""
    groups = [each for each in groups_learned(document) if (each["topic"] is not None) == topics]
    return [each for each in groups if each["rate"] >= LEAST_RATE]


def source(run: str) -> str:
    """Return the file that a run's pairs come from, without its ending; UNFITTED wherever it is one of several."""
    own, *others = _files(set_of(run))
    return UNFITTED if UNFITTED in others else own


def _files(name: str) -> list[str]:
    """Return the files that a set is made of, its own first, without their endings."""
    one = SETS[name]
    return [Path(one.file).stem, *(file for other in one.among for file in _files(other))]


def averaged(documents: dict[str, Document]) -> str:
    """Return how one training on a set tells another, and how the forecast of each does against the mean over all.

    Trainings of a set differ in seed and split. Shifts of a group are the means of those of its features, so that other
    trainings tell them too, whatever groups they had.
    """
    lines = []
    for run, document in documents.items():
        trainings = [other for other in documents if set_of(other) == set_of(run)]
        if len(trainings) < 2 or "features" not in groups_learned(document)[0]:  # the first eight do not tell them
            continue
        groups = groups_seen(document)
        learned = np.asarray([[shift(documents[other], group["features"]) for group in groups] for other in trainings])
        forecast = np.asarray([group["forecast"] for group in groups])
        own = learned[trainings.index(run)]
        lines.append(
            [
                run,
                str(len(trainings)),
                figure(explained(forecast, own)),
                figure(statistics.mean(explained(a, b) for a, b in combinations(learned, 2))),
                figure(explained(forecast, learned.mean(0))),
            ]
        )
    head = ["forecast", "trainings of the set", "R² on its own training", "of one training by another", "on their mean"]
    return table(head, lines)


def shift(document: Document, features: Sequence[int]) -> float:
    """Return the learned shift of a group of features: the mean over those that the document tells of."""
    told = [document["features"][str(one)]["learned"] for one in features if str(one) in document["features"]]
    return float(np.mean(told)) if told else 0.0


def explained(a: np.ndarray, b: np.ndarray) -> float:
    """Return the R2 of one by the other, 0 where they correlate negatively."""
    return max(float(np.corrcoef(a, b)[0, 1]), 0.0) ** 2


def set_of(run: str) -> str:
    """Return the set that a run trains on."""
    return run.rpartition("-seed")[0]


def planted(documents: dict[str, Document]) -> str:
    """Return where groups that go with each planted behaviour rank, among the forecasts and after training.

    The one whose first rows it fills most, and the one forecast strongest of those that it fills to MOSTLY.
    """
    lines = []
    for run, document in documents.items():
        groups = [concept for concept in groups_learned(document) if concept["topic"] is None]
        for behaviour, rows in document.get("planted", {}).items():
            filled = {id(group): precision(group["rows"], set(rows)) for group in groups}
            most = max(groups, key=lambda group: (filled[id(group)], abs(group["forecast"])))
            mostly = [group for group in groups if filled[id(group)] >= MOSTLY]
            strongest = max(mostly, key=lambda group: abs(group["forecast"]), default=None)
            lines.append([short(run), behaviour, *placed(groups, most, filled), *placed(groups, strongest, filled)])
    head = ["rank forecast", "rank learned"]
    return table(["run", "planted", "filled most", *head, f"strongest filled to {MOSTLY:.0%}", *head], lines)


def placed(groups: Sequence[Document], one: Document | None, filled: dict[int, float]) -> list[str]:
    """Return a group's name with the share of its first rows that is `filled`, by id, and its two ranks."""
    if one is None:
        return ["none", "", ""]
    return [
        f"{one['name']} ({filled[id(one)]:.0%})",
        *(str(rank(groups, one, itemgetter(key))) for key in ("forecast", "learned")),
    ]


def planted_findings(documents: dict[str, Document]) -> str:
    """Return what became of the finding that names the rows of each planted behaviour best.

    Its place among the forecasts is that among the concepts of its kind, which `agent forecast` lists first; its places
    among what was learned are that too, and that among all concepts and groups, by shift in units of its interval.
    """
    lines = []
    for run, document in documents.items():
        for behaviour, rows in document.get("planted", {}).items():
            truth = set(rows)
            best = max(document.get("findings", ()), key=lambda one: f1(one["rows"], truth), default=None)
            if best is None or not set(best["rows"]) & truth:
                lines.append([short(run), behaviour, "none", *["–"] * 8])
                continue
            hits = len(set(best["rows"]) & truth)
            everywhere = [concept for concept in document["concepts"] if concept["topic"] is None]
            alike = [concept for concept in everywhere if concept["unit"] == "responses"]
            one = next(concept for concept in alike if concept["concept_id"] == best["concept_id"])
            lines.append(
                [
                    short(run),
                    behaviour,
                    best["name"],
                    f"{hits / len(best['rows']):.0%}, {hits / len(truth):.0%}",
                    f"{best['forecast']:+.0%}",
                    f"{best['before']:.0%} → {best['after']:.0%}",
                    f"{best['learned']:+.0%}",
                    f"{best['low']:+.0%} to {best['high']:+.0%}",
                    *(f"{rank(alike, one, itemgetter(key))} of {len(alike)}" for key in ("forecast", "learned")),
                    f"{rank(everywhere, one, clearness)} of {len(everywhere)}",
                ]
            )
    head = [
        "run",
        "planted",
        "finding",
        "rows: precision, recall",
        "forecast",
        "answers that show it",
        "learned",
        "90%",
        "place forecast",
        "place learned",
        "place learned, of all",
    ]
    return table(head, lines)


def clearness(concept: Document) -> float:
    """Return a learned shift in units of its interval."""
    return float(concept["learned"] / max(concept["high"] - concept["low"], 1e-9))


def f1(rows: Sequence[int], truth: set[int]) -> float:
    """Return how well `rows` are those of `truth`, 0 to 1."""
    return 2 * len(set(rows) & truth) / max(len(rows) + len(truth), 1)


def precision(rows: Sequence[int], truth: set[int]) -> float:
    """Return the share of `rows` that are in `truth`; 0 where they are too few to tell."""
    return len(set(rows) & truth) / len(rows) if len(rows) >= 10 else 0.0


def rank(concepts: Sequence[Document], one: Document, key: Callable[[Document], float]) -> int:
    """Return the place of `one` among `concepts` by the size of `key`, 1 for the largest."""
    return 1 + sum(abs(key(other)) > abs(key(one)) for other in concepts)


def anew(documents: dict[str, Document], again: Document) -> str:
    """Return what DEFAULT of the day told of each run, and what that of its own day had told.

    Forecasters that were asked about some runs alone have a column, too.
    """
    lines = []
    others = list(dict.fromkeys(name for told in again.values() for name in told["forecasters"] if name != DEFAULT))
    for run, told in again.items():
        document, now = documents[run], told["forecasters"][DEFAULT]
        then = next((row["r2"] for row in rows_of(document, "groups") if row["forecaster"] == DEFAULT), None)
        named = {row["r2"]: row["name"] for row in document["baselines"] if row["level"] == "groups"}
        best, ceiling = max(named), told["ceiling"]
        lines.append(
            [
                short(run) + ("" if LARGE in run else ", small"),
                figure(None if then is None else then / ceiling),
                figure(now["r2"] / ceiling),
                *(
                    figure(told["forecasters"][name]["r2"] / ceiling if name in told["forecasters"] else None)
                    for name in others
                ),
                f"{best / ceiling:.2f}, {named[best]}",
                figure(now["slope"]),
                f"{now['n_right']} of {now['n_called']}" if now["n_called"] else "none called",
                f"{now['coverage']:.0%}",
            ]
        )
    head = [
        "run",
        "then",
        "now",
        *(f"`{name}` now" for name in others),
        "best baseline",
        "slope",
        "signs right",
        "coverage",
    ]
    return table(head, lines)


def pictures(documents: dict[str, Document], across: int = 3) -> str:
    """Return an SVG with a scatter plot of each run's groups."""
    environment = Environment(loader=PackageLoader("premortem.agent", "templates"), autoescape=True)
    environment.filters["visible"] = lambda value: visible(str(value))
    draw = environment.get_template("scatter.svg.j2").module.cloud  # type: ignore[attr-defined]
    parts = []
    for i, (name, document) in enumerate(documents.items()):
        marks = [
            (concept["forecast"], Mark(concept["name"], concept["learned"], concept["low"], concept["high"]))
            for concept in groups_learned(document)
            if concept["topic"] is None
        ]
        x, y = (i % across) * SIDE, (i // across) * (SIDE + 30)
        parts.append(f'<g transform="translate({x} {y + 30})"><text class="name" x="46" y="4">{short(name)}</text>')
        parts.append(str(draw(scatter(marks), name)) + "</g>")
    height = -(-len(documents) // across) * (SIDE + 30)
    size = f'width="{across * SIDE:.0f}" height="{height:.0f}" viewBox="0 0 {across * SIDE:.0f} {height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"


def main() -> None:
    """Write the tables and the picture; the runs made later stand by themselves."""
    documents = read()
    sections = [
        ("The runs", runs(documents)),
        ("Groups of features, held-out prompts: R²", forecasters(documents, "groups")),
        ("Up to 300 groups", forecasters(documents, "finer")),
        ("Groups within topics", forecasters(documents, "topics")),
        ("Single features", forecasters(documents, "features")),
        ("Groups, on everyday prompts that belong to no dataset", forecasters(documents, "elsewhere")),
        (
            "`calibrated` and what it is made of, and with weights fitted on the other sources: R²",
            calibrated(documents),
        ),
        ("Planted behaviours, as groups of features", planted(documents)),
        ("Planted behaviours, as findings", planted_findings(documents)),
        ("Sets trained several times: R² over groups", averaged(documents | read(SMALL))),
    ]
    later, unseen = read(LATER), read(UNSEEN)
    for name, made, folder in (("Later", later, LATER), ("Unseen", unseen, UNSEEN)):
        if made:
            sections += [
                (f"{name}: the runs", runs(made)),
                (f"{name}: groups of features, held-out prompts: R²", forecasters(made, "groups")),
                (f"{name}: up to 300 groups", forecasters(made, "finer")),
                (f"{name}: groups within topics", forecasters(made, "topics")),
                (f"{name}: planted behaviours, as findings", planted_findings(made)),
            ]
            (folder / "scatter.svg").write_text(pictures(made), "utf-8")
    every = documents | later | unseen
    sections.append((f"`{DEFAULT}`, run by run", by_run(every)))
    if AGAIN.exists():
        told_again = anew(every | read(SMALL), json.loads(AGAIN.read_text("utf-8")))
        sections.insert(0, ("The same runs, forecast again: shares of a perfect forecast, 100 groups", told_again))
    told = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections)
    page = HERE / "skill.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}", "utf-8")
    (RESULTS / "scatter.svg").write_text(pictures(documents), "utf-8")


if __name__ == "__main__":
    main()
