"""What a test may ask for that a machine may lack."""

from collections.abc import Callable

Require = Callable[[object, str], None]
"""`require(condition, reason)`: what is missing is skipped at home, with the reason, and fails in CI."""
