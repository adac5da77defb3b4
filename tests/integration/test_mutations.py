"""What the mutation run takes away of the ledger stands there once, and the ledger lets it go."""

import asyncpg
import pytest

from tests.mutations.guards import MUTATIONS, Fragment

FRAGMENTS = [fragment for mutation in MUTATIONS.values() for fragment in mutation.fragments]
STATEMENTS = [statement for mutation in MUTATIONS.values() for statement in mutation.statements]
TEXT = "select pg_get_functiondef(oid) from pg_proc where proname = $1 order by pronargs desc limit 1"


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda fragment: f"{fragment.function} {fragment.before[:30]}")
async def test_fragment_stands_once_and_the_function_is_one_without_it(postgres_url: str, fragment: Fragment):
    connection = await asyncpg.connect(postgres_url)
    try:
        text = await connection.fetchval(TEXT, fragment.function)
        assert text.count(fragment.before) == 1
        await connection.execute(text.replace(fragment.before, fragment.after))
    finally:
        await connection.close()


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_statement_drops_what_is_there(postgres_url: str, statement: str):
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
