"""Adapters: low-rank changes beside a network's linear layers, worked into them; knows no training and no library.

Source: Hu et al. 2022 (LoRA, eq. 3): W + (alpha / r) B A.
"""

import numpy as np

STRETCH = 2
"""alpha / r."""
BASE, DOWN, UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"
"""How peft names the layer and the two factors."""


def merged(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """State of an adapted network as that of the plain one, the adapters added to the layers they change; of a plain one, itself."""
    found = {}
    for name, array in weights.items():
        if name.endswith(BASE):
            layer = name.removesuffix(BASE)
            found[f"{layer}.weight"] = array + STRETCH * (weights[layer + UP] @ weights[layer + DOWN])
        elif "lora_" not in name:
            found[name.replace(".base_layer.", ".")] = array
    return found
