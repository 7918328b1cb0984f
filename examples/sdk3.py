"""Objects of the SageMaker SDK, version 3, from the settings file: ModelTrainer and others.

`image_classifier/sagemaker/sdk.py` has those of version 2. The command itself needs no SDK. Run
this file in the environment of `make sdk3`:

    .venv/sdk3/bin/python -m examples.sdk3 settings.toml

It trains on this machine, in the container image.
"""

import sys
from pathlib import Path

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import (
    CategoricalParameter,
    ContinuousParameter,
    IntegerParameter,
    ParameterRange,
)
from sagemaker.core.transformer import Transformer
from sagemaker.serve import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import (
    CheckpointConfig,
    Compute,
    InputData,
    MetricDefinition,
    Networking,
    OutputDataConfig,
    StoppingCondition,
    Tag,
)
from sagemaker.train.model_trainer import Mode
from sagemaker.train.tuner import HyperparameterTuner

from image_classifier.sagemaker.endpoint_requests import TRANSFORM_ENVIRONMENT
from image_classifier.sagemaker.request_fields import tags, volume_key
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings import settings_file
from image_classifier.settings.schema import HOUR, Settings
from image_classifier.settings.settings_file import SettingsFile
from image_classifier.settings.tuning import Range, Tuning, is_integer


def trainer(settings: Settings, session: Session) -> ModelTrainer:
    """Return the ModelTrainer of the settings."""
    job, aws = settings.training, settings.aws
    made = ModelTrainer(
        training_image=settings.images.train,
        role=aws.role,
        base_job_name=settings.name,
        sagemaker_session=session,
        hyperparameters=settings.job_hyperparameters(),
        environment=dict(job.environment),
        training_input_mode=settings.data.mode,
        compute=Compute(
            instance_type=job.instance_type,
            instance_count=job.instance_count,
            volume_size_in_gb=job.volume_gb,
            volume_kms_key_id=volume_key(settings, job.instance_type).get("VolumeKmsKeyId"),
            keep_alive_period_in_seconds=job.keep_alive_minutes * 60 or None,
            enable_managed_spot_training=job.spot,
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=round(job.max_hours * HOUR),
            max_wait_time_in_seconds=job.max_wait_seconds if job.spot else None,
        ),
        checkpoint_config=_checkpoints(settings) if job.spot else None,
        output_data_config=OutputDataConfig(s3_output_path=settings.output, kms_key_id=aws.kms_key),
        networking=_networking(settings),
        tags=[Tag(key=tag["Key"], value=tag["Value"]) for tag in tags(settings)],
    )
    definitions = metrics.definitions(settings)
    return made.with_metric_definitions(
        [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in definitions]
    )


def channels(settings: Settings) -> list[InputData]:
    """Return the channels for `train` and `tune`."""
    return [
        InputData(channel_name=name, data_source=f"{settings.channels_uri}/{name}/")
        for name in settings.data.channels
    ]


def tuner(settings: Settings, tuning: Tuning, session: Session) -> HyperparameterTuner:
    """Return the HyperparameterTuner of the settings."""
    return HyperparameterTuner(
        model_trainer=trainer(settings, session),
        objective_metric_name=tuning.objective,
        hyperparameter_ranges={n: _range(n, limits) for n, limits in tuning.ranges.items()},
        metric_definitions=metrics.definitions(settings),
        strategy=tuning.strategy,
        objective_type="Minimize" if tuning.is_minimized else "Maximize",
        max_jobs=tuning.jobs,
        max_parallel_jobs=tuning.parallel,
        tags=tags(settings),
        early_stopping_type="Auto" if tuning.early_stopping else "Off",
        random_seed=tuning.seed,
    )


def model_builder(settings: Settings, artifact: str, session: Session) -> ModelBuilder:
    """Return the ModelBuilder of a model.tar.gz on S3: `build`, then `deploy`.

    Its local container mode starts only container images of the SDK's own model servers.
    """
    endpoint = settings.endpoint
    made = ModelBuilder(
        image_uri=settings.serve_image,
        s3_model_data_url=artifact,
        role_arn=settings.aws.role,
        env_vars=dict(endpoint.environment),
        instance_type=endpoint.instance_type,
        network=_networking(settings),
        sagemaker_session=session,
    )
    made.add_tags(tags(settings))
    return made


def transformer(settings: Settings, model_name: str, output: str, session: Session) -> Transformer:
    """Return the Transformer of the settings."""
    transform = settings.transform
    return Transformer(
        model_name=model_name,
        instance_count=transform.instance_count,
        instance_type=transform.instance_type,
        strategy=transform.strategy,
        output_path=output,
        output_kms_key=settings.aws.kms_key,
        volume_kms_key=volume_key(settings, transform.instance_type).get("VolumeKmsKeyId"),
        accept=transform.accept_header,
        max_payload=transform.max_payload_mb,
        env=dict(TRANSFORM_ENVIRONMENT),
        assemble_with="Line" if transform.strategy == "MultiRecord" else "None",
        tags=tags(settings),
        sagemaker_session=session,
    )


def local_trainer(file: SettingsFile, image: str, folder: Path) -> ModelTrainer:
    """Return a ModelTrainer that runs a container image on this machine, without an account.

    The model is `compressed_artifacts/model.tar.gz` below `folder`. Several instances are several
    containers.
    """
    job = file.settings.training
    return ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=image,
        base_job_name=file.settings.name,
        hyperparameters=file.settings.job_hyperparameters(),
        environment=dict(job.environment),
        compute=Compute(instance_type="local_cpu", instance_count=job.instance_count),
        input_data_config=[
            InputData(channel_name=name, data_source=str(path))
            for name, path in file.local_channels().items()
        ],
        local_container_root=str(folder.resolve()),
    )


def _checkpoints(settings: Settings) -> CheckpointConfig:
    return CheckpointConfig(s3_uri=f"{settings.output}/checkpoints")


def _networking(settings: Settings) -> Networking:
    aws = settings.aws
    return Networking(
        subnets=list(aws.subnets) or None,
        security_group_ids=list(aws.security_groups) or None,
        enable_network_isolation=aws.network_isolation,
        enable_inter_container_traffic_encryption=aws.encrypt_traffic,
    )


def _range(name: str, limits: Range) -> ParameterRange:
    if limits.values:
        return CategoricalParameter(list(limits.values))
    low, high = limits.bounds
    if is_integer(name):
        return IntegerParameter(int(low), int(high), limits.scaling)
    return ContinuousParameter(low, high, limits.scaling)


if __name__ == "__main__":
    output = Path("output")
    output.mkdir(exist_ok=True)
    given = settings_file.read(Path(sys.argv[1]))
    local_trainer(given, "image-classifier-train", output).train(wait=True)
