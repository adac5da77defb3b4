"""Pages of a list: reads the cursor of a request, and gives the one of the next page, opaque and bound to the list, its
filters and the client.
"""

from typing import NamedTuple
from urllib.parse import urlencode

from gateway.api.answers import AnyRequest
from gateway.api.guard import client_of
from gateway.api.operations import Parameter
from gateway.api.reading import LIMIT, LIMIT_DEFAULT, read_limit, read_query, services_of
from gateway.domain.cursors import decode_cursor, encode_cursor
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import refuse

LINK = {"Link": 'The next page, `rel="next"`, when there is one'}


def parameters(things: str, *filters: Parameter) -> tuple[Parameter, ...]:
    """What a list takes in its query."""
    same = ", with the same filters" if filters else ""
    return (
        *filters,
        Parameter("limit", "query", LIMIT, f"{things} of a page; {LIMIT_DEFAULT} when left out"),
        Parameter("cursor", "query", str, f"`next_cursor` of the page before{same}"),
    )


class Page(NamedTuple):
    """What a request asks for: so many things, from behind `position` on (empty: from the first on)."""

    query: dict[str, str]
    limit: int
    position: bytes
    binding: bytes
    hasher: Hasher
    client_id: int
    route: bytes

    def cursor(self, position: bytes) -> str:
        """The cursor of the page that starts behind `position`."""
        return encode_cursor(self.digest, self.binding, position)

    def link(self, path: str, cursor: str | None) -> dict[str, str]:
        """The header that names the next page; `path` is percent-encoded."""
        return {} if cursor is None else {"link": f'<{path}?{urlencode(self.query | {"cursor": cursor})}>; rel="next"'}

    def digest(self, text: bytes) -> bytes:
        """What seals a cursor of this list."""
        return self.hasher.key_hash(self.client_id, text, self.route)


def read_page(request: AnyRequest, route: bytes, binding: bytes = b"") -> Page:
    """`route` tells the cursors of this list from those of others, `binding` those of its filters. Raises ProblemError
    for a limit or a cursor that is not one of this list.
    """
    query = read_query(request)
    asked = Page(
        query, read_limit(query), b"", binding, services_of(request).hasher, client_of(request).client_id, route
    )
    if "cursor" not in query:
        return asked
    position = decode_cursor(asked.digest, binding, query["cursor"])
    if position is None:
        raise refuse("bad_cursor")
    return asked._replace(position=position)
