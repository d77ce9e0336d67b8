"""Collectives on a process group, staging for GPUs, streams, the communication thread."""
