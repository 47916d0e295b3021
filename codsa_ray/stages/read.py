"""Read: DATA into the run's own rows, split by group and summed up per fold; knows no model."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Progress
from codsa_ray.errors import GroupError, InputError, SchemaError
from codsa_ray.folder import Folder
from codsa_ray.formats import BLOCK_ROWS, Fragment, Probe, fragments, picture_bytes, picture_names, probe, with_pictures
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.infer import MOST_CLASSES, infer, near, refuse
from codsa_ray.job import Job
from codsa_ray.layout import Layout
from codsa_ray.manifest import Manifest
from codsa_ray.picture_columns import Pictures, Seen
from codsa_ray.plugins import taking
from codsa_ray.rows import AWAY, FINAL, Rows
from codsa_ray.schema import Schema
from codsa_ray.split import EXACT_ROWS, Split, folds_for, split_exactly, split_units
from codsa_ray.stages.cluster import spread
from codsa_ray.stages.parts import Assign, Held, Normalise, Part, Targets, Written
from codsa_ray.stages.ranked import small_groups
from codsa_ray.values import is_picture

VERSION = 2
FEW_PARTS = 2
BINNED_ROWS = 2_000_000


def _probe() -> Callable[[Fragment], Probe]:
    return probe


def read(job: Job, out: Folder, progress: Progress) -> tuple[Rows, dict[str, Any]]:
    """Reads, groups, splits and sums up DATA.

    Returns:
        The run's rows, and the manifest: rows, set_aside, notices, parts, seconds.

    Raises:
        InputError, SchemaError, GroupError: see errors.py.
    """
    parts_of = [(fragment, False) for fragment in fragments(job.data)]
    parts_of += [(fragment, True) for fragment in (fragments(job.test) if job.test else ())]
    folder = out / "read"
    manifest = Manifest.of(folder, _depends(job, parts_of))
    stored = manifest.read()
    if stored:
        rows = Rows.from_json(folder, stored["rows_json"])
        _check_kinds(job, rows)
        return rows, {**stored, "reused": True}
    manifest.clear()
    folder.delete()
    probes = dict(spread([fragment for fragment, _ in parts_of], _probe, job.workers, here=len(parts_of) <= FEW_PARTS))
    types, notices = _types(job, [probes[i] for i in range(len(parts_of))])
    types, layout, cut = _pictured(job, types, [(fragment, test, probes[i]) for i, (fragment, test) in enumerate(parts_of)])
    rows, facts = _divide(job, folder, _parts(cut), types, layout, notices, manifest, progress)
    _check_kinds(job, rows)
    return rows, facts


def _check_kinds(job: Job, rows: Rows) -> None:
    """Plug-ins may change while the rows are kept, so this is no part of reading."""
    schema = rows.schema(FINAL)
    made = job.made(schema.kinds)
    for folder, plugins in (("learners", (made.learner,)), ("generators", made.generator)):
        for plugin in plugins:
            refuse(schema, plugin.needs.kinds, type(plugin).__name__, partial(taking, folder))  # type: ignore[union-attr]


def _depends(job: Job, found: list[tuple[Fragment, bool]]) -> dict[str, Any]:
    settings = {
        key: getattr(job, key)
        for key in (
            "target",
            "group",
            "region",
            "hide",
            "merge",
            "unit",
            "schema",
            "keep",
            "task",
            "folds",
            "seed",
            "smallest",
            "target_mix",
        )
    }
    # Named where they are used, so that runs without them are those of before.
    named = {**({"bins": job.bins} if job.bins else {}), **({"domain": job.home.to_json()} if job.home else {})}
    return {"version": VERSION, "data": [[fragment.identity, test] for fragment, test in found], **settings, **named}


def _types(job: Job, probes: list[Probe]) -> tuple[pa.Schema, list[str]]:
    data = probes[0]
    for other in probes[1:]:
        data = data.merge(other)
    if data.rows == 0:
        raise InputError("a table with rows", f"{Folder(job.data).shown} with none", "check the file")
    return data.types, list(data.notices)


def _pictured(
    job: Job, types: pa.Schema, found: list[tuple[Fragment, bool, Probe]]
) -> tuple[pa.Schema, Layout, list[tuple[Fragment, bool]]]:
    """The types with pictures for columns that name files, the layout of DATA, and fragments of as many pictures as a worker holds."""
    stated = _stated(job)
    found = [(replace(part, images=picture_names(part, types, stated)), test, probe) for part, test, probe in found]
    types = with_pictures(types, (name for part, _, _ in found for name in part.images))
    _check_columns(job, types)
    typical = picture_bytes(found[0][0], types)
    pieces = [(piece, test) for part, test, probe in found for piece in part.cut(probe, typical)]
    return types, Layout.of(found[0][0]), pieces


def _stated(job: Job) -> dict[str, Mapping[str, Any]]:
    """What --schema says of columns; what it says wrongly is told when the schema is inferred."""
    return {name: value for name, value in (job.schema or {}).items() if isinstance(value, Mapping)}


def _check_columns(job: Job, types: pa.Schema) -> None:
    for option, column in [
        ("--target", job.target),
        ("--unit", job.unit),
        ("--domain", job.domain),
        *(("--group", c) for c in job.group),
        *(("--hide", c) for c in job.hide),
    ]:
        if column is not None and column not in types.names:
            raise SchemaError(f"a column for {option}", repr(column), f"did you mean {near(column, types.names)}?")
        if column is not None and option != "--hide" and is_picture(types.field(column).type):
            raise SchemaError(f"a column of values for {option}", f"pictures in {column!r}", "name another column")


def _parts(found: list[tuple[Fragment, bool]]) -> list[Part]:
    rows = [fragment.rows or 0 for fragment, _ in found]
    firsts = np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(int)
    return [Part(fragment, f"{i:06d}.parquet", int(firsts[i]), rows[i], test) for i, (fragment, test) in enumerate(found)]


def _divide(
    job: Job,
    folder: Folder,
    parts: list[Part],
    types: pa.Schema,
    layout: Layout,
    notices: list[str],
    manifest: Manifest,
    progress: Progress,
) -> tuple[Rows, dict[str, Any]]:
    grouping, home, here = _grouping(job, parts, types), job.home, _few(parts)
    total = sum(part.rows for part in parts if not part.test)
    exact = total <= EXACT_ROWS or job.unit is not None
    pictures = Pictures.of(
        types, (name for name, value in (job.schema or {}).items() if isinstance(value, dict) and value.get("leave_out"))
    )
    work = Normalise(folder, types, grouping, job.target, job.unit, exact, job.task == "regression", pictures, home)
    written: dict[int, Written] = {}
    for index, result in spread(parts, lambda: work, job.workers, here=here):
        written[index] = result
        progress("read", len(written), 2 * len(parts))
    # A test set of its own makes no group: what training rows do not have, nothing can be learned of.
    training = [w for i, w in written.items() if not parts[i].test]
    counts = _count(training)
    if home:
        home.check(sum((w.domains for w in training), Counter[str]()))
    _check_labels(job, counts, sum(w.rows for w in training), sum(w.set_aside for w in training))
    groups = Groups.of(grouping, counts, dict(job.target_mix) if job.target_mix else None, job.smallest)
    split, folds = _split(job, folder, groups, parts, written, notices)
    # Of test rows too: what shares a unit with them would tell of them.
    units = np.unique(np.concatenate([w.units for w in written.values()])) if home and job.unit else None
    assign, held = Assign(folder, groups, split, job.unit, home, units), Held()
    for done, (_, found) in enumerate(_in_order(spread(parts, lambda: assign, job.workers, here=here), len(parts))):
        for one in found:
            held.add(one)
        progress("read", len(parts) + done + 1, 2 * len(parts))
    rows = _rows(job, folder, parts, groups, held, folds, layout)
    if home and not sum(rows.others):
        unit = f", or sharing a {job.unit!r} with it" if job.unit else ""
        got = f"none: {rows.left:,} in no group of the target domain{unit}"
        raise GroupError("rows of other domains to train on", got, "leave --domain out, or the column out of --unit")
    notices += [text for name in pictures.names for text in reduce(Seen.merge, (w.pictures[name] for w in written.values())).told(name)]
    notices += _notices(job, rows, held, training)
    set_aside = sum(w.set_aside for w in written.values())
    if set_aside:
        notices.append(f"{set_aside} rows without a value of {job.target!r} were set aside")
    tested, known = held.rows[FINAL] if job.test else 0, sum(rows.counts[-1])
    if tested > known:
        of = f" with {job.domain!r} {job.target_domain!r}" if home else ""
        notices.append(f"{tested - known} of {tested} test rows are in no group of the training rows{of} and were left out")
    if job.test and not known:
        raise InputError("test rows in the groups of the training rows", f"none in {Folder(job.test).shown}", "check --test")
    facts = manifest.write(
        rows_json=rows.to_json(),
        rows_in=sum(w.rows + w.set_aside for w in written.values()),
        rows_out=sum(w.rows for w in written.values()),
        set_aside=set_aside,
        notices=notices,
    )
    return rows, {**facts, "reused": False}


def _rows(job: Job, folder: Folder, parts: list[Part], groups: Groups, held: Held, folds: int, layout: Layout) -> Rows:
    names, counts = tuple(part.name for part in parts), held.by_fold(folds, len(groups.items))
    rows = Rows(folder, names, groups, tuple(_schemas(job, held, folds)), counts, job.seed, layout=layout)
    if job.home is None:
        return rows
    others = held.counts[AWAY]
    return replace(rows, domain=job.home, others=tuple(map(int, others)), left=held.rows[AWAY] - int(others.sum()))


def _notices(job: Job, rows: Rows, held: Held, training: list[Written]) -> list[str]:
    found = [f"column {column!r} is left out: {reason}" for column, reason in rows.schema(FINAL).left_out]
    if rows.domain is None:
        return found
    names = sum((w.domains for w in training), Counter[str]())
    own, others = names.pop(rows.domain.value), ", ".join(f"{name} {many:,}" for name, many in names.most_common())
    found.append(f"{own:,} rows with {job.domain!r} {job.target_domain!r} are split and drawn; rows trained on and never scored: {others}")
    if rows.left:
        shared = f", or share a {job.unit!r} with it," if job.unit else ""
        found.append(f"{rows.left:,} rows of other domains are in no group of the target domain{shared} and were left out")
    return found


def _grouping(job: Job, parts: list[Part], types: pa.Schema) -> Grouping:
    """As declared; bins of the target hold equally many of DATA's rows (of a sample of BINNED_ROWS where there are more)."""
    target = job.target if job.bins or job.task != "regression" else None
    merges = tuple(Grouping.parse_merge(text) for text in job.merge)
    grouping = Grouping(target, columns=job.group, predicates=job.region, merges=merges, bins=job.bins)
    if not job.bins:
        return grouping
    own = [part for part in parts if not part.test]
    kind = types.field(job.target).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SchemaError(f"a numeric target {job.target!r} for --bins", str(kind), "cast the column first")
    work = Targets(types, job.target, BINNED_ROWS / max(sum(part.rows for part in own), 1), job.seed, job.home)
    values = dict(spread(own, lambda: work, job.workers, here=_few(own)))
    return grouping.binned(np.concatenate([values[index] for index in range(len(own))]))


