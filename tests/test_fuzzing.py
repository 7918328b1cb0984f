"""A few of the bodies of `benchmarks.fuzzing`, against the real program."""

import asyncio
import itertools

import pytest

from benchmarks.fuzzing import FINE, Outcome, mutants, seeds, send
from tests.servers import Server


def test_sound_bodies_are_predicted(server: Server) -> None:
    assert {server.invoke(seed.data, seed.content_type).status for seed in seeds()} == {200}


def test_the_same_number_gives_the_same_bodies() -> None:
    first, again, other = (list(itertools.islice(mutants(n), 50)) for n in (1, 1, 2))

    assert first == again
    assert first != other


@pytest.mark.slow
def test_mutated_bodies_do_not_harm_the_server(server: Server) -> None:
    worker, outcome = server.worker(), Outcome()

    asyncio.run(send(server.port, itertools.islice(mutants(1), 3000), outcome))

    assert outcome.wrong == []
    assert FINE.issuperset(outcome.statuses)
    # Some mutants must still be images, or nothing would have been tried but their first bytes.
    assert outcome.statuses[200] > 300 < outcome.statuses[422]
    assert server.worker() == worker
    assert "Traceback" not in server.log.read_text()
