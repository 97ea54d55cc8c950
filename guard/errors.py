"""The errors of the gateway.

AirlockError
├── ConfigError          a setting is unknown, wrong, or names something that is not there
├── BadRequest           the client sent something that cannot be judged: HTTP 4xx
├── UpstreamError        the model's server is down, slow, or sends rubbish: HTTP 502, 503, 504
├── PartFailure          a part raised, hung, or returned rubbish: the route is `policy.on_error`
│   └── GuardClosed      the guard was closed: nothing is judged any more
├── JournalError         a decision could not be written down
└── BlockedError         a request or an answer was blocked, told to a program that asked for an exception

The parts know nothing of the gateway and raise their own: `classifier.ClassifierError`, `rag.KnowledgeError`.
`guard.assemble` and what it calls turn those into ConfigError, `guard.runner` into PartFailure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.types import Decision


class AirlockError(Exception):
    """Base of the gateway's errors; the message names the setting, the value and the way out.

    Attributes:
        status: the HTTP status that says what it is.
    """

    status = 503

    @property
    def status_code(self) -> int:
        """The same for LiteLLM, which answers with HTTP 500 without one."""
        return self.status


class ConfigError(AirlockError):
    """A setting is unknown, wrong, or names something that is not there."""


class BadRequest(AirlockError):
    """The client sent something that cannot be judged.

    Args:
        message: what is wrong and what would be right.
        status: HTTP status, 400 to 499.
        param: the field at fault, as the OpenAI wire writes it.
        code: a stable name for programs.
    """

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str = "invalid_request"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class UpstreamError(AirlockError):
    """The model's server is down, slow, or sends what cannot be checked.

    Args:
        message: what is wrong.
        status: HTTP status.
        code: a stable name for programs.
        retry_after_s: seconds after which it is worth a try, where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        code: str = "upstream_unavailable",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class PartFailure(AirlockError):
    """A part raised, hung past its deadline, or returned rubbish."""

    def __init__(self, part: str, cause: str) -> None:
        super().__init__(f"{part}: {cause}")
        self.part = part
        self.cause = cause


class GuardClosed(PartFailure):
    """The guard was closed, and is asked all the same."""

    def __init__(self) -> None:
        super().__init__(
            "guard",
            "it was closed, perhaps with its app, and judges nothing any more; call its open(), or build another one "
            "with load_guard()",
        )


class JournalError(AirlockError):
    """A decision could not be written down."""


class BlockedError(AirlockError):
    """A request was refused, or the model's answer stopped; only raised with ``raise_on_block=True``.

    Args:
        message: the text of the refusal.
        decision: what was decided, and by which rule.
    """

    status = 400

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision
