"""Cached values: computed once, kept in memory and in a store, never served after they were invalidated."""
