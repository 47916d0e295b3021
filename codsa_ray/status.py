"""Status: what a run folder says of its run, for another terminal; looks at nothing but the folder."""

import os
import socket
import time
from typing import Any

from codsa_ray.clock import span, speed
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import PROGRESS
from codsa_ray.manifest import check_run

SILENT = 120.0  # seconds without a word after which a run is taken for dead; it says every 20 s that it is there


def status(run_folder: str) -> list[str]:
    """Lines to print: what was asked, whether it runs, where it is and what it has done.

    Raises:
        FolderError: not a run folder.
    """
    run = check_run(Folder(run_folder).absolute)
    lines = [f"run        {run.shown}"]
    if run.exists("job.json"):
        job = run.read_json("job.json")
        lines.append(f"asked      {Folder(job['data']).shown}, target {job['target']}")
    if not run.exists(PROGRESS):
        return [*lines, "state      nothing told yet"]
    told = run.read_json(PROGRESS)
    lines.append(f"state      {_state(told, time.time())}")
    if told["state"] != "ended" and told["at"]:
        lines.append(f"stage      {_stage(told['at'])}")
    lines += ["", *told["stages"]] if told["stages"] else []
    if told["state"] == "ended" and run.exists("report.json"):
        lines += ["", *run.read_json("report.json")["verdict"]["sentences"], "", f"report     {run.shown}/report.html"]
    return lines


def _state(told: dict[str, Any], now: float) -> str:
    spent, ago = span(told["seconds"]), span(max(now - told["time"], 0.0))
    if told["state"] == "ended":
        return f"ended {ago} ago, after {spent}"
    if told["state"] == "stopped":
        return f"stopped {ago} ago, after {spent}: {told['reason']}"
    where = f"process {told['process']} on {told['host']}"
    if _dead(told, now):
        return f"killed: {where} has said nothing for {ago}; the same command goes on from there"
    return f"running for {spent} as {where}, heard of {ago} ago"


def _dead(told: dict[str, Any], now: float) -> bool:
    """By silence, for another process may have its number now; here also by the process itself."""
    if now - told["time"] > SILENT:
        return True
    if told["host"] != socket.gethostname():
        return False
    try:
        os.kill(told["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _stage(at: dict[str, Any]) -> str:
    text = f"{at['stage']} {at['done']:,}/{at['total']:,}"
    if at["rate"]:
        text += f", {speed(at['rate'])}"
    if at["left"] is not None and at["done"] < at["total"]:
        text += f", about {span(at['left'])} left"
    return f"{text}  {at['note']}".rstrip()
