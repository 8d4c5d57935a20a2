"""Errors as the service sends them: a type, a message, an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_CORAL = "com.amazon.coral.service#"
_VALIDATE = "com.amazon.coral.validate#"
_DYNAMODB = "com.amazonaws.dynamodb.v20120810#"

_PREFIX = {
    "UnknownOperationException": _CORAL,
    "SerializationException": _CORAL,
    "InternalServerError": _DYNAMODB,
    "ServiceUnavailable": _CORAL,
    "ThrottlingException": _CORAL,
    "ValidationException": _VALIDATE,
}
_STATUS = {"InternalServerError": 500, "ServiceUnavailable": 503}


class ServiceError(Exception):
    """Error answer of the service, raised in the server and by `WireClient`.

    Args:
        code: Short name, such as `ValidationException`.
        message: Human-readable text.
        status: HTTP status; 400 unless the code is one of the 5xx errors.
        extra: Additional members of the answer (`Item`, `CancellationReasons`).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.extra = code, message, dict(extra or {})
        self.status = _STATUS.get(code, 400) if status is None else status

    def encoded(self) -> bytes:
        """Return the JSON body of the answer."""
        kind = _PREFIX.get(self.code, _DYNAMODB) + self.code
        return msgspec.json.encode({"__type": kind, "message": self.message, **self.extra})


def validation(message: str) -> ServiceError:
    """Return the error for a request that is well formed but not valid."""
    return ServiceError("ValidationException", message)


def invalid_parameter(detail: str) -> ServiceError:
    """Return a `ValidationException` with the service's usual opening."""
    return validation(f"One or more parameter values were invalid: {detail}")


def not_found(message: str) -> ServiceError:
    """Return the error for a table, stream or shard that does not exist."""
    return ServiceError("ResourceNotFoundException", message)


def in_use(message: str) -> ServiceError:
    """Return the error for a table that exists already, or whose state forbids the call."""
    return ServiceError("ResourceInUseException", message)
