"""Everything playable about an asset as data, and the manifests rendered from it. Pure: no media, no storage."""
