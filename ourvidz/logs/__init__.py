"""Logs: one event a line, with a stable ``action`` and the job that it is about.

Callers write ``structlog.get_logger().info("job_claimed", queue=name)``; the first argument becomes
``action``. Records of libraries come through the same renderer with the action ``library_log`` and
their text as ``message``. What users wrote, and secrets, are kept out, whoever logs them.
"""

from ourvidz.logs.setup import bind_job, configure, route_libraries

__all__ = ["bind_job", "configure", "route_libraries"]
