"""What people serve with today, each with the same weights, preprocessing and answers."""
