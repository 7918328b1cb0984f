"""`explain`: what made an endpoint, or the server on this machine, answer as it did."""

import json
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.vocabulary import NPY
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.endpoint import Endpoint, HttpEndpoint, SageMakerEndpoint
from image_classifier.explainer.job import ANALYSIS, Job
from image_classifier.explainer.model import PARALLEL, Model
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings.settings_file import SettingsFile


def explain(
    aws: Aws,
    file: SettingsFile,
    images: Path,
    output: Path,
    *,
    port: int | None,
    model: str | None,
    is_quiet: bool = False,
) -> Path:
    """Explain images of this machine; return the report.

    The server on `port` of this machine is asked, without a port the endpoint of the settings;
    `model` names one of a multi-model endpoint.

    Raises:
        UserError: nobody answers, no image can be read, or the settings do not go together.
    """
    settings = file.settings
    if port is None and settings.endpoint.kind == "asynchronous":
        message = (
            "an asynchronous endpoint answers too late to be asked hundreds of times an image: "
            "`deploy --local` its model and `explain --local`, or deploy it as another kind"
        )
        raise UserError(message)
    predictor = Predictor(
        # This project's servers take several images in an array.
        content_type=NPY,
        endpoint_name=settings.name,
        target_model=model,
    )
    analysis = Analysis(
        num_samples=settings.explain.num_samples,
        num_segments=settings.explain.num_segments,
        predictor=predictor,
    )
    if aws.is_dry:
        request = {"EndpointName": settings.name, "ContentType": NPY, "TargetModel": model}
        said = {key: value for key, value in request.items() if value is not None}
        aws.show(
            json.dumps({"InvokeEndpoint": said | {"Body": "an image, parts hidden"}}, indent=2)
        )
        return output
    endpoint: Endpoint
    if port is None:
        endpoint = SageMakerEndpoint(
            predictor, region=settings.aws.region or None, parallel=PARALLEL
        )
    else:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}", parallel=PARALLEL)
    with Model(endpoint, predictor) as asked:
        found = Job(
            images=images, output=output, analysis=analysis, model=asked, is_quiet=is_quiet
        ).run()
    for one in found.unreadable:
        aws.show(f"left out {one.file}: {one.why}")
    aws.show(f"{found.images} images explained: {output / ANALYSIS}")
    return output / f"{analysis.report_name}.html"
