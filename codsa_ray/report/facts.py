"""Facts: everything report.json holds, gathered from stored scores and rows; judges nothing anew."""

import importlib.metadata as metadata
import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codsa_ray.audit.drawn import audit
from codsa_ray.audit.metrics import label_metrics, move_thresholds
from codsa_ray.audit.reliability import reliability
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.decide import CONFIDENCE
from codsa_ray.errors import InternalError
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.judge import Decision, calibration_of, test_scores, title
from codsa_ray.outcomes import Outcome, Table, Truth, losses, read_outcome, read_truth
from codsa_ray.plan import Plan
from codsa_ray.risk import estimate, row_weights
from codsa_ray.rows import FINAL
from codsa_ray.shipped import correction_of

AUDIT_ROWS = 5_000
PACKAGES = ("codsa-ray", "ray", "torch", "pyarrow", "pandas", "numpy", "scikit-learn", "xgboost")


@dataclass(frozen=True)
class Stage:
    """What one stage did and cost."""

    name: str
    rows_in: int
    rows_out: int
    seconds: float
    reused: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "seconds": round(self.seconds, 2), "rows_per_second": round(self.rows_out / max(self.seconds, 1e-9))}


@dataclass(frozen=True)
class Facts:
    """What the report is made of.

    Args:
        judged: folder of the final candidates' test scores.
        plan: what was written (empty where nothing synthetic was).
        shipped: the candidate whose rows were written.
        failed: generators that could not be fitted or fell short, with the reason.
        said: notices of the fits.
    """

    job: Job
    bench: Bench
    table: Table
    decision: Decision
    judged: Folder
    plan: Plan
    shipped: Candidate
    read: dict[str, Any]
    failed: dict[str, str]
    stages: tuple[Stage, ...]
    said: tuple[str, ...] = ()


def gather(facts: Facts) -> dict[str, Any]:
    """report.json, and `correction` for correction.json; a number that is not finite is null."""
    return _finite(_gathered(facts))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _gathered(facts: Facts) -> dict[str, Any]:
    job, rows = facts.job, facts.bench.rows
    schema = rows.schema(FINAL)
    nulls = {column.name: column.nulls for column in schema.columns}
    calibration = calibration_of(facts.table.outcomes[facts.shipped.id], _truth(facts), job.task, facts.table.mix)
    form = facts.decision.chosen[1] if facts.shipped == facts.decision.chosen[0] else "calibrated"
    return {
        "version": metadata.version("codsa-ray"),
        "created": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "title": f"{os.path.basename(Folder(job.data).shown)}: {job.target}",
        "job": _job(job),
        "data": _data(facts),
        "verdict": _verdict(facts),
        "schema": [{**row, "nulls": nulls.get(row["column"])} for row in schema.shown()],
        "left_out": [{"column": column, "reason": reason} for column, reason in schema.left_out],
        "groups": _groups(facts),
        "candidates": _candidates(facts),
        "curve": _curve(facts),
        **_scored(facts),
        **_audited(facts),
        "stages": [stage.to_json() for stage in facts.stages],
        "notices": [*facts.read["notices"], *_notices(facts)],
        "environment": {"python": platform.python_version(), "cores": os.cpu_count(), **{p: metadata.version(p) for p in PACKAGES}},
        "correction": correction_of(facts.bench, facts.shipped, form, title(facts.shipped, form), calibration),
    }


def _verdict(facts: Facts) -> dict[str, Any]:
    verdict = facts.decision.verdict
    return {
        **verdict.to_json(),
        "sentences": list(verdict.sentences()),
        "gain": {**asdict(verdict.gain), "level": CONFIDENCE} if verdict.gain else None,
        "chosen": verdict.chosen.called,
        "base": verdict.base.called,
        "best": verdict.best.called if verdict.best else None,
        "plan": _plan(facts) if facts.plan.size else None,
    }


def _plan(facts: Facts) -> dict[str, Any]:
    names = [region.name for region in facts.bench.partitions[FINAL].regions.items]
    return {
        "rows": facts.plan.size,
        "draws": facts.plan.draws,
        "row_weight": facts.plan.parts[0].row_weight,
        "regions": {name: int(count) for name, count in zip(names, facts.plan.counts, strict=True) if count},
    }


def _truth(facts: Facts) -> Truth:
    assert facts.table.truth is not None, "a decision stands on scores"
    return facts.table.truth


def _job(job: Job) -> dict[str, Any]:
    plain = job.to_json()
    for key in ("data", "test", "source", "out"):
        if plain[key]:
            plain[key] = Folder(plain[key]).shown
    for key in ("learner", "allocator", "strata"):
        plain[key] = _plugin(plain[key])
    return {**plain, "generator": [_plugin(value) for value in plain["generator"]]}


