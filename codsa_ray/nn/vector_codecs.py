"""Vector codecs: what a codec of pictures or of texts is, how one is trained, kept and read; knows no diffusion and no region."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from codsa_ray.contracts import Worker
from codsa_ray.nn.picture_codec import PictureCodec
from codsa_ray.nn.text_codec import TextCodec
from codsa_ray.nn.train import Trained, Training, train
from codsa_ray.nn.vectors import Scaling, VectorLoss

VectorCodec = PictureCodec | TextCodec
"""One column as vectors: `reading` for training, `vectors`, `encode` and `decode` of values that are not null."""
NETWORK = "network/"


def trained(
    codec: VectorCodec,
    learned: tuple[pa.Array, Tensor],
    held: tuple[pa.Array, Tensor],
    shake: float,
    batch: int,
    training: Training,
    worker: Worker,
    seed: int,
) -> tuple[VectorCodec, Trained]:
    """The codec with trained weights, scaled to unit variance on the learned values.

    Args:
        codec: where it starts.
        learned, held: values that are not null, and the (n,) cumulative share of each in a batch; of the held ones there may be none.
        shake: standard deviation of the noise on vectors.
        batch: rows of a step.
        training, worker, seed: as `train` takes them.
    """
    loss = VectorLoss(codec.reading(learned[0]), learned[1], codec.size, shake, batch, worker)
    score = replace(loss, read=codec.reading(held[0]), mass=held[1]).score(seed) if len(held[0]) else None
    # A copy: data parallelism wraps a module once.
    found = train(deepcopy(codec.network).requires_grad_(True), loss, score, training, worker, seed)
    return settled(codec, found.weights, learned[0], worker.device), found


def settled(codec: VectorCodec, weights: dict[str, np.ndarray], values: pa.Array, device: str) -> VectorCodec:
    """With these weights, frozen, on the device that `carried` puts it on too, and scaled by these values, one or more of them."""
    codec.network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    codec.network.to(device).requires_grad_(False)
    return replace(codec, scaling=Scaling.of(codec.vectors(values)))


def arrays_of(codec: VectorCodec) -> dict[str, np.ndarray]:
    """Weights and scaling, for `restored`."""
    weights = {f"{NETWORK}{name}": value.cpu().numpy().copy() for name, value in codec.network.state_dict().items()}
    return weights | {"middle": codec.scaling.middle, "spread": codec.scaling.spread}


def restored(plain: dict[str, Any], arrays: dict[str, np.ndarray], device: str) -> VectorCodec:
    """A codec of its `to_json` and its arrays."""
    kind: type[PictureCodec] | type[TextCodec] = PictureCodec if plain["kind"] == "image" else TextCodec
    return carried(kind.from_json(plain), arrays, device)


def carried(codec: VectorCodec, arrays: dict[str, np.ndarray], device: str) -> VectorCodec:
    """The codec with these weights and scaling, frozen."""
    weights = {name.removeprefix(NETWORK): torch.from_numpy(array) for name, array in arrays.items() if name.startswith(NETWORK)}
    codec.network.load_state_dict(weights)
    codec.network.to(device).requires_grad_(False)
    return replace(codec, scaling=Scaling(arrays["middle"], arrays["spread"]))
