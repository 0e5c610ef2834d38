"""Grams of CO2e: codecarbon's own data and arithmetic, no traces of it, and what is said where there is no figure."""

import json
import logging
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from m2fbench.errors import EmissionsError, M2FBenchError
from m2fbench.profiling import emissions
from m2fbench.profiling.emissions import ESTIMATED, FROM_MEASURED, Grid, co2, grid
from m2fbench.profiling.energy import EnergyUse, MeterReading

NONE = EnergyUse(None, None, None, 0, 0.0, None, None, 0.0, (), ("rapl: no package here",))
READING = MeterReading("nvml", "the whole board", "measured", 720.0, 7.2, 5.0, 72.0, 20.0)
MEASURED = EnergyUse(7.2, 5.0, 72.0, 100, 10.0, "nvml (measured)", 0.01, 3.0, (READING,), ())
HALF = Grid("AAA", "Aland", 500.0, "a table")


def test_measured_energy_times_intensity() -> None:
    result = co2(MEASURED, HALF)
    assert result.grams_per_image == pytest.approx(7.2 / 3.6e6 * 500)  # a kilowatt hour is 3.6 MJ
    assert (result.label, result.reason) == (FROM_MEASURED, None)
    assert result.source == "the whole board; 500 g/kWh in Aland (a table)"


def test_what_cannot_be_given_says_why() -> None:
    without_country = co2(MEASURED, None)
    assert without_country.grams_per_image is None
    assert "--country" in (without_country.reason or "")
    assert co2(NONE, HALF).reason == "rapl: no package here"


def test_codecarbon_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)  # as if the import failed
    monkeypatch.setattr(emissions, "version_of", lambda library: None)
    with pytest.raises(M2FBenchError, match=r"pip install 'm2fbench\[energy\]'"):
        grid("FRA")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every way to another machine is closed, and was not tried; codecarbon swallows exceptions, so the attempts are counted."""
    pytest.importorskip("codecarbon")
    asked: list[object] = []

    def closed(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        raise OSError("no network in this test")

    for where, name in (
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "getaddrinfo"),
        (socket, "create_connection"),
    ):
        monkeypatch.setattr(where, name, closed)
    yield
    assert asked == []


@pytest.mark.full
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("country", ["FRA", "pol", " USA "])
def test_the_grid_is_codecarbons_own_table(country: str) -> None:
    table = json.loads(files("codecarbon").joinpath("data/private_infra/global_energy_mix.json").read_text())
    row = table[country.strip().upper()]
    result = grid(country)
    assert result.grams_per_kwh == pytest.approx(row["carbon_intensity"])
    assert (result.country, result.name) == (row["iso_code"], row["country_name"])
    assert result.source.endswith(f"national mean of {row['year']}")


@pytest.mark.full
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("country", ["FR", "XYZ", "", "france\x1b"])
def test_a_country_it_does_not_know_is_an_error_not_the_worlds_average(country: str) -> None:
    with pytest.raises(EmissionsError, match="expected an ISO 3166 code of three letters") as caught:
        grid(country)
    assert str(caught.value).isprintable()


HOSTILE = """[codecarbon]
output_methods = csv,api,prometheus
save_to_file = true
save_to_api = true
emissions_endpoint = http://localhost:8008
electricitymaps_api_token = token
co2_signal_api_token = token
cloud_provider = gcp
cloud_region = us-east1
allow_multiple_runs = false
force_cpu_power = 100000
pue = 3
log_level = debug
"""


@pytest.mark.full
@pytest.mark.usefixtures("no_network")
def test_an_estimate_leaves_no_trace_whatever_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Settings of the user's that ask for files, services, locks and other figures; none of them counts here."""
    home, folder, temporary = tmp_path / "home", tmp_path / "here", tmp_path / "tmp"
    for path in (home, folder, temporary):
        path.mkdir()
    for path in (home, folder):
        (path / ".codecarbon.config").write_text(HOSTILE)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CODECARBON_CO2_SIGNAL_API_TOKEN", "token")
    monkeypatch.setenv("CODECARBON_SAVE_TO_FILE", "true")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    logger = logging.getLogger("codecarbon")
    state = (logger.level, logger.disabled, list(logger.handlers))
    passes = 0

    def step() -> None:
        nonlocal passes
        passes += 1
        time.sleep(0.05)

    result = co2(NONE, HALF, step=step, images=3, seconds=1.5)
    assert passes >= 10
    assert (result.label, result.reason) == (ESTIMATED, None)
    assert result.joules_per_image is not None
    watts = result.joules_per_image * passes * 3 / 1.5
    assert 1 < watts < 5000  # not the 100 kW of the settings
    assert result.grams_per_image == pytest.approx(result.joules_per_image / 3.6e6 * 500)
    assert (result.source or "").startswith("codecarbon's guess of the whole machine's power (")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records] == []
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (logger.level, logger.disabled, list(logger.handlers)) == state
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.full
@pytest.mark.usefixtures("no_network")
def test_what_the_passes_raise_ends_an_estimate() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        co2(NONE, HALF, step=lambda: 1 / 0, images=1, seconds=5)
    assert threading.active_count() == before  # its threads are ended too
    assert not logging.getLogger("codecarbon").disabled


@pytest.mark.full
@pytest.mark.usefixtures("no_network")
def test_a_tracker_that_fails_within_gives_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """codecarbon hides its own errors; then there are no data, and the reason is told."""

    class Broken:
        def start(self) -> None: ...
        def stop(self) -> None: ...

    monkeypatch.setattr(emissions, "offline_tracker", lambda country: Broken())
    result = co2(NONE, HALF, step=lambda: None, images=1, seconds=0)
    assert result.grams_per_image is None
    assert (result.reason or "").endswith("gave no energy")
