"""A worker gives each controller an address that this controller can reach."""

import logging

import pytest

from controller.chassis.settings import SettingsError
from worker.address import address_for

LOCAL = "http://127.0.0.1:21001"


def test_a_given_address_wins():
    found = address_for(LOCAL, given="http://node7:40000", host="0.0.0.0", port=1)
    assert found == "http://node7:40000"


def test_the_address_is_made_of_host_and_port():
    assert address_for(LOCAL, given=None, host="127.0.0.1", port=7) == "http://127.0.0.1:7"
    assert address_for(LOCAL, given=None, host="localhost", port=7) == "http://localhost:7"
    assert address_for(LOCAL, given=None, host="::1", port=7) == "http://[::1]:7"


def test_a_worker_that_listens_everywhere_gives_the_address_of_its_route():
    assert address_for(LOCAL, given=None, host="0.0.0.0", port=7) == "http://127.0.0.1:7"


def test_a_controller_that_cannot_be_resolved_asks_for_the_flag():
    with pytest.raises(SettingsError, match=r"nowhere\.invalid.*--worker-address"):
        address_for("http://nowhere.invalid:1", given=None, host="0.0.0.0", port=7)


def test_a_loopback_address_for_a_distant_controller_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        address_for("http://10.0.0.1:21001", given=None, host="127.0.0.1", port=7)
    assert "--host 0.0.0.0" in caplog.text
