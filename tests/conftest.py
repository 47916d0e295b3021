"""One embedded Ray for all tests that need one."""

from collections.abc import Iterator

import pytest

from codsa_ray.stages.cluster import connect


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Started once; every run in the session attaches to it."""
    import ray as library

    connect(None, 2)
    yield
    library.shutdown()
