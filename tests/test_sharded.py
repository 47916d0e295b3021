"""A fit whose weights are cut over processes (FSDP2) is that of one process, and goes on where it died, at any number of them."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_texts import learned
from torch import Tensor, nn

from codsa_ray.errors import DamagedError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.language_model import LanguageModel
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.nn import train as loop
from codsa_ray.nn.shards import Saved, blocks, is_shard, local, rows_of, shard
from codsa_ray.nn.small_decoder import Block
from codsa_ray.nn.train import Trained, Training, train

from bases import base
from processes import Died, together, worker
from tables import LocalWorker, mixed_table

pytestmark = pytest.mark.timeout(900)
WORLD = 2
SMALL = LanguageModel(
    steps=40, width=16, heads=2, blocks=2, batch=32, rate=1e-2, bins=8, block=64, checkpoint=20, minutes=1e6, sharded=True
)
LARGE = replace(SMALL, steps=3, batch=8, checkpoint=500, held_out=0.0)
TEXTS = replace(TextLm.tiny(), steps=20, width=16, batch=16, longest=8, sharded=True)
SAID = replace(TEXTS, steps=3, batch=8, held_out=0.0, lora=4)
SETTINGS = Training(steps=30, rate=0.05, warmup=5, every=5, patience=100, checkpoint=10)
CLOSE = 2e-3
"""Of weights of the order of .3 after 40 steps of Adam, which takes the sign of gradients near 0 from how their sums were rounded."""


class Network(nn.Module):
    """Five inputs, so that no number of rows is a multiple of two; a frozen weight, a buffer, and a parameter without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 5)
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.leave = nn.Linear(5, 1)
        self.leave.bias.requires_grad_(False)
        self.nothing = nn.Parameter(torch.zeros(0, 4))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.enter(rows)
        for layer in self.layers:
            rows = rows + torch.tanh(layer(rows))
        return self.leave(rows)[:, 0] * self.scale + self.nothing.sum()


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network()


def trained(place: Path, cut: bool, settings: Training = SETTINGS, dies_at: tuple[int, ...] = ()) -> Trained:
    """A regression, each rank on its share of the rows."""
    me, module = worker(place, dies_at), network()
    if cut and me.world > 1:
        shard(module, "cpu", settings.dtype)

    def loss(module: nn.Module, generator: torch.Generator, share: slice = slice(me.rank, None, me.world)) -> Tensor:
        rows = torch.randn(32, 3, generator=generator)
        return (module(rows[share]).float() - rows[share].prod(1) - 2).square().mean()

    def score(module: nn.Module) -> float:
        return float(loss(module, torch.Generator().manual_seed(5), slice(None)))

    return train(module, loss, score, settings, me, 1)


def kept(place: Path, name: str, found: Trained) -> None:
    if torch.distributed.get_rank() == 0:
        Folder(str(place)).write_arrays(f"{name}.safetensors", found.weights)
        Folder(str(place)).write_json(f"{name}.json", {"history": found.history})


def rows(settings: LanguageModel | TextLm) -> FitData:
    """What each is fitted on."""
    return learned() if isinstance(settings, TextLm) else FitData.of(*mixed_table(150), 1)


def fitted(place: Path, settings: LanguageModel | TextLm, dies_at: tuple[int, ...] = ()) -> None:
    settings.fit(rows(settings), worker(place, dies_at))


def scenes(place: Path) -> None:
    """All that the tests below look at, in one process group: to start one takes seconds."""
    small = replace(SETTINGS, dtype=torch.bfloat16)
    for name, cut, settings in (("cut", True, SETTINGS), ("copies", False, SETTINGS), ("fast", True, small)):
        kept(place, name, trained(place / name, cut, settings))
    for name, cut in (("cut in parts", True), ("copies in parts", False)):
        kept(place, name, trained(place / name, cut, replace(SETTINGS, parts=3)))
    with pytest.raises(Died):
        trained(place / "cut died", True, dies_at=(25,))
    kept(place, "cut died", trained(place / "cut died", True))
    with pytest.raises(Died):
        trained(place / "fewer", True, dies_at=(25,))
    kept(place, "more", trained(place / "more", True))
    clocks(place)
    shares(place)
    fitted(place / "decoder", SMALL)
    fitted(place / "texts", TEXTS)
    given = (place / "base").read_text()
    for lora in (4, 0):
        fitted(place / f"base {lora}", replace(LARGE, base=given, lora=lora))
    fitted(place / "said", replace(SAID, base=given))


def clocks(place: Path) -> None:
    """The second rank's clock runs three times as fast: (1 + 3) / 2 = 2 times, and all save at the same steps."""
    rank, ticks = torch.distributed.get_rank(), iter(range(10_000))
    loop.monotonic = lambda: next(ticks) * 60.0 * (1 + 2 * rank)
    trained(place / "clocks", True, replace(SETTINGS, checkpoint=1000, minutes=5.0, every=30))


