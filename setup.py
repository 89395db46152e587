"""Packaging of iml. The core installs without TensorFlow; `[data]` adds what preparing a store needs."""

from setuptools import find_packages, setup

DATA = [
    "seqio==0.0.20",
    "tensorflow-cpu>=2.21; platform_system != 'Darwin'",
    "tensorflow>=2.21; platform_system == 'Darwin'",
    "jinja2>=3.1",
    "pyyaml>=6",
]
# Beam wants protobuf before 7; the code that sentencepiece 0.2.3 has had generated refuses that, without saying so
# in its requirements.
BEAM = ["apache-beam>=2.77,<3", "sentencepiece<0.2.3"]
# Addresses that begin with gs://, where TensorFlow is not there to read them.
GCS = ["etils[epath-gcs]>=1.9"]
TEST = [
    "hypothesis>=6",
    "pytest>=8",
    "pytest-timeout>=2",
    "ruff==0.17.5",
]

setup(
    name="iml",
    version="0.1.0",
    description="Instruction meta-learning in JAX: tune OPT decoders on many tasks, measure generalisation",
    python_requires=">=3.11",
    packages=find_packages(include=["iml", "iml.*", "tasks", "tasks.*"]),
    package_data={
        "iml": [
            "bench/definitions/*.json",
            "browser/static/*",
            "evaluation/reports/definitions/*.json",
            "evaluation/reports/static/*",
            "studies/definitions/*.json",
        ],
        "tasks": ["pocket/**/*", "definitions/*"],
    },
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "array-record>=0.8.1",
        "etils[epath]>=1.9",
        "gin-config>=0.5",
        "jaxtyping>=0.3",
        "numpy>=2",
        "rich>=13",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.4",
        "safetensors>=0.5",
        "tensorboardX>=2.6",
        "tokenizers>=0.20",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10", *GCS],
        "gcs": GCS,
        "tokamax": ["tokamax==0.0.12"],
        "endpoint": ["openai>=2"],
        "ray": ["ray>=2.40"],
        "data": DATA,
        "beam": BEAM,
        "test": TEST,
        "dev": DATA + TEST,
    },
)
