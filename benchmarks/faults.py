"""The faults of `make chaos`: what is done to a run, at which moment, and the same command again until it ends; compares nothing."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PLACE = Path("runs/chaos")
# A stage has begun when this is there.
STAGES = {
    "read": "codsa.json",
    "fit": "read/manifest.json",
    "synthesize": "fit/current.json",
    "search": "search/*/evidence.json",
    "apply": "verdict.json",
    "judge": "apply/manifest.json",
}
# So many that pools are beyond what is drawn in the driver.
DRAWS = 10
MOST, PATIENCE = 6, 300.0
# What Ray keeps for itself; names may be cut after 15 characters.
RAYS_OWN = ("ray::IDLE", "ray::_StatsActo", "ray::datasets_s", "ray::_Autoscali", "ray::Autoscalin", "ray::ActorLocat")
FULL = """mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
out=$2 kept=$3; shift 3
"$@"; code=$?
cp -a "$out/." "$kept"; exit $code"""


def command(out: Path, *more: str) -> list[str]:
    """The job."""
    numbers = ["--draws", str(DRAWS), "--trials", "2", "--folds", "2", "--repeats", "1", "--workers", "2", "--learner", "logistic"]
    data = ["augment", str(PLACE / "data.parquet"), "--target", "target", "--out", str(out)]
    return [sys.executable, "-m", "codsa_ray.cli", *data, "--generator", "bootstrap:jitter=0.1", *numbers, "--force", *more]


def poisoned(out: Path) -> list[str]:
    """The same with the generator of benchmarks/poisoned.py."""
    return [sys.executable, "-m", "benchmarks.chaos", "poisoned", str(out)]


def start(words: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@dataclass
class Attempt:
    """One time that the command was given."""

    code: int
    seconds: float
    said: str


@dataclass
class Fault:
    """One fault and what came of it.

    Args:
        number: of the fault: its seed.
        kind, stage: what was done, and when: after the stage had begun. before: the stage that the run itself named then.
        attempts: commands until code 0.
        what: in words.
        lost, doubled: rows of `augmented/` too few and too many. differ: files that are not those of the undisturbed run.
        whole: seconds of the undisturbed run that was timed last.
    """

    number: int
    kind: str
    stage: str
    before: str = ""
    what: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    differ: list[str] = field(default_factory=list)
    whole: float = 0.0


def working(parent: psutil.Process) -> list[psutil.Process]:
    """Of its processes those of Ray's workers that hold a task or an actor, Ray's own left out."""
    found = []
    for child in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name().startswith("ray::") and not child.name().startswith(RAYS_OWN) and not child.name().endswith("Agent"):
                found.append(child)
    return found


def begun(out: Path, stage: str) -> bool:
    """Whether a stage has begun."""
    return any(out.glob(STAGES[stage]))


@dataclass
class Driver:
    """A command under way, to which a fault is done."""

    process: subprocess.Popen[str]
    out: Path
    fault: Fault
    dice: random.Random
    seen: list[psutil.Process] = field(default_factory=list)

    def workers(self) -> list[psutil.Process]:
        """Ray's workers that hold a task or an actor of the job."""
        return working(psutil.Process(self.process.pid))

    def until(self, stage: str, span: float) -> bool:
        """Waits for a random moment of the stage; False when the run ended before."""
        while not begun(self.out, stage):
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        time.sleep(self.dice.random() * span)
        if self.process.poll() is not None:
            return False
        self.fault.before = named(self.out)
        self.seen = psutil.Process(self.process.pid).children(recursive=True)
        return True


def named(out: Path) -> str:
    """The stage that the run itself says it is at."""
    try:
        return str(json.loads((out / "progress.json").read_text())["at"].get("stage", "read"))
    except (OSError, ValueError, KeyError):
        return ""


# What is done to a run. Each takes a driver at its moment.


def kill_driver(driver: Driver) -> None:
    driver.process.kill()
    driver.fault.what = "kill -9 of the driver"


def move_clock(driver: Driver) -> None:
    """Kills, then moves every time that is stored: of files, of the data, and inside the progress file."""
    driver.process.kill()
    driver.process.wait()
    shift = driver.dice.choice([-1, 1]) * driver.dice.uniform(1, 10) * 365 * 86400
    for file in [*driver.out.rglob("*"), PLACE / "data.parquet"]:
        if file.is_file() and not file.is_symlink():
            os.utime(file, (time.time() + shift * driver.dice.random(),) * 2)
    progress = driver.out / "progress.json"
    if progress.exists():
        value = json.loads(progress.read_text())
        progress.write_text(json.dumps({**value, "time": value["time"] + shift}))
    driver.fault.what = f"kill -9 of the driver, then every stored time up to {shift / 86400 / 365:+.1f} years off"


def kill_worker(driver: Driver) -> None:
    driver.fault.what = "no worker to kill any more"
    if worker := caught(driver):
        with suppress(psutil.NoSuchProcess):
            driver.fault.what = f"kill -9 of {worker.name()}"
            worker.kill()


def stop_worker(driver: Driver) -> None:
    seconds = driver.dice.uniform(2, 8)
    driver.fault.what = "no worker to stop any more"
    if worker := caught(driver):
        with suppress(psutil.NoSuchProcess):
            driver.fault.what = f"SIGSTOP of {worker.name()} for {seconds:.1f} s"
            worker.suspend()
            time.sleep(seconds)
            worker.resume()


