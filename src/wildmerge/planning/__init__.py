"""From a study file to models and jobs: lock, admission, costs, fetching."""
