"""The errors a user can mend. Every message names what was found, what was expected and what to do.

    M2FBenchError            exit status 2, one line, no traceback
    ├── SuiteError           a suite file or a --set that does not say what it should
    ├── CheckpointError      a checkpoint that is not there, not whole, or no Mask2Former
    │   └── ClassesError     its classes are not the dataset's
    ├── DatasetError         a dataset that is not there or not what it says it is
    │   └── ImageError       one image that cannot be read, or that memory is too small for; a suite may say to skip it
    ├── PredictionsError     a predictions file that cannot be scored
    ├── CardError            a model card that cannot be read, or is not about what was measured
    ├── StoreError           a run directory that cannot be written, is in use, or belongs to another run
    ├── HistoryError         a history that cannot be opened or written, or that has no such result
    ├── NightlyError         a nightly's configuration that does not say what it should, or a night that cannot be run
    ├── ExtraError           an optional package that is asked for and not installed; the message names the extra
    ├── DeviceError          a device that is not here
    │   └── UnsupportedError a variant that this device or model cannot do; a run reports it and goes on with the others
    └── EmissionsError       grams of CO2e are asked for and cannot be given: codecarbon is missing, or it does not know the country
    VerificationError        two evaluators disagree: our bug, exit status 70

Anything else that escapes is a bug of ours and keeps its traceback (exit status 70).
"""


class M2FBenchError(Exception):
    """Base of all errors that the user can mend; ``str(error)`` is the one line to show."""


class SuiteError(M2FBenchError): ...


class CheckpointError(M2FBenchError): ...


class ClassesError(CheckpointError): ...


class DatasetError(M2FBenchError): ...


class ImageError(DatasetError): ...


class PredictionsError(M2FBenchError): ...


class CardError(M2FBenchError): ...


class StoreError(M2FBenchError): ...


class HistoryError(M2FBenchError): ...


class NightlyError(M2FBenchError): ...


class ExtraError(M2FBenchError): ...


class DeviceError(M2FBenchError): ...


class UnsupportedError(DeviceError): ...


class EmissionsError(M2FBenchError): ...


class VerificationError(Exception):
    """The official evaluator gives another figure than ours for the same predictions."""


def shown(text: object, limit: int = 120) -> str:
    """Text from a file or a server as it may stand in a message: on one line, of bounded length, with nothing a terminal would obey."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"
