"""Vision bases: models of pictures that transformers reads (its own, and timm's where timm is installed); knows no row and no label.

Weights are safetensors and nothing that comes with them is run. What is on this machine is read without a network.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codsa_ray.errors import SettingError
from codsa_ray.nn.picture_classifiers import BaseTrunk

FAILURES = (OSError, ValueError, LookupError, ImportError, AttributeError, TypeError, RuntimeError)
WANTED = "a vision model of transformers or timm with safetensors weights"
DO = "name the folder that holds its config.json (a model of timm also wants timm installed)"
SIDE = 224
MIDDLE = SPREAD = (0.5, 0.5, 0.5)
"""Of pixel values in [0, 1], where a folder holds no preprocessor_config.json."""


@dataclass(frozen=True)
class VisionBase:
    """What a model wants pictures to be.

    Args:
        base: its folder or name.
        side: of its squares.
        middle, spread: that pixel values (0 to 255) of red, green, blue are centred and scaled by.
    """

    base: str
    side: int
    middle: tuple[float, ...]
    spread: tuple[float, ...]

    @staticmethod
    def read(base: str) -> "VisionBase":
        """Reads configurations alone.

        Raises:
            SettingError: there is no such model, or it does not see pictures.
        """
        # Here, because loading the library takes seconds.
        from transformers import AutoConfig

        try:
            config: Any = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=_here(base))
            # timm's own description, where transformers holds a model of timm.
            timm = getattr(config, "pretrained_cfg", None) or {}
            size = timm["input_size"][-1] if timm else getattr(config, "image_size", None)
            processing = {"image_mean": timm["mean"], "image_std": timm["std"]} if timm else _processing(base)
            side = max(size) if isinstance(size, list | tuple) else size
            middle, spread = (processing.get(name) or MIDDLE for name in ("image_mean", "image_std"))
            scaled = (tuple(255.0 * float(value) for value in values) for values in (middle, spread))
            return VisionBase(base, int(side or SIDE), *scaled)
        except FAILURES as error:
            raise _told(base, error) from error

    def trunk(self) -> BaseTrunk:
        """The model itself, in evaluation mode: its norms keep their statistics, and it drops nothing.

        Raises:
            SettingError: pickled weights, weights that are missing, or a model that does not see pictures.
        """
        from transformers import AutoModel

        try:
            # Of weights that a checkpoint lacks: they are refused, but for a pooler, which is never used.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                where: dict[str, Any] = {"trust_remote_code": False, "local_files_only": _here(self.base)}
                model, found = AutoModel.from_pretrained(self.base, use_safetensors=True, output_loading_info=True, **where)
            missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
            if getattr(model, "main_input_name", "") != "pixel_values" or missing or found["mismatched_keys"]:
                raise ValueError(f"{type(model).__name__} " + (f"without {missing[0]}" if missing else "of another architecture"))
            model.eval()
            with torch.no_grad():
                said: Tensor = model(pixel_values=torch.zeros(1, 3, self.side, self.side)).last_hidden_state
            return BaseTrunk(model, said.shape[1] if said.ndim == 4 else said.shape[2])
        except FAILURES as error:
            raise _told(self.base, error) from error


def _told(base: str, error: Exception) -> SettingError:
    return SettingError(WANTED, f"{base!r} ({type(error).__name__}: {' '.join(str(error).split())[:200]})", DO)


def _here(base: str) -> bool:
    """Whether the model is on this machine."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return False
    return True


def _processing(base: str) -> dict[str, Any]:
    from transformers.image_processing_utils import BaseImageProcessor

    try:
        return dict(BaseImageProcessor.get_image_processor_dict(base, local_files_only=_here(base))[0])
    except (OSError, ValueError):
        return {}
