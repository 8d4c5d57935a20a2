"""Kinds of endpoints: on this machine, of AWS, or of somebody else."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".ic.gov", ".sgov.gov")


def is_local(url: str) -> bool:
    """Return whether an endpoint is on this machine: `localhost` or a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_of_aws(url: str) -> bool:
    """Return whether an endpoint is one of AWS, VPC endpoints included."""
    return (urlsplit(url).hostname or "").endswith(_AWS_DOMAINS)
