"""Objects of the SageMaker SDK, version 2, from the same settings: Estimator, Model and others.

Everything else in this project calls boto3, so only this module depends on the SDK's version.
"""

from pathlib import Path

import boto3
from sagemaker.debugger import ProfilerConfig
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.model import Model
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.parameter import (
    CategoricalParameter,
    ContinuousParameter,
    IntegerParameter,
    ParameterRange,
)
from sagemaker.predictor import Predictor
from sagemaker.session import Session
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner

from image_classifier.sagemaker.endpoint_requests import TRANSFORM_ENVIRONMENT
from image_classifier.sagemaker.request_fields import tags, volume_key, vpc
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.schema import HOUR, Aws, ContainerImages, Settings
from image_classifier.settings.settings_file import SettingsFile
from image_classifier.settings.tuning import Range, Tuning, is_integer

# Names in docker-compose.yml.
BUILT_HERE = ContainerImages.model_construct(
    train="image-classifier-train", serve="image-classifier-serve"
)

# Local Mode requires a role, and does not use it.
NO_ROLE = "arn:aws:iam::111122223333:role/none"

# The SDK reports every call to AWS by default.
NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


def local_session(folder: Path, port: int = 8080) -> LocalSession:
    """Return a session of Local Mode, which needs no account and sends no telemetry.

    Its containers write below `folder`; endpoints listen on `port`.
    """
    # The SDK requires a region, and does not use it.
    session = LocalSession(boto3.Session(region_name="us-east-1"), sagemaker_config=NO_TELEMETRY)
    session.config = {"local": {"container_root": str(folder.resolve()), "serving_port": port}}
    return session


def for_local_mode(settings: Settings) -> Settings:
    """Return the settings for Local Mode: this machine, and Compose's container images."""
    on_this_machine = {"instance_type": "local"}
    training = settings.training.model_copy(update=on_this_machine | {"spot": False})
    transform = settings.transform.model_copy(update=on_this_machine)
    sections = {"images": BUILT_HERE, "training": training, "transform": transform}
    return settings.model_copy(update={"aws": Aws(role=NO_ROLE), **sections})


def local_channels(file: SettingsFile) -> dict[str, str]:
    """Return the channels for `fit` in Local Mode.

    Raises:
        UserError: a channel has no folder on this machine.
    """
    return {name: f"file://{folder}" for name, folder in file.local_channels().items()}


def channels(settings: Settings) -> dict[str, str]:
    """Return the channels for `fit`."""
    return {name: f"{settings.channels_uri}/{name}/" for name in settings.data.channels}


def estimator(settings: Settings, session: Session, output: str | None = None) -> Estimator:
    """Return the generic Estimator of the settings; `output` is file:// in Local Mode."""
    job, aws = settings.training, settings.aws
    # The SDK sends settings of Debugger and profiler by default.
    uses_service = settings.debugger.service
    profiler = ProfilerConfig(system_monitor_interval_millis=settings.profiler.interval_ms)
    return Estimator(
        image_uri=settings.images.train,
        role=aws.role,
        instance_count=job.instance_count,
        instance_type=job.instance_type,
        volume_size=job.volume_gb,
        volume_kms_key=volume_key(settings, job.instance_type).get("VolumeKmsKeyId"),
        max_run=round(job.max_hours * HOUR),
        input_mode=settings.data.mode,
        output_path=output or settings.output,
        output_kms_key=aws.kms_key,
        sagemaker_session=session,
        hyperparameters=settings.job_hyperparameters(),
        tags=tags(settings),
        subnets=list(aws.subnets) or None,
        security_group_ids=list(aws.security_groups) or None,
        metric_definitions=metrics.definitions(settings),
        encrypt_inter_container_traffic=aws.encrypt_traffic,
        use_spot_instances=job.spot,
        max_wait=job.max_wait_seconds if job.spot else None,
        checkpoint_s3_uri=f"{settings.output}/checkpoints" if job.spot else None,
        enable_network_isolation=aws.network_isolation,
        profiler_config=profiler if uses_service else None,
        disable_profiler=not uses_service,
        debugger_hook_config=None if uses_service else False,
        keep_alive_period_in_seconds=job.keep_alive_minutes * 60 or None,
        environment=dict(job.environment) or None,
    )


def tuner(settings: Settings, tuning: Tuning, session: Session) -> HyperparameterTuner:
    """Return the HyperparameterTuner of the settings."""
    return HyperparameterTuner(
        estimator=estimator(settings, session),
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


def model(settings: Settings, artifact: str, session: Session) -> Model:
    """Return the Model for an endpoint or a transform job."""
    return Model(
        image_uri=settings.serve_image,
        model_data=artifact,
        role=settings.aws.role,
        env=dict(settings.endpoint.environment),
        predictor_cls=Predictor,
        sagemaker_session=session,
        enable_network_isolation=settings.aws.network_isolation,
        vpc_config=vpc(settings).get("VpcConfig"),
    )


def multi_model(settings: Settings, name: str, prefix: str, session: Session) -> MultiDataModel:
    """Return the MultiDataModel of every model.tar.gz below an S3 prefix."""
    single = model(settings, prefix, session)
    return MultiDataModel(name, prefix, model=single, sagemaker_session=session)


def transformer(settings: Settings, model_name: str, output: str, session: Session) -> Transformer:
    """Return the Transformer of the settings."""
    transform = settings.transform
    return Transformer(
        model_name=model_name,
        instance_count=transform.instance_count,
        instance_type=transform.instance_type,
        # Always sent: Local Mode's default joins files as text.
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


def _range(name: str, limits: Range) -> ParameterRange:
    if limits.values:
        return CategoricalParameter(list(limits.values))
    low, high = limits.bounds
    if is_integer(name):
        return IntegerParameter(int(low), int(high), limits.scaling)
    return ContinuousParameter(low, high, limits.scaling)
