"""Pure. URIs of a lakehouse that every library reads as the same place.

Where the libraries disagree about a character (one decodes `%41`, another does not; one takes
`#` for the end of the path), a table would be written in one place and read in another.
"""

from __future__ import annotations

import re

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.store_options import store_kind

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_REFUSED = "\\^|[]"
_REFUSED_IN_URIS = "?#"


def check_uri(uri: str) -> None:
    """Refuse a URI or path that carries a secret or that two libraries read differently.

    Raises:
        DefinitionError: The URI has a user name or password, a character that is refused, or an
            empty, `.` or `..` segment in a bucket.
    """
    scheme, has_scheme, rest = uri.partition("://")
    kind = store_kind(uri)
    authority, _, path = rest.partition("/")
    user, has_user, _ = authority.rpartition("@")
    # abfss://container@account.dfs.core.windows.net: there the user is the container.
    if has_user and (kind != "azure" or ":" in user):
        raise DefinitionError(
            f"The uri {scheme}://... has a user name or a password in it.",
            hint="Give the uri without them, and credentials by a profile, a role, the "
            "environment, or as EnvVar in storage_options.",
        )
    found = _character(uri, in_uri=bool(has_scheme), is_object_store=kind != "local")
    if found is not None:
        before_query = re.split("[?#]", uri)[0]  # a query may be a signature
        raise DefinitionError(
            f"The uri {before_query!r} contains {found!r}, which the libraries that "
            "read and write tables take for different things.",
            safe="Nothing was read or written.",
            hint="Choose a location without it, or write the character that an escape such as "
            "%20 stands for.",
        )
    if kind != "local" and any(
        one in ("", ".", "..") for one in path.rstrip("/").split("/") if path.rstrip("/")
    ):
        raise DefinitionError(
            f"The uri {uri!r} has an empty segment, '.' or '..' in its path.",
            hint="Write the path as the store lists it.",
        )


def _character(uri: str, *, in_uri: bool, is_object_store: bool) -> str | None:
    refused = _REFUSED + (_REFUSED_IN_URIS if in_uri else "")
    if found := _CONTROL.search(uri) or re.search(f"[{re.escape(refused)}]", uri):
        return found[0]
    # A file:// URI is decoded once, by everyone; a path and a key in a bucket are not.
    if (is_object_store or not in_uri) and (found := _ESCAPED.search(uri)):
        return found[0]
    return None
