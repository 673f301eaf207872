"""What runs in every process of `longpo train`: LLaMA-Factory's own entry, with our trainers in place."""

import sys
from collections.abc import Sequence

from lf_longpo.errors import UserError
from lf_longpo.plugin.recipe import read_recipe


def work(recipe: str, overrides: Sequence[str]) -> None:
    """Trains in this process.

    Raises:
        UserError: the model does not compute the same on packed rows.
    """
    settings = read_recipe(recipe, overrides)
    from llamafactory.extras.misc import use_ray
    from llamafactory.train import tuner

    from lf_longpo.plugin.train.install import install

    if use_ray():
        from lf_longpo.plugin.train.ray_worker import RayWorker

        tuner.Worker = RayWorker
    else:
        install()
    tuner.run_exp(settings)


if __name__ == "__main__":
    try:
        work(sys.argv[1], sys.argv[2:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
