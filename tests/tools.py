"""Programs that some tests use and `make setup` cannot bring: `apt-get install wrk`."""

import shutil

import pytest

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk")
