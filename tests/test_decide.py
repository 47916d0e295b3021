"""The decision: right when nothing is better, right when something is, and plain about what it could not judge."""

import json

import numpy as np
import pytest

from codsa_ray.decide import Entry, Verdict, decide
from codsa_ray.errors import InternalError
from codsa_ray.risk import balanced, group_means

SIZES = (10, 50, 1000)
GROUPS = np.repeat([0, 1, 2], SIZES)
MIX = np.full(3, 1 / 3)
PLAIN, SYNTHETIC = 20, 60
ENTRIES = [Entry(f"plain {i}", ("correct", "reweight", "bag")[i % 3]) for i in range(PLAIN)]
ENTRIES += [Entry(f"drawn {i}", "augment", 10 * (i + 1)) for i in range(SYNTHETIC)]


def losses(rng: np.random.Generator, groups: np.ndarray = GROUPS, heavy: bool = False) -> np.ndarray:
    """Log losses of 20 + 60 entries of equal true loss: a hard common part, seven families, and each entry's own part."""
    n = len(groups)
    family = np.concatenate([rng.integers(0, 3, PLAIN), rng.integers(3, 7, SYNTHETIC)])
    draw = (lambda size: rng.standard_t(2.5, size)) if heavy else rng.standard_normal
    logit = np.where(groups < 2, 1.0, 4.0) + 1.7 * rng.standard_normal(n)
    logits = logit[:, None] + 0.7 * draw((n, 7))[:, family] + 0.5 * draw((n, PLAIN + SYNTHETIC))
    return np.minimum(np.logaddexp(0, -logits), 16.1)


@pytest.fixture(scope="module", params=["gaussian", "heavy"])
def nulls(request: pytest.FixtureRequest) -> list[Verdict]:
    rng = np.random.default_rng(11)
    sets = 200 if request.param == "gaussian" else 100
    return [decide(losses(rng, heavy=request.param == "heavy"), GROUPS, MIX, ENTRIES, resamples=50, seed=s) for s in range(sets)]


def test_entries_of_equal_true_loss_are_called_augment_in_at_most_one_of_twenty_data_sets(nulls: list[Verdict]) -> None:
    assert sum(v.kind == "augment" for v in nulls) <= 0.05 * len(nulls)


def test_the_interval_covers_a_true_gain_of_0_which_the_losses_themselves_flatter(nulls: list[Verdict]) -> None:
    gains = [v.gain for v in nulls if v.gain]
    apparent = [v.base_loss - v.levels[-1].loss for v in nulls]
    assert np.mean([g.low <= 0 <= g.high for g in gains]) >= 0.95
    assert abs(np.mean([g.mean for g in gains])) < 2.6 * np.std([g.mean for g in gains]) / np.sqrt(len(gains))
    assert np.mean(apparent) > 2.6 * np.std(apparent) / np.sqrt(len(gains))


def test_at_a_confidence_of_nothing_any_estimated_gain_is_enough(nulls: list[Verdict]) -> None:
    for v in nulls:
        assert v.gain is not None
        assert v.gain.beyond(0.95) == (v.gain.low > 0)
        assert v.gain.beyond(0.0) == (v.gain.mean > 0)
        assert v.gain.beyond(0.0) or not v.gain.beyond(0.5)
    verdict = decide(losses(np.random.default_rng(3)), GROUPS, MIX, ENTRIES, resamples=100, confidence=0.0)
    assert (verdict.kind == "augment") == (verdict.gain is not None and verdict.gain.mean > 0)
    assert "a confidence of 0 % was asked for" in " ".join(verdict.sentences())
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_one_better_entry_among_sixty_is_mostly_found_with_fifty_rare_rows() -> None:
    rng = np.random.default_rng(12)
    groups = np.repeat(np.arange(8), [50, 50] + [140] * 6)
    found = 0
    for s in range(12):
        table = losses(rng, groups)
        table[:100, 40] *= 0.6
        verdict = decide(table, groups, np.full(8, 1 / 8), ENTRIES, resamples=60, seed=s)
        found += verdict.kind == "augment" and verdict.chosen.name == "drawn 20"
    assert found >= 9


