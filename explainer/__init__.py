"""Why a classifier answers as it does: explanations as SageMaker Clarify gives them.

Speaks to a model over HTTP alone, on this machine or on SageMaker, whoever made it.
"""

import sys
from pathlib import Path

# Of what goes into the images it reads pictures as they do, and what a user's error is.
sys.path.append(str(Path(__file__).resolve().parent.parent / "container"))
