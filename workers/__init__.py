"""The processes: wiring and adapters only. The library in `pipeline` knows none of this."""
