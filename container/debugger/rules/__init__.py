"""AWS's rules by their names: pure functions on series of numbers, one family a module.

- `losses`: LossNotDecreasing, Overfit, Overtraining
- `layers`: VanishingGradient, ExplodingTensor, PoorWeightInitialization, DeadRelu,
  SaturatedActivation
- `weights`: WeightUpdateRatio, UnchangedTensor, AllZero, TensorVariance
- `data`: ClassImbalance, Confusion, CheckInputImages, StalledTraining
- `container.debugger.profiler` has those on times and on the use of the machine.
"""
