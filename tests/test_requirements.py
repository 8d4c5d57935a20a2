"""requirements.txt installs with pip, whatever its packages release later."""

import re
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"


def test_extras_that_packages_ask_for_are_pinned_with_the_package() -> None:
    """pip resolves `gql[requests]` apart from `gql`: with only `gql` pinned, it takes the
    newest release, and with hashes refuses it. Seen the day gql 4.4.0 was released.
    """
    pinned = _pinned_extras()
    asked = {
        (canonicalize_name(requirement.name), extra, distribution.name)
        for distribution in metadata.distributions()
        if canonicalize_name(distribution.name) in pinned
        for requirement in map(Requirement, distribution.requires or ())
        for extra in requirement.extras
        if _applies(requirement, pinned[canonicalize_name(distribution.name)])
    }

    assert asked, "some packages ask for extras; none found, so this test looks in the wrong place"
    unpinned = sorted(
        f"{name}[{extra}], asked for by {by}"
        for name, extra, by in asked
        if extra not in pinned[name]
    )
    assert unpinned == []


def test_every_package_is_pinned_with_hashes_and_every_dependency_is_among_them() -> None:
    """Without one hash, pip checks none of the others."""
    pins = re.split(r"\n(?=[\w])", REQUIREMENTS.read_text().strip())
    assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    project = (REQUIREMENTS.parent / "pyproject.toml").read_text("utf-8")
    (listed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    declared = {canonicalize_name(name) for name in re.findall(r'"([\w-]+)[<>=]', listed)}
    assert declared >= {"botocore", "pydantic", "numpy"}
    assert declared <= _pinned_extras().keys()


def _pinned_extras() -> dict[str, set[str]]:
    pins = [
        line.rstrip(" \\") for line in REQUIREMENTS.read_text().splitlines() if line[:1].isalnum()
    ]
    return {canonicalize_name(pin.name): pin.extras for pin in map(Requirement, pins)}


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    if requirement.marker is None:
        return True
    environment = {key: str(value) for key, value in default_environment().items()}
    return any(
        requirement.marker.evaluate(environment | {"extra": extra}) for extra in {"", *extras}
    )
