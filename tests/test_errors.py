import pickle

import pytest

from codsa_ray import errors
from codsa_ray.errors import PLUGIN_FAILURES, CodsaError, DamagedError, InternalError, MachineError, OutOfTime, UserError

TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
USER = [error for error in TREE if issubclass(error, UserError)]
OURS = [error for error in TREE if issubclass(error, InternalError)]
NEITHER = {DamagedError, MachineError, OutOfTime}


def test_the_tree_has_one_root_and_every_error_a_side() -> None:
    assert all(issubclass(error, CodsaError) for error in TREE)
    assert {*USER, *OURS, *NEITHER, CodsaError} == set(TREE)
    assert not set(USER) & set(OURS)


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    """Every class once, indented two more than its base."""
    lines = [line for line in str(errors.__doc__).splitlines() if line.strip()]
    drawn = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines if line.split()[0] in vars(errors)}
    assert set(drawn) == {error.__name__ for error in TREE}
    for error in TREE:
        if error is not CodsaError:
            assert drawn[error.__name__] == drawn[error.__bases__[0].__name__] + 2


@pytest.mark.parametrize("error", USER)
def test_the_users_mistakes_exit_with_two_and_say_what_to_do(error: type[UserError]) -> None:
    raised = error("a file", "a\nfolder  with  spaces", "name a file")
    assert raised.exit_code == 2
    assert str(raised) == "wanted a file; got a folder with spaces; name a file"
    assert (raised.wanted, raised.do) == ("a file", "name a file")


def test_a_damaged_file_the_machine_and_a_clock_are_no_plugins_failure() -> None:
    assert not any(issubclass(error, PLUGIN_FAILURES) for error in NEITHER)
    assert all(issubclass(error, PLUGIN_FAILURES) for error in OURS)


@pytest.mark.parametrize("error", OURS)
def test_our_mistakes_exit_with_one(error: type[InternalError]) -> None:
    assert error("short of rows").exit_code == 1
    assert str(error("short of rows")) == "short of rows"


@pytest.mark.parametrize("error", TREE)
def test_errors_cross_processes(error: type[CodsaError]) -> None:
    """A worker's error reaches the driver with its words."""
    raised = error("a", "b", "c") if issubclass(error, UserError) else error("a")
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error
    assert str(again) == str(raised)
    assert vars(again) == vars(raised)
