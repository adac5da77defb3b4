"""The configuration of NATS: Floodgate's own account, which has the streams, and an account for each team that may
read.

Permissions of a user are not enough to keep a team from writing: NATS sends what is asked for to whatever subject the
question names as its reply, a stream's own subject, too. In an account of its own a team's replies stay there. What it
sees of ours are three questions about each of its durables: what it is, its next events, and their acknowledgement.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ACCOUNT = "FLOODGATE"
USER = "floodgate"
# Under this JetStream domain a team's client finds what we export: under its own name NATS answers for the team's
# account, which has no streams.
DOMAIN = "floodgate"
ASKED = ("CONSUMER.INFO", "CONSUMER.MSG.NEXT")  # of a durable
# What our account exports. Who gets what of it is said by the imports of each team, which only the operator writes.
# They are the same whatever teams there are: a running server takes up new accounts, but not new exports.
EXPORTS = (
    '{service: "$JS.API.CONSUMER.INFO.*.*"}',
    '{service: "$JS.API.CONSUMER.MSG.NEXT.*.*", response_type: stream}',
    '{service: "$JS.ACK.>"}',
)


class Durable(NamedTuple):
    """A durable consumer of a stream, with the subject that it is for."""

    stream: str
    name: str
    subject: str


class Team(NamedTuple):
    name: str
    password: str
    durables: tuple[Durable, ...]

    @property
    def account(self) -> str:
        return f"TEAM-{self.name}"


def accounts(secret: str, teams: Sequence[Team]) -> str:
    """The block for a server of ours."""
    lines = [
        "accounts {",
        f"  {ACCOUNT} {{",
        "    jetstream: enabled",
        f"    users: [{{user: {USER}, password: {json.dumps(secret)}}}]",
        "    exports: [",
        *(f"      {line}" for line in EXPORTS),
        "    ]",
        "  }",
        *(f"  {line}" for team in teams for line in team_account(team)),
        "}",
    ]
    return "\n".join(lines)


def team_account(team: Team, ours: str = ACCOUNT) -> list[str]:
    """The team's account; `ours` is the one with the streams. Its user may send nothing but the three questions."""
    imports = [
        f"      {{service: {{account: {json.dumps(ours)}, subject: {json.dumps(subject)}}}, to: {json.dumps(to)}}}"
        for subject, to in _subjects(team.durables)
    ]
    allowed = ", ".join(json.dumps(to) for _, to in _subjects(team.durables))
    return [
        f"{json.dumps(team.account)} {{",
        f"  users: [{{user: {json.dumps(team.name)}, password: {json.dumps(team.password)}, permissions: {{",
        f'    publish: {{allow: [{allowed}]}}, subscribe: {{allow: ["_INBOX.>"]}}',
        "  }}]",
        "  imports: [",
        *(line[2:] for line in imports),
        "  ]",
        "}",
    ]


def _subjects(durables: Iterable[Durable]) -> list[tuple[str, str]]:
    """Subject with us, and with the team."""
    found = []
    for durable in durables:
        at = f"{durable.stream}.{durable.name}"
        found += [(f"$JS.API.{asked}.{at}", f"$JS.{DOMAIN}.API.{asked}.{at}") for asked in ASKED]
        found.append((f"$JS.ACK.{at}.>", f"$JS.ACK.{at}.>"))
    return found