def _plugin(value: dict[str, Any]) -> str:
    return f"{value['name']}({', '.join(f'{k}={v}' for k, v in value['settings'].items())})"


def _data(facts: Facts) -> dict[str, Any]:
    rows, read = facts.bench.rows, facts.read
    counts = np.array(rows.counts)
    return {
        "rows": read["rows_out"],
        "train": int(counts[:-1].sum()),
        "test": int(counts[-1].sum()),
        "set_aside": read["set_aside"],
        "columns": len(rows.schema(FINAL).order),
        "folds": rows.folds,
    }


def _notices(facts: Facts) -> list[str]:
    found = [*facts.said, *(f"generator {name} is out: {reason}" for name, reason in facts.failed.items())]
    found += _projected(facts)
    if facts.job.source and not any(g.needs.source for g in facts.job.generator if not isinstance(g, str)):
        found.append("the source was not used: none of the generators learns from one")
    found += [f"candidate {o.candidate.name} failed: {o.failed}" for o in facts.table.outcomes.values() if o.failed]
    if facts.bench.partitions[FINAL].regions.counts.sum() > facts.bench.cap:
        found.append(
            f"the search saw at most {facts.bench.cap:,} training rows a fold: small regions whole, large ones thinned and weighted up"
        )
    if facts.plan.size:
        found.append("the rows written come from generators fitted on all training rows: no score judged those rows, only their like")
    kept = "the run's fit/ and read/ folders hold real rows" + (
        "; this report shows some" if facts.job.rows else "; this report shows none"
    )
    return [*found, kept]


def _projected(facts: Facts) -> list[str]:
    """What the allocator has to say of the plan that was written."""
    notice = getattr(facts.job.allocator, "notice", None)
    if notice is None or not facts.plan.size:
        return []
    text = notice(facts.bench.partitions[FINAL].regions, facts.plan.size, facts.plan.parts[0].row_weight)
    return [text] if text else []


def _column(facts: Facts, pair: tuple[Candidate, str]) -> np.ndarray:
    return facts.decision.losses[:, facts.decision.entries.index(pair)].astype(np.float64)


def _test_losses(facts: Facts, candidate: Candidate, form: str) -> np.ndarray | None:
    final = read_outcome(facts.judged, candidate)
    if final is None or final.failed:
        return None
    scores = test_scores(facts.table.outcomes[candidate.id], final, form, _truth(facts), facts.job.task, facts.table.mix)
    return losses({form: scores}, read_truth(facts.judged), facts.job.task, facts.bench.classes)[form]


EMPTY = dict.fromkeys(("loss", "se", "test_loss", "test_se", "gap", "gap_se", "test_gap", "test_gap_se"))


def _estimates(facts: Facts, pair: tuple[Candidate, str]) -> dict[str, float | None]:
    """Losses with their standard errors; gaps are paired differences to the verdict's candidate, below 0 where this one is better."""
    truth, mix, chosen = _truth(facts), facts.table.mix, facts.decision.chosen
    mine, its = _column(facts, pair), _column(facts, chosen)
    value = EMPTY | _named("", mine, its, truth, mix)
    tested, against = _test_losses(facts, *pair), _test_losses(facts, *chosen)
    if tested is not None and against is not None:
        value |= _named("test_", tested, against, read_truth(facts.judged), mix)
    return value


def _named(prefix: str, mine: np.ndarray, its: np.ndarray, truth: Truth, mix: np.ndarray) -> dict[str, float]:
    found = estimate(np.stack([mine, mine - its], axis=1), truth.group, mix, truth.unit)
    names = ((f"{prefix}loss", f"{prefix}se"), (f"{prefix}gap", f"{prefix}gap_se"))
    pairs = zip(names, found.mean, found.se, strict=True)
    return {key: float(number) for (mean, se), m, s in pairs for key, number in ((mean, m), (se, s))}


def _candidates(facts: Facts) -> list[dict[str, Any]]:
    found = []
    for candidate, form in facts.decision.entries:
        outcome = facts.table.outcomes[candidate.id]
        found.append(_row(facts, candidate, form, outcome) | _estimates(facts, (candidate, form)))
    failed = [o for o in facts.table.outcomes.values() if o.failed]
    return found + [_row(facts, o.candidate, "", o) | EMPTY for o in failed]


def _row(facts: Facts, candidate: Candidate, form: str, outcome: Outcome) -> dict[str, Any]:
    size = candidate.plan(facts.bench.partitions[FINAL].regions, facts.bench.allocator).size
    return {
        "name": title(candidate, form) if form else candidate.name,
        "kind": candidate.kind,
        "level": candidate.level(form),
        "form": form,
        "generator": candidate.generator.rpartition("-")[0],
        "gamma": candidate.gamma,
        "eta": candidate.eta,
        "tilt": candidate.tilt,
        "row_weight": candidate.row_weight,
        "draws": candidate.fits,
        "size": size,
        "seconds": outcome.seconds,
        "failed": outcome.failed,
    }


