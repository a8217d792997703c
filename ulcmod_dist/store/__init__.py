"""The activation store: schema, shards, commits, manifests, verification."""
