"""The errors that people are meant to read: one message each, no traceback.

A `UserError` is something the person who started the command can mend; the command line prints it and exits with 2.
A `CallFailed` is one model call that failed for good; it costs its question, not the run. `Unfinished` ends a run that
may not go on.
"""

# The library `datasets` says this of every failure; the row is named in the cause.
_EMPTY_WORDS = "An error occurred while generating the dataset"
# What shells report of a command that Ctrl-C ended.
INTERRUPTED = 130


class UserError(Exception):
    """Bad input or settings. The message names the file, line or field and says how to fix it.

    It can always be written: half characters (lone surrogates), as input may hold them, stand in it as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class CallFailed(Exception):
    """A model call that failed after all retries, or whose reply cannot be used.

    Args:
        message: what happened.
        used: prompt and new tokens that were paid for all the same.
    """

    def __init__(self, message: str, used: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.used = used


class Refused(CallFailed):
    """A call that the server refuses as it is; where every call is refused so, none can work.

    Args:
        message: what happened, in the server's words.
    """


class TryAgain(CallFailed):
    """A model call that may well work when it is made again.

    Args:
        message: what happened.
        used: as for `CallFailed`.
        after: seconds that the server asked to wait.
        overloaded: whether it has too much to do.
        unreachable: whether there was no server at all.
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
    """All servers are to be left alone for `after` seconds; nobody was asked, so it is no try."""


class Unfinished(Exception):
    """The run makes no more calls; nothing is wrong with the one that was to be made."""


class BudgetSpent(Unfinished):
    """The next call could cost more than `max_cost` leaves."""


class Interrupted(Unfinished):
    """Somebody asked the run to end."""


class TextTooLong(Exception):
    """The parts of a prompt that may not be cut already exceed the token budget."""


def first_line(error: BaseException) -> str:
    """The first line that says something in the message of an error or of what caused it, or the error's kind."""
    told: BaseException | None = error
    while told is not None:
        if lines := [line for line in str(told).splitlines() if line.strip() and line != _EMPTY_WORDS]:
            return lines[0]
        told = told.__cause__
    return type(error).__name__
