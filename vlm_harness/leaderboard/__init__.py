"""Results of many models side by side: submitted runs, published tables, and the site of both."""
