"""An address says no more than where: credentials and settings behind it are refused before anything is written, and never repeated."""

from pathlib import Path

import pytest

from codsa_ray import filesystem
from codsa_ray.cli import main
from codsa_ray.errors import FolderError, SettingError
from codsa_ray.folder import Folder
from codsa_ray.job import Job

from store import Store, endpoint, store

__all__ = ["endpoint", "store"]  # fixtures


@pytest.mark.parametrize("field", ["data", "test", "source", "out"])
@pytest.mark.parametrize("userinfo", ["KEY:CANARY%2Fsecret", "CANARY"])
def test_credentials_in_an_address_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, userinfo: str
) -> None:
    given = {"data": "data.parquet", "out": str(tmp_path / "run"), field: f"s3://{userinfo}@bucket/x"}
    with pytest.raises(SettingError, match="set AWS_ACCESS_KEY_ID") as raised:
        Job(target="state", **given)
    assert "CANARY" not in str(raised.value)
    words = [word for name, value in given.items() if name not in ("data",) for word in (f"--{name}", value)]
    assert main(["augment", given["data"], "--target", "state", *words]) == 2
    said = capsys.readouterr()
    assert "s3://***@bucket/x" in said.err
    assert "CANARY" not in said.out + said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["client_secret", "sas_token", "account_key", "sig", "secret_key"])
@pytest.mark.parametrize("place", ["abfss://files@account.dfs.core.windows.net/x", "gs://bucket/x", "s3://bucket/x"])
def test_a_secret_behind_an_address_is_refused_whatever_the_store(place: str, name: str) -> None:
    with pytest.raises(SettingError, match=name) as raised:
        Job(data=f"{place}?scheme=https&{name}=CANARY", target="y")
    assert "CANARY" not in str(raised.value)


def test_a_word_behind_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingError, match="no setting behind gs://bucket/x") as raised:
        Job(data="gs://bucket/x?CANARY", target="y")
    assert "CANARY" not in str(raised.value)


def test_a_line_that_repeats_what_was_typed_leaves_the_credentials_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["augment", "a.parquet", "s3://KEY:CANARY@bucket/x", "--target", "state"]) == 2
    assert "s3://***@bucket/x" in (said := capsys.readouterr().err)
    assert "CANARY" not in said


def test_an_address_says_no_more_than_where(store: Store) -> None:
    """What stands behind the ? is known by name or refused, and never shown."""
    host = store.endpoint.removeprefix("http://")
    folder = Folder(f"{store.address}/run?endpoint_override={host}&scheme=http&region=eu-central-1")
    (folder / "a").write_json("b.json", 1)
    assert Folder(f"{store.address}/run").read_json("a/b.json") == 1
    assert (folder / "a").shown == f"{store.address}/run/a"
    with pytest.raises(SettingError, match="secret_key") as raised:
        Folder(f"{store.address}/run?secret_key=CANARY").exists()
    assert "CANARY" not in str(raised.value)
    with pytest.raises(FolderError, match=r"s3://\*\*\*@bucket"):
        raise FolderError(*filesystem.told(OSError("AWS Error"), filesystem.shown("s3://K:S@bucket"), "s3://K:S@bucket"))
