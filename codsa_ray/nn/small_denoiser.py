"""Small denoiser: the untrained network for pictures where no base is tuned, of diffusers' parts; knows no loss and no training."""

from typing import Any

import torch
from torch import nn

from codsa_ray.nn.picture_networks import ByVector, Condition
from codsa_ray.nn.pictures import Frame

UNET, DIT = "unet", "dit"
APART = 0.5
"""Deviation of the first embeddings; a base is told nothing at first."""


def small(
    backbone: str, width: int, layers: int, frame: Frame, squares: tuple[int, int], levels: tuple[int, ...], columns: int
) -> nn.Module:
    """Which says 0 at first: the denoiser then begins as the best linear one (Karras et al. 2022, section 5).

    Args:
        backbone: UNET or DIT.
        width, layers: channels at its finest grid and blocks a grid (UNET), or of all its blocks (DIT).
        frame: of the pictures.
        squares: (pixels of one that is a place, grids of the network).
        levels: how many each factor has, the region itself last.
        columns: D.
    """
    # Here, because loading the library takes seconds.
    from diffusers import DiTTransformer2DModel, UNet2DModel

    patch, grids = squares
    seen = frame.channels * patch**2
    model: Any
    if backbone == DIT:
        side = frame.padded[0] // patch
        model = DiTTransformer2DModel(
            max(1, width // 32),
            width // max(1, width // 32),
            in_channels=seen,
            num_layers=layers,
            norm_num_groups=1,
            sample_size=side,
            patch_size=2,
            num_embeds_ada_norm=1,
        )
        for block in model.transformer_blocks:
            block.norm1.emb.class_embedder = nn.Identity()
        last, told = model.proj_out_2, width
    else:
        model = UNet2DModel(
            in_channels=seen,
            out_channels=seen,
            block_out_channels=(width, *[2 * width] * (grids - 1)),
            down_block_types=("DownBlock2D",) * grids,
            up_block_types=("UpBlock2D",) * grids,
            layers_per_block=layers,
            norm_num_groups=8,
            attention_head_dim=16,
            class_embed_type="identity",
        )
        last, told = model.conv_out, 4 * width
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    network: Any = ByVector(model, Condition(levels, columns, told, APART), patch)
    return network.to(memory_format=torch.channels_last)
