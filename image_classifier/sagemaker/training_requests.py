"""Requests that start training and tuning jobs, from settings alone.

The SDK's generic Estimator and HyperparameterTuner send the same requests for the same settings;
a test compares them.
"""

from collections.abc import Mapping

from image_classifier.sagemaker.request_fields import kms_key, tags, volume_key, vpc
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings.debugging import EXPRESSIONS
from image_classifier.settings.schema import HOUR, Settings
from image_classifier.settings.service_model import Request
from image_classifier.settings.tuning import Range, Tuning, is_integer


def training_job(settings: Settings, name: str, *, rule_image: str | None = None) -> Request:
    """Return CreateTrainingJob.

    `rule_image` is SageMaker Debugger's container image, if `debugger.service` has rules.
    """
    return {
        "TrainingJobName": name,
        "HyperParameters": settings.job_hyperparameters(),
        **_job(settings, name, is_tuning=False),
        **_debugging(settings, rule_image),
        "Tags": tags(settings),
    }


def tuning_job(settings: Settings, tuning: Tuning, name: str) -> Request:
    """Return CreateHyperParameterTuningJob."""
    given = settings.job_hyperparameters()
    static = {name: value for name, value in given.items() if name not in tuning.ranges}
    request: Request = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": _search(settings, tuning),
        "TrainingJobDefinition": {
            "StaticHyperParameters": static,
            **_job(settings, name, is_tuning=True),
        },
        "Tags": tags(settings),
    }
    if tuning.warm_start is not None:
        parents = tuning.warm_start.parents
        request["WarmStartConfig"] = {
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": parent} for parent in parents
            ],
            "WarmStartType": tuning.warm_start.type,
        }
    return request


def _job(settings: Settings, name: str, *, is_tuning: bool) -> Request:
    """Return the fields that a training job shares with the definition in a tuning job."""
    job, aws = settings.training, settings.aws
    resources: Request = {
        "InstanceCount": job.instance_count,
        "InstanceType": job.instance_type,
        "VolumeSizeInGB": job.volume_gb,
    } | volume_key(settings, job.instance_type)
    # A tuning job keeps its instances warm without this field.
    if job.keep_alive_minutes and not is_tuning:
        resources["KeepAlivePeriodInSeconds"] = job.keep_alive_minutes * 60
    limits = {"MaxRuntimeInSeconds": round(job.max_hours * HOUR)}
    algorithm: Request = {
        "TrainingImage": settings.images.train,
        "TrainingInputMode": settings.data.mode,
        "MetricDefinitions": metrics.definitions(settings),
    }
    request: Request = {
        "AlgorithmSpecification": algorithm,
        "RoleArn": aws.role,
        "InputDataConfig": [_channel(settings, channel) for channel in settings.data.channels],
        "OutputDataConfig": {"S3OutputPath": settings.output} | kms_key(settings),
        # As the HyperparameterTuner sends it.
        f"{'HyperParameterTuning' if is_tuning else ''}ResourceConfig": resources,
        "StoppingCondition": limits,
        "EnableManagedSpotTraining": job.spot,
        "EnableNetworkIsolation": aws.network_isolation,
        "EnableInterContainerTrafficEncryption": aws.encrypt_traffic,
    }
    if job.environment:
        request["Environment"] = dict(job.environment)
    if job.spot:
        limits["MaxWaitTimeInSeconds"] = job.max_wait_seconds
        # Each job has its own folder.
        checkpoints = f"{settings.output}/{name}/checkpoints"
        request["CheckpointConfig"] = {"S3Uri": checkpoints, "LocalPath": "/opt/ml/checkpoints"}
    return request | vpc(settings)


def _channel(settings: Settings, name: str) -> Request:
    source = {
        "S3DataType": "S3Prefix",
        # The slash: FastFile needs a folder, and the prefix `test` would match `testing` too.
        "S3Uri": f"{settings.channels_uri}/{name}/",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _search(settings: Settings, tuning: Tuning) -> Request:
    limits = {"MaxParallelTrainingJobs": tuning.parallel}
    if tuning.strategy != "Grid":
        limits["MaxNumberOfTrainingJobs"] = tuning.jobs
    config: Request = {
        "Strategy": tuning.strategy,
        "HyperParameterTuningJobObjective": {
            "Type": "Minimize" if tuning.is_minimized else "Maximize",
            "MetricName": tuning.objective,
        },
        "ResourceLimits": limits,
        "ParameterRanges": _ranges(tuning.ranges),
        "TrainingJobEarlyStoppingType": "Auto" if tuning.early_stopping else "Off",
        "RandomSeed": tuning.seed,
    }
    if tuning.strategy == "Hyperband":
        most = tuning.max_epochs(settings.hyperparameters)
        config["StrategyConfig"] = {
            "HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": most}
        }
    return config


def _ranges(ranges: Mapping[str, Range]) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, limits in ranges.items():
        if limits.values:
            values = [str(value) for value in limits.values]
            found["CategoricalParameterRanges"].append({"Name": name, "Values": values})
            continue
        kind, number = ("Integer", int) if is_integer(name) else ("Continuous", float)
        low, high = (str(number(end)) for end in limits.bounds)
        found[f"{kind}ParameterRanges"].append(
            {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": limits.scaling}
        )
    return found


def _debugging(settings: Settings, rule_image: str | None) -> Request:
    """Return what SageMaker Debugger needs; the training program needs none of it."""
    debugger, profiler = settings.debugger, settings.profiler
    if not debugger.service:
        return {}
    modes = {"train": debugger.train_save_interval, "eval": debugger.eval_save_interval}
    intervals = {f"{mode}.save_interval": str(steps) for mode, steps in modes.items() if steps}
    # Without intervals the training program chooses them, and records all that its rules need.
    names = debugger.collections() if intervals else []
    hook: Request = {
        "S3OutputPath": settings.output,
        "CollectionConfigurations": [_collection(name, intervals) for name in names],
    }
    request: Request = {
        "DebugHookConfig": hook,
        "ProfilerConfig": {
            "S3OutputPath": settings.output,
            "ProfilingIntervalInMilliseconds": profiler.interval_ms,
            "DisableProfiler": False,
        },
    }
    if intervals:
        hook["HookParameters"] = intervals
    rules = {
        "DebugRuleConfigurations": [
            _rule(rule_image, rule["RuleConfigurationName"], rule["RuleParameters"])
            for rule in debugger.configurations()
        ],
        "ProfilerRuleConfigurations": [_rule(rule_image, name, {}) for name in profiler.rules],
    }
    return request | {field: listed for field, listed in rules.items() if listed}


def _rule(image: str | None, name: str, parameters: Mapping[str, str]) -> Request:
    return {
        "RuleConfigurationName": name,
        "RuleEvaluatorImage": image,
        "RuleParameters": {"rule_to_invoke": name, **parameters},
    }


def _collection(name: str, intervals: Mapping[str, str]) -> Request:
    parameters = dict(intervals)
    if name in EXPRESSIONS:
        parameters["include_regex"] = EXPRESSIONS[name]
    return {"CollectionName": name, "CollectionParameters": parameters}
