"""`explain`: explain the predictions of an endpoint, or of the server on this machine."""

from collections.abc import Sequence
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.media_types import NPY
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.endpoint import Endpoint, HttpEndpoint, SageMakerEndpoint
from image_classifier.explainer.job import ANALYSIS, Job
from image_classifier.explainer.model import Model
from image_classifier.sagemaker import invocation
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings.schema import Settings
from image_classifier.settings.settings_file import SettingsFile


def explain(
    aws: Aws,
    file: SettingsFile,
    images: Sequence[Path],
    output: Path,
    *,
    port: int | None,
    model: str | None,
    is_quiet: bool = False,
) -> Path:
    """Explain the predictions for images on this machine; return the report.

    Args:
        aws: the account.
        file: the settings.
        images: image files, or one folder of images.
        output: folder for the report.
        port: of the server on this machine; None: the endpoint of the settings.
        model: one of a multi-model endpoint's.
        is_quiet: show no progress bar.

    Raises:
        UserError: the endpoint does not respond, no image can be read, or the endpoint is
            asynchronous.
    """
    settings = file.settings
    if port is None and settings.endpoint.kind == "asynchronous":
        raise UserError(
            "an asynchronous endpoint is too slow for hundreds of requests per image: "
            "`deploy --local` its model and `explain --local`, or deploy another kind of endpoint"
        )
    component = settings.name if settings.endpoint.has_component else None
    # This project's server accepts several images in an array.
    predictor = Predictor(content_type=NPY, endpoint_name=settings.name, target_model=model)
    names = {"num_samples", "num_segments", "segment_compactness"}
    baseline = settings.explain.baseline
    analysis = Analysis.create(
        predictor,
        **settings.explain.model_dump(include=names),
        baseline=None if baseline is None else file.path.parent / baseline,
    )
    if aws.is_dry:
        targets = {"TargetModel": model, "InferenceComponentName": component}
        request = {"EndpointName": settings.name, "ContentType": NPY}
        request |= {key: value for key, value in targets.items() if value is not None}
        aws.show_request("InvokeEndpoint", request | {"Body": "an image with masked segments"})
        return output
    endpoint = (
        SageMakerEndpoint(predictor, region=settings.aws.region or None, component=component)
        if port is None
        else _local_endpoint(settings, port, model)
    )
    with Model(endpoint, predictor) as classifier:
        summary = Job(
            images=images, output=output, analysis=analysis, model=classifier, is_quiet=is_quiet
        ).run()
    for image, why in summary.unreadable.items():
        aws.show(f"skipped {image}: {why}")
    aws.show(f"{summary.counted} explained: {output / ANALYSIS}")
    return output / f"{analysis.methods.report.name}.html"


def _local_endpoint(settings: Settings, port: int, model: str | None) -> Endpoint:
    target = invocation.target_model(settings, model)
    return HttpEndpoint(f"http://127.0.0.1:{port}", target_model=target)
