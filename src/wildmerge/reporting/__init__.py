"""From result files to tables, figures, story and report; each stage reads only the one before."""
