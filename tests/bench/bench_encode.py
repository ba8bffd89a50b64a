"""How fast pairs go through the lens, as ratios that hold on any machine: `make bench-encode`.

Three questions, answered in one run on one machine:

1. Operations that the reading needs (weights of the layers up to the hook for every token, each prompt once; attention
   along the tree; the SAE's encoder on response tokens) per second, against the rate at which this machine multiplies
   float32 matrices of this model's shapes. Goal: 0.7.
2. Pairs per second against the usual way: sae-lens's hooked model, `run_with_cache` on prompt + chosen and on
   prompt + rejected, one by one. Goal: 4.
3. Reading 1400 pairs again after 20 edits, against reading the 20 edited responses alone. Goal: at most 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from premortem.interp.encode import Reader, _request
from premortem.interp.fast_linear import PackedLinear, can_pack
from premortem.interp.lens import Lens, default_lenses, load_lens
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.packing import Request, lay_out
from premortem.interp.pairs import read_dataset
from premortem.interp.records import Pair
from premortem.interp.tokens import tokenize_all

DEMO = Path(__file__).parents[2] / "runs" / "demo" / "pairs.jsonl"
EDITS, PAIRS = 20, 1400
SENTENCE = " Take what you need, and leave the rest for the others."


def best_of(times: int, work: Callable[[], object]) -> float:
    """Return the seconds of the quickest of several runs."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def matmul_rate(model: LoadedModel) -> dict[str, float]:
    """Return operations per second of float32 products in this model's shapes: torch's own, and oneDNN's if it works."""
    config = model.model.config
    wide, narrow = config.intermediate_size, config.hidden_size
    rates: dict[str, list[float]] = {"torch": [], "onednn": []}
    for n, d, m in [(1024, narrow, wide), (2048, narrow, wide), (2048, wide, narrow), (2048, 2048, 2048)]:
        x, linear = torch.randn(n, d), torch.nn.Linear(d, m, bias=False).requires_grad_(False)
        kinds: dict[str, Callable[[], object]] = {"torch": lambda x=x, w=linear.weight: x @ w.T}
        if can_pack():
            packed = PackedLinear(linear)
            kinds["onednn"] = lambda x=x, packed=packed: packed(x)
        for kind, product in kinds.items():
            rates[kind].append(2 * n * d * m / best_of(8, product))
    return {kind: max(values) for kind, values in rates.items() if values}


def needed_operations(model: LoadedModel, lens: Lens, requests: Sequence[Request], opening: Any) -> tuple[float, int]:
    """Return the operations that reading `requests` needs, and the tokens: the opening and each prompt once."""
    families: dict[bytes, list[Request]] = {}
    for request in requests:
        families.setdefault(request.prompt.tobytes(), []).append(request)
    tree = lay_out(list(families.values()), opening)
    layers = model.layers[: lens.layer + 1]
    weights = sum(
        module.in_features * module.out_features
        for layer in layers
        for module in layer.modules()
        if isinstance(module, (torch.nn.Linear, PackedLinear))
    )
    config = model.model.config
    heads = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    attention = 4 * heads * tree.attention_operations() * len(layers)
    responses = sum(len(request.response) for request in requests)
    return 2.0 * weights * tree.n_tokens + attention + 2.0 * lens.d_in * lens.d_sae * responses, tree.n_tokens


def requests_of(pairs: Sequence[Pair], model: LoadedModel) -> list[Request]:
    """Return the distinct responses of `pairs`."""
    found = {}
    for tokens in tokenize_all(pairs, model.tokenizer):
        for side in ("chosen", "rejected"):
            if (request := _request(tokens.cut(1024), side)) is not None:
                found[request.key] = request
    return list(found.values())


def usual_way(ref: str, lens: Lens, requests: Sequence[Request], *, stop: bool) -> float:
    """Return the seconds that sae-lens's hooked model takes, one full sequence at a time."""
    from sae_lens.load_model import HookedProxyLM

    whole = load_model(ref, packed=False)
    hooked = HookedProxyLM(whole.model, whole.tokenizer, hook_names=[lens.hook])
    sequences = [torch.from_numpy(np.concatenate([r.prompt, r.response]).astype(np.int64))[None] for r in requests]
    options = {"stop_at_layer": lens.layer + 1} if stop else {}

    def read() -> None:
        for request, tokens in zip(requests, sequences, strict=True):
            _, cache = hooked.run_with_cache(tokens, names_filter=[lens.hook], **options)
            acts = lens.sae.encode(cache[lens.hook][0, len(request.prompt) :])
            (acts > 0).float().mean(0), acts.mean(0), acts.amax(0)

    with torch.inference_mode():
        return best_of(1, read)


