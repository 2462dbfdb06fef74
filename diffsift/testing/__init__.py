"""Contract tests of the extension points, as classes: subclass one in your own tests, and pytest runs all of it."""
