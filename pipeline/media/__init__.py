"""Knowledge about media that knows no job: probing, codecs as values, the encode loop, timeline arithmetic.

Importing this package imports no PyAV: the planning half (`rates`, `ladder`, `timeline`) is pure.
"""
