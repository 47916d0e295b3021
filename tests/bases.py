"""A causal language model as transformers writes them, small and never trained; knows no table."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

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
