"""Recorded tensors equal those of the training, which is not affected by recording."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from container.classifier.artifact import WEIGHTS
from container.debugger.__main__ import main
from container.debugger.recording import activations, patched_smdebug, tensor_recorder
from container.debugger.recording.debug_session import Observer, Settings
from container.training import job
from container.training.fitting.cluster import Cluster
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import Stop, StopRequest
from tests import observed
from tests.observed import Network, TrueNorms, collection
from tests.opt_ml import configure, failure, make_job, metrics, train_here, write_json
from tests.processes import free_port

TENSORS = "output/data/debug/tensors"

ALL = [
    collection("losses"),
    collection("gradients", reductions="l2_norm,abs_mean"),
    collection("weights"),
    collection("relu_input", include_regex=".*relu_input", reductions="min"),
    collection("relu_activity", include_regex="^relu_activity$"),
    collection("update_ratio", include_regex="^update_ratio$"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "debughookconfig.json"
    path.write_text(json.dumps({"CollectionConfigurations": ALL}))
    return Settings(configuration_path=path, output_dir=tmp_path / "output", is_required=True)


def trial(directory: Path) -> Any:  # noqa: ANN401 - smdebug has no types
    """Read tensor files as smdebug's users do."""
    from smdebug.trials import create_trial  # noqa: PLC0415

    assert list(directory.glob("collections/*/*_collections.json")), (
        "create_trial would wait forever"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMDEBUG_TRAINING_END_DELAY_REFRESH", "0")
        return create_trial(str(directory))


TRAIN, EVAL = patched_smdebug.ModeKeys.TRAIN, patched_smdebug.ModeKeys.EVAL


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"settings": {"gradient_accumulation_steps": 4}},
        {"settings": {"mixup": 0.4, "gradient_clip_norm": 0.01}},
        {"dtype": torch.bfloat16},
        {"wrap": lambda model: torch.compile(model, backend="aot_eager", fullgraph=True)},
    ],
    ids=["plain", "accumulated", "mixup and clipped", "bfloat16", "compiled as one graph"],
)
def test_recorded_gradients_equal_those_of_the_optimizer(
    settings: Settings, case: Mapping[str, Any]
) -> None:
    network = Network()
    observer = TrueNorms(settings, network)

    observed.train(observer, network, **case)
    observer.close()

    tensors = trial(settings.output_dir / "tensors")
    assert tensors.steps(mode=TRAIN) == [0, 1, 2]
    for step, norms in enumerate(observer.norms):
        assert len(norms) == len(list(network.parameters()))
        for name, norm in norms.items():
            tensor = tensors.tensor(f"gradient/Network_{name}")
            found = tensor.reduction_value(step, "l2", mode=TRAIN)
            assert found == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("case", [{}, {"dtype": torch.bfloat16}])
def test_recording_leaves_losses_and_weights_bit_identical(
    settings: Settings, case: Mapping[str, Any]
) -> None:
    recorded, plain = Network(), Network()
    options = {"settings": {"mixup": 0.4, "gradient_accumulation_steps": 2}, **case}

    observed.train(Observer(settings), recorded, **options)
    observed.train(Observer(), plain, **options)

    state = plain.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in recorded.state_dict().items())


def test_input_of_an_in_place_activation_is_recorded_unchanged(
    settings: Settings,
) -> None:
    observer = Observer(settings)

    observed.train(observer, Network())
    observer.close()

    tensors = trial(settings.output_dir / "tensors")
    assert tensors.tensor("relu_input_0").reduction_value(1, "min", mode=TRAIN) < -0.5
    activity = tensors.tensor("relu_activity_0").value(1, mode=TRAIN)
    assert activity.shape == (4,)
    assert ((activity > 0) & (activity < 1)).all()


def test_activations_use_batch_statistics_without_updating_running_ones() -> None:
    network = Network()
    network.train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    seen = {}

    def see(name: str, _kind: str | None, before: torch.Tensor, _after: torch.Tensor) -> None:
        seen[name] = before.clone()

    activations.observe(network, 9 + torch.randn(8, 3, 16, 16), see)
    in_training = seen["relu|0"].std(dim=(0, 2, 3))
    activations.observe(network.eval(), torch.randn(8, 3, 16, 16), see)

    assert in_training == pytest.approx(np.ones(4), abs=0.01)
    # A frozen layer uses its running statistics: here the initial mean 0 and variance 1.
    assert seen["relu|0"].std() < 0.9
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert network.norm.running_var is not None


