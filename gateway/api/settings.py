"""The live settings over HTTP: what is in force, what was, and the next version. The ledger's versions are shown and
written, as by `floodgate config`; every process follows the newest within a second, this one too.

A change names the version that it was made from, so that nobody undoes what he has not seen. Content that is in force
already makes no version: asking again changes nothing.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any
from urllib.parse import quote

import asyncpg
import msgspec
from litestar import Response, get, post, put
from msgspec import Struct

from core_ext.faults import FAULTS_MAX, FRAGMENT_SAFE, TOKEN_CHARS_MAX
from gateway.api import settings_shapes as shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, IF_NONE_MATCH, OPERATION, Operation, Parameter, Shown
from gateway.api.reading import (
    LIMIT,
    LIMIT_DEFAULT,
    decode_json,
    mismatch,
    read_if_match,
    read_limit,
    read_precondition,
    read_query,
    read_raw,
    services_of,
)
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.live import document_of, read_document
from gateway.services import Services
from gateway.settings import LIVE, Settings, SettingsError, checked, live_part
from gateway.settings_errors import Fault, Path, find_faults
from persistence.postgres import live_settings
from persistence.postgres.live_settings import Version

PATH = "/v1/settings"
SCOPES = ("config:write",)
SHOWN = Shown(
    "The version in force",
    shapes.LiveSettings,
    headers={"ETag": "The version; none before the first"},
    example=shapes.LIVE_SETTINGS,
)
SHOW = Operation(
    name="showSettings",
    tag="Settings",
    summary="Show the live settings that are in force",
    scopes=SCOPES,
    answers={200: SHOWN},
    problems=("ledger_away",),
)
PUT = Operation(
    name="putSettings",
    tag="Settings",
    summary="Replace the live settings",
    description="All live sections at once. Every process follows within a second. "
    "Needs If-Match, or `If-None-Match: *` where there is no version yet.",
    scopes=SCOPES,
    body=shapes.SettingsIn,
    body_example=shapes.SETTINGS_IN,
    answers={200: SHOWN},
    problems=("precondition_required", "version_mismatch", "ledger_away"),
    parameters=(IF_MATCH, IF_NONE_MATCH),
)
HISTORY = Operation(
    name="listSettings",
    tag="Settings",
    summary="List the versions of the live settings, newest first",
    scopes=SCOPES,
    answers={200: Shown("The versions", shapes.SettingsHistory, example=shapes.HISTORY)},
    problems=("ledger_away",),
    parameters=(Parameter("limit", "query", LIMIT, f"So many at most; {LIMIT_DEFAULT} when left out"),),
)
ROLLBACK = Operation(
    name="rollBackSettings",
    tag="Settings",
    summary="Make the content of an old version the next version",
    scopes=SCOPES,
    body=shapes.RollbackIn,
    body_example=shapes.ROLLBACK_IN,
    answers={200: SHOWN},
    problems=("not_found", "version_mismatch", "ledger_away"),
    parameters=(IF_MATCH,),
)


@get(PATH, opt={OPERATION: SHOW})
async def show_settings(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    async with _ledger(services) as connection:
        _, now = await live_settings.current(connection)
    return _answer(services, now)


@put(PATH, opt={OPERATION: PUT})
async def put_settings(request: AnyRequest) -> Response[bytes]:
    services, actor = services_of(request), client_of(request).actor
    if_version = read_precondition(request)
    if if_version is None:
        raise refuse("precondition_required", "If-Match names the version that the change is meant for, its ETag")
    document = decode_json(await read_raw(request))
    wanted = _wanted(document)
    async with _ledger(services) as connection:
        _, now = await live_settings.current(connection)
        if (now.version if now else 0) != if_version:
            raise mismatch(if_version)
        if now is None or _content(now) != wanted:
            text = document_of(wanted)
            version = await live_settings.apply(connection, text, actor, document.get("reason"), if_version)
            now = await _written(connection, version, if_version)
    return _answer(services, now)


@get(PATH + "/history", opt={OPERATION: HISTORY})
async def list_settings(request: AnyRequest) -> Response[bytes]:
    services, limit = services_of(request), read_limit(read_query(request))
    async with _ledger(services) as connection:
        found = await live_settings.history(connection, limit)
    return json_answer({"items": [_shown(one) for one in found]})


@post(PATH + "/rollback", opt={OPERATION: ROLLBACK})
async def roll_back_settings(request: AnyRequest) -> Response[bytes]:
    services, actor = services_of(request), client_of(request).actor
    if_version = read_if_match(request)
    wanted = _read(decode_json(await read_raw(request)), shapes.RollbackIn)
    reason = wanted.reason or f"rollback to version {wanted.version}"
    async with _ledger(services) as connection:
        _, now = await live_settings.current(connection)
        old = await live_settings.fetch(connection, wanted.version)
        if now is None or old is None:
            raise refuse("not_found", f"there is no version {wanted.version}")
        if if_version not in (None, now.version):
            raise mismatch(if_version)
        _check_readable(old)
        if now.document != old.document:
            version = await live_settings.rollback(connection, old.version, actor, reason, now.version)
            now = await _written(connection, version, now.version)
    return _answer(services, now)


def _ledger(services: Services) -> Any:
    """A connection of the pool, waited for no longer than for a statement."""
    return services.pool.acquire(timeout=services.settings.postgres.command_timeout_ms / 1000)


async def _written(connection: asyncpg.Connection, version: int | None, if_version: int) -> Version:
    found = None if version is None else await live_settings.fetch(connection, version)
    if found is None:
        raise mismatch(if_version)
    return found


def _wanted(document: Any) -> Settings:
    """The settings with these live sections. Raises ProblemError, which names every fault."""
    _read(document, shapes.SettingsIn)
    try:
        return checked({section: document[section] for section in LIVE if section in document})
    except SettingsError as error:
        raise _invalid(error.faults) from error


def _read(document: Any, shape: type[Struct]) -> Any:
    faults = [*islice(find_faults(document, shape), FAULTS_MAX)]
    if faults:
        raise _invalid(faults)
    return msgspec.convert(document, shape)


def _invalid(faults: Iterable[Fault]) -> ProblemError:
    errors = tuple({"detail": fault.wanted, "pointer": _pointer(fault.path), "code": fault.code} for fault in faults)
    return ProblemError(Refusal("invalid", "the body is not valid", errors))


def _pointer(path: Path) -> str:
    """An unknown name that is too long to be repeated is left out."""
    names = [str(part).replace("~", "~0").replace("/", "~1") for part in path if len(str(part)) <= TOKEN_CHARS_MAX]
    return "/".join(["#", *(quote(name, safe=FRAGMENT_SAFE, errors="replace") for name in names)])


def _check_readable(old: Version) -> None:
    try:
        read_document(old.document)
    except SettingsError as error:
        entry = {"detail": "was written by another release", "pointer": "#/version", "code": "out_of_range"}
        raise ProblemError(Refusal("invalid", entry["detail"], (entry,))) from error


def _content(stored: Version) -> Settings | None:
    """None for content of another release, which no change of this one equals."""
    try:
        return read_document(stored.document)
    except SettingsError:
        return None


def _shown(stored: Version) -> dict[str, Any]:
    """Whole, with the defaults of this release where a version names less; content of another one as it stands."""
    found = _content(stored)
    sections = live_part(found) if found else msgspec.json.decode(stored.document)
    return {"version": stored.version, "at": stored.at, "actor": stored.actor, "reason": stored.reason} | sections


def _answer(services: Services, now: Version | None) -> Response[bytes]:
    if now is not None:
        return json_answer(_shown(now), headers={"etag": etag(now.version)})
    nobody: dict[str, Any] = {"version": 0, "at": None, "actor": None, "reason": None}
    return json_answer(nobody | live_part(services.settings))
