"""Why this verdict: what each step brings, where the gain is, what theory expects and what the boundary does; decides nothing."""

from typing import Any

import numpy as np

from codsa_ray.audit.boundary import boundary
from codsa_ray.audit.groupwise import groupwise
from codsa_ray.audit.metrics import probabilities
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.judge import title
from codsa_ray.report.scored import Pair, Scored
from codsa_ray.report.text import fixed, percent
from codsa_ray.report.tradeoff import kept, tradeoff
from codsa_ray.risk import paired, row_weights
from codsa_ray.rows import FINAL

VERSION = 1
EVIDENCE = "evidence.json"
STEPS = {"raw": "as it is", "offset": "offset", "calibrated": "offset and calibration"}


def why(scored: Scored, bench: Bench, seed: int, rows: bool = True) -> dict[str, Any]:
    """The report's part `why`, the same whenever it is gathered: from stored scores, and from refits and rows looked at once and kept.

    Args:
        seed: the job's.
        rows: False leaves real rows out of the picture of the boundary.
    """
    names = [group.name for group in bench.rows.groups.items]
    steps, gains, terms = ladder(scored), gain_by_group(scored, names), tradeoff(scored, bench)
    return {
        "ladder": steps,
        "gains": gains,
        "evidence": _evidence(scored),
        "chosen": _chosen(scored),
        "tradeoff": terms,
        "boundary": _boundary(scored, bench, seed, rows),
        "sentences": sentences(steps, gains, terms),
    }


def ladder(scored: Scored) -> list[dict[str, Any]]:
    """From the learner as it is by way of correction and calibration to the best without synthesis and the best with it.

    Each step's `change` is the paired difference of the balanced loss to the step before, below 0 where it is better, with its standard
    error, out of fold and on the test rows.
    """
    found: list[dict[str, Any]] = []
    last: Pair | None = None
    for step, pair in _steps(scored):
        row: dict[str, Any] = {"step": step, "candidate": title(*pair), "verdict": pair == scored.decision.chosen}
        found.append(row | _step(scored, pair, last))
        last = pair
    return found


def _steps(scored: Scored) -> list[tuple[str, Pair]]:
    """Each candidate once, under the first of its names."""
    plain, decision = scored.plain[0], scored.decision
    found = [(STEPS[form], (plain, form)) for form in STEPS if (plain, form) in decision.entries]
    if decision.chosen[0].level(decision.chosen[1]) != "augment":
        found.append(("the verdict", decision.chosen))
    found.append(("judged best without synthesis", decision.base))
    if scored.synthetic is not None:
        found.append(("the verdict" if scored.synthetic == decision.chosen else "judged best with synthesis", scored.synthetic))
    first: dict[Pair, str] = {}
    for step, pair in found:
        first.setdefault(pair, step)
    return [(step, pair) for pair, step in first.items()]


def _step(scored: Scored, pair: Pair, last: Pair | None) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for prefix, losses, truth in (("", scored.losses, scored.truth), ("test_", scored.test_losses, scored.test)):
        own, before = losses(pair), None if last is None else losses(last)
        loss = (None, None) if own is None else paired(own, np.zeros(len(own)), truth.group, scored.mix, truth.unit)
        change = (None, None) if own is None or before is None else paired(own, before, truth.group, scored.mix, truth.unit)
        value |= {f"{prefix}loss": loss[0], f"{prefix}se": loss[1], f"{prefix}change": change[0], f"{prefix}change_se": change[1]}
    return value


def gain_by_group(scored: Scored, names: list[str]) -> dict[str, Any]:
    """Paired gains of each group: of the best without synthesis on the learner as it is, and of synthesis on that.

    A gain is above 0 where the loss falls. `share`: the group's part of the balanced gain of synthesis, mix x gain over the sum.
    """
    base, best = scored.decision.base, scored.synthetic
    rows: list[dict[str, Any]] = [{"name": name, "mix": float(m)} for name, m in zip(names, scored.mix, strict=True)]
    for prefix, losses, truth in (("", scored.losses, scored.truth), ("test_", scored.test_losses, scored.test)):
        for key, pair, against in (("base", base, scored.plain), ("synthesis", best, base)):
            own, other = None if pair is None else losses(pair), losses(against)
            if own is None or other is None:
                continue
            mean, se = groupwise(other - own, truth.group, truth.unit, len(names))
            for g, row in enumerate(rows):
                row |= {f"{prefix}{key}": _number(mean[g]), f"{prefix}{key}_se": _number(se[g])}
    total = sum(row["mix"] * (row.get("synthesis") or 0.0) for row in rows)
    many = [np.bincount(truth.group[truth.group >= 0], minlength=len(names)) for truth in (scored.truth, scored.test)]
    for row, own, tested in zip(rows, *many, strict=True):
        share = row["mix"] * row["synthesis"] / total if row.get("synthesis") is not None and total > 0 else None
        row |= {"rows": int(own), "test_rows": int(tested), "share": share}
    return {"plain": title(*scored.plain), "base": title(*base), "synthesis": None if best is None else title(*best), "groups": rows}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _chosen(scored: Scored) -> dict[str, Any] | None:
    """The size that theory's is held against."""
    if scored.synthetic is None:
        return None
    candidate: Candidate = scored.synthetic[0]
    generator = candidate.generator.rpartition("-")[0]
    return {"name": title(*scored.synthetic), "gamma": candidate.gamma, "eta": candidate.eta, "generator": generator}


