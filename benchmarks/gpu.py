"""`make bench-gpu`: steps, rows, pictures and tokens a second on one GPU, and shares of its peak; writes docs/benchmarks/gpu.md.

`python -m benchmarks.gpu [--tiny] [--cell NAME]...` reads no data set and no network: pictures are scikit-learn's digits, texts are made
of its own words, and bases are written on the spot with weights that were never trained, which cost what trained ones cost. Two fits of
different lengths are compared, so that loading and encoding are no part of a step. `--tiny` runs every cell small, on whatever there is,
and writes no page: that they work. Ray takes no part.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from codsa_ray.fitdata import ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import ImageDiffusion
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.infer import infer
from codsa_ray.picture import encoded, fitted
from codsa_ray.regions import Region, Regions
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.summary import Summary

RUNS = Path("runs/gpu")
PAGE = Path("docs/benchmarks/gpu.md")
# Dense bfloat16 multiplications a second and bytes a second, from the makers' data sheets; a card that is not here gets no shares.
CARDS = {
    "H100 PCIe": (756e12, 2.0e12),
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "A100": (312e12, 2.0e12),
    "L4": (121e12, 0.3e12),
}
BILLION = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16, "num_key_value_heads": 4}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SAID = "the model draws rare rows of a region from what common rows have in common and keeps the numbers of each within bounds"
WORDS = sorted(set(SAID.split()))
LENGTHS = (20, 120)
"""Steps of the two fits that are compared; of tiny ones the first two steps."""


@dataclass(frozen=True)
class Timed:
    """What one cell took.

    Args:
        numbers: name -> value, as they are shown.
        compute: share of the card's dense bfloat16 peak, or None.
        memory: share of its memory bandwidth, or None.
    """

    numbers: dict[str, float]
    compute: float | None = None
    memory: float | None = None


def data_of(table: pa.Table, target: str) -> FitData:
    """All rows as training rows, a region per label."""
    schema = infer(Summary.of(table, np.arange(len(table))), target)
    region = schema.truth(table).astype(np.int32)
    counts = np.bincount(region)
    items = tuple(Region(f"{target}={c}", k, 0, int(counts[k]), ((target, c),), (k,)) for k, c in enumerate(schema.classes))
    table, _ = schema.canonical(table)
    table = table.append_column(ROW, pa.array(np.arange(len(table)))).append_column("_region", pa.array(region))
    return FitData.of(table, schema, Regions(items, (1 / len(items),) * len(items), (len(items),)), 0)


def pictures(side: int, rows: int) -> FitData:
    """scikit-learn's digits, larger, over and over."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    cells = [encoded(fitted((image * 15.9).astype(np.uint8)[..., None], side, side)) for image in digits.images]
    order = np.arange(rows) % len(cells)
    return data_of(pa.table({"picture": [cells[i] for i in order], "digit": [str(digits.target[i]) for i in order]}), "digit")


def texts(words: int, rows: int) -> FitData:
    """Words at random: what they say costs nothing."""
    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(WORDS, words)) for _ in range(rows)]
    return data_of(pa.table({"text": said, "label": np.where(np.arange(rows) % 4 == 0, "rare", "common")}), "label")


def numbers(rows: int) -> FitData:
    """Six numbers and two categories that hang together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6)) @ rng.normal(size=(6, 6))
    kinds = {f"c{j}": np.array(list("abcdef"))[np.digitize(x[:, j], (-2, -1, 0, 1, 2))] for j in (0, 1)}
    return data_of(pa.table({**{f"x{j}": x[:, j] for j in range(6)}, **kinds, "y": np.where(x[:, 2] > 4, "rare", "common")}), "y")


def base(place: Path, shape: dict[str, int]) -> str:
    """A decoder of Llama's shape with first weights in bfloat16, and a tokenizer of our words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    signs = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator([SAID] * 3, trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=signs))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(place)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=32_000, max_position_embeddings=2048, **shape)).to(torch.bfloat16).save_pretrained(place)
    return str(place)


