"""The one error that a user is meant to read, and the close-match hint that goes with it."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input, said in one line: what (file, row, value), what was expected, how to fix it.

    The command line prints the line and exits with code 2; a traceback is shown only with `--debug`.
    """


def hint(value: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'? ` for the closest known names, or a short list of what is known."""
    names = sorted(set(known))
    if not names:
        return "none is known yet"
    close = get_close_matches(value, names, n=3, cutoff=0.55)
    if close:
        return "did you mean " + " or ".join(f"'{name}'" for name in close) + "?"
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known: {listed}"
