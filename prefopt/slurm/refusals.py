"""What sbatch's words of a refusal mean in prefopt's keys."""

from __future__ import annotations

from prefopt.slurm.commands import LimitError, SlurmError
from prefopt.sweeps.settings import SlurmSettings

KEYS = {
    "invalid partition": ("partition", "`sinfo` lists the partitions"),
    "generic resource": ("gpus_per_node", "`sinfo --format='%P %G'` lists what the nodes of each partition have"),
    "invalid account": ("account", "`sacctmgr show associations user=$USER` lists yours"),
    "invalid qos": ("qos", "`sacctmgr show qos` lists them"),
    "invalid feature": ("constraint", "`sinfo --format='%P %f'` lists the features of each partition's nodes"),
}
"""Words of sbatch, in lower case, to the key that they are about and where its values are listed."""


def with_key(error: SlurmError, settings: SlurmSettings) -> SlurmError:
    """The error with the key that it is about as its hint, where that key was set; else as it is."""
    for words, (key, listed) in KEYS.items():
        value = getattr(settings, key)
        if words in error.message.lower() and value and not isinstance(error, LimitError):
            return SlurmError(error.message, f"hydra.launcher.{key}={value}: {listed}")
    return error
