"""One Ray per process: connecting, and work spread over Ray Data; knows no stage."""

import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from codsa_ray.contracts import Progress
from codsa_ray.errors import ClusterError, CodsaError, InternalError
from codsa_ray.heartbeat import log
from codsa_ray.stages.metrics import retried

# Ray reads these when it is imported: they must be in the environment first.
BEFORE_IMPORT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its C++ side writes a line to every driver's terminal for each restartable actor (ray-project/ray#53727).
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Where two tasks fail, the first one's error is raised; the other's would be printed after it.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # What a node ends because its memory runs low, Ray gives out again without end: many times, for it may be another's fault, each pause
    # twice the one before.
    "RAY_task_oom_retries": "8",
}
EMBEDDED = {
    "RAY_AUTH_MODE": "disabled",
    # Workers that have ended their task are kept as many as there are free CPUs, half a gigabyte of libraries in each: none is kept here.
    "RAY_num_workers_soft_limit": "0",
}
# Logical CPUs beyond the cores: pipelines of actors and tasks must never wait for each other's last CPU.
EXTRA_CPUS = 2
RETRIES = 2
IN_FLIGHT = 2
ACTOR = 0.9
"""CPUs of an actor that uses one core: what is left over is for Ray's own tasks."""
OWN = "codsa_own"
"""A resource of the Ray that a process starts for itself, which never grows; no task asks for it."""


def connect(address: str | None = None, workers: int | None = None) -> None:
    """Starts an embedded Ray, or attaches to `address`; does nothing when this process is connected already.

    Raises:
        ClusterError: the address cannot be reached.
    """
    for key, value in {**BEFORE_IMPORT, **({} if address else EMBEDDED)}.items():
        os.environ.setdefault(key, value)
    if address:
        _reachable(address)
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    try:
        with _unheard():
            if address:
                ray.init(address=address, **quiet)
            else:
                cpus = (workers or os.cpu_count() or 1) + EXTRA_CPUS
                ray.init(address="local", num_cpus=cpus, resources={OWN: 1}, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            "a Ray cluster", f"{address or 'local'}: {str(error).splitlines()[0]}", "check --address or leave it out"
        ) from error
    _quiet_data()


@contextmanager
def _unheard() -> Iterator[None]:
    """Standard error closed while Ray starts: its C++ side announces its log level there; what goes wrong is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _reachable(address: str) -> None:
    """Fails in seconds where `ray.init` would try for minutes."""
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=5):
            return
    except OSError as error:
        raise ClusterError("a Ray cluster", f"nothing answering at {address}", "check --address or leave it out") from error


def _quiet_data() -> None:
    import logging

    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    # What a trial raises is raised again when the search ends, and what ends a worker is an item that `spread` tries again and then names.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _Call:
    """Runs `work` on one item of a list that Ray holds once."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], items: Any) -> None:
        import ray

        if ray.get_runtime_context().was_current_actor_reconstructed:
            retried("worker")
        self.work, self.items = make(), ray.get(items[0])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray.cloudpickle as cloudpickle

        index = int(row["item"])
        try:
            return {"index": index, "result": cloudpickle.dumps(self.work(self.items[index]))}
        except (Exception, SystemExit) as error:
            # As values: inside Ray's own error ours would lose their type and exit code, and what Ray ignores is then a dead worker only.
            return {"index": index, "result": cloudpickle.dumps(plain_error(error))}


def plain_error(error: BaseException) -> CodsaError:
    """One of ours as it is, out of Ray's wrapping; anything else as an InternalError of one line."""
    error = getattr(error, "cause", None) or error
    if isinstance(error, CodsaError):
        return error
    said = (str(error).strip().splitlines() or [""])[-1]
    return InternalError(f"a worker failed: {type(error).__name__}: {said}; run again when mended, finished parts are kept")


def spread(
    items: Sequence[Any],
    make: Callable[[], Callable[[Any], Any]],
    workers: int,
    here: bool = False,
    pieces: Callable[[Any], Sequence[Any]] | None = None,
    **resources: Any,
) -> Iterator[tuple[int, Any]]:
    """Runs `make()` once per actor and its result on every item, through Ray Data, as results come.

    Items whose worker died are tried again one to a worker, so that one that kills it each time takes no other down with it.

    Args:
        items: what to work on; small (descriptions, not rows). An error names them by `str`.
        make: builds the work inside an actor.
        workers: actors at most.
        here: run in this process: what takes less than the seconds that actors need to start.
        pieces: of an item that ended its worker each time: what it consists of, each worked on alone to name the one at fault.
        resources: Ray resources of one actor (num_cpus, num_gpus, memory).

    Yields:
        (index of the item, result), in no order.

    Raises:
        CodsaError: what the work raised. InternalError: it failed otherwise, or its worker died each time.
    """
    if here:
        work = make()
        yield from ((index, work(item)) for index, item in enumerate(items))
        return
    left = dict(enumerate(items))
    for in_flight in (IN_FLIGHT, 1):
        if in_flight == 1 and left:
            retried("item", len(left))
            log("retried", items=[str(item) for item in left.values()])
        for index, result in _spread(dict(left), make, workers, in_flight, resources) if left else ():
            if left.pop(index, None) is not None:
                yield index, result
    if left:
        first = next(iter(left.values()))
        fault = _fault(pieces(first), make, workers, resources) if pieces else ""
        others = f" and of {len(left) - 1} others" if len(left) > 1 else ""
        said = f"a worker died {(3 if fault else 2) * (1 + RETRIES)} times of {fault}{first}{others}"
        raise InternalError(f"{said}; run again when mended, finished parts are kept")


