"""The errors of the package: what was wrong, and what it ends.

    Exception
      UserError             bad input or settings; the command line prints it without a traceback and exits with 2
      CallFailed            a model call failed for good; it ends its question, not the run
        Refused             the server refuses the request as it is
        TryAgain            the same call may succeed later
          NoServer          all servers are paused for some seconds; no call was made
      Unfinished            the run makes no more calls
        BudgetSpent         the next call could cost more than `max_cost` leaves
        Interrupted         the user asked the run to end
      TextTooLong           a prompt exceeds its token budget even without its context

`OSError` (a full disk, for example) ends a run as `UserError` does. Any other error is a bug.
"""

# The library `datasets` gives this message for every failure; the cause of the error names the row.
_GENERIC_MESSAGE = "An error occurred while generating the dataset"
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells report it."""
CLOSED_PIPE = 141
"""The exit code after stdout was closed, as by `| head`, as shells report it."""


class UserError(Exception):
    """Bad input or settings. The message names the file, line or field and says how to fix it.

    The message can always be printed: half characters (lone surrogates) of the input are written as escapes.

    Args:
        message: what is wrong, where, and the fix in the imperative.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class CallFailed(Exception):
    """A model call that failed after all retries, or that returned an unusable reply.

    Args:
        message: what happened.
        used: prompt tokens and new tokens of the failed call, which are paid for.
    """

    def __init__(self, message: str, used: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.used = used


class Refused(CallFailed):
    """The server refuses the request as it is. If it refuses every call of a run so, the settings are wrong.

    Args:
        message: what happened, in the server's words.
        used: as for `CallFailed`.
    """


class TryAgain(CallFailed):
    """A model call that may succeed when it is repeated.

    Args:
        message: what happened.
        used: as for `CallFailed`.
        after: seconds to wait, as the server asked.
        overloaded: whether the server has too many requests.
        unreachable: whether no server answered.
    """

    def __init__(
        self,
        message: str,
        used: tuple[int, int] = (0, 0),
        after: float = 0.0,
        overloaded: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message, used)
        self.after = after
        self.overloaded = overloaded
        self.unreachable = unreachable


class NoServer(TryAgain):
    """All servers are paused for `after` seconds. No call was made, so this does not count as a try."""


class Unfinished(Exception):
    """The run makes no more calls; nothing is wrong with the call that was due."""


class BudgetSpent(Unfinished):
    """The next call could cost more than `max_cost` leaves."""


class Interrupted(Unfinished):
    """The user asked the run to end."""


class TextTooLong(Exception):
    """The parts of a prompt that must not be cut exceed the token budget by themselves."""


def first_line(error: BaseException) -> str:
    """The first informative line in the messages of an error and its causes; the error's type if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if lines := [line for line in str(cause).splitlines() if line.strip() and line != _GENERIC_MESSAGE]:
            return lines[0]
        cause = cause.__cause__
    return type(error).__name__
