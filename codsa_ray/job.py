"""Job: what the user asked for, as plain values; knows nothing of how it is done."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codsa_ray import portfolio
from codsa_ray.contracts import TABLE_KINDS, Generator, Learner, Strata
from codsa_ray.contracts import Allocator as AllocatorProtocol
from codsa_ray.domain import Domain
from codsa_ray.errors import SettingError
from codsa_ray.filesystem import refuse_credentials
from codsa_ray.plugins import make, name_of, restore, settings_of
from codsa_ray.risk import task_of
from codsa_ray.verdict import CONFIDENCE


@dataclass(frozen=True)
class Job:
    """One run. Plug-ins are names (`NAME` or `NAME:setting=value`) or instances.

    Args:
        data: parquet, csv, jsonl, tar or pictures in folders; a file, a folder, a glob; local or any pyarrow filesystem address.
        target: the column to predict.
        group: columns that, crossed with the label, make the groups.
        region: predicates (SQL-like) that, crossed with the label, make the groups.
        hide: columns known for training rows only; groups may use them, learners may not.
        test: a test set of its own instead of 20 % of DATA.
        target_mix: group name -> weight; uniform by default.
        merge: 'COL:FROM=INTO', values that count as another.
        unit: a column whose rows are never split (patient, account).
        source: a related data set that generators may pretrain on.
        domain, target_domain: a column and its value where the model will be used: rows with it are held out, tested and drawn; the others
            train learners, and pretrain generators.
        schema: overrides of the inferred schema.
        keep: id-like columns to keep.
        generator, learner, allocator, strata: plug-ins; what the generators `default` and `auto` and the learner `default` stand for goes
            by the kinds of columns (portfolio.py); the allocator `auto` is balanced, with a domain target_mix: there sizes go by the rows,
            not by what is lacking.
        task: classification, regression or anomaly.
        loss: of a regression: squared, absolute or pinball:Q; "" is the task's own.
        bins: quantile bins of a regression's target that make groups, crossed with `group` and `region`; 0 leaves the target out.
        share: of each region's training rows, what generators learn from while the learner trains on the others; 1: both on all.
        draws: independent draws, and fits of a bag.
        folds: cross-validation folds; None chooses by size.
        repeats: cuts into folds on which the candidates still in the running are scored; None: one, or more where a group is thin.
        confidence: of the interval of the gain that has to lie above 0 before the verdict is `augment`, in [0, 1); at 0 any estimated
            gain is enough.
        prior: choices are made on losses shrunk towards what earlier data sets showed, not by these rows alone.
        trials: synthetic candidates.
        budget: the same as a word ("60"), or seconds of search ("300s", then not reproducible); "" leaves it to `trials`.
        out: run folder.
        seed: of everything random.
        address: a Ray address; None starts an embedded Ray.
        workers, gpus: how many actors at a time (0: as many as cores), and GPUs a fit may use.
        least_gpus: a spread fit begins, and goes on when nodes are lost, with so many GPUs at least; 0: with no fewer than `gpus`.
        max_hours: after so many the run stops; 0 never does.
        rows: real rows may appear in the report.
        force: write the best plan whatever the verdict.
        smallest: rows under which a group is refused.
    """

    data: str
    target: str
    group: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    test: str | None = None
    target_mix: Mapping[str, float] | None = None
    merge: tuple[str, ...] = ()
    unit: str | None = None
    source: str | None = None
    domain: str | None = None
    target_domain: str | None = None
    schema: Mapping[str, Any] | None = None
    keep: tuple[str, ...] = ()
    generator: tuple[str | Generator, ...] = (portfolio.DEFAULT,)
    learner: str | Learner = portfolio.DEFAULT
    allocator: str | AllocatorProtocol = "auto"
    strata: str | Strata = "whole"
    task: str = "classification"
    loss: str = ""
    bins: int = 0
    share: tuple[float, ...] = (1.0,)
    draws: int = 5
    folds: int | None = None
    repeats: int | None = None
    prior: bool = False
    confidence: float = CONFIDENCE
    trials: int = 24
    budget: str = ""
    out: str = "codsa-run"
    seed: int = 0
    address: str | None = None
    workers: int = 0
    gpus: float = 0.0
    least_gpus: int = 0
    max_hours: float = 0.0
    rows: bool = True
    force: bool = False
    smallest: int = 4

    def __post_init__(self) -> None:
        for address in filter(None, (self.data, self.test, self.source, self.out)):
            refuse_credentials(address)
        if self.budget.isdecimal():
            object.__setattr__(self, "trials", int(self.budget))
        elif self.budget and not self.seconds:
            raise SettingError("--budget as a number of trials, or seconds with an s", repr(self.budget), "write for instance 60 or 300s")
        for name, least in (("draws", 1), ("trials", 0), ("workers", 0), ("least_gpus", 0), ("seed", 0), ("smallest", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"--{name.replace('_', '-')} of at least {least}", str(getattr(self, name)), "give a larger number")
        if not 0 <= self.confidence < 1:
            raise SettingError("--confidence of 0 or more, under 1", str(self.confidence), "leave it out, or write for instance 0.9")
        if not 0 <= self.max_hours < float("inf"):
            raise SettingError("--max-hours of 0 or more", str(self.max_hours), "leave it out to run to the end")
        if self.repeats is not None and not 1 <= self.repeats <= 20:
            raise SettingError("--repeats between 1 and 20", str(self.repeats), "leave it out to choose by size")
        if self.folds is not None and not 1 <= self.folds <= 20:
            raise SettingError("--folds between 1 (one 20 % hold-out) and 20", str(self.folds), "leave it out to choose by size")
        if self.task not in ("classification", "regression", "anomaly"):
            raise SettingError("--task classification, regression or anomaly", self.task, "choose one")
        task_of(self.task, loss=self.loss)
        if self.bins and (self.task != "regression" or self.bins < 2):
            raise SettingError("--bins of at least 2, with --task regression", f"{self.bins} with {self.task}", "leave it out")
        self._check_domain()
        if not self.share or not all(0 < share <= 1 for share in self.share) or len(set(self.share)) < len(self.share):
            raise SettingError("--share above 0 and up to 1, each once", str(self.share), "write for instance --share 1 --share 0.5")

    def _check_domain(self) -> None:
        if (self.domain is None) != (self.target_domain is None):
            got = "--domain alone" if self.domain else "--target-domain alone"
            raise SettingError("--domain COL and --target-domain VALUE together", got, "give both or none")
        if self.domain is None:
            return
        if self.domain in (self.target, self.unit, *self.group):
            raise SettingError("a --domain that is no target, unit or group column", repr(self.domain), "name another column")
        for option, given in (("--source", self.source), ("--prior", self.prior)):
            if given:
                raise SettingError(f"--domain without {option}", "both", f"leave {option} out: it knows nothing of domains")

    @property
    def home(self) -> Domain | None:
        """The target domain, or None where all rows are of it."""
        return Domain(self.domain, self.target_domain) if self.domain and self.target_domain is not None else None

    @property
    def seconds(self) -> float:
        """After so many the search stops asking for synthetic candidates; 0 where `trials` says when."""
        number = self.budget.removesuffix("s")
        return float(number) if self.budget.endswith("s") and re.fullmatch(r"\d+(\.\d+)?", number) else 0.0

    def made(self, kinds: frozenset[str] = TABLE_KINDS) -> "Job":
        """The same job with every plug-in name replaced by its instance.

        Args:
            kinds: of DATA's columns, by which `default` and `auto` choose.

        Raises:
            SettingError: a plug-in or a setting of it does not exist, or does not do the task.
        """
        parts = (portfolio.generators(g, kinds, self.task) if isinstance(g, str) else (g,) for g in self.generator)
        generators = tuple(make("generators", g) if isinstance(g, str) else g for g in dict.fromkeys(g for part in parts for g in part))
        learner = self.learner
        if isinstance(learner, str):
            learner = make("learners", portfolio.learner(learner, kinds, self.task))
        named = ("target_mix" if self.domain else "balanced") if self.allocator == "auto" else self.allocator
        allocator = make("allocators", named) if isinstance(named, str) else named
        strata = make("strata", self.strata) if isinstance(self.strata, str) else self.strata
        for plugin in (learner, *generators):
            if self.task not in plugin.needs.tasks:
                raise SettingError(f"plug-ins that do {self.task}", name_of(plugin), "choose another or write one")
        return replace(self, generator=generators, learner=learner, allocator=allocator, strata=strata)

    def to_json(self) -> dict[str, Any]:
        """Plain data for job.json; plug-ins as name and settings."""
        made = self.made()
        value = {key: getattr(made, key) for key in made.__dataclass_fields__}
        for key in ("learner", "allocator", "strata"):
            value[key] = plain(value[key])
        value["generator"] = [plain(g) for g in made.generator]
        return value


def restored(value: dict[str, Any]) -> Job:
    """The job of a run's job.json; plug-ins are looked up among the package's own.

    Raises:
        SettingError: the run used a plug-in that is not the package's.
    """
    tuples = ("group", "region", "hide", "merge", "keep", "share")
    homes = (("learner", "learners"), ("allocator", "allocators"), ("strata", "strata"))
    plugins = {key: restore(folder, **value[key]) for key, folder in homes}
    generators = tuple(restore("generators", **generator) for generator in value["generator"])
    return Job(**{**value, **{key: tuple(value[key]) for key in tuples if key in value}, **plugins, "generator": generators})


def plain(plugin: Any) -> dict[str, Any]:
    """A plug-in as name and settings."""
    return {"name": name_of(plugin), "settings": settings_of(plugin)}
