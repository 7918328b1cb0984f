"""The SageMaker SDK, version 2: the classes that people know, made from the same settings.

Whatever else the launcher does goes through boto3, which has no versions to choose between. This
module is all that a later SDK would change.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from image_classifier.sagemaker.endpoint_requests import TRANSFORM_ENVIRONMENT
from image_classifier.sagemaker.request_fields import tags, vpc
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.schema import HOUR, Aws, ContainerImages, Settings
from image_classifier.settings.tuning import Range, Tuning, is_integer

if TYPE_CHECKING:
    from pathlib import Path

    from sagemaker.estimator import Estimator
    from sagemaker.local import LocalSession
    from sagemaker.model import Model
    from sagemaker.multidatamodel import MultiDataModel
    from sagemaker.parameter import ParameterRange
    from sagemaker.session import Session
    from sagemaker.transformer import Transformer
    from sagemaker.tuner import HyperparameterTuner

    from image_classifier.sagemaker import aws
    from image_classifier.settings.settings_file import SettingsFile

# It says so on every import.
os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")

# As docker-compose.yml calls what it builds.
BUILT_HERE = ContainerImages.model_construct(
    train="image-classifier-train", serve="image-classifier-serve"
)

# Local Mode wants one, and asks nobody for it.
NO_ROLE = "arn:aws:iam::111122223333:role/none"

# Else every call would be told to AWS.
NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


def image(framework: str, account: aws.Aws) -> str:
    """Return the URI of one of AWS's own images, such as `debugger` or `clarify`."""
    from sagemaker import image_uris  # noqa: PLC0415 - it takes seconds

    region = account.client("sagemaker").meta.region_name
    return str(image_uris.retrieve(framework, region))


def local_session(folder: Path, port: int = 8080) -> LocalSession:
    """Return a session of Local Mode, which needs no account and tells nobody.

    Its containers write below `folder`; endpoints answer on `port`.
    """
    import boto3  # noqa: PLC0415
    from sagemaker.local import LocalSession  # noqa: PLC0415

    # A region is wanted, and not asked.
    session = LocalSession(boto3.Session(region_name="us-east-1"), sagemaker_config=NO_TELEMETRY)
    session.config = {"local": {"container_root": str(folder.resolve()), "serving_port": port}}
    return session


def for_local_mode(settings: Settings) -> Settings:
    """Return these settings for Local Mode: this machine, and the images as Compose builds them."""
    return settings.model_copy(
        update={
            "aws": Aws(role=NO_ROLE),
            "images": BUILT_HERE,
            "training": settings.training.model_copy(
                update={"instance_type": "local", "spot": False}
            ),
            "transform": settings.transform.model_copy(update={"instance_type": "local"}),
        }
    )


def local_channels(file: SettingsFile) -> dict[str, str]:
    """Return what `fit` takes in Local Mode.

    Raises:
        UserError: a channel has no folder on this machine.
    """
    return {name: f"file://{folder}" for name, folder in file.local_channels().items()}


def estimator(settings: Settings, session: Session, output: str | None = None) -> Estimator:
    """Return the generic Estimator of these settings; `output` is file:// in Local Mode."""
    from sagemaker.debugger import ProfilerConfig  # noqa: PLC0415
    from sagemaker.estimator import Estimator  # noqa: PLC0415

    job, aws = settings.training, settings.aws
    checkpoints = f"{settings.output}/checkpoints" if job.spot else None
    return Estimator(
        image_uri=settings.images.train,
        role=aws.role,
        instance_count=job.instance_count,
        instance_type=job.instance_type,
        volume_size=job.volume_gb,
        volume_kms_key=aws.kms_key,
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
        max_wait=round((job.max_wait_hours or 2 * job.max_hours) * HOUR) if job.spot else None,
        checkpoint_s3_uri=checkpoints,
        enable_network_isolation=aws.network_isolation,
        profiler_config=ProfilerConfig(
            system_monitor_interval_millis=settings.profiler.interval_ms
        ),
        keep_alive_period_in_seconds=job.keep_alive_minutes * 60 or None,
    )


def channels(settings: Settings) -> dict[str, str]:
    """Return what `fit` takes."""
    return {name: f"{settings.channels_uri}/{name}/" for name in settings.data.channels}


def tuner(settings: Settings, tuning: Tuning, session: Session) -> HyperparameterTuner:
    """Return the HyperparameterTuner of these settings."""
    from sagemaker.tuner import HyperparameterTuner  # noqa: PLC0415

    return HyperparameterTuner(
        estimator=estimator(settings, session),
        objective_metric_name=tuning.objective,
        hyperparameter_ranges={n: _range(n, each) for n, each in tuning.ranges.items()},
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
    """Return the Model that an endpoint or a transform job is made of."""
    from sagemaker.model import Model  # noqa: PLC0415
    from sagemaker.predictor import Predictor  # noqa: PLC0415

    return Model(
        image_uri=settings.images.serve,
        model_data=artifact,
        role=settings.aws.role,
        env=dict(settings.endpoint.environment),
        predictor_cls=Predictor,
        sagemaker_session=session,
        enable_network_isolation=settings.aws.network_isolation,
        vpc_config=vpc(settings).get("VpcConfig"),
    )


def multi_model(settings: Settings, name: str, prefix: str, session: Session) -> MultiDataModel:
    """Return the MultiDataModel of all model.tar.gz below `prefix` on S3."""
    from sagemaker.multidatamodel import MultiDataModel  # noqa: PLC0415

    single = model(settings, prefix, session)
    return MultiDataModel(name, prefix, model=single, sagemaker_session=session)


def transformer(settings: Settings, model_name: str, output: str, session: Session) -> Transformer:
    """Return the Transformer of these settings."""
    from sagemaker.transformer import Transformer  # noqa: PLC0415

    transform = settings.transform
    return Transformer(
        model_name=model_name,
        instance_count=transform.instance_count,
        instance_type=transform.instance_type,
        # An image a request; Local Mode's default joins files as text.
        strategy="SingleRecord",
        output_path=output,
        accept=transform.accept,
        max_payload=transform.max_payload_mb,
        env=dict(TRANSFORM_ENVIRONMENT),
        assemble_with="None",
        tags=tags(settings),
        sagemaker_session=session,
    )


def _range(name: str, each: Range) -> ParameterRange:
    from sagemaker.parameter import (  # noqa: PLC0415
        CategoricalParameter,
        ContinuousParameter,
        IntegerParameter,
    )

    if each.values:
        return CategoricalParameter(list(each.values))
    if is_integer(name):
        return IntegerParameter(int(each.low), int(each.high), each.scaling)
    return ContinuousParameter(each.low, each.high, each.scaling)
