"""The model spec: prose in the user's own words, read into clauses.

`reading` makes clauses of a text; `layout` finds its sentences in their places and `sentences` says which are rules and
which way they go. What a rule is told by stands in a file each: `shapes`, `negations`, `rations`, `quotes`, `limits`,
`words`, and `signature` for what is none. `problems` asks an LLM what is wrong with a spec.
"""

from premortem.agent.spec.reading import (
    DEFAULT_LIMIT,
    FrontMatter,
    Spec,
    clause_from,
    parse_spec,
    read_spec,
    sentences_of,
)

__all__ = ["DEFAULT_LIMIT", "FrontMatter", "Spec", "clause_from", "parse_spec", "read_spec", "sentences_of"]
