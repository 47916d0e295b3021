"""What `make bench-gpu` holds numbers against; the numbers need a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import CARDS, numbers, page, peak_of, texts
from benchmarks.gpu import Timed as Cell


@pytest.mark.parametrize(
    ("name", "card"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-80GB", "A100")],
)
def test_a_card_is_known_by_its_longest_name(name: str, card: str) -> None:
    assert peak_of(name) == CARDS[card]
    assert peak_of("NVIDIA GeForce GTX 1050") is None


def test_its_data_are_training_rows_with_a_region_per_label() -> None:
    for data in (numbers(300), texts(5, 40)):
        assert sum(region.rows for region in data.regions.items) == len(data.table(10**6))
        assert len(data.regions) == 2


def test_the_page_shows_shares_where_the_card_is_known() -> None:
    text = page("H200", {"one": Cell({"steps/s": 12.34}, 0.351), "two": Cell({"rows/s": 5.0})})
    assert "| one | 12.3 steps/s | 35.1% | - |" in text
    assert "| two | 5.0 rows/s | - | - |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("wanted a GPU")
