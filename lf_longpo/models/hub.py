"""Whether the Hugging Face hub has a model, asked once and before anything heavy is imported.

transformers itself asks for each of a model's files and repeats each request for about 10 seconds, so that a wrong name
or a machine without network takes a minute to fail.
"""

from pathlib import Path

from lf_longpo.errors import first_line
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.folders import is_path

_TIMEOUT = 5.0  # seconds


def hub_problem(name: str, setting: str) -> str | None:
    """The problem of a name on the hub and its fix, or None.

    A name of which files are in the hub's cache is not looked up, and neither is any name with `HF_HUB_OFFLINE`.

    Args:
        name: a folder, a hub name or an embedded model.
        setting: the setting that names it, for the fix.
    """
    if is_path(name) or is_embedded(name):
        return None
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.is_offline_mode() or (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        return None
    try:
        HfApi().model_info(name, timeout=_TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError):
        return (
            f"there is no folder {name} and no model {name!r} on the hub that you can access; correct the name, set "
            f"{setting} to a folder, or log in"
        )
    except Exception as error:  # the HTTP client has many kinds
        return (
            f"there is no folder {name}, and the hub {constants.ENDPOINT} cannot be reached ({first_line(error)}); set "
            f"{setting} to a model folder, or connect this machine"
        )
    return None
