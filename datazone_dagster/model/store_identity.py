"""Protocol between the tables and whoever knows as whom an S3 store is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreCredentials:
    """Credentials of S3 as they are now.

    Args:
        access_key_id: Access key id.
        secret_access_key: Its secret; never shown.
        session_token: Token of temporary credentials; None for permanent ones. Never shown.
        expires: Whether they end by themselves, so that they have to be asked for again.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires: bool = False


class StoreAccess(Protocol):
    """Where an S3 store is, and as whom it is used. Safe to call from several threads."""

    @property
    def region(self) -> str:
        """Region that requests are signed for."""
        ...

    @property
    def endpoint_url(self) -> str:
        """Endpoint of S3, without the bucket."""
        ...

    def credentials(self) -> StoreCredentials:
        """Return the present credentials; they are renewed before they expire.

        Raises:
            StorageError: There are none, or they can't be renewed.
        """
        ...


StoreAccessOf = Callable[[Mapping[str, str]], StoreAccess]
"""Returns the access that canonical storage options ask for; the same object for the same ones."""
