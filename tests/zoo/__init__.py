"""Small broken and healthy programs, which the doctor examines in tests."""