def caught(driver: Driver) -> psutil.Process | None:
    """One of the job's workers, as soon as there is one; None when the run ends before, or after 20 seconds."""
    until = time.monotonic() + 20
    while driver.process.poll() is None and time.monotonic() < until:
        with suppress(psutil.NoSuchProcess, IndexError):
            return driver.dice.choice(driver.workers())
        time.sleep(0.005)
    return None


def second_driver(driver: Driver) -> None:
    other = start(command(driver.out))
    _, said = other.communicate(timeout=PATIENCE)
    last = (said.strip().splitlines() or [""])[-1]
    driver.fault.what = f"a second driver, which ended with {other.returncode}: {last[:120]}"
    assert driver.process.poll() is not None or other.returncode == 2, driver.fault.what


DONE_TO_A_RUN = {
    "driver": kill_driver,
    "moved clock": move_clock,
    "worker": kill_worker,
    "slow worker": stop_worker,
    "two drivers": second_driver,
}


def ended(process: subprocess.Popen[str], started: float) -> Attempt:
    """Waits for the command."""
    _, said = process.communicate(timeout=PATIENCE)
    lines = [line for line in said.strip().splitlines() if line.startswith("codsa:")] or [""]
    return Attempt(process.returncode, round(time.perf_counter() - started, 1), lines[-1][:300])


def disturbed(fault: Fault, out: Path, span: float, dice: random.Random, act: Callable[[Driver], None], *more: str) -> None:
    """Gives the command and does the fault to it."""
    started = time.perf_counter()
    driver = Driver(start(command(out, *more)), out, fault, dice)
    if driver.until(fault.stage, span):
        act(driver)
    else:
        fault.what = "the run had ended"
    fault.attempts.append(ended(driver.process, started))
    left.extend(driver.seen)


# Processes of killed drivers: Ray's end by themselves; what is still there when a fault is over is ended by id.
left: list[psutil.Process] = []


def reap() -> None:
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    left.clear()


def again(fault: Fault, words: list[str]) -> None:
    """Gives the same command until it ends with 0."""
    while (not fault.attempts or fault.attempts[-1].code != 0) and len(fault.attempts) < MOST:
        started = time.perf_counter()
        fault.attempts.append(ended(start(words), started))


def on_a_node(fault: Fault, out: Path, span: float, dice: random.Random) -> None:
    """Three raylets, of which the head has no CPU; of the other two one that holds work, if any does by then, is killed with all of it."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]

        def act(driver: Driver) -> None:
            raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
            until = time.monotonic() + 20
            while not (busy := [at for at, raylet in enumerate(raylets) if working(raylet)]) and time.monotonic() < until:
                if driver.process.poll() is not None:
                    break
                time.sleep(0.005)
            at = dice.choice(busy or [0, 1])
            held, workers = working(raylets[at]), raylets[at].children(recursive=True)
            fault.what = f"kill -9 of a node with {', '.join(sorted({worker.name() for worker in held})) or 'no work'}"
            cluster.remove_node(nodes[at], allow_graceful=False)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()

        disturbed(fault, out, span, dice, act, "--address", cluster.address)
        again(fault, command(out, "--address", cluster.address))
    finally:
        cluster.shutdown()


def on_a_full_disk(fault: Fault, out: Path, dice: random.Random, size: int) -> None:
    """A file system of its own, too small by a random part; what it holds when the run fails is what the next one finds."""
    room = int(size * dice.uniform(0.05, 0.95))
    kept = Path(f"{out}.kept")
    out.mkdir(parents=True)
    words = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(room), str(out), str(kept), *command(out)]
    started = time.perf_counter()
    fault.attempts.append(ended(start(words), started))
    fault.before = named(kept)
    fault.what = f"a disk of {room // 1024} KiB, full during {fault.before}"
    shutil.rmtree(out)
    kept.rename(out)


def with_damage(fault: Fault, out: Path, dice: random.Random, whole: Path) -> None:
    """A run that has fitted, that has drawn, or that has ended, of which a file is cut short, altered or lost."""
    shutil.copytree(whole, out)
    ends = ("search", "verdict.json", "apply", "augmented", "report.json")
    for name in dice.choice([(), (), ends, (*ends, "pools")]):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    fitted = [path for path in sorted(out.glob("fit/*/*/*")) if path.is_file()]
    file = dice.choice([*sorted(out.glob("pools/*/*")), *4 * sorted(out.glob("augmented/*")), *4 * fitted])
    data, at = file.read_bytes(), 0
    how = dice.choice(["cut short", "altered", "lost"])
    if how == "cut short":
        file.write_bytes(data[: dice.randrange(len(data))])
    elif how == "altered":
        at = dice.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :])
    else:
        file.unlink()
    fault.what = f"{file.relative_to(out)} {how}"


def with_poison(fault: Fault, out: Path, dice: random.Random) -> None:
    """The poison is there once and then no more."""
    flag = PLACE / "poison"
    flag.write_text(f"{dice.randrange(2)} {dice.randrange(3 * DRAWS)}")
    started = time.perf_counter()
    fault.attempts.append(ended(start(poisoned(out)), started))
    fault.what = f"poison in fold and draw {flag.read_text()}; {fault.attempts[0].said}"
    flag.unlink()
