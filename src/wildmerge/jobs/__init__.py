"""Running a study's jobs: devices, resources, signs of life, status."""
