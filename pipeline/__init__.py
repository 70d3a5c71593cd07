"""Reelway's library: the control plane, the media work and the manifests. Nothing happens at import."""
