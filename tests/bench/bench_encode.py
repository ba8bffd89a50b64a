"""How fast pairs go through the lens, as ratios that hold on any machine: `make bench-encode`.

Three questions, answered in one run on one machine:

1. Operations that the reading needs (weights of the layers up to the hook for every token, each prompt once; attention
   along the tree; the SAE's encoder on response tokens) per second, against the rate at which torch multiplies float32
   matrices of this model's shapes here. Goal: 0.7. Beside it, the same against oneDNN's products, which are quicker on
   some machines and which the reading itself uses.
2. Pairs per second against the usual way: sae-lens's hooked model, `run_with_cache` on prompt + chosen and on
   prompt + rejected, one by one. Goal: 4.
3. The forecast on 1400 pairs again after 20 edits, against reading the 20 edited responses alone. Goal: at most 2.
   The edited responses are read within it, and every concept and topic is measured anew. Beside it, how long the first
   forecast took, with all that it needs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import stamped

from premortem.interp.encode import GPU_BATCH_TOKENS, Reader, request_of
from premortem.interp.fast_linear import PackedLinear, can_pack
from premortem.interp.lens import Lens, default_lenses, load_lens
from premortem.interp.models import LoadedModel, load_model
from premortem.interp.packing import Request, lay_out
from premortem.interp.pairs import read_dataset
from premortem.interp.records import Edit, Pair
from premortem.interp.start_model import StartModel
from premortem.interp.tokens import tokenize_all
from premortem.tools.forecast_concepts import ForecastArgs, forecast_concepts
from premortem.tools.workbench import Workbench

DEMO = Path(__file__).parents[2] / "runs" / "demo" / "pairs.jsonl"
EDITS, PAIRS, SLICE = 20, 1400, 30
SENTENCE = " Take what you need, and leave the rest for the others."


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Products:
    """Products in a model's shapes and kind of numbers, torch's own and oneDNN's if they work; timed again and again.

    On a GPU as many rows as a batch there has.
    """

    def __init__(self, model: LoadedModel) -> None:
        config = model.model.config
        wide, narrow = config.intermediate_size, config.hidden_size
        held: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
        on_cpu = model.device.type == "cpu"
        rows = 1024 if on_cpu else GPU_BATCH_TOKENS
        self._work: dict[str, list[tuple[int, Callable[[], object]]]] = {"torch": [], "onednn": []}
        for n, d, m in [(rows, narrow, wide), (rows, wide, narrow), (2 * rows, narrow, wide), (2048, 2048, 2048)]:
            x, linear = torch.randn(n, d, **held), torch.nn.Linear(d, m, bias=False, **held).requires_grad_(False)
            self._work["torch"].append((2 * n * d * m, lambda x=x, w=linear.weight: x @ w.T))
            if on_cpu and can_pack():
                packed = PackedLinear(linear)
                self._work["onednn"].append((2 * n * d * m, lambda x=x, packed=packed: packed(x)))
        self._seconds = {kind: [0.0] * len(shapes) for kind, shapes in self._work.items()}
        self._times = 0

    def run(self) -> None:
        """Time each product a few times more."""
        for kind, shapes in self._work.items():
            for at, (_, product) in enumerate(shapes):
                product()
                self._seconds[kind][at] += seconds_of(lambda product=product: [product() for _ in range(8)])
        self._times += 8

    def rate(self, kind: str) -> float:
        """Return operations per second of the quickest shape, over all runs so far; 0 where there is none."""
        pairs = zip(self._work[kind], self._seconds[kind], strict=True)
        return max((self._times * operations / seconds for (operations, _), seconds in pairs), default=0.0)


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
            if (request := request_of(tokens.cut(1024), side)) is not None:
                found[request.key] = request
    return list(found.values())


class UsualWay:
    """sae-lens's hooked model, one full sequence at a time."""

    def __init__(self, ref: str, lens: Lens) -> None:
        from sae_lens.load_model import HookedProxyLM

        whole = load_model(ref, packed=False)
        self._hooked = HookedProxyLM(whole.model, whole.tokenizer, hook_names=[lens.hook])
        self._lens, self._device = lens, whole.device

    @torch.inference_mode()
    def read(self, requests: Sequence[Request], *, stop: bool) -> None:
        """Pool the features of each response; `stop` leaves the model behind the hook."""
        hook = self._lens.hook
        options = {"stop_at_layer": self._lens.layer + 1} if stop else {}
        for request in requests:
            tokens = torch.from_numpy(np.concatenate([request.prompt, request.response]).astype(np.int64))[None]
            _, cache = self._hooked.run_with_cache(tokens.to(self._device), names_filter=[hook], **options)
            acts = self._lens.sae.encode(cache[hook][0, len(request.prompt) :].float())
            (acts > 0).float().mean(0), acts.mean(0), acts.amax(0)


