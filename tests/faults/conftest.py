import pytest
from collector import collector as running


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A collector that the tests of a module share, each with a run of its own."""
    with running(tmp_path_factory.mktemp("collector") / "data") as it:
        yield it


@pytest.fixture
def collector(tmp_path):
    """A collector of the test's own."""
    with running(tmp_path / "data") as it:
        yield it
