"""Region codec and mass: what goes in comes out, nothing that a region never had, and batches of even shares."""

from itertools import pairwise

import numpy as np
import torch

from codsa_ray.filled import Filled
from codsa_ray.nn.mass import Mass
from codsa_ray.nn.region_codec import RegionCodec

from tables import mixed_table


def coded() -> tuple[Filled, RegionCodec, np.ndarray]:
    filled = Filled.of(*mixed_table())
    return filled, *RegionCodec.of(filled)


def test_latents_come_back_as_the_rows_they_are_of() -> None:
    filled, codec, latents = coded()
    nothing = np.zeros_like(filled.nulls)
    for region, (start, stop) in enumerate(pairwise(filled.starts.tolist())):
        rows = codec.decode(codec.certain(latents[start:stop]), region, nothing[start:stop], np.random.default_rng(0))
        for name in ("job", "member", "gain", "big", "age"):
            assert rows[name].to_pylist() == filled.table()[name].slice(start, stop - start).to_pylist()


def test_no_level_and_no_number_that_the_region_never_had() -> None:
    filled, codec, latents = coded()
    wild = np.random.default_rng(0).normal(size=(2000, latents.shape[1])).astype(np.float32) * 10
    rows = codec.decode(wild, 2, np.zeros((2000, len(filled.cells)), dtype=bool), np.random.default_rng(1))
    own = filled.table().slice(filled.starts[2], filled.starts[3] - filled.starts[2])
    for name in ("job", "member", "gain"):
        assert set(rows[name].to_pylist()) <= set(own[name].to_pylist())
    assert min(own["age"].to_pylist()) <= min(rows["age"].to_pylist()) <= max(rows["age"].to_pylist()) <= max(own["age"].to_pylist())


def test_levels_are_drawn_with_the_chance_that_logits_state() -> None:
    filled, codec, latents = coded()
    raw = np.zeros((20_000, latents.shape[1]), dtype=np.float32)
    reals = codec.codec.layout.reals
    # Of the dimensions of `member`, the first run of two levels: ln 3 more for one of them.
    raw[:, reals] = np.log(3)
    rows = codec.decode(raw, 0, np.zeros((20_000, len(filled.cells)), dtype=bool), np.random.default_rng(1))
    first = codec.codec._coded[0]
    value = first.values[0].as_py() if len(first.values) else None
    share = np.mean([v == value for v in rows[first.name].to_pylist()])
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)


def test_a_batch_holds_every_row_as_often_as_it_weighs_to_one() -> None:
    weights = np.array([0.0, 1.0, 3.0, 0.0, 4.0, 0.0])
    for seed in range(20):
        drawn = Mass.of(weights).draw(100, torch.Generator().manual_seed(seed)).numpy()
        counts = np.bincount(drawn, minlength=6)
        assert np.abs(counts - 100 * weights / 8).max() <= 1
        assert (counts[weights == 0] == 0).all()
