"""Codes of the errors that AWS services answer with, by what they mean."""

from __future__ import annotations

CREDENTIAL_CODES = frozenset(
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ]
)
ACCESS_CODES = frozenset(
    [
        "AccessDenied",
        "AccessDeniedException",
        "KMSAccessDeniedException",
        "NotAuthorized",
        "UnauthorizedOperation",
    ]
)
THROTTLE_CODES = frozenset(
    [
        "BandwidthLimitExceeded",
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ]
)
UNAVAILABLE_CODES = frozenset(
    [
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    ]
)
REFUSED_CODES = frozenset(
    [
        "InvalidParameterCombination",
        "InvalidParameterException",
        "InvalidParameterValue",
        "SerializationException",
        "UnknownParameter",
        "ValidationError",
        "ValidationException",
    ]
)
"""Answers to a request with an argument that the endpoint does not know."""
