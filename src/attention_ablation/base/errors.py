"""A user's mistakes, as sentences: what was expected, what came, what to do."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the user's input; its text is the whole message, shown without a traceback."""


def unknown(what: str, name: object, valid: Iterable[str], where: object) -> UserError:
    """Build the error for a name that is not among `valid`, with the nearest valid spelling."""
    names = list(valid)
    if not names:
        return UserError(f"{where}: unknown {what} '{name}'; there are none here.")
    near = [known for known in names if known.lower() == str(name).lower()]
    near = near or get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid are: {', '.join(names)}."
    return UserError(f"{where}: unknown {what} '{name}'; {hint}")


def require(what: str, names: Iterable[str], valid: Collection[str], where: object) -> None:
    """Raise UserError, about `where`, for a name that is not among `valid`."""
    for name in names:
        if name not in valid:
            raise unknown(what, name, valid, where)


def brief(error: BaseException) -> str:
    """Return an error of others' code in a line: its class, its first line, and where it is."""
    place = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}".removesuffix(": ") + place


def few(names: Sequence[str], shown: int = 5) -> str:
    """Return the first names with commas between, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def shortened(value: object) -> str:
    """Return a value as Python writes it, its end left out where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
