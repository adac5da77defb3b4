"""What the routes of clients take and give."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from core_ext.limits import CHANNEL_CHARS_MAX
from core_ext.shapes import Time
from gateway.api.sale_shapes import Instant
from gateway.domain.access import ANY_CHANNEL, SCOPES

NAME_PATTERN = "^[a-z0-9-]{1,64}$"
CHANNELS_MAX = 1000

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="a-z, 0-9 and -; a name is never given to another client")]
Scope = Annotated[str, Meta(pattern=f"^({'|'.join(SCOPES)})$", extra_json_schema={"enum": list(SCOPES)})]
Scopes = Annotated[
    list[Scope], Meta(min_length=1, max_length=len(SCOPES), description="What the client may do; at most what you may")
]
Channel = Annotated[str, Meta(pattern=rf"^([a-z0-9-]{{1,{CHANNEL_CHARS_MAX}}}|\{ANY_CHANNEL})$")]
Channels = Annotated[
    list[Channel], Meta(min_length=0, max_length=CHANNELS_MAX, description="Where it may sell, `*`: anywhere")
]
ExpiresAt = Annotated[Time, Meta(description="Until when the token is good; null: until it is revoked")]


class ClientIn(Struct, forbid_unknown_fields=True):
    name: Name
    scopes: Scopes
    channels: Channels = []
    expires_at: ExpiresAt | None = None


class ClientChange(Struct, forbid_unknown_fields=True):
    """A change of a client: what is left out stays as it is."""

    scopes: Scopes | UnsetType = UNSET
    channels: Channels | UnsetType = UNSET


class TokenIn(Struct, forbid_unknown_fields=True):
    expires_at: ExpiresAt | None = None


class Token(Struct):
    """A token, without what makes it one."""

    token_id: int
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Annotated[Instant | None, Meta(description="To the minute, two minutes late at most")]
    revoked_at: Instant | None


class Client(Struct):
    name: str
    scopes: list[str]
    channels: list[str]
    version: Annotated[int, Meta(description="Of scopes and channels")]
    created_at: Instant
    tokens: Annotated[list[Token], Meta(description="Newest first, those that have ended included")]


class ClientPage(Struct):
    items: list[Client]
    next_cursor: str | None


Secret = Annotated[str, Meta(description="What `Authorization: Bearer` carries; it is shown here and never again")]


class NewToken(Token):
    token: Secret


class NewClient(Client):
    """A client with its first token."""

    token: Secret


DOCUMENTED: tuple[Any, ...] = (ClientIn, ClientChange, TokenIn, Client, ClientPage, NewToken, NewClient)
