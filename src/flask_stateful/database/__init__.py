"""The application's own database: linked with cached values, sessions and durable state."""
