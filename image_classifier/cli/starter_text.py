"""The text of a new settings file."""

from string import Template

TEMPLATE = Template("""\
#:schema $schema
# Settings of an image classifier: $images training images of $classes classes, $side pixels.
# `image-classifier check FILE` lists the mistakes. Keys that are left out have their defaults.

name = $name    # begins the names of all resources; up to 17 lowercase letters, digits, hyphens

[data]
local = $local    # folder of the channels, relative to this file
channels = $channels    # folders in it: train, validation, test, weights
# s3 = "s3://my-bucket/folder"    # the same folders on S3, where `upload` has sent them
# mode = "File"                   # or "FastFile": read images from S3 when they are needed

[hyperparameters]
# small (from scratch), or a network of torchvision: resnet18, resnet50, vgg16, mobilenet_v3_large,
# efficientnet_b0, convnext_tiny, vit_b_16 and others.
$pretrained
network = $network
$image_size    # pixels of height and width, 16 to 1024
epochs = $epochs    # $other_epochs
batch_size = $batch_size    # images per step
# Layers that are trained after the head. full: all; staged: the last ones first; none: the head
# alone. The better network on the validation images is kept, which can be the head's.
$fine_tuning
# max_minutes = 10           # replaces epochs: as many as fit; without image_size chooses that too
# learning_rate = 0.001      # default: suits the network and the optimizer
# optimizer = "adamw"        # adamw, sgd, adam, muon
# horizontal_flip = true     # train on mirrored images too, if sides are not classes
# min_accuracy = 0.9         # a job with a lower accuracy fails

[tuning]
objective = "val_accuracy"    # val_accuracy, val_loss, val_f1 and others
strategy = "Bayesian"         # Bayesian, Random, Grid (needs values), Hyperband
jobs = 6                      # trials in total
parallel = 2                  # trials at a time

[tuning.ranges]               # min and max, or values = [...]
learning_rate = { min = $low, max = $high, scaling = "Logarithmic" }    # $other

[debugger]
rules = ["loss_not_decreasing", "overfit", "vanishing_gradient"]    # or other names

# What follows is for SageMaker alone; --local does not use it.

[aws]
# role = "arn:aws:iam::111122223333:role/NAME"    # that jobs and endpoints run as
# region = "eu-west-1"                            # default: the environment's
# bucket = "my-bucket"                            # for the output of jobs

[images]
# Container images in ECR. `push.sh` builds them and writes their addresses into images.json.
# train = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-train:TAG"
# serve = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/image-classifier-serve:TAG"

[training]
instance_type = "ml.g5.xlarge"    # with a GPU; without one: ml.m5.xlarge, ml.c7i.xlarge
max_hours = 4.0                   # the job is stopped then
spot = false                      # true: cheaper instances, whose jobs can be interrupted

[endpoint]
kind = "serverless"    # costs nothing without requests; or real-time, asynchronous, multi-model
memory_mb = 3072       # of serverless endpoints: 1024 to 6144, in steps of 1024
# instance_type = "ml.c7i.large"    # of the other kinds
""")
