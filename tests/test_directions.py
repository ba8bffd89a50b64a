"""A concept's direction, read through the unembedding of its model."""

from pathlib import Path

import numpy as np
import torch

from premortem.interp.directions import Directions, unembedding
from premortem.interp.lens import load_lens
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.names import Vocabulary
from premortem.interp.readout import Part, Readout
from tiny import LAYERS, write_model, write_sae

FEATURE = 7


def tied(folder: Path, tie: bool = True) -> LoadedModel:
    return load_model(str(write_model(folder, tie_word_embeddings=tie)), LAYERS - 1)


def test_a_direction_promotes_the_words_it_points_at(tmp_path: Path) -> None:
    model = tied(tmp_path / "model")
    lens = load_lens(model, str(write_sae(tmp_path / "sae", layer=1)))
    head = unembedding(model)
    assert head is not None
    wanted = model.tokenizer.convert_tokens_to_ids("Q")
    lens.sae.W_dec.data[FEATURE] = head[0][wanted] * head[1].weight
    shown: list[str] = []
    words = model.tokenizer.decode
    model.tokenizer.decode = lambda ids: shown.append(words(ids)) or f"{words(ids)}{words(ids)}"
    promoted = Directions(model, lens).promotes(Readout(Part((FEATURE,), (1.0,)), Part(), 0.0))
    assert promoted[0] == "QQ"
    assert Directions(model, lens).promotes(Readout(Part((FEATURE,), (-1.0,)), Part(), 0.0)) == ()


def test_an_untied_model_promotes_nothing(tmp_path: Path) -> None:
    model = tied(tmp_path / "model", tie=False)
    lens = load_lens(model, str(write_sae(tmp_path / "sae", layer=1)))
    assert Directions(model, lens).promotes(Readout(Part((FEATURE,), (1.0,)), Part(), 0.0)) == ()


def test_a_promoted_word_is_heard_only_where_the_data_confirms_it() -> None:
    texts = ["the otter swims in a river", "an otter is near the river"] * 20 + ["bread is made of flour"] * 40
    vocabulary = Vocabulary(texts, np.arange(80) // 2)
    fires = np.arange(80) < 40
    named = vocabulary.name(fires, ("Otter", "flour", "unheard"))
    assert named.promoted == ("otter",)
    assert "otter" in named.text
    assert vocabulary.name(fires).promoted == ()


def test_a_norm_that_multiplies_by_one_plus_its_weights_is_asked_itself(tmp_path: Path) -> None:
    class OnePlus(torch.nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(weight - 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)

    model = tied(tmp_path / "model")
    lens = load_lens(model, str(write_sae(tmp_path / "sae", layer=1)))
    readout = Readout(Part((FEATURE,), (1.0,)), Part(), 0.0)
    usual = Directions(model, lens).promotes(readout)
    model.model.norm = OnePlus(model.model.norm.weight.detach())
    assert Directions(model, lens).promotes(readout) == usual
