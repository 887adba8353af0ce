"""The leaderboard: submitted runs and published tables, and the site that shows them."""
