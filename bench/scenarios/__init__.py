"""The scenarios of `floodgate bench`, in the order in which a round runs them: the ceilings beside what is held against
them. A new scenario is a file with a `SCENARIO`, and one line here.
"""

from bench.scenario import Scenario
from bench.scenarios import (
    accept,
    bulk,
    catalogue,
    copy,
    core,
    echo,
    lag,
    naive,
    overload,
    slow,
    soldout,
    status,
    stream,
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        echo.SCENARIO,
        accept.SCENARIO,
        copy.SCENARIO,
        stream.SCENARIO,
        naive.SCENARIO,
        core.CORE,
        core.FULL,
        soldout.SCENARIO,
        catalogue.SCENARIO,
        bulk.SCENARIO,
        status.SCENARIO,
        overload.SCENARIO,
        slow.SCENARIO,
        lag.SCENARIO,
    )
}
