"""The command line: parses, calls the pipeline, turns errors into one line and an exit code; knows no method."""

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from codsa_ray.errors import CodsaError, InputError, OutOfTime, SettingError, UserError
from codsa_ray.heartbeat import LOG
from codsa_ray.job import Job
from codsa_ray.plugins import names

DESCRIPTION = "Does synthetic data help on your imbalanced data, where, how much, from which generator - or is re-weighting enough?"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error here."""

    def error(self, message: str) -> Any:
        raise SettingError("options as `codsa --help` lists them", message, f"see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """All commands and options; each default is Job's."""
    top = _Parser(prog="codsa", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _augment(commands.add_parser("augment", help="the whole pass: read, fit, synthesize, search, decide, apply, report"))
    synthesize = commands.add_parser("synthesize", help="draw more rows of a region from a finished run's generator")
    synthesize.add_argument("run", metavar="RUN", help="run folder of a finished `codsa augment`")
    synthesize.add_argument("--region", required=True, metavar="NAME", help="a region as the report names it, e.g. 'income=>50K'")
    synthesize.add_argument("--rows", required=True, type=int, metavar="N", help="how many, exactly")
    synthesize.add_argument("--out", required=True, metavar="DIR", help="new folder for the drawn rows")
    synthesize.add_argument(
        "--generator", metavar="NAME", help="which of the run's generators (default: that of the rows it wrote, or its first)"
    )
    synthesize.add_argument("--seed", type=int, metavar="N", help="another gives other rows (default: rows that the run has not drawn)")
    _ray_options(synthesize)
    scaling = commands.add_parser("scaling", help="what more synthetic rows would bring: a finished run's plan with more and more of them")
    scaling.add_argument("run", metavar="RUN", help="run folder of a finished `codsa augment`")
    scaling.add_argument("--generator", metavar="NAME", help="which of the run's (default: that of its best synthetic candidate)")
    _ray_options(scaling)
    inspect = commands.add_parser("inspect", help="what a finished run's generators learned, region by region: fidelity, coverage, copies")
    inspect.add_argument("run", metavar="RUN", help="run folder of a finished `codsa augment`")
    inspect.add_argument("--generator", metavar="NAME", help="which of the run's (default: all)")
    _ray_options(inspect)
    train = commands.add_parser("train", help="boosted trees on a finished run's augmented/, from disk or over several workers: RUN/model")
    train.add_argument("run", metavar="RUN", help="run folder of a finished `codsa augment` with the learner boosted")
    train.add_argument("--address", metavar="ADDR", help="a Ray address; default: an embedded Ray, with several workers alone")
    train.add_argument("--workers", type=int, default=1, metavar="N", help="workers that share each fit (default 1: this process)")
    report = commands.add_parser("report", help="write report.json and report.html again from what a finished run stored; fits nothing")
    report.add_argument("run", metavar="RUN", help="run folder of a finished `codsa augment`")
    status = commands.add_parser("status", help="how far a run is, from another terminal")
    status.add_argument("run", metavar="RUN", help="the run folder")
    doctor = commands.add_parser("doctor", help="what this machine has (versions, cores, GPUs, Ray, filesystems) and what is wrong with it")
    doctor.add_argument("--address", metavar="ADDR", help="a Ray address to try")
    doctor.add_argument("--path", metavar="ADDR", action="append", default=[], help="a folder or object store address to try (repeat)")
    for command in (commands.choices or {}).values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def _ray_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--address", metavar="ADDR", help="a Ray address (auto, HOST:PORT, ray://HOST:PORT); default: an embedded Ray")
    command.add_argument("--workers", type=int, metavar="N", help="fits, draws and trials side by side (default: all cores)")
    command.add_argument("--gpus", type=float, metavar="N", help="GPUs a fit may use; more than 1 spreads it over workers (default 0)")


def _augment(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", help="parquet, csv, jsonl, tar or pictures in folders: a file, a folder, a glob; local, s3:// or gs://")
    add("--target", required=True, metavar="COL", help="the column to predict")
    add("--group", action="append", metavar="COL", help="groups are label x these columns (repeat)")
    add("--region", action="append", metavar="EXPR", help="groups are label x the first of these that holds, e.g. 'age >= 60' (repeat)")
    add("--hide", action="append", metavar="COL", help="known for training rows only: groups may use it, learners may not (repeat)")
    add("--test", metavar="DATA", help="a test set of its own (default: 20 %% of DATA)")
    add("--target-mix", metavar="FILE", help="JSON: group name -> weight; what `balanced` means everywhere (default: all the same)")
    add(
        "--merge",
        action="append",
        metavar="COL:FROM=INTO",
        help="count one value of the target or a group column as another, for groups too small (repeat)",
    )
    add("--unit", metavar="COL", help="rows with the same value here (one patient, one account) are never split")
    add("--source", metavar="DATA", help="a related data set for generators that pretrain")
    add("--domain", metavar="COL", help="a column that tells domains apart (site, cohort, year); rows of all of them are trained on")
    add("--target-domain", metavar="VALUE", help="its value where the model will be used: only such rows are held out, tested and drawn")
    add("--schema", metavar="FILE", help="JSON: overrides of the inferred schema, and constraints that drawn rows keep")
    add("--keep", action="append", metavar="COL", help="keep a column that looks like an id (repeat)")
    add(
        "--generator",
        action="append",
        metavar="NAME",
        help=f"auto, {', '.join(names('generators'))}; NAME:setting=value (repeat; default: by the kinds of columns)",
    )
    add(
        "--learner",
        metavar="NAME",
        help=f"{', '.join(names('learners'))}; sklearn:IMPORT.PATH for any scikit-learn classifier; NAME:setting=value "
        "(default: by the kinds of columns, boosted for tables)",
    )
    _search_options(command)
    add("--out", metavar="DIR", help="run folder, local or s3:// gs:// (default: codsa-run)")
    add("--seed", type=int, metavar="N", help="of everything random (default 0)")
    _ray_options(command)
    add("--least-gpus", type=int, metavar="N", help="a spread fit begins, and goes on, with so many GPUs at least (default: all --gpus)")
    add("--no-rows", action="store_true", help="leave real rows out of the report")
    add("--force", action="store_true", help="write the best synthetic plan whatever the verdict")
    add(
        "--max-hours",
        type=float,
        metavar="H",
        help="stop after so many hours (exit 3); the same command goes on",
    )
    add("--log", metavar="FILE", help="append a line of JSON a stage, fit, block and trial ('-': standard error)")
    add("--mlflow", metavar="URI", help="log the finished run to an MLflow server or store (needs the extra mlflow)")
    add("--until", metavar="STAGE", help="stop after read, fit, synthesize or search; the same command without it goes on")
    add("--dry-run", action="store_true", help="print schema, groups, candidates and cost; write nothing")


def _search_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--allocator", metavar="NAME", help=f"how synthetic rows are shared out: {', '.join(names('allocators'))} (default: auto)")
    add("--strata", metavar="NAME", help=f"how groups are cut further: {', '.join(names('strata'))} (default: whole)")
    add("--task", choices=("classification", "regression", "anomaly"), help="what COL is (default: classification)")
    add("--loss", metavar="NAME", help="of a regression: squared, absolute or pinball:Q (default: squared)")
    add("--bins", type=int, metavar="N", help="of a regression: N bins of COL with the same number of rows make groups (default: none)")
    add(
        "--share",
        type=float,
        action="append",
        metavar="R",
        help="share of each region for generators to learn from; learners train on the rest and drawn rows (repeat; default 1: all)",
    )
    add("--draws", type=int, metavar="D", help="most independent draws, and fits of the bags they are held against (default 5)")
    add(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validation folds; 1 is one 20 %% hold-out (default: 5 under 20,000 rows, 3 under 200,000, else 1)",
    )
    search = command.add_mutually_exclusive_group()
    search.add_argument("--trials", type=int, metavar="N", help="synthetic candidates to try; those without are always tried (default 24)")
    search.add_argument("--budget", metavar="B", help="the same as --trials, or seconds as in 300s: then not reproducible")
    add(
        "--repeats", type=int, metavar="R", help="cuts into folds for what is still in the running (default: 1, or 3 where a group is thin)"
    )
    add(
        "--confidence",
        type=float,
        metavar="P",
        help="how sure the gain of synthesis must be before the verdict is augment (default 0.95; 0: any estimated gain)",
    )
    add("--prior", action="store_true", help="choose by losses shrunk towards what earlier data sets showed (see docs/options.md)")


def _json_file(option: str, path: str | None) -> Any:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise InputError(f"a JSON file for {option}", f"{path}: {error}", "check the file") from error


def job_of(options: argparse.Namespace) -> Job:
    """The job that the options ask for; what was not given keeps Job's default."""
    many = ("group", "region", "hide", "merge", "keep", "generator", "share")
    one = (
        "data",
        "target",
        "test",
        "unit",
        "source",
        "domain",
        "target_domain",
        "learner",
        "allocator",
        "strata",
        "task",
        "loss",
        "bins",
        "draws",
        "folds",
        "repeats",
        "trials",
        "budget",
        "out",
        "seed",
        "address",
        "workers",
        "gpus",
        "least_gpus",
        "max_hours",
        "confidence",
    )
    given: dict[str, Any] = {name: getattr(options, name) for name in one if getattr(options, name) is not None}
    given |= {name: tuple(getattr(options, name)) for name in many if getattr(options, name)}
    mix, schema = _json_file("--target-mix", options.target_mix), _json_file("--schema", options.schema)
    for option, value in (("--target-mix", mix), ("--schema", schema)):
        if value is not None and not isinstance(value, dict):
            raise InputError(f"a JSON object in the {option} file", type(value).__name__, "see docs/options.md")
    return Job(**given, target_mix=mix, schema=schema, rows=not options.no_rows, prior=options.prior, force=options.force)


def _augmented(options: argparse.Namespace, console: Any) -> None:
    from codsa_ray import pipeline

    job = job_of(options)
    if options.dry_run:
        from codsa_ray.estimate import dry_run

        print(dry_run(job, console.progress))
        return
    with _logged(options.log):
        report = pipeline.run_until(job, options.until or pipeline.STAGES[-1], console.progress)
    if report is not None:
        console.verdict(report)
        if options.mlflow:
            from codsa_ray.tracking import track

            print(f"mlflow     {track(report.folder, options.mlflow)}")


@contextmanager
def _logged(file: str | None) -> Iterator[None]:
    """Log lines as they are, to a file or to standard error; nowhere without one."""
    if file is None:
        yield
        return
    handler = logging.StreamHandler() if file == "-" else logging.FileHandler(file, encoding="utf-8")
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(before)
        LOG.removeHandler(handler)
        handler.close()


def _synthesized(options: argparse.Namespace, console: Any) -> None:
    from codsa_ray.more import synthesize_more

    print(
        synthesize_more(
            options.run,
            options.region,
            options.rows,
            options.out,
            options.generator,
            options.seed,
            options.address,
            options.workers,
            options.gpus or 0.0,
            console.progress,
        )
    )


def _scaled(options: argparse.Namespace, console: Any) -> None:
    from codsa_ray.scale import scaling

    found = scaling(options.run, options.generator, options.address, options.workers or 0, options.gpus or 0.0, console.progress)
    print("\n".join(found["sentences"]))


def _inspected(options: argparse.Namespace, console: Any) -> None:
    from codsa_ray.folder import Folder
    from codsa_ray.inspection import PAGE, inspect_run
    from codsa_ray.report.inspection import lines as printed

    found = inspect_run(options.run, options.generator, options.address, options.workers or 0, options.gpus or 0.0, console.progress)
    print("\n".join([*printed(found), *found["sentences"], *found["notices"], "", f"page       {(Folder(options.run) / PAGE).shown}"]))


def _trained(options: argparse.Namespace, console: Any) -> None:
    from codsa_ray.training import train_run

    found = train_run(options.run, options.address, options.workers, console.progress)
    fits = f"{found['fits']} fit{'s' if found['fits'] > 1 else ''}"
    print(f"model      {found['model']}: {found['candidate']}, {fits} of {found['rows']:,} rows")
    print(f"test       balanced loss {found['test_loss']:.4f} on {found['test_rows']:,} rows")


def _command(options: argparse.Namespace) -> int:
    # Ray and torch take seconds to import: a wrong option should not.
    from codsa_ray.console import Console

    console = Console()
    if options.command == "doctor":
        from codsa_ray.doctor import examine

        lines, healthy = examine(options.address, options.path)
        print("\n".join(lines))
        return 0 if healthy else 1
    if options.command == "status":
        from codsa_ray.status import status

        print("\n".join(status(options.run)))
    elif options.command == "report":
        from codsa_ray import pipeline

        console.verdict(pipeline.rewrite_report(options.run))
    else:
        passes = {"augment": _augmented, "synthesize": _synthesized, "scaling": _scaled, "inspect": _inspected, "train": _trained}
        passes[options.command](options, console)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 (ours), 2 (the user's to put right), 3 (--max-hours are over)."""
    debug = "--debug" in (arguments if arguments is not None else sys.argv)
    try:
        return _command(parser().parse_args(arguments))
    except CodsaError as error:
        if debug:
            traceback.print_exc()
        kind = "error: " if isinstance(error, UserError) else "" if isinstance(error, OutOfTime) else "internal error: "
        print(f"codsa: {kind}{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("codsa: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.close(sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(
            f"codsa: internal error: {error.strerror or error}: {error.filename or ''}; run again when mended, finished parts are kept",
            file=sys.stderr,
        )
        return 1
    except Exception as error:  # the last line of defence: one line unless asked for more
        if debug:
            traceback.print_exc()
        print(f"codsa: internal error: {type(error).__name__}: {' '.join(str(error).split())}; --debug shows where", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
