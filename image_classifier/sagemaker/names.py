"""The names of what is made: the settings' own, and the time to tell them apart."""

import re
import time

from image_classifier.settings.schema import Settings


def new(settings: Settings) -> str:
    """Return a name for a job or a model that begins now, in UTC."""
    return f"{settings.name}-{time.strftime('%y%m%d-%H%M%S', time.gmtime())}"


def is_ours(settings: Settings, name: str) -> bool:
    """Tell whether a name is one of these settings', or of a job of their tuning jobs.

    Those of `dogs-adamw` are none of `dogs`.
    """
    own = rf"{re.escape(settings.name)}-\d{{6}}-\d{{6}}(-\d+-[0-9a-f]+)?"
    return name == settings.name or re.fullmatch(own, name) is not None


def is_trial(name: str) -> bool:
    """Tell whether a name is that of a job which a tuning job has started."""
    return re.fullmatch(r".*-\d{6}-\d{6}-\d+-[0-9a-f]+", name) is not None
