"""A corpus encoded by a Ray cluster: Ray Data hands out the recordings, one process here writes.

Where Ray runs is Ray's own business: ``RAY_ADDRESS`` names a cluster, without it this machine is one. The
manifest's recordings must be readable on every node, by a shared file system or an address.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bioreport.encode import Encoding, lost
from bioreport.errors import InputError
from bioreport.remote import url_of
from bioreport.token_writer import Outcome

# recordings handed to Ray at a time, each a block of its own, so that a node that dies costs one
AT_ONCE = 4096
# of a recording whose process dies, before it is given up
TRIES = 2


class Encoder:
    """An actor: it loads the model once, then encodes recordings.

    Parameters
    ----------
    encoding : Encoding
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.bundle = encoding.load(0)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome, content = self.encoding.encode(self.bundle, (row["position"], row["name"]))
        return {"outcome": pickle.dumps(outcome), "content": content or b""}


def encoded_by_ray(
    encoding: Encoding, paths: Sequence[Path], workers: int, write_part: Callable[[str, bytes], None]
) -> Iterator[Outcome]:
    """Outcomes as the cluster gives them; their parts are written here.

    Parameters
    ----------
    encoding : Encoding
    paths : sequence of Path
    workers : int
        Actors. On a cluster with GPUs each has its share of one.
    write_part : callable
        `StoreWriter.write_part`.

    Raises
    ------
    InputError
        Where Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise InputError(
            "--cluster ray", f"needs Ray, which is not here ({error})", "pip install 'bioreport[cluster]'"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        own: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # a recording whose process dies again and again is told of below
    context.max_errored_blocks = -1
    resources = ray.cluster_resources()
    gpus = 0.0 if encoding.device == "cpu" else min(1.0, resources.get("GPU", 0.0) / workers)
    # a node need not see our folder
    encoding = replace(encoding, directory=encoding.directory.absolute(), copies=None)
    names = [str(path) if url_of(path) else os.path.abspath(path) for path in paths]
    encoder: Any = Encoder
    for first in range(0, len(names), AT_ONCE):
        left = {p: names[p] for p in range(first, min(first + AT_ONCE, len(names)))}
        for _ in range(TRIES):
            if not left:
                break
            rows = ray.data.from_items(
                [{"position": position, "name": name} for position, name in left.items()],
                override_num_blocks=len(left),
            ).map(
                encoder,
                fn_constructor_args=(encoding,),
                # one task to an actor: those that wait for it would be lost with it
                compute=ActorPoolStrategy(size=min(workers, len(left)), max_tasks_in_flight_per_actor=1),
                num_cpus=encoding.threads,
                num_gpus=gpus or None,
                ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 0},
            )
            for row in rows.iter_rows():
                outcome = pickle.loads(row["outcome"])
                if outcome.part is not None and outcome.fresh:
                    write_part(outcome.part, row["content"])
                del left[outcome.position]
                yield outcome
        for position, name in left.items():
            yield lost(encoding, position, name, f"{TRIES} times")
