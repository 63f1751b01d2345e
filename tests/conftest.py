"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and reference outputs, where the checkout has them beside it."""
    folder = Path(os.environ.get("TLDET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs real data in {folder} (set TLDET_SHARED)")
    return folder
