"""Latent rows' codes, all at once or run by run: torch's own softmax and cross-entropy, and their gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from codsa_ray.nn.layout import LARGEST, Layout

LAYOUT = Layout(3, ((2, 2), (1, 5), (3, 7)))
LEVELS = [2, 2, 5, 7, 7, 7]


def rows(largest: float) -> tuple[Tensor, Tensor]:
    """(rows with logits up to that size, the level of each code)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(40, LAYOUT.width, generator=generator)
    drawn *= largest / drawn[:, LAYOUT.reals :].abs().max()
    levels = torch.stack([torch.randint(size, (40,), generator=generator) for size in LEVELS], dim=1)
    return drawn.requires_grad_(), levels


def parts(logits: Tensor) -> list[Tensor]:
    return list(logits[:, LAYOUT.reals :].split(LEVELS, dim=1))


@pytest.mark.parametrize("largest", [4.0, 0.99 * LARGEST, 50 * LARGEST])
def test_probabilities_are_the_softmax_of_each_code(largest: float) -> None:
    drawn, _ = rows(largest)
    wanted = torch.cat([one.softmax(1) for one in parts(drawn)], dim=1)
    torch.testing.assert_close(LAYOUT.probabilities(drawn), wanted)


@pytest.mark.parametrize("largest", [4.0, 0.99 * LARGEST, 50 * LARGEST])
def test_surprise_is_the_cross_entropy_of_each_code_and_has_its_gradient(largest: float) -> None:
    drawn, levels = rows(largest)
    hot = torch.cat([functional.one_hot(levels[:, k], size).float() for k, size in enumerate(LEVELS)], dim=1)
    found = LAYOUT.surprise(drawn, hot)
    wanted = torch.stack([functional.cross_entropy(one, levels[:, k], reduction="none") for k, one in enumerate(parts(drawn))], dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * max(1.0, largest))
    torch.testing.assert_close(*(torch.autograd.grad(one.sum(), drawn, retain_graph=True)[0] for one in (found, wanted)))


def test_rows_of_numbers_alone_have_no_code_to_be_surprised_by() -> None:
    assert Layout(4).surprise(torch.randn(5, 4), torch.zeros(5, 0)).shape == (5, 0)
    assert Layout(4).probabilities(torch.randn(5, 4)).shape == (5, 0)
