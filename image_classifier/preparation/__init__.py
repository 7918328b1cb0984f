"""From images as people have them to a data set one can trust.

In no image: it runs where the images are. Imports the classifier's decoder, and from training
only which layouts of a channel it accepts, and which classes mirror each other.
"""
