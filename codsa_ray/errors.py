"""The error tree: what the user asked for that cannot be, and what we got wrong; knows no stage.

CodsaError                     every error this package raises on purpose
  UserError          exit 2    wanted, got, what to do
    InputError                 a file or folder that cannot be read as rows
    PictureError               bytes that cannot be read as a picture
    SchemaError                a column, its kind, bounds or constraints
    GroupError                 groups, predicates, target mix
    SettingError               an option, a plug-in name, a setting
    FolderError                a run folder that cannot be used
    ClusterError               a Ray address that cannot be reached
  InternalError      exit 1    our defect, or the machine's
    ShortOfRows                a generator that could not draw what was asked
    CandidateError             one candidate's fit went wrong; the search lists it and goes on
    PluginError                a plug-in that breaks its contract
  MachineError       exit 1    the machine lacks memory, room or a working device, in a plug-in's own code
  DamagedError       exit 1    a file of the run folder that is not as it was written
  OutOfTime          exit 3    the hours that the run was given are over; the same command goes on
"""

import re

CREDENTIALS = re.compile(r"://[^/\s@]+@")  # of an address that the user typed


class CodsaError(Exception):
    """Base of the tree; `str(error)` is the one line a user reads."""

    exit_code = 1


class UserError(CodsaError):
    """Something the caller can put right.

    Args:
        wanted: what would have been fine.
        got: what was there instead.
        do: the next step, ready to be typed where that is possible.
    """

    exit_code = 2

    def __init__(self, wanted: str, got: str, do: str) -> None:
        self.wanted, self.got, self.do = wanted, got, do
        super().__init__(wanted, got, do)

    def __str__(self) -> str:
        return CREDENTIALS.sub("://***@", " ".join(f"wanted {self.wanted}; got {self.got}; {self.do}".split()))


class InputError(UserError):
    """DATA cannot be read as rows."""


class PictureError(UserError):
    """Bytes that are no picture, a broken one, or one beyond the stated size."""


class SchemaError(UserError):
    """A column is not what was declared or inferred."""


class GroupError(UserError):
    """Groups, predicates or the target mix do not fit the rows."""


class SettingError(UserError):
    """An option, a plug-in name or a plug-in setting does not exist or does not fit."""


class FolderError(UserError):
    """The run folder cannot be used."""


class ClusterError(UserError):
    """The Ray address cannot be reached, or the cluster lacks what a stage needs."""


class InternalError(CodsaError):
    """Our defect, or the machine's."""


class ShortOfRows(InternalError):
    """A generator could not draw the rows of a region within its bounded number of tries."""


class CandidateError(InternalError):
    """One candidate could not be fitted or scored; the search lists it with this reason."""


class PluginError(InternalError):
    """A plug-in breaks its contract."""


class MachineError(CodsaError):
    """The machine failed in a plug-in's own code: no plug-in's failure, and nothing that is kept; the same command goes on."""


class DamagedError(CodsaError):
    """A file of the run folder is not as it was written; the same command makes it anew."""


class OutOfTime(CodsaError):
    """The hours that the run was given are over; what is finished is kept, and the same command goes on."""

    exit_code = 3


# What a plug-in's own code may fail with: it is listed with the reason and the run goes on. What the machine fails with (OSError,
# MemoryError), a damaged file or a store out of reach (InputError, FolderError) is none of these: the run stops, and the same command
# goes on from there. Libraries tell of the machine in a RuntimeError or a ValueError too: whoever catches these asks blame.py.
PLUGIN_FAILURES = (SchemaError, GroupError, SettingError, InternalError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError)