def _evidence(scored: Scored) -> dict[str, Any] | None:
    """What the search measured of the data before it chose sizes; None where it did not."""
    return scored.table.folder.read_json(EVIDENCE) if scored.table.folder.exists(EVIDENCE) else None


def _boundary(scored: Scored, bench: Bench, seed: int, rows: bool) -> dict[str, Any]:
    """The learner as it is against the verdict (or, where that changes nothing, the best with synthesis) on the test rows."""
    before, after = scored.plain, scored.decision.chosen
    if after == before:
        after = scored.synthetic or scored.decision.base
    if scored.task == "regression":
        return {"skipped": "a regression has no boundary"}
    if scored.test_scores(before) is None or scored.test_scores(after) is None:
        return {"skipped": "one of the two has no test scores"}
    depends = ["boundary", VERSION, before[0].id, before[1], after[0].id, after[1], seed, rows]
    return kept(scored, depends, lambda: _drawn(scored, bench, (before, after), seed, rows))


def _drawn(scored: Scored, bench: Bench, pairs: tuple[Pair, Pair], seed: int, rows: bool) -> dict[str, Any]:
    held = bench.held_out(FINAL)
    if not np.array_equal(held.row, scored.test.row):
        return {"skipped": "the stored test scores are of other rows"}
    label, name = _label(bench)
    chances = [probabilities(scores)[:, label] for pair in pairs if (scores := scored.test_scores(pair)) is not None]
    weight = row_weights(scored.test.group, scored.mix)
    found = boundary(held.X, chances[0], chances[1], scored.test.truth == label, weight, seed, rows)
    return {"label": name, "names": [title(*pair) for pair in pairs], **found}


def _label(bench: Bench) -> tuple[int, str]:
    """The label of the group with the fewest training rows."""
    schema, groups = bench.rows.schema(FINAL), bench.rows.groups
    if not bench.classes:
        return 1, "anomaly"
    label = int(groups.labels(schema.classes)[int(np.argmin(bench.rows.group_counts(FINAL)))])
    return label, str(schema.classes[label])


def sentences(steps: list[dict[str, Any]], gains: dict[str, Any], terms: dict[str, Any]) -> list[str]:
    """What a reader should take away, with numbers."""
    found = []
    first, corrected = steps[0], [step for step in steps if step["step"] in STEPS.values()][-1]
    if len(steps) > 1 and corrected is not first:
        told = f"Correcting the scores alone takes the balanced loss from {fixed(first['loss'])} to {fixed(corrected['loss'])}"
        rest = [f"{step['step']} to {fixed(step['loss'])}" for step in steps[steps.index(corrected) + 1 :]]
        found.append("; ".join([told, *rest]) + ".")
    shared = [row for row in gains["groups"] if row["share"] is not None]
    if shared:
        most, losing = max(shared, key=lambda row: row["share"]), [row["name"] for row in shared if row["synthesis"] < 0]
        found.append(
            f"Synthesis gains most in {most['name']}: {fixed(most['synthesis'])} ± {fixed(most['synthesis_se'])} on its"
            f" {most['rows']:,} rows, {percent(most['share'])} of its balanced gain"
            + (f"; it costs in {', '.join(losing)}." if losing else ".")
        )
    if "fits" in terms:
        none, own = terms["fits"][0], terms["fits"][1]
        found.append(
            f"At {own['size']:,} synthetic rows a single fit varies by {fixed(own['variance'])} ± {fixed(own['se'])}"
            f" ({fixed(none['variance'])} ± {fixed(none['se'])} without any), the generator's rows are off by {fixed(own['bias'])}, and the"
            f" training mix {_mismatched(terms['task'], own['mismatch'], none['mismatch'])} without any)."
        )
    return found


def _mismatched(task: str, own: float | None, none: float | None) -> str:
    if task == "regression":
        return f"is {fixed(own)} nats from the target mix ({fixed(none)}"
    return f"costs at most {fixed(own)} before it is corrected ({fixed(none)}"
