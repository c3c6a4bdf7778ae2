"""What the tests of crashes share."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def cache() -> dict[str, tuple[dict[str, Any], int]]:
    """What undisturbed runs leave, and how many calls they make, by name."""
    return {}
