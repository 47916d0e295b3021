"""Rival generators on one table, run by a Python of their own (`make rivals`); imports nothing of this package.

`python rivals.py NAME SEED FOLDER ROWS` reads FOLDER/train.parquet (label in the column `target`), writes drawn.parquet and cost.json.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

TARGET = "target"
EPOCHS = 100  # of the GAN and the VAE: their default of 300 takes an hour for the larger tables on two cores

Draw = Callable[[int], pd.DataFrame]


def sdv(kind: str, table: pd.DataFrame) -> Draw:
    """CTGAN, TVAE (Xu et al. 2019) or the Gaussian copula, as SDV has them; it takes seeds from the global generators."""
    from sdv.metadata import Metadata
    from sdv.single_table import CTGANSynthesizer, GaussianCopulaSynthesizer, TVAESynthesizer

    numbers = {c for c in table.columns if pd.api.types.is_numeric_dtype(table[c]) and c != TARGET}
    columns = {c: {"sdtype": "numerical" if c in numbers else "categorical"} for c in table.columns}
    # Told and not detected: how it is detected changes from one version to the next.
    metadata = Metadata.load_from_dict({"tables": {"table": {"columns": columns}}, "relationships": []})
    made: Any = {
        "ctgan": lambda: CTGANSynthesizer(metadata, epochs=EPOCHS, enable_gpu=False),
        "tvae": lambda: TVAESynthesizer(metadata, epochs=EPOCHS, enable_gpu=False),
        "copula": lambda: GaussianCopulaSynthesizer(metadata),
    }[kind]()
    words = {c: table[c].astype(object) for c in table.columns if c not in numbers}
    made.fit({"table": table.assign(**words)})
    return lambda rows: made.sample(rows)["table"]


def forest(table: pd.DataFrame, seed: int) -> Draw:
    """ForestDiffusion (Jolicoeur-Martineau, Fatras & Kachman 2024), flow, one duplicate of each row fewer than its default."""
    from ForestDiffusion import ForestDiffusionModel

    codes, levels = table.copy(), {}
    named = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    for column in named:
        codes[column], levels[column] = pd.factorize(table[column])
    X = codes.drop(columns=[TARGET]).to_numpy(dtype=float)
    model = ForestDiffusionModel(
        X,
        label_y=codes[TARGET].to_numpy(),
        n_t=20,
        duplicate_K=10,
        diffusion_type="flow",
        cat_indexes=[list(codes.drop(columns=[TARGET]).columns).index(c) for c in named if c != TARGET],
        n_jobs=-1,
        seed=seed,
    )

    def draw(rows: int) -> pd.DataFrame:
        made = pd.DataFrame(model.generate(batch_size=rows), columns=[*codes.drop(columns=[TARGET]).columns, TARGET])
        for column in named:
            made[column] = levels[column][np.clip(made[column].round().astype(int), 0, len(levels[column]) - 1)]
        return made

    return draw


def great(table: pd.DataFrame, seed: int) -> Draw:
    """GReaT (Borisov et al. 2023) on a small GPT-2 of random weights made on the spot: no pretrained one is at hand."""
    import tempfile

    from be_great import GReaT
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    texts = [", ".join(f"{c} is {v}" for c, v in row.items()) for row in table.to_dict("records")]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=["<|endoftext|>"]))
    place = tempfile.mkdtemp()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    tokenizer.save_pretrained(place)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=256, n_layer=4, n_head=4)).save_pretrained(place)
    model = GReaT(llm=place, batch_size=32, epochs=50, seed=seed, save_strategy="no")
    model.fit(table, conditional_col=TARGET)
    return lambda rows: model.sample(n_samples=rows, k=100, max_length=1000, device="cpu")


def smote(table: pd.DataFrame, seed: int) -> Draw:
    """imbalanced-learn's SMOTE or SMOTE-NC: drawn rows of every class in their natural shares; rows with nulls are left out."""
    from imblearn.over_sampling import SMOTE, SMOTENC

    table = table.dropna()
    X, y = table.drop(columns=[TARGET]), table[TARGET]
    named = [not pd.api.types.is_numeric_dtype(X[c]) for c in X.columns]

    def draw(rows: int) -> pd.DataFrame:
        counts = y.value_counts()
        wanted = (2 * counts).to_dict()
        sampler = SMOTENC(named, sampling_strategy=wanted, random_state=seed) if any(named) else None
        found, labels = (sampler or SMOTE(sampling_strategy=wanted, random_state=seed)).fit_resample(X, y)
        made = found.iloc[len(X) :].assign(**{TARGET: labels.iloc[len(X) :]})
        return made.sample(min(rows, len(made)), random_state=seed)

    return draw


def fitted(name: str, table: pd.DataFrame, seed: int) -> Draw:
    """A rival, ready to draw."""
    np.random.seed(seed)
    if name in ("ctgan", "tvae", "copula"):
        import torch

        torch.manual_seed(seed)
        return sdv(name, table)
    return {"forest": forest, "great": great, "smote": smote}[name](table, seed)


def main() -> None:
    """Fits, draws, tells the cost: process seconds of all its threads and workers, rows a process second, peak MiB."""
    name, seed, folder, rows = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    table = pd.read_parquet(f"{folder}/train.parquet")
    draw = fitted_and_timed(name, table, seed)
    started = _spent()
    drawn = draw[0](rows)
    cost = {"fit": draw[1], "rate": len(drawn) / max(_spent() - started, 1e-9)}
    drawn[list(table.columns)].astype({TARGET: str}).to_parquet(f"{folder}/drawn.parquet", index=False)
    cost["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open(f"{folder}/cost.json", "w") as stream:
        json.dump(cost, stream)


def fitted_and_timed(name: str, table: pd.DataFrame, seed: int) -> tuple[Draw, float]:
    """(what draws, process seconds of the fit)."""
    started = _spent()
    return fitted(name, table, seed), _spent() - started


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