def _fault(pieces: Sequence[Any], make: Callable[[], Callable[[Any], Any]], workers: int, resources: dict[str, Any]) -> str:
    """The first piece that ends its worker each time, as "PIECE in "; "" where each alone comes back."""
    left = dict(enumerate(pieces))
    for index, _ in _spread(dict(left), make, workers, 1, resources) if len(left) > 1 else ():
        left.pop(index, None)
    return f"{next(iter(left.values()))} in " if left else ""


def _spread(
    items: dict[int, Any], make: Callable[[], Callable[[Any], Any]], workers: int, in_flight: int, resources: dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """Those results that come back; what is missing then, killed its worker more than RETRIES times."""
    import ray
    import ray.cloudpickle as cloudpickle

    # A list around the reference keeps Ray from resolving it into every constructor call's arguments.
    indices = ray.data.from_items(list(items), override_num_blocks=len(items))
    asked = {"num_cpus": ACTOR, **resources}
    # Larger ones are fewer: side by side they take no more CPUs than so many small ones.
    workers = max(1, int(workers / max(asked["num_cpus"] / ACTOR, 1.0)))
    with warnings.catch_warnings():
        # Ray 2.60 announces named parameters instead of these two, but has no names for them yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = indices.map(
            _Call,  # type: ignore[arg-type]
            fn_constructor_args=[make, [ray.put(items)]],
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(items)), max_tasks_in_flight_per_actor=in_flight),
            # A node that goes takes its actors along however often; what ends is the tries of an item.
            max_restarts=-1,
            max_task_retries=RETRIES,
            **asked,
        )
    dataset.context.max_errored_blocks = -1
    try:
        for row in dataset.iter_rows():
            result = cloudpickle.loads(row["result"])
            if isinstance(result, CodsaError):
                raise result
            yield int(row["index"]), result
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise plain_error(error) from error


def lacking(num_cpus: float = 0, num_gpus: float = 0, memory: float = 0, accelerator_type: str | None = None) -> str:
    """What a task wants of a node, for people, where no node has all of it; else ""."""
    import ray

    wanted = {
        "CPU": num_cpus,
        "GPU": num_gpus,
        "memory": memory,
        **({f"accelerator_type:{accelerator_type}": 0.001} if accelerator_type else {}),
    }
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= many for name, many in wanted.items()) for node in nodes):
        return ""
    parts = (
        f"{num_cpus:g} CPUs" * bool(num_cpus),
        f"{num_gpus:g} GPUs" * bool(num_gpus),
        f"{memory / 2**30:.1f} GiB" * bool(memory),
        accelerator_type,
    )
    return ", ".join(filter(None, parts))


def room(stage: str, progress: Progress, **asked: Any) -> None:
    """Says so where a stage has to wait for a node.

    Args:
        asked: of one task, see `lacking`.

    Raises:
        ClusterError: this process's own Ray has not the resources, and never will.
    """
    lacks = lacking(**asked)
    if lacks and OWN in resources():
        raise ClusterError(f"a machine with {lacks} to {stage}", "less", "ask for less, or give the --address of a cluster that has it")
    if lacks:
        progress(stage, 0, 0, f"{stage:<11} waits for a node with {lacks}")


def workers_here(address: str | None) -> int:
    """As many as the connected Ray has CPUs now.

    Raises:
        ClusterError: it has none, as one has whose nodes come only when there is work.
    """
    # Ray names no resource that no node has.
    if workers := int(resources().get("CPU", 0)) - (0 if address else EXTRA_CPUS):
        return workers
    raise ClusterError(
        "a cluster with CPUs, or --workers", f"no CPU at {address} yet", "give --workers N: for so many side by side nodes come"
    )


def resources() -> dict[str, float]:
    """CPUs, GPUs and nodes of the connected cluster."""
    import ray

    return {**ray.cluster_resources(), "nodes": float(sum(node["Alive"] for node in ray.nodes()))}
