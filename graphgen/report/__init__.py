"""An evaluation as JSON, as a table in the terminal, and as one HTML page that needs nothing else."""
