"""A random model of four small layers with a character tokenizer, and random SAEs for it: all made in seconds."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from premortem.interp.records import Pair

HIDDEN, LAYERS, D_SAE, K = 32, 4, 48, 4

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<|im_start|>", "<|im_end|>", *string.printable]
    tokenizer = Tokenizer(models.WordLevel({letter: at for at, letter in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=TEMPLATE,
    )
    fast.save_pretrained(folder)


def write_model(folder: Path, **settings: Any) -> Path:
    """Write a Llama with random weights, large enough to make attention matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **settings,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_sae(folder: Path, *, layer: int = 1, seed: int = 0, architecture: str = "topk", **cfg: Any) -> Path:
    """Write a random SAE in sae-lens's format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(D_SAE, HIDDEN, generator=rng), dim=-1)
    weights = {
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.randn(D_SAE, generator=rng) / 10,
        "W_dec": decoder,
        "b_dec": torch.randn(HIDDEN, generator=rng) / 10,
    }
    if architecture == "jumprelu":
        weights["threshold"] = torch.full((D_SAE,), 0.5)
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")
    settings = {
        "architecture": architecture,
        "d_in": HIDDEN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **({"k": K, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        "metadata": {
            "sae_lens_version": "6.54.0",
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "model_name": "tiny",
        },
        **cfg,
    }
    (folder / "cfg.json").write_text(json.dumps(settings))
    return folder


def chat_pair(row: int, prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(
        row=row,
        prompt=({"role": "user", "content": prompt},),
        chosen=({"role": "assistant", "content": chosen},),
        rejected=({"role": "assistant", "content": rejected},),
    )


def some_pairs() -> list[Pair]:
    """Return pairs of uneven lengths: two prompts shared, one plain text, one side empty."""
    return [
        chat_pair(0, "Where do otters sleep?", "Afloat, holding hands.", "On land."),
        chat_pair(1, "Why?", "So that they do not drift apart in the night.", "No idea at all!"),
        chat_pair(2, "Where do otters sleep?", "In the water.", "Afloat, holding hands."),
        Pair(row=3, prompt="Say hi: ", chosen="hi", rejected="hello there"),
        chat_pair(4, "Tell me a long story about a pond " * 4, "Once. " * 12, "No."),
        Pair(row=5, prompt="", chosen="abc", rejected=""),
    ]
