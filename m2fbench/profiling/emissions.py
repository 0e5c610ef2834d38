"""Grams of CO2e through codecarbon (optional extra ``energy``): its data of the grids, and where no counter is here its guess of the power.

Offline and without traces. codecarbon would read its settings from files and from the environment, among them tokens and addresses of
services; here every setting that leads to a network, a file, a lock or a signal handler is given, so that none of them is looked up. Its
logger is silent while it works. (codecarbon 3.3: emissions_tracker.py, core/emissions.py, core/config.py.)
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from m2fbench.environment import version_of
from m2fbench.errors import EmissionsError, shown
from m2fbench.profiling.energy import EnergyUse

JOULES_PER_KWH = 3.6e6
FROM_MEASURED = "measured energy x grid intensity"
ESTIMATED = "estimated"
NO_COUNTRY = "no country was given, and what a joule emits depends on it; name yours by its ISO code (--country FRA)"
# tracker settings of codecarbon 3.0 to 3.3; those that an installed version does not know are left out
SETTINGS: dict[str, object] = {
    "output_methods": [],  # no emissions.csv, no API, no logger, no Prometheus, no Logfire
    "output_handlers": [],
    "emissions_endpoint": None,
    "electricitymaps_api_token": "",  # None would let it look for the token of the service's old name
    "allow_multiple_runs": True,  # else it leaves a lock file and takes over SIGINT and SIGTERM
    "output_dir": ".",
    "tracking_mode": "machine",  # as every counter here: the whole machine while the block runs
    "log_level": "critical",
    "logger_preamble": "",
    "pue": 1.0,
    "wue": 0,
    "force_cpu_power": None,
    "force_ram_power": None,
    "force_mode_cpu_load": False,
    "force_carbon_intensity_g_co2e_kwh": None,
    "metadata": None,
    "api_call_interval": -1,
    "measure_power_secs": 1,
}
WITHOUT_OUTPUT_METHODS = ("save_to_file", "save_to_api", "save_to_logger", "save_to_prometheus", "save_to_logfire")  # before 3.3


@dataclass(frozen=True)
class Grid:
    """What a kilowatt hour emits in a country, on the mean of a year."""

    country: str  # ISO 3166 alpha-3
    name: str
    grams_per_kwh: float
    source: str


@dataclass(frozen=True)
class Emissions:
    """grams_per_image of CO2e; None with the reason. label: "measured energy x grid intensity" or "estimated"."""

    grams_per_image: float | None
    label: str | None
    source: str | None  # where the intensity, and for an estimate the power, come from
    reason: str | None
    joules_per_image: float | None = None  # from which the grams follow


def grid(country: str) -> Grid:
    """A country's grid by ISO3 code. Call it before measuring: EmissionsError where codecarbon is missing or has no such country."""
    source = _codecarbon("codecarbon.input").DataSource()
    code = country.strip().upper()
    with _silent():
        mixes = source.get_global_energy_mix_data()
        if code not in mixes:  # codecarbon would take the world's average, and say so in a log
            raise EmissionsError(
                f"codecarbon knows no grid of the country {shown(country)!r}; expected an ISO 3166 code of three letters, as FRA"
            )
        name = str(mixes[code]["country_name"])
        emissions = _codecarbon("codecarbon.core.emissions").Emissions(source)
        place = _codecarbon("codecarbon.external.geography").GeoMetadata(country_iso_code=code, country_name=name)
        kilograms = emissions.get_country_emissions(_codecarbon("codecarbon.core.units").Energy.from_energy(1.0), place)
    year = f" of {mixes[code]['year']}" if mixes[code].get("year") else ""
    return Grid(code, name, 1000 * kilograms, f"codecarbon {version_of('codecarbon')}, national mean{year}")


