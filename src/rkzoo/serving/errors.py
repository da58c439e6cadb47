"""The error that a server answers with."""

from __future__ import annotations

from rkzoo.errors import RkzooError
from rkzoo.protocol.board import Problem


class ServingError(Exception):
    """A request that is not answered as asked.

    Attributes:
        status: The HTTP status: 400 the request is wrong, 401 the token, 404 there is no such
            model, 413 it is too large, 415 it is packed, 500 a fault of ours, 502 the process that
            worked on it ended, 503 there is no room now, 504 it took too long.
        message: In one line.
        retry_after: Seconds after which there may be room.
        problem: The parts of an RkzooError.
    """

    def __init__(
        self,
        status: int,
        message: str,
        retry_after: float | None = None,
        problem: Problem | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
        self.problem = problem or Problem(message, message)


def problem_of(error: BaseException) -> Problem:
    """An exception as it goes over the wire."""
    if isinstance(error, RkzooError):
        log = str(error.log or "")
        return Problem(str(error), error.what, error.why, error.fix, error.code, log)
    if isinstance(error, MemoryError):
        return Problem("There is too little memory for this.", code=1)
    what = "An error of rkzoo's own."
    return Problem(f"{what} {type(error).__name__}: {error}", what, repr(error), code=1)


def error_of(problem: Problem) -> RkzooError:
    """A problem as the exception that it was."""
    return RkzooError(problem.what or problem.error, problem.why, problem.fix, code=problem.code)


def of_problem(problem: Problem, status: int = 400) -> ServingError:
    """A problem of a worker: the request's fault (code 2), or ours."""
    return ServingError(status if problem.code == 2 else 500, problem.error, problem=problem)


def of_error(error: RkzooError, status: int = 400) -> ServingError:
    """As `of_problem`, for the exception."""
    return of_problem(problem_of(error), status)
