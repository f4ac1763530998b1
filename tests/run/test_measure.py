import subprocess
import sys

import pytest

from pipeline.run import measure


def test_cpu_time_of_subprocesses_is_counted():
    usage = measure.start()
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert usage().cpu_seconds > 0


def test_the_peak_is_of_the_time_since_the_start():
    if not measure._reset_peak_memory():
        pytest.skip("this system does not let a process reset its peak memory")
    before = bytearray(200 << 20)
    del before
    usage = measure.start()
    baseline = usage().peak_mib
    held = bytearray(100 << 20)
    assert baseline + 90 < usage().peak_mib < baseline + 150
    del held


def test_without_a_reset_the_peak_is_unknown(monkeypatch):
    monkeypatch.setattr(measure, "_reset_peak_memory", lambda: False)
    assert measure.start()().peak_mib is None
