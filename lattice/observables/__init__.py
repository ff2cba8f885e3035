"""What is measured, by kind of field, and the table."""