def _few(parts: list[Part]) -> bool:
    """Whether the driver reads them sooner than actors start; a compressed csv of any size is one part."""
    return len(parts) <= FEW_PARTS and max((part.rows for part in parts), default=0) <= BLOCK_ROWS


def _in_order(results: Iterator[tuple[int, Any]], total: int) -> Iterator[tuple[int, Any]]:
    waiting: dict[int, Any] = {}
    following = 0
    for index, result in results:
        waiting[index] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _count(written: Any) -> dict[tuple[Any, ...], int]:
    total: Counter[tuple[Any, ...]] = Counter()
    for part in written:
        total.update(dict(zip(part.cells, part.counts, strict=True)))
    return dict(total)


def _check_labels(job: Job, counts: dict[tuple[Any, ...], int], rows: int, set_aside: int) -> None:
    if rows == 0:
        raise SchemaError(f"values in the target {job.target!r}", f"{set_aside} rows, all null", "name another --target")
    if job.task != "classification":
        return
    labels = sorted({str(cell[0]) for cell in counts})
    if len(labels) < 2:
        raise SchemaError(f"two or more classes in {job.target!r}", f"one: {labels[0]!r}", "name another --target")
    if len(labels) > MOST_CLASSES:
        got = f"{len(labels)} distinct values"
        raise SchemaError(f"at most {MOST_CLASSES} classes in {job.target!r}", got, "name another --target, or give --task regression")