def co2(
    energy: EnergyUse, grid: Grid | None, *, step: Callable[[], object] | None = None, images: int = 1, seconds: float = 10.0
) -> Emissions:
    """Of measured energy: joules x intensity. Without it and with ``step``: codecarbon's estimate over at least ``seconds`` of calls, each a
    pass over ``images`` images. Else the reason why there is no figure."""
    if grid is None:
        return Emissions(None, None, None, NO_COUNTRY)
    intensity = f"{grid.grams_per_kwh:.0f} g/kWh in {grid.name} ({grid.source})"
    if energy.joules_per_image is not None:
        covered = " + ".join(meter.covers for meter in energy.meters)
        grams = energy.joules_per_image / JOULES_PER_KWH * grid.grams_per_kwh
        return Emissions(grams, FROM_MEASURED, f"{covered}; {intensity}", None, energy.joules_per_image)
    if step is None:
        return Emissions(None, None, None, "; ".join(energy.reasons) or "no energy was measured")
    joules, power = _estimated_joules(step, images, seconds, grid.country)
    if joules is None:
        return Emissions(None, None, None, power)
    return Emissions(joules / JOULES_PER_KWH * grid.grams_per_kwh, ESTIMATED, f"{power}; {intensity}", None, joules)


def _estimated_joules(step: Callable[[], object], images: int, seconds: float, country: str) -> tuple[float | None, str]:
    """Joules per image as codecarbon guesses them, and from what; or None and the reason."""
    with _silent():
        tracker = offline_tracker(country)
        tracker.start()
        try:
            start, passes = time.perf_counter(), 0
            while not passes or time.perf_counter() - start < seconds:
                step()
                passes += 1
        finally:
            tracker.stop()
            _end_timers()
    data = getattr(tracker, "final_emissions_data", None)  # it hides its own errors, and then has no data
    if data is None or not data.energy_consumed > 0:
        return None, f"codecarbon {version_of('codecarbon')} gave no energy"
    modes = ", ".join(sorted({str(getattr(part, "_mode", "")) for part in getattr(tracker, "_hardware", ())} - {""}))
    parts = [f"{name} {watts:.0f} W" for name, watts in _mean_watts(data) if watts]
    power = f"codecarbon's guess of the whole machine's power ({', '.join(parts)}{f'; {modes}' if modes else ''})"
    return data.energy_consumed * JOULES_PER_KWH / (passes * images), power


def _end_timers() -> None:
    """codecarbon samples from chained timers; one that fires while the tracker stops starts the next, which nothing would ever end."""
    while left := [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and _is_codecarbons(thread)]:
        for timer in left:
            timer.cancel()
            timer.join()


def _is_codecarbons(timer: threading.Timer) -> bool:
    return type(getattr(timer.function, "__self__", None)).__module__.startswith("codecarbon")


def _mean_watts(data: Any) -> list[tuple[str, float]]:
    """Of processor, memory and devices over the whole block."""
    kwh = (("processor", data.cpu_energy), ("memory", data.ram_energy), ("devices", data.gpu_energy))
    return [(name, part * JOULES_PER_KWH / data.duration) for name, part in kwh]


def offline_tracker(country: str) -> Any:
    """codecarbon's OfflineEmissionsTracker that touches neither network nor files, whatever its configuration files and variables say."""
    module = _codecarbon("codecarbon.emissions_tracker")
    known = set(inspect.signature(module.BaseEmissionsTracker.__init__).parameters)
    settings = {name: value for name, value in SETTINGS.items() if name in known}
    if "output_methods" not in known:
        settings |= {name: False for name in WITHOUT_OUTPUT_METHODS if name in known}
    if "electricitymaps_api_token" not in known:
        settings["co2_signal_api_token"] = ""
    place = {
        "country_iso_code": country,
        "region": None,
        "cloud_provider": None,
        "cloud_region": None,
        "country_2letter_iso_code": None,
    }
    return module.OfflineEmissionsTracker(**settings, **place)


def _codecarbon(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        if version_of("codecarbon") is not None:
            raise EmissionsError(
                f"codecarbon is installed and cannot be imported ({shown(error)}); pip install 'm2fbench[energy]'"
            ) from None
        raise EmissionsError("grams of CO2e need codecarbon, which is not installed; pip install 'm2fbench[energy]'") from None


@contextmanager
def _silent() -> Iterator[None]:
    """codecarbon's logger off, and as it was afterwards."""
    logger = logging.getLogger("codecarbon")
    level, disabled, handlers = logger.level, logger.disabled, list(logger.handlers)
    logger.disabled = True
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.disabled, logger.handlers = disabled, handlers