def after_edits(model: LoadedModel, lens: Lens, options: argparse.Namespace) -> dict[str, Any]:
    """Return how long the forecast on 1400 pairs takes, and again after 20 edits, against reading the edits alone."""
    read = read_dataset(str(options.many or options.data), limit=PAIRS)
    some = read.pairs
    many = [some[row % len(some)].model_copy(update={"row": row}) for row in range(PAIRS)]
    reader = ready(Reader(model, [lens]))
    start = partial(StartModel, load_model(options.model, trunk=model), 0)
    bench = Workbench(read.model_copy(update={"pairs": tuple(many)}), (), reader, lens, None, start)
    first = seconds_of(lambda: forecast_concepts(bench, ForecastArgs()))
    rows = [pair.row for pair in bench.readable][:: max(1, len(bench.readable) // EDITS)][:EDITS]
    edits = [longer(many[row]) for row in rows]
    bench.remember(edits)
    again = ForecastArgs(edits=tuple(edit.edit_id for edit in edits))
    whole = seconds_of(lambda: forecast_concepts(bench, again))
    alone = ready(Reader(model, [lens]))
    edited = [(many[edit.row].prompt, edit.after) for edit in edits]
    reading = seconds_of(lambda: alone.encode_texts(edited))
    return {
        "forecast_data": Path(options.many or options.data).name,
        "forecast_concepts": len(bench.concepts),
        "forecast_seconds": first,
        "forecast_again_seconds": whole,
        "edits_alone_seconds": reading,
        "edited_tokens": alone.tokens_encoded,
        "edit_ratio": whole / reading,
    }


def longer(pair: Pair) -> Edit:
    """Return an edit that adds SENTENCE to the chosen response."""
    before = pair.text("chosen")
    told: dict[str, Any] = {"finding_id": "none", "kind": "rewrite", "side": "chosen", "rationale": "a sentence more"}
    return Edit(edit_id=f"edit-{pair.row}", row=pair.row, before=before, after=before + SENTENCE, **told)


def ready(reader: Reader) -> Reader:
    """Pay what a process pays once: the SAE, its packed weights, the trial of the model's attention."""
    reader.encode_texts([("", "ready")])
    reader.tokens_encoded = 0
    return reader


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the three questions, a slice of the pairs at a time, so that all feel the same load of the machine."""
    pairs = read_dataset(str(options.data), limit=options.pairs).pairs
    lens = load_lens(options.model, options.sae) if options.sae else default_lenses(options.model)[0]
    model = load_model(options.model, lens.layer + 1)
    reader, products, usual = ready(Reader(model, [lens])), Products(model), UsualWay(options.model, lens)
    opening = reader._ready().opening
    seconds = {"ours": 0.0, "usual": 0.0, "stopped": 0.0}
    operations, tokens, compared = 0.0, 0, 0
    for start in range(0, len(pairs), options.slice):
        some = pairs[start : start + options.slice]
        products.run()
        seconds["ours"] += seconds_of(lambda some=some: reader.encode(some))
        needed, useful = needed_operations(model, lens, requests_of(some, model), opening)
        operations, tokens = operations + needed, tokens + useful
        few = requests_of(some[: options.usual_pairs], model)
        compared += len(some[: options.usual_pairs])
        seconds["usual"] += seconds_of(lambda few=few: usual.read(few, stop=False))
        seconds["stopped"] += seconds_of(lambda few=few: usual.read(few, stop=True))
    products.run()
    best = max(products.rate("torch"), products.rate("onednn"))
    return {
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "hook": lens.hook,
        "d_sae": lens.d_sae,
        "pairs": len(pairs),
        "useful_tokens": tokens,
        "computed_tokens": reader.tokens_encoded,
        "useful_tokens_per_second": tokens / seconds["ours"],
        "gflops_needed_per_second": operations / seconds["ours"] / 1e9,
        "gflops_matmul_torch": products.rate("torch") / 1e9,
        "gflops_matmul_onednn": products.rate("onednn") / 1e9,
        "ratio_to_torch_matmul": operations / seconds["ours"] / products.rate("torch"),
        "ratio_to_best_matmul": operations / seconds["ours"] / best,
        "pairs_per_second": len(pairs) / seconds["ours"],
        "pairs_per_second_usual": compared / seconds["usual"],
        "speedup": len(pairs) / seconds["ours"] * seconds["usual"] / compared,
        "speedup_over_usual_stopped_at_hook": len(pairs) / seconds["ours"] * seconds["stopped"] / compared,
        **after_edits(model, lens, options),
    }


def report(found: dict[str, Any]) -> str:
    """Return the figures for a reader, each beside its goal."""
    return (
        f"{found['pairs']} pairs, {found['useful_tokens']} tokens, {found['hook']}, {found['threads']} threads\n"
        f"  needed operations   {found['gflops_needed_per_second']:8.1f} Gflop/s\n"
        f"  matrix product      {found['gflops_matmul_torch']:8.1f} Gflop/s (torch), "
        f"{found['gflops_matmul_onednn']:.1f} (oneDNN)\n"
        f"  ratio               {found['ratio_to_torch_matmul']:8.2f} to torch (goal 0.7), "
        f"{found['ratio_to_best_matmul']:.2f} to the larger\n"
        f"  pairs per second    {found['pairs_per_second']:8.2f} against {found['pairs_per_second_usual']:.2f} the "
        f"usual way: {found['speedup']:.1f} times (goal 4), "
        f"{found['speedup_over_usual_stopped_at_hook']:.1f} if that stops at the hook\n"
        f"  {EDITS} edits in {PAIRS}    {found['edit_ratio']:8.2f} times the edited responses alone (goal at most 2): "
        f"{found['forecast_again_seconds']:.2f} s for the forecast again, {found['forecast_seconds']:.0f} s at first"
    )


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO, help="pairs to read")
    parser.add_argument("--many", type=Path, help="pairs to forecast on, repeated to 1400; default: those of --data")
    parser.add_argument("--model", default="smollm2", help="model name, folder or hub id")
    parser.add_argument("--sae", default=None, help="SAE folder or release:id; default: the embedded main lens")
    parser.add_argument("--pairs", type=int, default=120, help="pairs read our way")
    parser.add_argument("--slice", type=int, default=SLICE, help="pairs between two timings of the products")
    parser.add_argument("--usual-pairs", type=int, default=4, help="of every slice, pairs read the usual way")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    options = parser.parse_args()
    found = measure(options)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(stamped(found), indent=1) + "\n", "utf-8")
    met = found["ratio_to_torch_matmul"] >= 0.7 and found["speedup"] >= 4 and found["edit_ratio"] <= 2
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