def test_the_smallest_size_within_one_standard_error_is_taken() -> None:
    rng = np.random.default_rng(14)
    base = rng.gamma(1.0, size=1060)
    wobble = 0.2 * rng.standard_normal((1060, 4))
    table = np.stack([base, base - 0.3 + wobble[:, 0], base - 0.302 + wobble[:, 1], base - 0.1 + wobble[:, 2]], axis=1)
    entries = [Entry("offset", "correct"), Entry("small", "augment", 100), Entry("large", "augment", 400), Entry("tiny", "augment", 10)]
    verdict = decide(table, GROUPS, MIX, entries)
    assert (verdict.kind, verdict.chosen.name) == ("augment", "small")


@pytest.mark.parametrize(("step", "kind"), [(0.0, "leave"), (0.2, "bag")])
def test_the_simplest_level_within_one_standard_error_is_taken(step: float, kind: str) -> None:
    rng = np.random.default_rng(15)
    base = 2 + rng.gamma(1.0, size=1060)
    levels = ("leave", "correct", "reweight", "bag")
    noise = 0.05 * rng.standard_normal((1060, 4))
    # So that the balanced means differ by exactly what the next line says.
    noise -= np.stack([noise[g == GROUPS].mean(axis=0) for g in range(3)])[GROUPS]
    table = base[:, None] - (step + 0.001) * np.arange(4) + noise
    verdict = decide(table, GROUPS, MIX, [Entry(level, level) for level in levels])
    assert verdict.kind == kind
    assert verdict.gain is None
    assert [level.level for level in verdict.levels] == list(levels)


def test_the_verdict_tells_losses_that_can_be_checked_by_hand() -> None:
    table = losses(np.random.default_rng(16))
    names = ["rare", "thin", "common"]
    entries = [Entry("none", "leave"), *ENTRIES[1:]]
    verdict = decide(table, GROUPS, MIX, entries, names=names)
    assert verdict.leave_loss == pytest.approx(balanced(table[:, 0], GROUPS, MIX))
    assert verdict.base_loss == pytest.approx(min(balanced(table[:, m], GROUPS, MIX) for m in range(PLAIN)))
    assert [g.name for g in verdict.groups] == names
    assert [g.leave for g in verdict.groups] == pytest.approx(group_means(table[:, 0], GROUPS, 3).tolist())
    assert [g.rows for g in verdict.groups] == list(SIZES)


def test_the_same_seed_gives_the_same_verdict_and_the_order_of_rows_within_groups_is_all_that_it_sees() -> None:
    table = losses(np.random.default_rng(17))
    first, second, other = (decide(table, GROUPS, MIX, ENTRIES, resamples=50, seed=s) for s in (1, 1, 2))
    assert first == second
    assert first.gain != other.gain
    order = np.argsort(np.random.default_rng(0).permutation(1060) % 7, kind="stable")
    order = order[np.argsort(GROUPS[order], kind="stable")]
    shuffled = decide(table[order], GROUPS[order], MIX, ENTRIES, resamples=50, seed=1)
    assert shuffled.base_loss == pytest.approx(first.base_loss)


def test_units_drawn_together_widen_the_interval() -> None:
    rng = np.random.default_rng(18)
    groups = np.repeat([0, 1], 30)
    tripled, units = np.repeat(groups, 5), np.repeat(np.arange(60), 5)
    table = np.repeat(losses(rng, groups), 5, axis=0)
    mix = np.full(2, 0.5)
    alone = decide(table, tripled, mix, ENTRIES, resamples=100).gain
    together = decide(table, tripled, mix, ENTRIES, units=units, resamples=100).gain
    assert alone is not None
    assert together is not None
    assert together.se > 1.8 * alone.se


def test_rows_without_a_group_change_nothing_and_are_counted() -> None:
    table = losses(np.random.default_rng(19))
    more = np.concatenate([table, np.full((7, 80), 9.0)])
    plain = decide(table, GROUPS, MIX, ENTRIES, resamples=50)
    with_strays = decide(more, np.concatenate([GROUPS, np.full(7, -1)]), MIX, ENTRIES, resamples=50)
    assert with_strays.gain == plain.gain
    assert with_strays.excluded == 7
    assert any("7 rows belong to no group" in sentence for sentence in with_strays.sentences())


