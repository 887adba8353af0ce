"""Reports, comparison pages, contact sheets and plots of runs."""
