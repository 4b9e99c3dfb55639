"""What the daemon counts, for whoever asks. Standard library only.

counters   events counted by all workers in shared memory
"""
