"""The small decoder: its probabilities sum to one in every order, its cache changes nothing, and tokens give the rows back."""

from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.audit.marginals import kolmogorov
from codsa_ray.nn.orders import GREAT, IMBLLM, LABEL_FIRST, Orders
from codsa_ray.nn.small_decoder import Drawing, SmallDecoder, chosen, shown_of, within
from codsa_ray.nn.table_tokens import TableTokens
from codsa_ray.schema import Column

from tables import mixed_table, schema_of

LEVELS = (2, 3, 4, 17)


def decoder(levels: tuple[int, ...] = LEVELS, seed: int = 0) -> SmallDecoder:
    """With random weights, those that begin at nothing as well."""
    rng = np.random.default_rng(seed)
    known = [rng.normal(size=(size, index % 2 * 3)).astype(np.float32) for index, size in enumerate(levels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallDecoder(known, [rng.normal(size=size) for size in levels], 16, 2, 2)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return network.requires_grad_(False)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_the_probabilities_of_all_rows_sum_to_one_in_every_order(order: list[int]) -> None:
    rows = torch.tensor(list(product(*map(range, LEVELS))))
    total = decoder()(rows, torch.tensor([order])).double().sum(1).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_rows_in_orders_of_their_own_score_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    rows = torch.tensor(np.stack([rng.integers(0, size, 20) for size in LEVELS], axis=1))
    orders = torch.tensor(np.stack([rng.permutation(4) for _ in range(20)]))
    together = decoder()(rows, orders)
    alone = torch.cat([decoder()(rows[i : i + 1], orders[i : i + 1]) for i in range(20)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_column_knows_nothing_of_those_after_it() -> None:
    rows = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 16]])
    first, second = decoder()(rows, torch.tensor([[1, 0, 2, 3]]))[:, :2]
    assert torch.allclose(first, second)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 3, 2, 1]])
def test_drawing_with_the_cache_equals_drawing_without(order: list[int]) -> None:
    chance = torch.rand(300, 4, generator=torch.Generator().manual_seed(1))
    given_ = {0: torch.ones(300, dtype=torch.int64)}
    drawn = [Drawing(decoder(), LEVELS, cached=cached).tokens(given_, order, chance) for cached in (True, False)]
    assert torch.equal(*drawn)
    assert (drawn[0][:, 0] == 1).all()


def test_rows_are_drawn_as_often_as_the_decoder_says() -> None:
    network, levels = decoder((2, 3, 4)), (2, 3, 4)
    chance = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0))
    drawn = Drawing(network, levels).tokens({}, [2, 0, 1], chance)
    cells = torch.tensor(list(product(*map(range, levels))))
    expected = network(cells, torch.tensor([[2, 0, 1]])).double().sum(1).exp().numpy()
    counts = np.bincount((drawn @ torch.tensor([12, 4, 1])).numpy(), minlength=24)
    assert np.abs(counts / 40_000 - expected).max() < 5 * np.sqrt(0.25 / 40_000)


def test_what_may_not_be_drawn_never_is() -> None:
    chance = torch.rand(2000, 4, generator=torch.Generator().manual_seed(1))
    assert Drawing(decoder(), (2, 3, 4, 5)).tokens({}, [0, 1, 2, 3], chance)[:, 3].max() == 4


def test_a_token_without_a_value_is_told_on_and_shown_as_those_that_stand_for_it() -> None:
    """Of shares .4, .1, .2 and .3 the last is shared out between the first two as 4 to 1, and the third keeps its own."""
    scores, chance = torch.log(torch.tensor([[0.4, 0.1, 0.2, 0.3]])).expand(10_000, 4), (torch.arange(10_000) + 0.5) / 10_000
    shares = torch.bincount(shown_of(chosen(scores, chance), scores, within(scores, chance), 2), minlength=4) / 10_000
    assert shares.tolist() == pytest.approx([0.64, 0.16, 0.2, 0], abs=1e-3)
    network = decoder((2, 3))
    told, uniform = Drawing(network, (2, 3)), torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1))
    plain, shown = told.tokens({}, [1, 0], uniform), replace(told, stand=(0, 1)).tokens({}, [1, 0], uniform)
    assert torch.equal(plain[:, 0], shown[:, 0]), "what comes after is drawn from what was told"
    assert torch.equal(torch.where(plain[:, 1] == 2, 0, plain[:, 1]), shown[:, 1])


