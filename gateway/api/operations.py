"""How a route describes itself: every handler carries an `Operation`. The guard reads from it who may call, the
OpenAPI document everything else, so that what is documented is what is enforced.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from core_ext.limits import SKU_CHARS_MAX

OPERATION = "operation"  # the key in a handler's opt
BODY_PROBLEMS = (
    "bad_request",
    "malformed_json",
    "body_timeout",
    "body_too_large",
    "unsupported_media_type",
    "invalid",
)


class Parameter(Struct, frozen=True):
    """A parameter of a query, path or header (`place`); `kind` is a type that msgspec makes a schema of."""

    name: str
    place: str
    kind: Any
    description: str
    required: bool = False
    example: Any = None


ETAG_PATTERN = '"[1-9][0-9]{0,8}"'  # versions start at 1 and never get near PostgreSQL's largest integer
Etag = Annotated[str, Meta(pattern=f"^{ETAG_PATTERN}$")]

SKU = Parameter(
    "sku",
    "path",
    Annotated[str, Meta(min_length=1, max_length=SKU_CHARS_MAX)],
    "Printable characters, case-sensitive; a slash is written %2F",
    required=True,
    example="85123A",
)
IF_MATCH = Parameter(
    "If-Match", "header", Etag, "The ETag of the version that the change is meant for; any when left out", example='"3"'
)
IF_NONE_MATCH = Parameter(
    "If-None-Match", "header", Literal["*"], "`*`: only when there is nothing there yet; 412 otherwise", example="*"
)


class Shown(Struct, frozen=True):
    """An answer that is a success. `kind` is its type, None for a text; without a media type it has no body. `headers`
    name -> description.
    """

    description: str
    kind: Any = None
    media_type: str = "application/json"
    headers: dict[str, str] = {}
    example: Any = None


class Operation(Struct, frozen=True):
    """`scopes`: any one of them will do; empty, any valid token. `is_open` needs no token. `keyed` takes an
    Idempotency-Key. `checks_itself`: the handler passes the request to the hot route, which knows no guard. A `body`
    that is lines, by its `body_type`, has its shape in each of them.
    """

    name: str
    tag: str
    summary: str
    answers: dict[int, Shown]
    scopes: tuple[str, ...] = ()
    is_open: bool = False
    checks_itself: bool = False
    keyed: bool = False
    body: Any = None
    body_type: str = "application/json"
    body_example: Any = None
    problems: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    description: str = ""

    @property
    def checks_query(self) -> bool:
        """Whether a parameter of the query that is not documented is refused."""
        return not (self.is_open or self.checks_itself)

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code of the registry that the operation may answer."""
        codes = list(self.problems)
        if self.body is not None:
            codes += BODY_PROBLEMS
        if not self.is_open:
            codes += ["unauthenticated", "rate_limited"]
        if self.checks_query:
            codes.append("bad_parameter")
        if self.scopes:
            codes.append("scope_missing")
        return tuple(dict.fromkeys([*codes, "internal"]))
