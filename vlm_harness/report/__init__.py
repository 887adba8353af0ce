"""What is made of a finished run for people: pictures, not scores."""