@given(st.lists(st.floats(-30, 30) | st.just(-np.inf), min_size=2, max_size=6), st.floats(0, 1, exclude_max=True, width=32))
@settings(max_examples=50, deadline=None)
def test_a_token_of_no_probability_is_never_chosen(scores: list[float], chance: float) -> None:
    scores[0] = 0.0
    place = int(chosen(torch.tensor([scores], dtype=torch.float32), torch.tensor([chance]))[0])
    assert scores[place] > -np.inf


def test_tokens_bring_rows_back_to_within_their_bin() -> None:
    table, schema, _ = mixed_table()
    columns = tuple(c for c in schema.columns if c.name not in ("label", "sex"))
    for bins in (4, 1000):
        tokens = TableTokens.of(columns, table, bins)
        codes = tokens.encode(table)
        back = tokens.decode(codes, np.random.default_rng(0).random((len(table), len(columns))))
        # Between two values that were each seen once the border of their bins is open by half of the way.
        assert np.abs(tokens.encode(back) - codes).max() <= 1
        assert (tokens.encode(back) != codes).mean() < 0.1 * bins / 4
        for column in columns:
            assert back[column.name].type == table[column.name].type
            assert np.array_equal(back[column.name].is_null(), table[column.name].is_null())
            assert not any(rows.any() for _, rows in column.broken(back[column.name].combine_chunks()))
        assert back["job"].equals(table["job"])


def test_equal_values_share_a_bin_and_heaps_stand_alone() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(4000) < 0.2, 40, rng.integers(0, 100, 4000))
    table = pa.table({"x": values})
    column = TableTokens.of(schema_of(table, "x").columns, table, 20).columns[0]
    tokens = column.encode(table["x"].combine_chunks())
    assert all(len(set(tokens[values == value])) == 1 for value in range(100))
    assert set(values[tokens == tokens[values == 40][0]]) == {40}
    assert column.levels <= 24


def test_a_bin_is_drawn_in_proportion_to_what_lies_in_it() -> None:
    values = np.sort(np.random.default_rng(0).exponential(size=2000))
    table = pa.table({"x": values})
    tokens = TableTokens.of((Column("x", "numeric", "double", values.min(), values.max()),), table, 10)
    back = tokens.decode(tokens.encode(table), np.random.default_rng(1).random((2000, 1)))["x"].to_numpy()
    assert kolmogorov(values, np.ones(2000), back, np.ones(2000)) < 0.02


@pytest.mark.parametrize("mode", [GREAT, LABEL_FIRST, IMBLLM])
def test_orders_are_whole_and_say_what_is_learned_from(mode: str) -> None:
    orders, generator = Orders(mode, 1, (False, True, False, True, False)), torch.Generator().manual_seed(0)
    made = torch.arange(400) % 2 == 1
    order, counted = orders.trained(made, generator)
    assert (order.sort(1).values == torch.arange(5)).all()
    assert (order[:, 0] == 0).all() == (mode != GREAT)
    assert counted[~made].tolist() == [[1.0 if mode == GREAT else 0.0, 1.0, 1.0, 1.0, 1.0]] * 200
    assert counted[made][:, 1:].tolist() == [[1.0, 0.0, 1.0, 0.0]] * 200
    if mode != LABEL_FIRST:
        assert (order[made][:, 3:] % 2 == 0).all(), "what interpolated rows lack comes last"
        assert len({tuple(own) for own in order.tolist()}) > 20


@pytest.mark.parametrize("mode", [GREAT, LABEL_FIRST, IMBLLM])
def test_runs_draw_as_many_rows_as_asked(mode: str) -> None:
    for rows in (1, 7, 300):
        runs = Orders(mode, 2, (False,) * 6).drawn(rows, np.random.default_rng(0))
        assert sum(run.rows for run in runs) == rows
        assert all(run.order[:2] == (0, 1) and sorted(run.order) == list(range(6)) for run in runs)
        if mode == IMBLLM and rows == 300:
            assert sorted((run.start, run.rows) for run in runs) == [(column, 75) for column in range(2, 6)]
