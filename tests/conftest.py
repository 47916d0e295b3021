"""One embedded Ray for all tests that need one."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from codsa_ray.stages.cluster import connect


# A shared machine's hiccup is no failure, and a failure must come again.
settings.register_profile("codsa", deadline=None, derandomize=True)
settings.load_profile("codsa")


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Started once; every run in the session attaches to it."""
    import ray as library

    connect(None, 2)
    yield
    library.shutdown()