def test_gradients_of_unfrozen_layers_are_recorded_after_unfreezing(settings: Settings) -> None:
    network = Network()
    network.conv1.requires_grad_(requires_grad=False)

    class UnfreezingObserver(Observer):
        def begin_step(self, number: int, epoch: int) -> None:
            if number == 2:
                network.conv1.requires_grad_(requires_grad=True)
            super().begin_step(number, epoch)

    observer = UnfreezingObserver(settings)
    observed.train(observer, network)
    observer.close()

    tensors = trial(settings.output_dir / "tensors")
    assert tensors.tensor("gradient/Network_conv1.weight").steps(mode=TRAIN) == [2]
    assert tensors.tensor("gradient/Network_conv2.weight").steps(mode=TRAIN) == [0, 1, 2]


def test_update_ratio_is_change_divided_by_norm(settings: Settings) -> None:
    observer = Observer(settings)

    observed.train(observer, Network())
    observer.close()

    tensors = trial(settings.output_dir / "tensors")
    weights = [tensors.tensor("Network_conv2.weight").value(step, mode=TRAIN) for step in (0, 1)]
    ratio = tensors.tensor("update_ratio/Network_conv2.w").value(0, mode=TRAIN)
    expected = np.linalg.norm(weights[1] - weights[0]) / np.linalg.norm(weights[0])
    assert ratio == pytest.approx(expected, rel=1e-4)


def test_recording_leaves_no_attributes_or_hooks_on_the_network(settings: Settings) -> None:
    network = Network()
    before = dict(vars(network))

    observed.train(Observer(settings), network)

    assert vars(network).keys() == before.keys()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(module.training for module in network.modules())


def test_failing_disk_ends_recording_but_not_training(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = []

    def write(_self: object, data: bytes) -> list[int]:
        written.append(len(data))
        if len(written) > 30:
            raise OSError(28, "No space left on device")
        return [0, len(data)]

    monkeypatch.setattr("smdebug.core.access_layer.file.TSAccessFile.write", write)
    network = Network()
    observer = Observer(settings)

    observed.train(observer, network)
    observer.close()

    assert "has stopped: OSError: [Errno 28] No space left on device" in caplog.text
    assert len(written) == 31
    without = Network()
    observed.train(Observer(), without)
    assert torch.equal(network.conv1.weight, without.conv1.weight)


@pytest.mark.parametrize(("name", "value"), [("BUDGET", 1000), ("MIN_FREE", 2**60)])
def test_recording_stops_at_the_limits_on_disk_space(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: int,
) -> None:
    monkeypatch.setattr(tensor_recorder, name, value)
    observer = Observer(settings)

    observed.train(observer, Network())

    assert "recording of tensors has stopped: BudgetError" in caplog.text
    # The rules on the files wait for a lower rate than that of the last evaluation.
    observer.evaluation(9, 1, 0.5, np.eye(3, dtype=np.int64), 0.5, learning_rate="high")
    (written,) = settings.output_dir.rglob("learning_rate.txt")
    assert written.read_text() == "high"


def test_folder_of_a_killed_or_finished_run_is_reused(settings: Settings) -> None:
    directory = settings.output_dir / "tensors"
    first = Observer(settings)
    observed.train(first, Network(), steps=4)
    first.close()
    assert (directory / "training_job_end.ts").exists()
    (directory / "claim.smd").touch()

    second = Observer(settings)
    observed.train(second, Network(), steps=2)
    second.close()

    assert trial(directory).steps(mode=TRAIN) == [0, 1]


def test_smdebug_writes_nothing_into_the_checkpoint_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "state.pt").touch()
    configuration = tmp_path / "checkpointconfig.json"
    configuration.write_text(json.dumps({"LocalPath": str(checkpoints)}))
    monkeypatch.setenv("CHECKPOINT_CONFIG_FILE_PATH", str(configuration))

    observer = Observer(settings)
    observed.train(observer, Network())
    observer.close()

    assert (settings.output_dir / "tensors" / "training_job_end.ts").exists()
    assert [path.name for path in checkpoints.iterdir()] == ["state.pt"]


def test_end_of_job_file_is_written_under_sagemaker_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "job")
    observer = Observer(settings)

    observed.train(observer, Network())
    observer.close()

    assert (settings.output_dir / "tensors" / "training_job_end.ts").exists()


