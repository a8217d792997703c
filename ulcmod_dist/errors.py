"""The errors a user sees: each names the fact, the values and the remedy."""


class UlcmodError(Exception):
    """A failure that the command line reports in one line, without a traceback.

    Attributes:
        fact: What is wrong, with the values concerned.
        remedy: What the user can do about it, or None where nothing helps.
        exit_code: Exit code of the command line (1: the work failed).
    """

    exit_code = 1

    def __init__(self, fact: str, remedy: str | None = None) -> None:
        super().__init__(fact, remedy)
        self.fact = fact
        self.remedy = remedy

    def __str__(self) -> str:
        return self.fact if self.remedy is None else f"{self.fact} {self.remedy}"


class InvalidInput(UlcmodError):
    """The job, the command or the data it names cannot be used as given (exit code 2)."""

    exit_code = 2


def one_line(error: object) -> str:
    """The message of a library's error on one line, without obstore's debug output."""
    message = str(error).partition("\n\nDebug source:")[0]
    return " ".join(message.split()).rstrip(".")


def describe_error(error: BaseException) -> str:
    """The type and message of an exception on one line."""
    text = one_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
