"""CoDSA's trade-off over size m and allocation alpha for the report: exact terms from plans, estimated ones from a few kept refits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from codsa_ray.audit.tradeoff import generation_bias, magnitude, mismatch
from codsa_ray.bench import Bench
from codsa_ray.blame import why
from codsa_ray.candidates import Candidate
from codsa_ray.errors import PLUGIN_FAILURES
from codsa_ray.plan import Plan
from codsa_ray.report.refits import PATIENCE, PER_GROUP, TIMES, Refits
from codsa_ray.report.scored import Scored
from codsa_ray.rows import FINAL
from codsa_ray.seeds import fingerprint
from codsa_ray.shipped import real_counts

VERSION = 1
STEPS = 13
TILTS = (0.0, 0.125, 0.25, 0.375, 0.5)
FAR = 1.2  # the largest size tried is a design of its own where it is this much more than the candidate's


def tradeoff(scored: Scored, bench: Bench) -> dict[str, Any]:
    """The three terms of audit/tradeoff.py around the candidate with synthesis that the verdict is about, one fit each.

    Returns:
        {candidate, size, tilt, m: terms by size, alpha: terms by tilt, fits: variances at a few designs, groups: loss differences} or
        {skipped: reason}.
    """
    pair = scored.synthetic
    if pair is None:
        return {"skipped": "no candidate with synthesis was scored"}
    candidate = pair[0]
    if candidate.kind != "synthetic":
        return {"skipped": f"{candidate.name} adds signed rows, not a plan of synthetic rows by region"}
    scales = np.linspace(0.0, _furthest(scored, candidate), STEPS)
    designs, refits = _designs(candidate, float(scales[-1])), Refits(scored, bench)
    pilot = refits.pilot(candidate.domains)
    if pilot is None:
        return {"skipped": "no fit at full weights could be scored, which the generator's rows would be held against"}
    depends = ["tradeoff", VERSION, TIMES, PER_GROUP, refits.draws(candidate), pilot.id, *(design.id for design in designs)]
    found = kept(scored, depends, lambda: _fits(refits, pilot, candidate, designs))
    if "skipped" in found:
        return found
    groups = [{"name": g.name, **_finite(row)} for g, row in zip(bench.rows.groups.items, found["groups"], strict=True)]
    sizes = magnitude(*(np.array([np.nan if g[key] is None else g[key] for g in groups]) for key in ("shift", "se")))
    terms = _terms(bench, sizes)
    return {
        "candidate": candidate.name,
        "size": _plan(bench, candidate).size,
        "tilt": candidate.tilt,
        "m": [terms(_scaled(candidate, float(scale))) for scale in scales],
        "alpha": [terms(replace(candidate, tilt=tilt)) for tilt in TILTS],
        "fits": [{**terms(d), **fit} for d, fit in zip(designs, found["fits"], strict=True)],
        "groups": groups,
        "times": TIMES,
        "task": scored.task,
    }


def kept(scored: Scored, depends: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of the report made once per run and then read from its folder, so that `codsa report` need not fit again."""
    name = f"{depends[0]}-{fingerprint(depends)}.json"
    if not scored.judged.exists(name):
        scored.judged.write_json(name, _finite(make()))
    value: dict[str, Any] = scored.judged.read_json(name)
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _furthest(scored: Scored, candidate: Candidate) -> float:
    """The largest size that was tried with this generator, times the candidate's own."""
    mine = candidate.gamma or candidate.eta
    tried = [o.candidate for o in scored.table.outcomes.values()]
    same = [c.gamma if candidate.gamma else c.eta for c in tried if (c.generator, c.share) == (candidate.generator, candidate.share)]
    return max([1.0, *(size / mine for size in same)]) if mine else 1.0


def _scaled(candidate: Candidate, scale: float) -> Candidate:
    # No draw holds more of the second part than the search asked for.
    extra = candidate.extra * min(scale, 1.0)
    return replace(candidate, fits=1, gamma=candidate.gamma * scale, eta=candidate.eta * scale, extra=extra)


def _designs(candidate: Candidate, furthest: float) -> list[Candidate]:
    """Where the variance is measured: no synthetic row, the candidate, the largest size, and the candidate's size shared out otherwise."""
    scales = [0.0, 1.0, *([furthest] if furthest > FAR else [])]
    other = TILTS[-1] if candidate.tilt < TILTS[-1] else TILTS[0]
    return [*(_scaled(candidate, scale) for scale in scales), replace(_scaled(candidate, 1.0), tilt=other)]


def _fits(refits: Refits, pilot: Candidate, candidate: Candidate, designs: list[Candidate]) -> dict[str, Any]:
    many = 1 + TIMES * len(designs)
    expected = many * refits.seconds(candidate)
    if expected > PATIENCE:
        return {"skipped": f"{many} more fits would take about {expected:.0f} s; a report asks for at most {PATIENCE:.0f} s"}
    widest = replace(designs[-2], tilt=max(d.tilt for d in designs))
    try:
        return {"groups": refits.shifts(pilot, widest), "fits": [refits.variance(design) for design in designs]}
    except PLUGIN_FAILURES as error:
        return {"skipped": f"a fit failed: {why(error)}"}


def _plan(bench: Bench, candidate: Candidate) -> Plan:
    return candidate.plan(bench.regions(FINAL, candidate.share), bench.allocator)


def _terms(bench: Bench, sizes: np.ndarray) -> Callable[[Candidate], dict[str, Any]]:
    """The exact terms of a plan on all training rows, given the size of each group's loss difference."""
    mix = np.array(bench.rows.groups.mix)

    def terms(candidate: Candidate) -> dict[str, Any]:
        regions, plan, real = bench.regions(FINAL, candidate.share), _plan(bench, candidate), real_counts(bench, candidate)
        parts = [np.bincount(regions.groups, np.array(p.counts) * p.row_weight, len(mix)) for p in plan.parts]
        synthetic = np.sum([np.zeros(len(mix)), *parts], axis=0)
        weight = real + synthetic
        value = {"mismatch": mismatch(weight, mix), "bias": generation_bias(synthetic, weight, mix, sizes)}
        return {"size": plan.size, "tilt": candidate.tilt, **value}

    return terms
