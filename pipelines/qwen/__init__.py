"""Qwen 2.5: base and instruct checkpoints are two configurations of one class."""

from pipelines.qwen.pipeline import QwenPipeline, open_qwen

__all__ = ["QwenPipeline", "open_qwen"]
