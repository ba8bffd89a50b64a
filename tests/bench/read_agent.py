"""Read out the measurements of `bench_agent.py`: tables into `agent.md` between its marks.

Run by `make bench-agent` after the measurements; by itself it measures nothing. A cell without a measurement is a dash.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent_data import LABELS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "agent"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
METHODS = {
    "built-in": "built-in planner",
    "agent": "LLM agent",
    "sampled": "LLM, sampled pairs",
    "keyword": "LLM, keyword search",
}
"""What each method is called in a table."""

Document = dict[str, Any]


def read() -> dict[str, dict[str, Document]]:
    """Return the measurements by method and set, in the order of the bench."""
    paths = {method: {label: RESULTS / f"{label}.{method}.json" for label in LABELS} for method in METHODS}
    return {
        method: {label: json.loads(path.read_text("utf-8")) for label, path in own.items() if path.exists()}
        for method, own in paths.items()
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "–" if value is None else f"{value:.0%}"


def left(plant: Document) -> float:
    """Return what is left of a behaviour's effect, as a share of the effect before; negative: it was turned round."""
    return float(plant["effect_after"] / plant["effect_before"])


def recall(plant: Document) -> float | None:
    """Return the share of a behaviour's rows that were found, from their count: the file's figure is rounded."""
    told, rows = plant["recall"], plant["rows"]
    return told if told is None or not rows else round(told * rows) / rows


def mean(values: Iterable[float]) -> float | None:
    """Return the mean; None of nothing."""
    found = list(values)
    return statistics.mean(found) if found else None


def alarms(document: Document | None) -> str:
    """Return the reports that match no planted behaviour: against a rule, and surprises beside them."""
    if document is None:
        return "–"
    kinds = document["false_alarms"]
    surprises = f" (+{kinds['surprise']})" if kinds["surprise"] else ""
    return f"{kinds['forbidden'] + kinds['missing']}{surprises}"


def summary(documents: dict[str, dict[str, Document]]) -> str:
    """Return one row for each method over all its sets."""
    head = (
        "method",
        "sets",
        "found",
        "as a broken rule",
        "mean P",
        "mean R",
        "false alarms, clean set",
        "accepted edits",
        "by the LLM",
    )
    head += ("effect left", "tokens an edit", "seconds an edit")
    return table(head, (summary_row(METHODS[method], own) for method, own in documents.items()))


def summary_row(name: str, own: dict[str, Document]) -> list[str]:
    """Return a method's row of the summary."""
    plants = [plant for document in own.values() for plant in document["plants"]]
    accepted, by_llm = (sum(d["edits"][key] for d in own.values()) for key in ("accepted", "by_llm"))
    tokens, seconds = (sum(d["cost"][key] for d in own.values()) for key in ("llm_tokens", "seconds"))
    return [
        name,
        str(len(own)),
        f"{sum(plant['found'] for plant in plants)} of {len(plants)}",
        str(sum(plant["found"] and plant["kind"] != "surprise" for plant in plants)),
        figure(mean(plant["precision"] for plant in plants)),
        figure(mean(recall(plant) for plant in plants)),
        alarms(own.get("clean")),
        str(accepted),
        str(by_llm),
        share(mean(left(plant) for plant in plants if plant["ruled"])),
        figure(tokens / accepted if accepted else None, 0),
        figure(seconds / accepted if accepted else None, 1),
    ]


def dataset(documents: dict[str, dict[str, Document]], label: str) -> str:
    """Return one row for each method on one set."""
    own = {METHODS[method]: found[label] for method, found in documents.items() if label in found}
    one = next(iter(own.values()))
    head = ["method", *(f"{plant['name']}: P, R, left" for plant in one["plants"])]
    head += [*(f"{wish['name']}: new pairs, shown" for wish in one["wishes"]), "false alarms"]
    head += ["edits proposed", "accepted", "by the LLM", "calls", "tokens", "LLM seconds", "seconds"]
    head += ["tokens an edit", "seconds an edit"]
    return table(head, ([name, *dataset_row(document)] for name, document in own.items()))


def dataset_row(document: Document) -> list[str]:
    """Return the cells of one measurement."""
    cost, edits = document["cost"], document["edits"]
    return [
        *(plant_cell(plant) for plant in document["plants"]),
        *(wish_cell(wish) for wish in document["wishes"]),
        alarms(document),
        *(str(edits[key]) for key in ("proposed", "accepted", "by_llm")),
        *(figure(cost[key], 0) for key in ("llm_calls", "llm_tokens", "llm_seconds", "seconds", "tokens_per_edit")),
        figure(cost["seconds_per_edit"], 1),
    ]


def plant_cell(plant: Document) -> str:
    """Return how a planted behaviour was found and what is left of it; bold where it was found."""
    fit = f"{figure(plant['precision'])}, {figure(recall(plant))}"
    kind = "" if plant["kind"] in (None, "forbidden") else f" {plant['kind']}"
    return f"{f'**{fit}**' if plant['found'] else fit}, {share(left(plant))}{kind}"


def wish_cell(wish: Document) -> str:
    """Return how many pairs were added that show what is asked for, and how much the data show of it then."""
    told = f"{wish['new_pairs']} ({wish['by_llm']} by the LLM), {share(wish['before'])} → {share(wish['after'])}"
    return told if wish["told"] else f"{told}, not told"


def about(documents: dict[str, dict[str, Document]], label: str) -> str:
    """Return one line on a set and what was planted there."""
    one = next(found[label] for found in documents.values() if label in found)
    told = []
    for plant in one["plants"]:
        notes = [f"{plant['rows']} rows", plant["where"]]
        notes += ["taken away"] if plant["side"] == "rejected" else []
        notes += [] if plant["ruled"] else ["no rule"]
        told.append(f"{plant['name']} ({', '.join(notes)})")
    wishes = [wish["name"] for wish in one["wishes"]]
    asked = f"; asked for in vain: {', '.join(wishes)}" if wishes else ""
    return f"{one['pairs']} pairs; planted: {', '.join(told) or 'nothing'}{asked}."


def versions(documents: dict[str, dict[str, Document]]) -> str:
    """Return which model answered and which versions measured, each combination once."""
    every = [document for own in documents.values() for document in own.values()]
    models = sorted({document["model"] for document in every if document["model"]})
    stamps = [dict(document["measured"]) for document in every]
    days = sorted({stamp.pop("day") for stamp in stamps})
    commits = sorted({stamp.pop("commit") for stamp in stamps})
    used = {", ".join(f"{name} {number}" for name, number in stamp.items()) for stamp in stamps}
    told = f"Measured on {', '.join(days)} at {', '.join(commits)} with {'; '.join(sorted(used))}"
    return f"LLM: {', '.join(models) or 'none'}. {told}."


def main() -> None:
    """Write the tables."""
    documents = read()
    sections = [("All sets", summary(documents))]
    for label in LABELS:
        if any(label in own for own in documents.values()):
            sections.append((label, f"{about(documents, label)}\n\n{dataset(documents, label)}"))
    told = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections)
    page = HERE / "agent.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{versions(documents)}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
