"""The known ways in which dramatiq on Redis loses, doubles or delays work, told once and lived through twice.

Each story runs in two worlds: stock dramatiq, where the trap is shown to be real, and ours, where it must not bite.
"""
