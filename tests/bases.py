"""Pretrained models as transformers and diffusers write them, small and never trained; know no table."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def small_gpt2(folder: Path, pickled: bool = False, longest: int = 512) -> Path:
    """Writes a GPT-2-like model that was never trained and a byte-level tokenizer of its own into the folder; returns it."""
    words = Tokenizer(BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    words.train_from_iterator(["age is 39, job is clerk, wage is 12.50, sex is F, label is yes, since is 2019-04-05,"] * 3, trainer)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=words.get_vocab_size(), n_positions=longest, n_embd=32, n_layer=2, n_head=2, eos_token_id=0, bos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@cache
def base() -> str:
    return str(small_gpt2(Path(mkdtemp(prefix="gpt2-"))))


def _clip(folder: Path, width: int, projected: bool = False) -> tuple[Any, Any]:
    """An untrained text encoder of CLIP's kind and a tokenizer of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-"
    words = {word: place for place, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config), tokenizer


def _coder() -> Any:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, layers_per_block=1, sample_size=16, **blocks)


def small_ddpm(folder: Path, asks: str = "epsilon", classes: int | None = None, **saving: Any) -> Path:
    """Writes an untrained DDPMPipeline of grey squares of 8 into the folder; returns it."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "num_class_embeds": classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4, **blocks
        )
    DDPMPipeline(unet, DDPMScheduler(prediction_type=asks)).save_pretrained(folder, **saving)
    return folder


def small_stable(folder: Path, **saving: Any) -> Path:
    """Writes an untrained StableDiffusionPipeline of colour squares of 16 into the folder; returns it."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, words = _clip(folder / "words", 16)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        coder = _coder()
    StableDiffusionPipeline(coder, encoder, words, unet, DDIMScheduler(), None, None, requires_safety_checker=False).save_pretrained(
        folder, **saving
    )
    return folder


def small_dit(folder: Path, **saving: Any) -> Path:
    """Writes an untrained DiTPipeline of colour squares of 16, whose denoiser also says variances, into the folder; returns it."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DiTTransformer2DModel(
            2, 8, in_channels=4, out_channels=8, num_layers=2, sample_size=8, num_embeds_ada_norm=5, norm_num_groups=4
        )
        coder = _coder()
    DiTPipeline(model, coder, DDIMScheduler()).save_pretrained(folder, **saving)
    return folder


def small_flow(folder: Path, **saving: Any) -> Path:
    """Writes an untrained StableDiffusion3Pipeline of colour squares of 16, without its third encoder, into the folder; returns it."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, words = _clip(folder / "words", 16, projected=True)
        second, more = _clip(folder / "more", 16, projected=True)
        model = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=8,
        )
        coder = _coder()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    StableDiffusion3Pipeline(model, scheduler, coder, first, words, second, more, None, None).save_pretrained(folder, **saving)
    return folder


def small_vision(folder: Path, kind: str, pickled: bool = False) -> Path:
    """Writes an untrained model of colour squares of 16, a resnet or a vit of transformers, into the folder; returns it."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "resnet":
            config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", image_size=16)
            model: Any = ResNetForImageClassification(config)
        else:
            sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16}
            model = ViTForImageClassification(ViTConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}))
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def vision_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the model without its classifier, by name."""
    from transformers import AutoModel

    return dict(AutoModel.from_pretrained(folder).named_parameters())