def test_a_group_of_one_unit_is_left_out_of_the_judgement_and_named() -> None:
    table = losses(np.random.default_rng(20))
    table[:10, 70] -= 100
    units = np.where(GROUPS == 0, -1, np.arange(1060))
    verdict = decide(table, GROUPS, MIX, ENTRIES, units=units, names=["lone", "thin", "common"], resamples=50)
    rest = decide(table[10:], GROUPS[10:] - 1, np.array([0.5, 0.5]), ENTRIES, resamples=50)
    assert verdict.base_loss == pytest.approx(rest.base_loss)
    assert verdict.kind != "augment"
    assert any("lone (1)" in note for note in verdict.notes)


def test_an_absent_group_and_a_thin_one_are_named() -> None:
    keep = np.concatenate([np.arange(4), np.arange(60, 1060)])
    verdict = decide(losses(np.random.default_rng(21))[keep], GROUPS[keep], MIX, ENTRIES, names=["a", "b", "c"], resamples=50)
    assert any("No scored row in group b" in note for note in verdict.notes)
    assert any("Under 10 rows in group a (4)" in note for note in verdict.notes)
    assert verdict.groups[1].chosen is None


def test_nothing_can_be_judged_from_one_unit_per_group() -> None:
    entries = [Entry("none", "leave"), Entry("d", "augment", 5)]
    verdict = decide(np.array([[1.0, 0.1], [1.0, 0.1]]), np.array([0, 1]), np.array([0.5, 0.5]), entries)
    assert (verdict.kind, verdict.gain) == ("leave", None)
    assert "could not be judged" in verdict.sentences()[1]


def test_groups_of_two_rows_can_always_be_scored_out_of_bag() -> None:
    rng = np.random.default_rng(22)
    groups = np.repeat(np.arange(40), 2)
    verdict = decide(losses(rng, groups), groups, np.full(40, 1 / 40), ENTRIES, resamples=100)
    assert verdict.gain is not None
    assert np.isfinite([verdict.gain.low, verdict.gain.high]).all()


def test_sentences_of_augment_read_as_the_design_has_them() -> None:
    rng = np.random.default_rng(23)
    base = 0.184 + 0.01 * rng.standard_normal(1060)
    table = np.stack([base, base - 0.042 + 0.001 * rng.standard_normal(1060)], axis=1)
    entries = [
        Entry("offset", "correct", words="offset + calibration"),
        Entry("trees", "augment", 412, "calibrated", "412 synthetic rows from sequential_trees (gamma .5, 5 draws)"),
    ]
    first, second = decide(table, GROUPS, MIX, entries, names=["rare", "thin", "common"]).sentences()
    assert first.startswith("Augment: 412 synthetic rows from sequential_trees (gamma .5, 5 draws) cut the balanced loss from .18")
    assert "the best of 1 candidates without synthesis (offset + calibration), to .14" in first
    assert "gains .042 on the best without, 95 % interval .04" in first
    assert second.startswith("Group ")


@pytest.mark.parametrize("best", [0, 1, 2, 3, 4])
def test_every_kind_has_two_sentences_and_survives_json(best: int) -> None:
    rng = np.random.default_rng(24)
    levels = ("leave", "correct", "reweight", "bag", "augment")
    table = 2 + rng.gamma(1.0, size=(1060, 1)) + 0.05 * rng.standard_normal((1060, 5))
    table[:, best] -= 1
    verdict = decide(table, GROUPS, MIX, [Entry(level, level, 9 * (level == "augment")) for level in levels])
    assert verdict.kind == levels[best]
    assert len(verdict.sentences()) == 2
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize(
    ("table", "entries", "message"),
    [
        (np.full((3, 1), np.nan), [Entry("none", "leave")], "finite losses"),
        (np.ones((3, 2)), [Entry("none", "leave")], "shape"),
        (np.ones((3, 1)), [Entry("d", "augment", 3)], "only augment"),
        (np.ones((3, 1)), [Entry("d", "odd one")], "'d'"),
    ],
)
def test_what_cannot_be_decided_is_an_internal_error(table: np.ndarray, entries: list[Entry], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        decide(table, np.zeros(3, dtype=int), np.ones(1), entries)