def edit_ratio(model: LoadedModel, lens: Lens, pairs: Sequence[Pair], warm: Reader) -> float:
    """Return the seconds of reading 1400 pairs after 20 edits over those of reading the edited responses alone."""
    many = [pairs[row % len(pairs)].model_copy(update={"row": row}) for row in range(PAIRS)]
    warm.encode(many)
    rows = range(0, len(pairs), max(1, len(pairs) // EDITS))[:EDITS]
    edited = [many[row].with_text("chosen", many[row].text("chosen") + SENTENCE) for row in rows]
    for pair in edited:
        many[pair.row] = pair
    fresh = ready(Reader(model, [lens]))
    alone = best_of(1, lambda: fresh.encode_texts([(pair.prompt, pair.text("chosen")) for pair in edited]))
    return best_of(1, lambda: warm.encode(many)) / alone


def ready(reader: Reader) -> Reader:
    """Pay what a process pays once: the SAE, its packed weights, the trial of the model's attention."""
    reader.encode_texts([("", "ready")])
    reader.tokens_encoded = 0
    return reader


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the three questions."""
    pairs = read_dataset(str(options.data), limit=options.pairs).pairs
    lens = load_lens(options.model, options.sae) if options.sae else default_lenses(options.model)[0]
    model = load_model(options.model, lens.layer + 1)
    requests, few = requests_of(pairs, model), requests_of(pairs[: options.usual_pairs], model)
    rates = matmul_rate(model)
    reader = ready(Reader(model, [lens]))
    seconds = best_of(1, lambda: reader.encode(pairs))
    rates = {
        kind: max(rate, again) for (kind, rate), again in zip(rates.items(), matmul_rate(model).values(), strict=True)
    }
    operations, tokens = needed_operations(model, lens, requests, reader._ready().opening)
    usual, stopped = (usual_way(options.model, lens, few, stop=stop) for stop in (False, True))
    ours, theirs = len(pairs) / seconds, min(options.usual_pairs, len(pairs)) / usual
    return {
        "threads": torch.get_num_threads(),
        "hook": lens.hook,
        "d_sae": lens.d_sae,
        "pairs": len(pairs),
        "useful_tokens": tokens,
        "computed_tokens": reader.tokens_encoded,
        "useful_tokens_per_second": tokens / seconds,
        "gflops_needed_per_second": operations / seconds / 1e9,
        "gflops_matmul_torch": rates["torch"] / 1e9,
        "gflops_matmul_onednn": rates.get("onednn", 0.0) / 1e9,
        "ratio_to_torch_matmul": operations / seconds / rates["torch"],
        "ratio_to_best_matmul": operations / seconds / max(rates.values()),
        "pairs_per_second": ours,
        "pairs_per_second_usual": theirs,
        "speedup": ours / theirs,
        "speedup_over_usual_stopped_at_hook": ours * stopped / min(options.usual_pairs, len(pairs)),
        "edit_ratio": edit_ratio(model, lens, pairs, reader),
    }


def report(found: dict[str, Any]) -> str:
    """Return the figures for a reader, each beside its goal."""
    return (
        f"{found['pairs']} pairs, {found['useful_tokens']} tokens through {found['hook']} on {found['threads']} threads\n"
        f"  needed operations   {found['gflops_needed_per_second']:8.1f} Gflop/s\n"
        f"  matrix product      {found['gflops_matmul_torch']:8.1f} Gflop/s (torch), "
        f"{found['gflops_matmul_onednn']:.1f} (oneDNN)\n"
        f"  ratio               {found['ratio_to_torch_matmul']:8.2f} to torch, "
        f"{found['ratio_to_best_matmul']:.2f} to the larger (goal 0.7)\n"
        f"  pairs per second    {found['pairs_per_second']:8.2f} against {found['pairs_per_second_usual']:.2f} the usual "
        f"way: {found['speedup']:.1f} times (goal 4), "
        f"{found['speedup_over_usual_stopped_at_hook']:.1f} if that stops at the hook\n"
        f"  {EDITS} edits in {PAIRS}    {found['edit_ratio']:8.2f} times the edited responses alone (goal at most 2)"
    )


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO, help="pairs to read")
    parser.add_argument("--model", default="smollm2", help="model name, folder or hub id")
    parser.add_argument("--sae", default=None, help="SAE folder or release:id; default: the embedded main lens")
    parser.add_argument("--pairs", type=int, default=120, help="pairs read our way")
    parser.add_argument("--usual-pairs", type=int, default=16, help="pairs read the usual way")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    options = parser.parse_args()
    found = measure(options)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    met = found["ratio_to_best_matmul"] >= 0.7 and found["speedup"] >= 4 and found["edit_ratio"] <= 2
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
