"""Where the metrics of a run can be shown besides its own directory: one file per library, each imported when used."""
