"""Data of the benchmarks: the folder of tables, texts and pictures that CODSA_DATA names; knows none of them."""

import os
from pathlib import Path

NAME = "CODSA_DATA"


def data_folder() -> Path:
    """The folder.

    Raises:
        SystemExit: it is not named, or not there; one line says so.
    """
    named = os.environ.get(NAME, "")
    if not named or not Path(named).is_dir():
        raise SystemExit(f"wanted {NAME}, the folder that holds adult.parquet and the other tables; got {named or 'nothing'}; set it")
    return Path(named)