def seconds(work: Callable[[], Any]) -> float:
    """Of one run, with all that the GPU still had to do."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def steps(generator: Any, data: FitData, device: str, tiny: bool, place: str) -> tuple[float, float]:
    """(optimizer steps a second, multiplications and additions of one step), from the difference of two fits."""

    def fit(count: int) -> None:
        worker = LocalWorker(Folder(f"{place}/fit-{time.monotonic_ns()}"), device)
        replace(generator, steps=count, held_out=0.0, checkpoint=10**9).fit(data, worker)

    def counted(count: int) -> int:
        with FlopCounterMode(display=False) as counter:
            fit(count)
        return int(counter.get_total_flops())

    fit(2)  # the first fit compiles kernels
    few, many = (1, 2) if tiny else LENGTHS
    apart = seconds(lambda: fit(many)) - seconds(lambda: fit(few))
    return (many - few) / apart if apart > 0 else float("nan"), float(counted(2) - counted(1))


@contextmanager
def calls(kind: str) -> Iterator[list[int]]:
    """Counts forward passes of modules whose class name ends so."""
    found = [0]

    def count(module: torch.nn.Module, *_: Any) -> None:
        found[0] += type(module).__name__.endswith(kind)

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        yield found
    finally:
        handle.remove()


def drawn(generator: Any, data: FitData, device: str, place: str) -> tuple[Any, float, int]:
    """(the fitted generator, seconds of a second block, rows in it) after a fit of a few steps."""
    folder = Folder(f"{place}/drawn")
    replace(generator, steps=5, held_out=0.0).fit(data, LocalWorker(folder, device))
    model = generator.load(folder)
    model.block(0, 0)
    return model, seconds(lambda: model.block(0, 1)), generator.needs.block


def of_tables(device: str, tiny: bool, place: str, peak: tuple[float, float] | None) -> Timed:
    """tabular_diffusion as it comes, on six numbers and two categories."""
    shape: dict[str, Any] = {"width": 32, "blocks": 1, "block": 64} if tiny else {}
    generator, data = TabularDiffusion(gpus=float(device == "cuda"), **shape), numbers(500 if tiny else 50_000)
    rate, _ = steps(generator, data, device, tiny, place)
    _, took, rows = drawn(generator, data, device, place)
    return Timed({"training steps/s": rate, "rows/s": rows / took})


def of_pictures(device: str, tiny: bool, place: str, peak: tuple[float, float] | None) -> Timed:
    """image_diffusion as it comes, on pictures of 28 x 28; twenty evaluations each."""
    gpus = float(device == "cuda")
    generator = ImageDiffusion(width=16, block=16, batch=8, gpus=gpus) if tiny else ImageDiffusion(block=1024, batch=256, gpus=gpus)
    data = pictures(8 if tiny else 28, 200 if tiny else 20_000)
    rate, flops = steps(generator, data, device, tiny, place)
    _, took, rows = drawn(generator, data, device, place)
    found = {"training steps/s": rate, "pictures learned from/s": rate * float(generator.batch or 0), "pictures/s": rows / took}
    return Timed(found, flops * rate / peak[0] if peak else None)


def of_texts(lora: int) -> Callable[[str, bool, str, tuple[float, float] | None], Timed]:
    """text_lm on a base of 1.1 billion weights, all of them tuned or adapters alone; texts of 500 words, or of 40 to draw."""

    def cell(device: str, tiny: bool, place: str, peak: tuple[float, float] | None) -> Timed:
        path = base(Path(place) / "base", TINY if tiny else BILLION)
        weights = sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))
        gpus, batch = float(device == "cuda"), 4 if tiny else 32
        generator = TextLm(base=path, lora=lora, batch=batch, block=8 if tiny else 64, longest=512, gpus=gpus)
        rate, flops = steps(generator, texts(20 if tiny else 500, 64 if tiny else 512), device, tiny, place)
        found = {"training steps/s": rate, "tokens learned from/s": rate * batch * (20 if tiny else 500)}
        with calls("ForCausalLM") as passes:
            model, _, _ = drawn(replace(generator, longest=40), texts(10 if tiny else 40, 64), device, place)
            passes[0] = 0
            took = seconds(lambda: model.block(0, 2))
        found |= {"token steps/s": passes[0] / took, "texts of 40 words/s": generator.needs.block / took}
        # Each step reads all weights once; the cache of some hundred tokens is small beside them.
        return Timed(found, flops * rate / peak[0] if peak else None, weights * passes[0] / took / peak[1] if peak else None)

    return cell


CELLS = {
    "tabular_diffusion": of_tables,
    "image_diffusion, 28 x 28": of_pictures,
    "text_lm, 1.1 billion weights, all tuned": of_texts(0),
    "text_lm, 1.1 billion weights, LoRA": of_texts(8),
}


def peak_of(card: str) -> tuple[float, float] | None:
    """(multiplications and additions a second, bytes a second) of a card, the longest name that fits."""
    names = [name for name in CARDS if all(word in card for word in name.split())]
    return CARDS[max(names, key=len)] if names else None


def page(card: str, found: dict[str, Timed]) -> str:
    """What was measured."""
    lines = [
        "# On a GPU",
        "",
        f"`make bench-gpu` on {date.today()}, one {card}, torch {torch.__version__}, bfloat16. Steps are the difference of fits of "
        f"{LENGTHS[1]} and {LENGTHS[0]}; compute is counted by torch's flop counter over one step, forward and backward, over the card's "
        "dense peak; memory is bytes of weights read per token step over its bandwidth. Reach: 35 % of the peak for a billion weights.",
        "",
        "| what | numbers | of the peak | of the bandwidth |",
        "|---|---|---|---|",
    ]
    for name, timed in found.items():
        told = "; ".join(f"{value:,.1f} {key}" for key, value in timed.numbers.items())
        shares = ("-" if share is None else f"{share:.1%}" for share in (timed.compute, timed.memory))
        lines.append(f"| {name} | {told} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures and writes the page; exit code 2 where there is no GPU."""
    options = argparse.ArgumentParser()
    options.add_argument("--tiny", action="store_true")
    options.add_argument("--cell", action="append", choices=CELLS)
    given = options.parse_args()
    if not (torch.cuda.is_available() or given.tiny):
        print("wanted a GPU that torch sees; got none; give --tiny to see that every cell runs", file=sys.stderr)
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    found = {}
    for name in given.cell or CELLS:
        with TemporaryDirectory() as place:
            found[name] = CELLS[name](device, given.tiny, place, peak_of(card))
        print(name, json.dumps(found[name].__dict__), flush=True)
    if not given.tiny:
        RUNS.mkdir(parents=True, exist_ok=True)
        (RUNS / f"{date.today()}.json").write_text(json.dumps({name: timed.__dict__ for name, timed in found.items()}))
        PAGE.write_text(page(card, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
