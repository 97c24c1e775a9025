"""The HTTP API: one edge of the service. See ``app.create_api`` and ``server.serve``."""
