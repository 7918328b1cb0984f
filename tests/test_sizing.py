"""Sizes of the server."""

from pathlib import Path

import pytest

from container.serving.settings import MIB, Settings
from container.serving.sizing import Sizing, models_budget

GIB = 1024 * MIB


def sizing(processors: int, gib: float, settings: Settings | None = None) -> Sizing:
    return Sizing.choose(
        settings or Settings(),
        processors=processors,
        memory=int(gib * GIB),
        model_bytes=45 * MIB,
    )


@pytest.mark.parametrize(
    ("processors", "gib", "expected"),
    [
        # A serverless endpoint has memory for one large image only.
        (1, 1, (1, 1, 1, 1)),
        (2, 24, (1, 2, 2, 4)),
        (2, 2, (1, 2, 2, 2)),
        (8, 64, (1, 8, 8, 10)),
        (8, 4, (1, 8, 8, 4)),
        (16, 64, (2, 8, 8, 10)),
        (16, 1.5, (1, 16, 16, 1)),
        (64, 256, (8, 8, 8, 10)),
    ],
)
def test_sizes_are_derived_from_cpus_and_memory(
    processors: int, gib: float, expected: tuple[int, int, int, int]
) -> None:
    chosen = sizing(processors, gib)

    found = (chosen.workers, chosen.streams, chosen.latency_threads, chosen.images)
    assert found == expected


def test_more_memory_for_each_image_leaves_less_of_them() -> None:
    assert sizing(8, 4).images == 4
    assert sizing(8, 4, Settings(image_mb=3200)).images == 1


@pytest.mark.parametrize(
    ("processors", "gib", "threads"), [(1, 1, 8), (1, 24, 12), (8, 6, 16), (8, 24, 40)]
)
def test_four_requests_for_each_image_are_in_flight_if_memory_allows(
    processors: int, gib: float, threads: int
) -> None:
    assert sizing(processors, gib).threads == pytest.approx(threads, abs=5)


def test_network_too_large_for_a_second_copy_is_compiled_once() -> None:
    memory = 4 * GIB
    chosen = [
        Sizing.choose(Settings(), processors=4, memory=memory, model_bytes=size * MIB)
        for size in (500, 1000)
    ]

    assert [each.latency_threads for each in chosen] == [4, 1]


def test_settings_override_sizes_and_determine_the_others() -> None:
    settings = Settings(workers=2, streams=3, latency_threads=1, threads=5, queue=7)

    chosen = sizing(8, 64, settings)

    assert chosen == Sizing(workers=2, streams=3, latency_threads=1, images=5, threads=5, queue=7)
    assert sizing(8, 64, Settings(workers=2)).streams == 4


@pytest.mark.parametrize(
    ("processors", "gib", "expected"),
    [
        (1, 1, (1, 1, 1, 1)),
        (2, 4, (1, 2, 1, 2)),
        (2, 8, (1, 2, 1, 3)),
        (64, 256, (1, 8, 1, 10)),
    ],
)
def test_multi_model_server_has_one_process_and_no_second_network(
    processors: int, gib: float, expected: tuple[int, int, int, int]
) -> None:
    chosen = sizing(processors, gib, Settings(multi_model=True, workers=3))

    found = (chosen.workers, chosen.streams, chosen.latency_threads, chosen.images)
    assert found == expected


@pytest.mark.parametrize(
    ("processors", "gib", "gpus", "expected"),
    [
        # ml.g5.xlarge, ml.g5.12xlarge, a machine without a GPU.
        (4, 16, 1, (1, 4, 80)),
        (48, 192, 4, (4, 12, 112)),
        (2, 24, 0, (1, 2, 72)),
        (4, 4, 1, (1, 1, 8)),
    ],
)
def test_pytorch_has_a_process_for_each_gpu_and_all_cores_decode(
    processors: int, gib: int, gpus: int, expected: tuple[int, int, int]
) -> None:
    chosen = Sizing.for_batches(
        Settings(), processors=processors, memory=gib * GIB, model_bytes=98 * MIB, gpus=gpus
    )

    assert (chosen.workers, chosen.images, chosen.threads) == expected
    # Two batches: one is computed while the next one is collected.
    assert chosen.batched == 64


@pytest.mark.parametrize(("gib", "budget"), [(0.5, 0), (1, 45), (4, 2349), (8, 5421)])
def test_models_get_three_quarters_of_the_memory_beside_server_and_image(
    gib: float, budget: int
) -> None:
    assert models_budget(Settings(), int(gib * GIB)) // MIB == budget


@pytest.mark.parametrize(
    ("latency_threads", "network", "image_size", "mib"),
    [(1, 0, 0, 20), (1, 45, 0, 155), (2, 45, 0, 245), (1, 0, 1024, 20 + 192), (2, 0, 1024, 276)],
)
def test_memory_of_a_model_is_copies_of_its_file_and_activations(
    latency_threads: int, network: int, image_size: int, mib: int
) -> None:
    sizing = Sizing(
        workers=1, streams=2, latency_threads=latency_threads, images=4, threads=8, queue=512
    )

    assert sizing.loaded_bytes(network * MIB, image_size) == mib * MIB


def test_sizes_are_logged_on_one_line(artifact: Path) -> None:
    line = str(Sizing.of_this_container(Settings(streams=2, queue=9), artifact))

    assert line.startswith("workers=")
    assert " streams=2 " in line
    assert line.endswith(" queue=9 batched=0")
