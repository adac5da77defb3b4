"""The compiled modules are really loaded, look like their twins, and one variable picks between them."""

import inspect
import os
import subprocess
import sys

import pytest

from tests.ext.twins import COMPILED, MODULES, REFERENCE

PRINT_CHOICE = "import core_ext; print(core_ext.IMPLEMENTATION, core_ext.rows.__name__)"
HIDE_EXTENSION = "import sys; sys.modules['core_ext.compiled.rows'] = None; import core_ext"


def run(code: str, core: str | None) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "FLOODGATE_CORE"}
    if core is not None:
        environ["FLOODGATE_CORE"] = core
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("module", MODULES)
def test_extension_is_loaded_from_a_shared_object(module: str) -> None:
    assert str(getattr(COMPILED, module).__file__).endswith(".so")


@pytest.mark.parametrize("module", MODULES)
def test_twins_have_the_same_public_names(module: str) -> None:
    reference, compiled = getattr(REFERENCE, module), getattr(COMPILED, module)
    assert reference.__all__ == compiled.__all__
    assert all(hasattr(twin, name) for twin in (reference, compiled) for name in reference.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_functions_of_twins_name_the_same_parameters(module: str) -> None:
    reference, compiled = getattr(REFERENCE, module), getattr(COMPILED, module)
    for name in filter(lambda name: inspect.isfunction(getattr(reference, name)), reference.__all__):
        assert list(inspect.signature(getattr(reference, name)).parameters) == list(
            inspect.signature(getattr(compiled, name)).parameters
        )


def test_stock_tables_have_the_same_methods() -> None:
    reference, compiled = REFERENCE.stock_table.StockTable, COMPILED.stock_table.StockTable
    public = {name for name in vars(reference) if not name.startswith("_")}
    assert public == {name for name in vars(compiled) if not name.startswith("_")}


def test_core_without_choice_is_compiled() -> None:
    assert run(PRINT_CHOICE, None).stdout == "compiled core_ext.compiled.rows\n"


def test_core_chosen_as_reference_is_reference() -> None:
    assert run(PRINT_CHOICE, "reference").stdout == "reference core_ext.reference.rows\n"


def test_core_with_unknown_choice_is_an_error() -> None:
    assert "has to be `compiled` or `reference`, not 'fast'" in run(PRINT_CHOICE, "fast").stderr


def test_core_without_extension_says_how_to_build_it() -> None:
    failed = run(HIDE_EXTENSION, None)
    assert failed.returncode == 1
    assert "python setup.py build_ext --inplace" in failed.stderr
