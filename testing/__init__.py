"""Contract tests for extensions: subclass one in a test module of your own and say how your object is made.

Every contract is a class of pytest tests with one fixture that a subclass overrides. All of diffsift's own kinds pass
the same tests. ``docs/extending.md`` lists the contracts.
"""
