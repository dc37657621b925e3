"""The names that the client's package lends from its modules."""

import pytest

from dpop_middleware import client


@pytest.mark.parametrize("name", client.__all__)
def test_each_name_of_the_client_is_there_at_its_first_use(name: str) -> None:
    assert getattr(client, name).__name__ == name
