"""One fixture gives both twins, so every test that asks for it runs against the specification and against what is
shipped.
"""

import pytest
from hypothesis import settings

from tests.ext.twins import COMPILED, REFERENCE, Twin

# What an example takes says more about the machine than about the code.
settings.register_profile("ext", deadline=None)
settings.load_profile("ext")


@pytest.fixture(params=[REFERENCE, COMPILED], ids=["reference", "compiled"], scope="session")
def twin(request: pytest.FixtureRequest) -> Twin:
    loaded: Twin = request.param
    return loaded
