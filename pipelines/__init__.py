"""Inference: torch, diffusers and transformers behind one Protocol, see ``pipelines.base``."""

import os

# Read by the libraries when they are first imported, which only modules of this package do.
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # A mistyped path becomes an error instead of a look-up on the network.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin at OpenMP's barriers make small models 60 times slower on a busy machine.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Without it cuBLAS may choose another kernel for the same call.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
