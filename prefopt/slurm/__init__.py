"""Jobs on a SLURM cluster: the script, SLURM's commands, what runs inside a job, and the launcher that joins them."""
