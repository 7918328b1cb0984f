"""Which trained model is meant, and where on S3 it lies."""

from container.classifier.errors import UserError
from image_classifier.sagemaker import names
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.s3 import Place
from image_classifier.settings.schema import Settings


def single(settings: Settings) -> Settings:
    """Return settings whose model stands alone, whatever their endpoint is."""
    if settings.endpoint.kind != "multi-model":
        return settings
    return settings.model_copy(
        update={
            "endpoint": settings.endpoint.model_copy(update={"kind": "real-time", "models": ()})
        }
    )


def artifact(aws: Aws, settings: Settings, job: str | None) -> str:
    """Return the model.tar.gz of a training job, by default of the newest that has come to its end.

    In a dry run without a job the place stands for one.

    Raises:
        UserError: there is no such job, or it has no model.
    """
    if job is not None and job.startswith("s3://"):
        return job
    if job is None and aws.is_dry:
        return f"{settings.output}/{settings.name}-TRAINING-JOB/output/model.tar.gz"
    name = job or newest(aws, settings)
    if aws.is_dry:
        return f"{settings.output}/{name}/output/model.tar.gz"
    answer = aws.ask("DescribeTrainingJob", {"TrainingJobName": name})
    found = (answer.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if not found:
        message = f"the training job {name} has no model: it is {answer['TrainingJobStatus']}"
        raise UserError(message)
    return str(found)


def newest(aws: Aws, settings: Settings) -> str:
    """Return the newest training job that has come to its end.

    Raises:
        UserError: there is none.
    """
    request = {
        "NameContains": f"{settings.name}-",
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
        "StatusEquals": "Completed",
    }
    for page in aws.pages("ListTrainingJobs", request):
        for each in page["TrainingJobSummaries"]:
            name = str(each["TrainingJobName"])
            if names.is_ours(settings, name) and not names.is_trial(name):
                return name
    message = f"no training job of {settings.name} has come to its end: train first, or name --job"
    raise UserError(message)


def gather(aws: Aws, settings: Settings, job: str | None) -> str:
    """Copy models beside each other for a multi-model endpoint; return their prefix.

    They are called as their training jobs are: an artifact is never overwritten, since the
    endpoint may keep the older one.
    """
    prefix = f"{settings.output}/models/"
    jobs = settings.endpoint.models or (job,)
    for each in jobs:
        source = artifact(aws, settings, each)
        # s3://bucket/prefix/JOB/output/model.tar.gz
        name = source.rsplit("/", 3)[1]
        Place.parse(source).copy(aws, Place.parse(f"{prefix}{name}.tar.gz"))
        aws.show(f"model {name}.tar.gz")
    return prefix