def _split(
    job: Job, folder: Folder, groups: Groups, parts: list[Part], written: dict[int, Written], notices: list[str]
) -> tuple[Split, int]:
    mine = [i for i in range(len(parts)) if not parts[i].test]
    total = sum(sum(written[i].counts) for i in mine)
    folds = folds_for(total, min(group.rows for group in groups.items), job.folds, notices)
    if written[mine[0]].codes is None:
        positions, group, notice = small_groups(folder, [parts[i].name for i in mine], groups, job.home, job.workers, _few(parts))
        notices += [notice] if notice else []
    else:
        index = {group: g for g, group in enumerate(groups.keys)}
        group = np.concatenate([np.array([index[cell] for cell in written[i].cells], dtype=np.int32)[written[i].codes] for i in mine])
        positions = np.concatenate([written[i].positions for i in mine])
    if job.unit:
        fold = _by_unit(job, groups, positions, group, np.concatenate([written[i].units for i in mine]), folds, notices)
    else:
        fold = split_exactly(positions, group, folds, job.seed, test=job.test is None)
    return Split(job.seed, folds, job.test is None, positions, fold), folds


def _by_unit(
    job: Job, groups: Groups, positions: np.ndarray, group: np.ndarray, units: np.ndarray, folds: int, notices: list[str]
) -> np.ndarray:
    fold, deviation = split_units(positions, group, units, folds, job.seed, test=job.test is None)
    wanted = max(folds, 2) + (job.test is None)
    if len(np.unique(fold)) < wanted:
        got = f"{len(np.unique(units))} of very different sizes" if len(np.unique(units)) >= wanted else str(len(np.unique(units)))
        raise GroupError(f"units of {job.unit!r} for {wanted} parts", got, "give fewer --folds, or a --test set of its own")
    lost = np.flatnonzero(np.bincount(group[fold >= 0], minlength=len(groups.items)) == 0)
    if len(lost):
        asked = f"each group's rows in units enough of {job.unit!r} to train and to test"
        raise GroupError(asked, f"{groups.items[lost[0]].name!r} all in test units", "merge the group, or give a --test set of its own")
    notices.append(f"rows of one {job.unit!r} stay together: a group's share of a part is off by at most {deviation:.1%} of its rows")
    return fold


def _schemas(job: Job, held: Held, folds: int) -> list[Schema]:
    # The domain is constant where the model will be used: learners that saw it would learn what they cannot use.
    domain = (job.domain,) if job.domain else ()
    hidden, groups = tuple(dict.fromkeys((*job.hide, *domain))), (*job.group, *domain)
    options: dict[str, Any] = {"task": job.task, "hidden": hidden, "group_columns": groups, "keep": job.keep}
    final = infer(held.without(FINAL), job.target, overrides=dict(job.schema or {}), **options)
    return [final.relearn(held.without(fold)) for fold in range(folds)] + [final]
