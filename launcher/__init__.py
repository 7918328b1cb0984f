"""A person's one command for training, tuning and serving on SageMaker, and on this machine."""

import sys
from pathlib import Path

# `training.hyperparameters`, which both images' programs lie beside: so a typo fails here too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "container"))
