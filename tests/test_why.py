"""Why this verdict: steps and gains add up to the losses they explain, refits are few, kept and repeatable, and what is missing says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codsa_ray import pipeline
from codsa_ray.audit.metrics import probabilities
from codsa_ray.candidates import Candidate
from codsa_ray.errors import CandidateError
from codsa_ray.folder import Folder
from codsa_ray.pipeline import Report, rewrite_report
from codsa_ray.report import refits
from codsa_ray.report.facts import Facts, gather
from codsa_ray.report.page import render
from codsa_ray.report.reasons import section
from codsa_ray.report.refits import Refits
from codsa_ray.report.scored import Scored
from codsa_ray.report.tradeoff import tradeoff
from codsa_ray.report.why import gain_by_group, ladder, why
from codsa_ray.risk import balanced
from codsa_ray.rows import FINAL
from codsa_ray.trial import Mix


@pytest.fixture(scope="module")
def facts(finished: Report, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What the report of a finished run is made of, on a copy of its folder."""
    place = tmp_path_factory.mktemp("why")
    shutil.copytree(finished.folder, place / "run")
    seen: list[Facts] = []

    def watched(facts: Facts) -> dict[str, Any]:
        seen.append(facts)
        return gather(facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "gather", watched)
        rewrite_report(str(place / "run"))
    return replace(seen[0], bench=replace(seen[0].bench, cache=str(place / "cache"), memory={}))


@pytest.fixture
def scored(facts: Facts) -> Scored:
    return Scored(facts.table, facts.decision, facts.judged, facts.bench.classes)


def stored(report: Report) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((Path(report.folder) / "report.json").read_text())
    return value


# --- steps and gains


def test_the_steps_add_up_to_the_way_from_the_learner_as_it_is_to_the_verdict(finished: Report) -> None:
    report = stored(finished)
    steps = report["why"]["ladder"]
    assert [step["step"] for step in steps[:3]] == ["as it is", "offset", "offset and calibration"]
    assert sum(step["verdict"] for step in steps) == 1
    losses = {row["name"]: row for row in report["candidates"]}
    for prefix in ("", "test_"):
        assert sum(step[f"{prefix}change"] or 0 for step in steps) == pytest.approx(steps[-1][f"{prefix}loss"] - steps[0][f"{prefix}loss"])
        for step in steps:
            assert step[f"{prefix}loss"] == pytest.approx(losses[step["candidate"]][f"{prefix}loss"], rel=1e-5)
    assert len({step["candidate"] for step in steps}) == len(steps)


def test_a_step_is_paired(scored: Scored) -> None:
    """Its standard error is that of the rows' differences, not of two independent means."""
    step = ladder(scored)[1]
    c, _ = scored.plain
    gap = scored.losses((c, "offset")) - scored.losses((c, "raw"))
    parts = [(scored.truth.group == g, m) for g, m in enumerate(scored.mix)]
    assert step["change"] == pytest.approx(balanced(gap, scored.truth.group, scored.mix))
    assert step["change_se"] ** 2 == pytest.approx(sum(m**2 * gap[mine].var(ddof=1) / mine.sum() for mine, m in parts))


def test_group_gains_mixed_are_the_balanced_gain(scored: Scored, facts: Facts) -> None:
    names = [group.name for group in facts.bench.rows.groups.items]
    found = gain_by_group(scored, names)["groups"]
    assert [row["name"] for row in found] == names
    assert scored.synthetic is not None
    base, best = (balanced(scored.losses(pair), scored.truth.group, scored.mix) for pair in (scored.decision.base, scored.synthetic))
    assert sum(row["mix"] * row["synthesis"] for row in found) == pytest.approx(base - best)
    assert sum(row["rows"] for row in found) == len(scored.truth)
    shares = [row["share"] for row in found]
    assert shares == [None] * len(names) if base <= best else sum(shares) == pytest.approx(1.0)


def test_without_a_candidate_with_synthesis_the_rest_is_told(scored: Scored, facts: Facts) -> None:
    decision = replace(scored.decision, best=None, chosen=scored.decision.base)
    found = why(replace(scored, decision=decision, memory={}), facts.bench, 0)
    assert found["tradeoff"] == {"skipped": "no candidate with synthesis was scored"}
    assert found["gains"]["synthesis"] is None
    assert found["chosen"] is None
    assert all("synthesis" not in row for row in found["gains"]["groups"])
    assert "Not measured: no candidate with synthesis was scored." in render({"why": found})


# --- the trade-off


def test_without_rows_there_is_no_bias_and_at_full_balance_no_mismatch(scored: Scored, facts: Facts) -> None:
    found = tradeoff(scored, facts.bench)
    counts, mix = facts.bench.rows.group_counts(FINAL), scored.mix
    none = found["m"][0]
    assert none["size"] == 0
    assert none["bias"] == 0.0
    assert none["mismatch"] == pytest.approx(np.sum(mix * np.log(mix / (counts / counts.sum()))))
    assert [p["size"] for p in found["m"]] == sorted(p["size"] for p in found["m"])
    assert scored.synthetic is not None
    whole = replace(scored.synthetic[0], gamma=1.0, eta=0.0, tilt=0.0, row_weight=1.0, extra=0.0, lean=())
    decision = replace(scored.decision, best=(whole, "offset"), chosen=scored.decision.base)
    table = replace(scored.table, outcomes={**scored.table.outcomes, whole.id: scored.table.outcomes[scored.synthetic[0].id]})
    balanced_plan = tradeoff(replace(scored, decision=decision, table=table, memory={}), facts.bench)
    own = next(p for p in balanced_plan["fits"] if p["size"] == balanced_plan["size"] and p["tilt"] == 0)
    assert own["mismatch"] < 1e-3


