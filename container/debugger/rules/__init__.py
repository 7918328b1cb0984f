"""AWS's rules by their names: pure functions on series of numbers, one family a module."""
