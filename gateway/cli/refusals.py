"""What a server or the machine refuses, as the one message that a command ends with: what happened, why, what to do.

Errors that are bugs of ours pass through, with their traceback. So does a broken pipe, which click ends without a word:
whoever read the output has seen enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import click

from persistence.errors import LedgerUnavailableError, StreamUnavailableError, Unavailable

ORIGIN = "`floodgate config show --origin` tells where it comes from"
SERVER = f"is it up, and is {{key}} right? {ORIGIN}"
DOCTOR = "`floodgate doctor` looks further"
LEDGER = f"{SERVER.format(key='postgres.url')}; {DOCTOR}"
STREAM = f"{SERVER.format(key='nats.url')}; {DOCTOR}"
# What a server says to a name or password that it does not know, or to a database that it does not have.
WRONG_ADDRESS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
)


@contextmanager
def told() -> Iterator[None]:
    """Raises click.ClickException for what is refused outside of us."""
    try:
        yield
    except LedgerUnavailableError as error:
        raise click.ClickException(f"{error}: {LEDGER}") from error
    except StreamUnavailableError as error:
        raise click.ClickException(f"{error}: {STREAM}") from error
    except Unavailable as error:
        raise click.ClickException(f"{error}; {DOCTOR}") from error
    except asyncpg.PostgresError as error:
        raise click.ClickException(_of_postgres(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(of_machine(error)) from error


def of_machine(error: OSError) -> str:
    """`FILE: No such file or directory`"""
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror or error}"


def _of_postgres(error: asyncpg.PostgresError) -> str:
    if isinstance(error, asyncpg.UndefinedTableError):
        return f"the ledger has no schema yet ({error}): run `floodgate migrate`"
    if isinstance(error, WRONG_ADDRESS):
        return f"PostgreSQL refuses: {error}: mend postgres.url; {ORIGIN}"
    return f"PostgreSQL refuses: {error}; {DOCTOR}"
