"""A project folder like a user's, with a lakehouse filled from a scripted stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import ProjectFolder


@pytest.fixture
def project(tmp_path: Path) -> ProjectFolder:
    return ProjectFolder(tmp_path)