def test_the_report_asks_for_ten_fits_at_most_and_only_once(scored: Scored, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Candidate] = []
    real = Refits._fit

    def watched(self: Refits, candidate: Candidate, *rest: Any) -> Any:
        asked.append(candidate)
        return real(self, candidate, *rest)

    monkeypatch.setattr(Refits, "_fit", watched)
    before = tradeoff(scored, facts.bench)
    assert asked == []
    for name in scored.judged.names():
        if name.startswith("tradeoff-"):
            scored.judged.delete(name)
    assert tradeoff(scored, facts.bench) == before
    assert 3 <= len(asked) <= 10
    assert {design["size"] for design in before["fits"]} >= {0, before["size"]}


def test_a_fit_that_fails_or_would_take_too_long_is_said_not_raised(
    scored: Scored, facts: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = replace(scored, judged=Folder(str(tmp_path / "slow")), memory={})
    with monkeypatch.context() as patch:
        patch.setattr("codsa_ray.report.tradeoff.PATIENCE", 0.0)
        assert "more fits would take about" in tradeoff(other, facts.bench)["skipped"]

    def fails(*args: Any) -> None:
        raise CandidateError("the fit\ndiverged")

    monkeypatch.setattr(Refits, "_fit", fails)
    broken = replace(scored, judged=Folder(str(tmp_path / "broken")), memory={})
    assert tradeoff(broken, facts.bench) == {"skipped": "a fit failed: CandidateError: the fit diverged"}


def test_resampling_keeps_groups_and_the_real_and_synthetic_rows_of_each_apart() -> None:
    group = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    mix = Mix(np.arange(8.0)[:, None], group, np.ones(8), group)
    drawn = [refits._resampled(mix, 5, np.random.default_rng(s)) for s in range(20)]
    for one in drawn:
        assert np.bincount(one.group).tolist() == [4, 4]
        assert (one.X[:, 0] >= 5).sum() == 3
    assert len({one.X.tobytes() for one in drawn}) > 10


def test_the_pilot_s_rows_are_new_to_it(scored: Scored, facts: Facts) -> None:
    """Losses on held-out rows come from the search, so each row was scored by a fit that had not seen it."""
    one = Refits(scored, facts.bench)
    pilot = one.pilot("")
    assert pilot is not None
    assert (pilot.kind, pilot.strength, pilot.fits) == ("weights", 1.0, 1)
    assert scored.synthetic is not None
    found = one.shifts(pilot, scored.synthetic[0])
    assert sum(row["held_out"] for row in found) == len(scored.truth)
    assert all(row["drawn"] <= refits.PER_GROUP for row in found)


# --- boundary, evidence, and the same bytes again


def test_the_boundary_is_of_the_stored_test_scores_and_leaves_rows_out_when_asked(scored: Scored, facts: Facts) -> None:
    found = why(scored, facts.bench, facts.job.seed)["boundary"]
    assert found["label"] == "sick"
    assert found["points"]
    assert sum(hit for _, _, hit in found["points"]) == min(
        150, int((scored.test.truth == facts.bench.rows.schema(FINAL).classes.index("sick")).sum())
    )
    hidden = why(scored, facts.bench, facts.job.seed, rows=False)["boundary"]
    assert hidden["points"] == []
    assert hidden["after"] == found["after"]
    scores = scored.test_scores(scored.plain)
    assert scores is not None
    assert probabilities(scores).sum(axis=1) == pytest.approx(1.0)


def test_evidence_is_shown_where_the_search_left_it_and_missed_where_not(scored: Scored, facts: Facts, tmp_path: Path) -> None:
    bare = replace(scored, table=replace(scored.table, folder=Folder(str(tmp_path))), memory={})
    assert why(bare, facts.bench, facts.job.seed)["evidence"] is None
    assert section({"evidence": None}) == {}
    assert "nothing to say: no group lacks rows." in str(section({"evidence": {"reason": "no group lacks rows"}})["evidence"])
    one = {"generator": "g-1", "p_value": 1e-9, "gamma": None}
    shown = section({"evidence": {"contrasts": [{"group": "a", "against": "b", "rows": 9, "biases": [one]}], "gammas": {"g-1": 1.25}}})[
        "evidence"
    ]
    assert shown["tables"][1]["rows"][0][:2] == [("g: a", "g: a"), (1e-9, "< 0.001")]
    assert "g 1.25." in shown["sentences"][-1]


def test_writing_the_report_again_gives_the_same_facts(finished: Report, facts: Facts) -> None:
    again = json.loads((Path(facts.judged.local()).parent.parent / "report.json").read_text())
    first = stored(finished)
    assert {key for key in first if first[key] != again[key]} <= {"created", "stages", "job"}
    assert json.dumps(first["why"], sort_keys=True) == json.dumps(again["why"], sort_keys=True)


def test_metrics_name_every_candidate_once_and_hold_out_of_fold_and_on_test_rows(finished: Report) -> None:
    metrics = stored(finished)["metrics"]
    for where in ("test", "out_of_fold"):
        ways = [name for way in metrics[where]["ways"] for name in way["ways"]]
        assert sorted(ways) == sorted(["plain", "base", "chosen", *(["moved"] if where == "test" else [])])
        for way in metrics[where]["ways"]:
            for name, cell in way["values"].items():
                assert cell["low"] <= cell["value"] <= cell["high"] or name == "calibration error"
    losses = {row["name"]: row["loss"] for row in stored(finished)["candidates"]}
    for way in metrics["out_of_fold"]["ways"]:
        assert way["values"]["balanced log loss"]["value"] == pytest.approx(losses[way["candidate"]], rel=1e-5)