def _curve(facts: Facts) -> dict[str, Any]:
    """Loss against size, calibrated like the lines without synthesis it is held against."""
    form = "raw" if facts.job.task == "regression" else "calibrated"
    points: dict[str, list[dict[str, Any]]] = {}
    lines = []
    for row in (r for r in _candidates(facts) if not r["failed"]):
        if row["kind"] == "synthetic" and row["form"] == form:
            points.setdefault(row["generator"], []).append({key: row[key] for key in ("size", "gamma", "loss", "se", "name")})
        elif row["kind"] != "synthetic":
            lines.append({key: row[key] for key in ("name", "loss", "se")})
    return {
        "generators": [{"name": name, "points": sorted(found, key=lambda p: p["size"])} for name, found in points.items()],
        "lines": lines,
    }


def _groups(facts: Facts) -> list[dict[str, Any]]:
    rows = facts.bench.rows
    before, after = _by_group(facts, facts.decision.base), _by_group(facts, facts.decision.chosen)
    train, test = rows.group_counts(FINAL), rows.counts[-1]
    return [
        {
            "name": group.name,
            "mix": rows.groups.mix[g],
            "train": int(train[g]),
            "test": int(test[g]),
            "before": before[g],
            "after": after[g],
        }
        for g, group in enumerate(rows.groups.items)
    ]


def _by_group(facts: Facts, pair: tuple[Candidate, str]) -> list[dict[str, float | None]]:
    truth, tested = _truth(facts), _test_losses(facts, *pair)
    test = read_truth(facts.judged) if tested is not None else None
    found = []
    for g in range(len(facts.table.mix)):
        loss, se = _mean(_column(facts, pair)[truth.group == g])
        test_loss, test_se = _mean(tested[test.group == g]) if tested is not None and test is not None else (None, None)
        found.append({"loss": loss, "se": se, "test_loss": test_loss, "test_se": test_se})
    return found


def _mean(values: np.ndarray) -> tuple[float | None, float | None]:
    if not len(values):
        return None, None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _scored(facts: Facts) -> dict[str, Any]:
    """Reliability and label metrics on the test rows: as it is before, as the verdict has it after."""
    if facts.job.task != "classification":
        return {"reliability": None, "metrics": None}
    as_it_is = ((c, form) for c, form in facts.decision.entries if c.kind == "plain" and c.fits == 1)
    plain, raw_form = next(as_it_is, facts.decision.base)
    pairs = {"before": (plain, raw_form), "after": facts.decision.chosen}
    test, mix = read_truth(facts.judged), facts.table.mix
    metrics: dict[str, Any] = {}
    scored = {}
    for name, (candidate, form) in pairs.items():
        final = read_outcome(facts.judged, candidate)
        if final is None or final.failed:
            raise InternalError(f"{candidate.name} could not be fitted on all training rows: {final and final.failed}")
        scores = test_scores(facts.table.outcomes[candidate.id], final, form, _truth(facts), facts.job.task, mix)
        scored[name] = scores
        metrics[name] = label_metrics(scores, test.truth, facts.job.seed)
    raw = facts.table.outcomes[plain.id].raw.astype(np.float64)
    metrics["moved"] = label_metrics(scored["before"], test.truth, facts.job.seed, move_thresholds(raw, _truth(facts).truth))
    weight = row_weights(test.group, mix)
    return {"reliability": reliability(scored["before"], scored["after"], test.truth, weight), "metrics": metrics}


def _audited(facts: Facts) -> dict[str, Any]:
    """Drawn rows of the first fold's generator beside the rows it saw and the rows it did not."""
    best = facts.decision.best
    key = (best[0].generator, 0, 0) if best else next(iter(k for k in facts.bench.pools if k[1] == 0), None)
    if key is None or key not in facts.bench.pools:
        return {"fidelity": None, "privacy": None, "sample": [], "pictures": None}
    bench, part = facts.bench, facts.bench.partitions[0]
    real = bench.rows.training(0, part.regions, part.rule).table(4 * AUDIT_ROWS)
    pool = bench.pools[key]
    have = pool.ceiling(len(part.regions))
    counts = np.minimum(np.bincount(real[REGION].to_numpy(), minlength=len(have)), have)
    counts = np.minimum(counts, max(AUDIT_ROWS // max(len(counts), 1), 200))
    found = audit(real, bench.rows.held_out(0), pool.take(counts), bench.rows.schema(0), part.regions, facts.job.seed, facts.job.rows)
    return found | {"audited": key[0].rpartition("-")[0]}