def shares(place: Path) -> None:
    """What each rank holds of a network."""
    module = network()
    shard(module, "cpu", torch.float32)
    held = {name: [*rows_of(value), len(local(value))] for name, value in module.state_dict().items() if is_shard(value)}
    Folder(str(place)).write_json(f"shares-{torch.distributed.get_rank()}.json", held)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they fitted; in `more` they went on from a checkpoint of one."""
    place = tmp_path_factory.mktemp("group")
    (place / "base").write_text(base())
    with pytest.raises(Died):
        trained(place / "more", False, dies_at=(25,))
    together(WORLD, scenes, place)
    return place


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("alone"), False)


def weights(place: Path, name: str) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    folder = Folder(str(place))
    return folder.read_arrays(f"{name}.safetensors"), folder.read_json(f"{name}.json")["history"]


def agree(found: tuple[dict[str, np.ndarray], Any], other: Trained, close: float = 1e-5) -> None:
    assert set(found[0]) == set(other.weights)
    for name, value in other.weights.items():
        # Written as an array, a number becomes an array of one.
        assert found[0][name].ravel() == pytest.approx(value.ravel(), abs=close), name
    assert np.array(found[1]) == pytest.approx(np.array(other.history), rel=max(close, 1e-4))


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["cut", "copies"])
def test_two_processes_end_as_one_does(group: Path, alone: Trained, name: str) -> None:
    agree(weights(group, name), alone)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["cut in parts", "copies in parts"])
def test_two_processes_in_three_parts_end_as_one_does(group: Path, tmp_path: Path, name: str) -> None:
    agree(weights(group, name), trained(tmp_path, False, replace(SETTINGS, parts=3)))


@pytest.mark.cluster
def test_two_processes_that_died_end_with_the_bytes_of_two_that_did_not(group: Path) -> None:
    whole, died = weights(group, "cut"), weights(group, "cut died")
    assert {name: a.tobytes() for name, a in whole[0].items()} == {name: a.tobytes() for name, a in died[0].items()}
    assert whole[1] == died[1]


@pytest.mark.cluster
def test_one_process_goes_on_from_a_checkpoint_of_two_and_two_from_one_of_one(group: Path, alone: Trained) -> None:
    assert [path.name for path in sorted((group / "fewer").glob("*/*"))].count("rank-1.safetensors") == 2
    one = trained(group / "fewer", False)
    agree((one.weights, one.history), alone)
    agree(weights(group, "more"), alone)


@pytest.mark.cluster
def test_bfloat16_reaches_about_the_same_loss(group: Path, alone: Trained) -> None:
    _, history = weights(group, "fast")
    assert history[-1][1:] == pytest.approx(alone.history[-1][1:], rel=0.05)
    assert history[-1][1:] != alone.history[-1][1:]


@pytest.mark.cluster
def test_processes_whose_clocks_disagree_save_at_the_same_steps(group: Path) -> None:
    """A tick at each look, which come before the first score: by the third the clocks show 3 and 9 minutes, in the mean over 5."""
    saved = [f"{path.parent.name}/{path.name}" for path in sorted((group / "clocks").glob("*/*"))]
    assert saved == ["checkpoint-0015/rank-0.safetensors", "checkpoint-0015/rank-1.safetensors", "checkpoint-0015/state.json"]


@pytest.mark.cluster
def test_each_process_holds_its_rows_and_no_others(group: Path) -> None:
    first, second = (Folder(str(group)).read_json(f"shares-{rank}.json") for rank in range(WORLD))
    assert first["enter.weight"] == [0, 3, 3]
    assert second["enter.weight"] == [3, 5, 2]
    assert (first["leave.weight"], second["leave.weight"]) == ([0, 1, 1], [1, 1, 0])
    assert "nothing" not in first


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("name", "settings"),
    [("decoder", SMALL), ("base 4", replace(LARGE, lora=4)), ("base 0", replace(LARGE, lora=0)), ("texts", TEXTS), ("said", SAID)],
)
def test_a_language_model_cut_over_two_processes_is_that_of_one(group: Path, tmp_path: Path, name: str, settings: Any) -> None:
    settings = replace(settings, base=base()) if name not in ("decoder", "texts") else settings
    settings.fit(rows(settings), LocalWorker(Folder(str(tmp_path))))
    one, two = (Folder(str(place)).read_arrays("model.safetensors") for place in (tmp_path, group / name))
    assert set(one) == set(two)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=CLOSE), key
    losses = [np.array(Folder(str(place)).read_json("rows.json")["history"])[-1] for place in (tmp_path, group / name)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    # The base's weights are another file's, so the fitted folder of two processes is read as one's.
    drawn = settings.load(Folder(str(group / name))).block(0, 1)
    assert len(drawn) == settings.block


def test_units_are_the_layers_of_a_transformer() -> None:
    stack = nn.ModuleDict({"head": nn.ModuleList([nn.Linear(2, 2)]), "body": nn.ModuleList(Block(8, 2) for _ in range(3))})
    assert blocks(stack) == list(stack["body"])  # type: ignore[call-overload]
    assert blocks(nn.Linear(2, 2)) == []


def test_parts_of_any_cut_make_the_tensor_and_a_lost_one_is_named() -> None:
    whole = np.arange(14, dtype=np.float32).reshape(7, 2)
    like = torch.zeros(7, 2)
    for cuts in ([0, 7], [0, 4, 7], [0, 1, 2, 3, 4, 5, 6, 7]):
        arrays = {f"w@{first}": whole[first:end] for first, end in pairwise(cuts)}
        assert np.array_equal(Saved.of(arrays).take("w", like).numpy(), whole)
    for arrays in ({"w@0": whole[:3]}, {"w@3": whole[3:]}, {}):
        with pytest.raises(DamagedError, match="w"):
            Saved.of(arrays).take("w", like)