WRONG = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not a list": b'{"CollectionConfigurations": {"a": 1}}',
    "no name": b'{"CollectionConfigurations": [{}]}',
    "relative path": b'{"LocalPath": "tensors"}',
    "unknown reduction": b'{"CollectionConfigurations": [{"CollectionName": "weights", '
    b'"CollectionParameters": {"reductions": "median"}}]}',
    "no regular expression": b'{"CollectionConfigurations": [{"CollectionName": "mine"}]}',
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_invalid_configuration_disables_only_recording(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "debughookconfig.json"
    path.write_bytes(data)
    observer = Observer(Settings(configuration_path=path, output_dir=tmp_path))

    observed.train(observer, Network())
    observer.close()

    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1


@pytest.mark.parametrize(
    "document",
    [
        {"S3OutputPath": "s3://b/p", "CollectionConfigurations": []},
        {"S3OutputPath": "s3://b/p", "CollectionConfigurations": None, "HookParameters": None},
    ],
)
def test_configuration_without_collections_selects_the_default_ones(
    tmp_path: Path, document: dict[str, object]
) -> None:
    base_dir = make_job(tmp_path)
    write_json(base_dir, "debughookconfig.json", document)

    assert train_here(base_dir, "train") == 0

    tensors = trial(base_dir / "output" / "tensors")
    assert tensors.tensor("CrossEntropyLoss_output_0").steps(mode=TRAIN) == [0, 1, 2]
    assert tensors.tensor("CrossEntropyLoss_output_0").steps(mode=EVAL) == [1]
    assert len(tensors.tensor("predictions").value(1, mode=EVAL)) == 6


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_job(tmp_path_factory.mktemp("plain"), epochs="2", debug="off", mixup="0.2")
    assert train_here(base_dir, "train") == 0
    assert not (base_dir / TENSORS).exists()
    return base_dir


def test_job_is_bit_identical_and_damaged_records_are_reported(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base_dir = make_job(tmp_path, epochs="2", debug="required", mixup="0.2")

    assert train_here(base_dir, "train") == 0

    assert metrics(base_dir) == metrics(plain)
    weights, expected = (load_file(d / "model" / WEIGHTS) for d in (base_dir, plain))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert trial(base_dir / TENSORS).steps(mode=EVAL) == [1, 2]

    largest = max(
        (base_dir / TENSORS / "events").rglob("*.tfevents"), key=lambda p: p.stat().st_size
    )
    content = largest.read_bytes()
    # The first records remain intact.
    largest.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert main(["rules", str(base_dir / TENSORS), "--rules", "WeightUpdateRatio"]) == 0
    assert "Error  " in capsys.readouterr().out
    assert main(["report", str(base_dir / TENSORS), "--output", str(tmp_path / "a.html")]) == 2
    assert "is damaged: " in capsys.readouterr().err
    largest.write_bytes(b"none")
    assert main(["rules", str(base_dir / TENSORS)]) == 2
    assert "holds no tensor at 0" in capsys.readouterr().err


def test_resumed_run_writes_the_records_of_an_uninterrupted_run(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_job(tmp_path / "whole", epochs="2", debug="required", mixup="0.2")
    assert train_here(whole, "train") == 0
    base_dir = make_job(tmp_path / "stopped", epochs="2", debug="required", mixup="0.2")

    class StopInSecondEpoch(Stop):
        reads = 0

        @property
        def requested(self) -> bool:
            self.reads += any(message.startswith("epoch=1 ") for message in caplog.messages)
            return self.reads > 2

    environment = TrainingEnvironment(base_dir=base_dir)
    caplog.clear()
    caplog.set_level(logging.INFO)
    job.run(environment, StopInSecondEpoch())
    assert trial(base_dir / TENSORS).steps(mode=TRAIN) == [0, 1, 2, 3, 4]
    job.run(environment, StopRequest())

    assert metrics(base_dir) == metrics(plain)
    found, expected = trial(base_dir / TENSORS), trial(whole / TENSORS)
    assert found.steps() == expected.steps()
    losses = [t.tensor("CrossEntropyLoss_output_0").values(mode=TRAIN) for t in (found, expected)]
    assert losses[0] == losses[1]


BLOCKED = """
import sys
class Blocking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "smdebug":
            raise {raised}
sys.meta_path.insert(0, Blocking())
from container.training.__main__ import main
sys.exit(main(["train"]))
"""


@pytest.mark.parametrize(
    ("raised", "debug", "code"),
    [
        ("ModuleNotFoundError('No module named smdebug')", "auto", 0),
        ("TypeError('Descriptors cannot be created directly')", "auto", 0),
        ("ModuleNotFoundError('No module named smdebug')", "required", 1),
    ],
)
def test_job_without_smdebug_is_identical_unless_recording_is_required(
    plain: Path, tmp_path: Path, raised: str, debug: str, code: int
) -> None:
    base_dir = make_job(tmp_path, epochs="2", debug=debug, mixup="0.2")
    environment = {
        **os.environ,
        # As in the other job: the number of threads changes the order of additions.
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "SAGEMAKER_BASE_DIR": str(base_dir),
    }

    result = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(raised=raised)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == code, result.stdout + result.stderr
    if code:
        assert failure(base_dir).startswith("debug=required, but tensors cannot be recorded")
    else:
        assert result.stdout.count("debugger: tensors are not recorded") == 1
        assert metrics(base_dir) == metrics(plain)


def test_job_with_only_the_frozen_stage_records_one_evaluation(plain: Path, tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    weights = base_dir / "input" / "data" / "weights"
    weights.mkdir()
    shutil.copy2(plain / "model" / WEIGHTS, weights)
    hyperparameters = json.loads((base_dir / "input/config/hyperparameters.json").read_text())
    wanted = {"fine_tuning": "none", "head_epochs": "2", "debug": "required"}
    configure(base_dir, {**hyperparameters, **wanted}, "training", "weights")

    assert train_here(base_dir, "train") == 0

    tensors = trial(base_dir / TENSORS)
    assert tensors.steps(mode=EVAL) == [0]
    assert tensors.steps(mode=TRAIN) == []


BRIDGE = """
from container.debugger.recording.patched_smdebug import Event
from google.protobuf.internal import api_implementation
event = Event(step=3, wall_time=1.5)
value = event.summary.value.add(tag="loss")
value.tensor.tensor_content = b"1234"
value.tensor.tensor_shape.dim.add(size=1, name="loss_0")
assert Event.FromString(event.SerializeToString()) == event
from smdebug.core.tfevent.proto.summary_pb2 import Summary
assert Summary.Value(tag="loss").tag == "loss"
print(api_implementation.Type())
"""


@pytest.mark.parametrize("backend", ["upb", "python"])
def test_messages_work_with_either_backend_of_protobuf(backend: str) -> None:
    variables = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": backend}

    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", BRIDGE],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, f"{backend}\n"), result.stderr


# The last version with which smdebug itself can write.
OLD_NUMPY = "2.2.6"

UNDER_OLD_NUMPY = f"""
import sys
sys.path.insert(0, sys.argv.pop(1))
import numpy, pytest
assert numpy.__version__ == {OLD_NUMPY!r}
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_tensors_are_written_and_read_with_old_numpy_too(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-deps"]
    downloaded = subprocess.run(
        [*pip, f"--target={tmp_path}", f"numpy=={OLD_NUMPY}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if downloaded.returncode:
        pytest.skip(f"numpy {OLD_NUMPY} cannot be downloaded: {downloaded.stderr[-200:]}")
    chosen = "those_of_the_optimizer or bit_identical or in_place or update_ratio or either_backend"
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen]

    result = subprocess.run(
        [sys.executable, "-c", UNDER_OLD_NUMPY, str(tmp_path), __file__, *options],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"1\d passed", result.stdout), result.stdout


def _train_rank(rank: int, directory: Path, port: int) -> None:
    """Train as one of two processes, and write the norms of the gradients to a file."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    path = directory / "debughookconfig.json"
    own = Settings(configuration_path=path, output_dir=directory / "output", is_required=True)
    network = Network()
    observer = TrueNorms(own if rank == 0 else None, network)
    observed.train(observer, network, wrap=DistributedDataParallel, cluster=Cluster(rank, 2))
    observer.close()
    torch.distributed.destroy_process_group()
    (directory / f"{rank}.json").write_text(json.dumps(observer.norms))


def test_several_processes_record_their_mean_gradients(settings: Settings, tmp_path: Path) -> None:
    arguments = (tmp_path, free_port())
    torch.multiprocessing.spawn(_train_rank, args=arguments, nprocs=2)  # type: ignore[no-untyped-call,attr-defined]

    own, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert own == other
    tensors = trial(settings.output_dir / "tensors")
    for step, norms in enumerate(own):
        for name, norm in norms.items():
            tensor = tensors.tensor(f"gradient/Network_{name}")
            assert tensor.reduction_value(step, "l2", mode=TRAIN) == pytest.approx(norm, rel=1e-5)
